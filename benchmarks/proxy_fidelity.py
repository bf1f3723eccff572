"""Do proxies rank mixtures as training does, and does the mixture that is found win when trained?

Tiny Llama models on real text, all of a setting continued from one base. References are trained on
mixtures drawn like a search draws them, with two seeds each, and scored in bits per byte of
held-out text. Budgets keep the paper's proportions (arXiv 2602.00747, Tables 2 and 3): its 50 B
tokens of a reference are 240 k here, its 30 B of a component 144 k.

Settings:

- ``tiers``: eight datasets, code and mathematics in tiers of quality, as in the paper.
- ``tiers_large``: the same, models eight times as large, components trained four times as long.
- ``domains``: the five domains of the quickstart, as a control: the uniform mixture is near the
  optimum there, so that no search can gain much.

What is measured:

- ``proxies``: how the scores of proxies agree with those of references: merged weights, mixed
  token probabilities, each benchmark by the proxy that ``proxy: auto`` takes, and small trained
  models. Means over the training seeds; intervals resample references.
- ``tried``: other ways to score a mixture, and what they gain.
- ``finals``: what every method recommends, trained for real and ranked among the references.
  Differences resample references, searches and trainings.
- ``tokens_uniform_needs``: times the tokens that the uniform mixture needs to score as well as
  what ``DemixSampler/auto`` recommends, and ``oracle_share``: how much of the way from the uniform
  mixture to that of an oracle, a surrogate fitted to all references, was gone.

Models and scores are kept in the run directory: a run that was stopped goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, provenance, quiet, write
from _fidelity_final import (
    N_MERGED,
    REGMIX_LEAF,
    Final,
    Ranking,
    auto_values,
    by_probabilities,
    direct,
    interval,
    merged_values,
    oracle_values,
    ours,
    probability_values,
    published,
    small_models,
    tokens_needed,
    train_finals,
)
from _fidelity_models import (
    DOMAINS_SETTING,
    LARGE_SETTING,
    PROXY_SEED,
    TIERS_SETTING,
    FloatArray,
    Setting,
    Workshop,
    sampled_weights,
)
from _fidelity_scores import (
    Scorer,
    Scores,
    capability_scores,
    ceiling_of,
    gain_of,
    mixed,
    row_of,
    scored_references,
    write_mixtures,
    write_scores,
)
from _fidelity_tables import (
    AUTO,
    CLEAN_SETS,
    MERGED,
    ORACLE,
    PROBABILITIES,
    UNIFORM,
    show,
    targets,
)
from _tiers import CLEAN

EXPONENTS = (0.9, 0.8, 0.7, 0.6, 0.5)
SEARCHED = 112  # mixtures of a search: models that trained proxies cost


@dataclass(frozen=True)
class Sizes:
    """How large the experiment is.

    Attributes:
        base: Tokens of the base.
        component: Tokens of a component.
        reference: Tokens of a reference and of a final model.
        n_references: Number of mixtures.
        seeds: Training seeds of the references.
        trained: Tokens of trained proxies, for each budget.
        searches: Searches of each method.
        final_seeds: Trainings of what each search recommends.
        small: Number and tokens of the models that RegMix and CLIMB train, as many tokens in all
            as the components; ``None`` leaves them out.
        factors: Budgets of the uniform mixture, in units of a reference.
        methods: Whose mixtures are trained; empty for all.
    """

    base: int = 1_600_000
    component: int = 144_000
    reference: int = 240_000
    n_references: int = 48
    seeds: tuple[int, ...] = (1, 2)
    trained: tuple[int, ...] = (38_400, 57_600)
    searches: int = 3
    final_seeds: tuple[int, ...] = (0, 1, 2, 3)
    small: tuple[int, int] | None = (30, 38_400)
    factors: tuple[float, ...] = (1.25, 1.5, 2.0)
    methods: tuple[str, ...] = ()


SETTINGS: Mapping[str, tuple[Setting, Sizes]] = {
    "tiers": (TIERS_SETTING, Sizes()),
    "domains": (
        DOMAINS_SETTING,
        Sizes(
            small=None,
            factors=(),
            methods=(UNIFORM, "prior", ORACLE, PROBABILITIES, MERGED, AUTO),
        ),
    ),
    "tiers_large": (
        LARGE_SETTING,
        Sizes(
            base=3_200_000,
            component=600_000,
            reference=600_000,
            n_references=24,
            seeds=(1,),
            trained=(),
            searches=1,
            final_seeds=(0, 1),
            small=None,
            factors=(2.0,),
            methods=(UNIFORM, CLEAN_SETS, ORACLE, MERGED, AUTO),
        ),
    ),
}
QUICK = Sizes(
    base=200_000,
    component=32_000,
    reference=48_000,
    n_references=12,
    trained=(8_000,),
    searches=1,
    final_seeds=(0,),
    small=(12, 16_000),
    factors=(2.0,),
)


class Experiment:
    """One setting.

    Args:
        shop: Trains the models.
        sizes: How large it is.
    """

    def __init__(self, shop: Workshop, sizes: Sizes) -> None:  # noqa: D107
        self.shop, self.sizes = shop, sizes
        shop.prepare()
        study = shop.components(f"components-{sizes.component}", sizes.component)
        self.scorer = Scorer(study)
        # A search does not score what is only watched.
        self.search = Scorer(
            shop.study(
                "search",
                tokens=sizes.component,
                seed=0,
                components_of=f"components-{sizes.component}",
                watch=False,
            )
        )
        self.space = self.scorer.space
        self.capabilities = self.scorer.capabilities
        self.weights = sampled_weights(self.space, sizes.n_references)  # (n, K)
        self.shares = self.space.data_shares(self.weights)  # (n, D)

    @cached_property
    def references(self) -> list[Scores]:
        """Scores of the references, for each training seed."""
        sizes = self.sizes
        return scored_references(self.scorer, self.shop, sizes.reference, sizes.seeds, self.shares)

    @cached_property
    def proxies(self) -> dict[str, tuple[int, Scores]]:
        """Tokens and scores of every kind of proxy at the references' mixtures."""
        components = self.sizes.component * len(self.space)
        merged = self.scorer.proxies(self.weights)
        probabilities = self.scorer.probabilities(self.weights)
        found = {
            "merged": (components, merged),
            "probabilities": (components, probabilities),
            "auto": (components, mixed(merged, probabilities, self.scorer.auto_shares)),
        }
        for tokens in self.sizes.trained:
            folders = self.shop.references(f"trained-{tokens}", tokens, PROXY_SEED, self.shares)
            found[f"trained, {tokens}"] = (tokens * SEARCHED, self.scorer.models(folders))
        return found

    def proxy_rows(self) -> list[dict[str, Any]]:
        """How each kind of proxy agrees with the references."""
        rows = []
        for name, (tokens, scores) in self.proxies.items():
            row = row_of(scores, self.references, self.capabilities)
            rows.append(
                {
                    "proxy": name.partition(",")[0],
                    **({"tokens": int(name.split()[1])} if "," in name else {}),
                    "tokens_total": tokens,
                    "rho": row["rho"],
                    "rho_low": row["ci95"][0],
                    "rho_high": row["ci95"][1],
                    "rho_top_quarter": row["rho_top_quarter"],
                    "top_quarter_low": row["ci95_top_quarter"][0],
                    "top_quarter_high": row["ci95_top_quarter"][1],
                    "recovery": row["recovery"],
                    "rho_benchmark": row["rho_benchmark"],
                }
            )
        return rows

    def tried(self) -> list[dict[str, Any]]:
        """Other ways to score a mixture, against the merged proxies and the plain mixture."""
        merged = self.proxies["merged"][1]
        plain = self.scorer.probabilities(self.weights, exponent=1.0)
        ways = {"merged": merged, "token probabilities": plain}
        for exponent in EXPONENTS:
            found = self.scorer.probabilities(self.weights, exponent=exponent)
            ways[f"token probabilities, exponent {exponent}"] = found
        half = dict.fromkeys(merged, 0.5)
        ways["mean of merged and token probabilities"] = mixed(merged, plain, half)
        ours_ = self.scorer.probabilities(self.weights)
        ways["mean of merged and the default exponent"] = mixed(merged, ours_, half)
        rows = []
        for way, scores in ways.items():
            row = row_of(scores, self.references, self.capabilities)
            rows.append(
                {
                    "way": way,
                    "rho": row["rho"],
                    "rho_top_quarter": row["rho_top_quarter"],
                    "rho_benchmark": row["rho_benchmark"],
                    "minus_merged": gain_of(scores, merged, self.references, self.capabilities),
                    "minus_plain": gain_of(scores, plain, self.references, self.capabilities),
                }
            )
        return rows

    def mixtures(self) -> dict[str, list[FloatArray]]:
        """Merge weights (K,) that each search of each method recommends."""
        space, search = self.space, self.search
        seeds = range(self.sizes.searches)
        merged, auto = merged_values(search), auto_values(search)
        start = probability_values(search)
        trained = [capability_scores(r, self.capabilities) for r in self.references]

        def small(method: str, seed: int) -> FloatArray:
            assert self.sizes.small
            return small_models(self.shop, search, method, *self.sizes.small, seed)

        def oracle(seed: int) -> FloatArray:
            return direct(search, oracle_values(self.weights, trained, seed)[0], seed)

        searched: dict[str, Callable[[int], FloatArray]] = {
            ORACLE: oracle,
            PROBABILITIES: lambda seed: by_probabilities(search, seed),
            MERGED: lambda seed: ours(search, merged, seed),
            AUTO: lambda seed: ours(search, auto, seed, prior_mean=start),
            "DeMix as published": lambda seed: published(search, merged, seed),
        }
        if self.sizes.small:
            searched["RegMix"] = lambda seed: small("regmix", seed)
            searched["CLIMB"] = lambda seed: small("climb", seed)
        fixed = {UNIFORM: self.space.uniform, "prior": space.prior}
        if set(CLEAN) <= set(space.components):
            clean = np.array([CLEAN.get(name, 0.0) for name in space.components])
            fixed[CLEAN_SETS] = clean / clean.sum()
        wanted = self.sizes.methods or (*fixed, *searched)
        found = {name: [w] for name, w in fixed.items() if name in wanted}
        for name, search_with in searched.items():
            if name in wanted:
                found[name] = [search_with(seed) for seed in seeds]
        return found

    @cached_property
    def finals(self) -> list[Final]:
        """What was recommended, trained."""
        sizes = self.sizes
        return train_finals(
            self.shop, self.scorer, self.mixtures(), sizes.reference, sizes.final_seeds
        )

    @cached_property
    def longer(self) -> list[Final]:
        """The uniform mixture trained for longer."""
        uniform = {UNIFORM: [self.space.uniform]}
        found: list[Final] = []
        for factor in self.sizes.factors:
            tokens = round(factor * self.sizes.reference)
            found += train_finals(self.shop, self.scorer, uniform, tokens, self.sizes.final_seeds)
        return found

    def final_rows(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Ranks of the final models, and what else they say."""
        references = [capability_scores(r, self.capabilities) for r in self.references]
        ranking = Ranking(references, self.finals)
        samples = {method: ranking.samples(method) for method in ranking.methods}
        scores = {m: ranking.scores(m, self.finals) for m in ranking.methods}
        spread = np.mean([r.std(axis=0) for r in references], axis=0)
        rows = []
        for method in sorted(samples, key=lambda m: float(samples[m][0])):
            own = samples[method]
            gain = (scores[method] - scores[UNIFORM]) / spread
            rows.append(
                {
                    "method": method,
                    "average_rank": round(float(own[0]), 2),
                    "se": round(float(own[1:].std()), 2),
                    "rank": self._named(ranking.by_capability(method)[0]),
                    "models": sum(final.method == method for final in self.finals),
                    "minus_uniform": interval(own - samples[UNIFORM]),
                    "minus": {
                        other: interval(own - samples[other])
                        for other in ranking.methods
                        if other not in (method, UNIFORM)
                    },
                    "gain_on_uniform": {
                        name: interval(gain[:, c]) for c, name in enumerate(self.capabilities)
                    },
                }
            )
        share = (samples[UNIFORM] - samples[AUTO]) / (samples[UNIFORM] - samples[ORACLE])
        more = {
            "oracle_share": round(float(share[0]), 2),
            "oracle_share_interval": interval(share)[1:],
            "oracle_held_out_rho": self._named(oracle_values(self.weights, references, 0)[1]),
        }
        if self.sizes.factors:
            more |= self._tokens()
        return rows, more

    def _tokens(self) -> dict[str, Any]:
        """Times the tokens that the uniform mixture needs to match a method, ours first."""
        budgets = sorted({self.sizes.reference, *(final.tokens for final in self.longer)})
        uniform = [f for f in self.finals if f.method == UNIFORM] + self.longer
        means = np.stack(
            [np.mean([f.scores for f in uniform if f.tokens == b], axis=0) for b in budgets]
        )
        methods = [m for m in dict.fromkeys(f.method for f in self.finals) if m != UNIFORM]
        by_method: dict[str, dict[str, float]] = {}
        beyond: dict[str, list[str]] = {}
        for method in methods:
            wanted = np.mean([f.scores for f in self.finals if f.method == method], axis=0)
            found = {}
            for c, name in enumerate(self.capabilities):
                value, reached = tokens_needed(budgets, means[:, c].tolist(), float(wanted[c]))
                found[name] = round(value, 2)
                if not reached:
                    beyond.setdefault(method, []).append(name)
            found["macro"] = round(float(np.mean(list(found.values()))), 2)
            by_method[method] = found
        return {
            "tokens_uniform_needs": by_method[AUTO],
            "tokens_uniform_needs_by_method": by_method,
            "tokens_uniform_needs_more_than_tried": beyond,
        }

    def _named(self, values: FloatArray) -> dict[str, float]:
        return {
            name: round(float(v), 3) for name, v in zip(self.capabilities, values, strict=True)
        }

    def result(self) -> dict[str, Any]:
        """Everything that was measured."""
        proxies = self.proxy_rows()
        finals, more = self.final_rows()
        return {
            "sizes": {k: v for k, v in vars(self.sizes).items()},
            "ceiling": ceiling_of(self.references, self.capabilities),
            "proxies": proxies,
            "tried": self.tried(),
            "finals": finals,
            **more,
        }

    def keep(self, folder: Path) -> None:
        """Write raw scores and mixtures."""
        folder.mkdir(parents=True, exist_ok=True)
        sets: dict[str, Scores] = {
            f"reference, seed {seed}": scores
            for seed, scores in zip(self.sizes.seeds, self.references, strict=True)
        }
        sets |= {name: scores for name, (_, scores) in self.proxies.items() if name != "auto"}
        write_scores(folder / "scores.csv", sets)
        write_mixtures(folder / "mixtures.csv", self.weights, self.space.components)
        models = [
            {
                "method": final.method,
                "search": final.search,
                "seed": final.seed,
                "tokens": final.tokens,
                "weights": dict(
                    zip(self.space.components, final.weights.round(4).tolist(), strict=True)
                ),
                "scores": {name: round(value, 5) for name, value in final.benchmarks.items()},
            }
            for final in [*self.finals, *self.longer]
        ]
        text = json.dumps(models, indent=1) + "\n"
        (folder / "final_models.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Run the benchmark from the command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument(
        "--setting",
        choices=list(SETTINGS),
        action="append",
        help="only this one; may be given several times (default: tiers and domains)",
    )
    arguments.add_argument(
        "--run",
        type=Path,
        default=None,
        metavar="DIR",
        help="where models and scores are kept (default: runs/fidelity, or runs/fidelity-quick)",
    )
    arguments.add_argument(
        "--keep", type=Path, metavar="DIR", help="write raw scores and mixtures there"
    )
    options = arguments.parse_args()
    quiet()
    root = options.run or Path("runs") / ("fidelity-quick" if options.quick else "fidelity")
    result: dict[str, Any] = {}
    if options.out and options.out.exists() and not options.quick:
        # Settings that are not run now stay as they were measured.
        result = json.loads(options.out.read_text(encoding="utf-8"))["settings"]
    for name in options.setting or ("tiers", "domains"):
        setting, sizes = SETTINGS[name]
        if options.quick:
            sizes = QUICK
        experiment = Experiment(Workshop(root.resolve(), setting, sizes.base), sizes)
        result[name] = {**provenance(), "quick": options.quick, **experiment.result()}
        show(name, result[name])
        if options.keep:
            experiment.keep(options.keep / name)
    aimed = targets(result)
    print()
    for target in aimed:
        verdict = "met   " if target["met"] else "MISSED"
        print(f"{verdict} {target['target']}: {target['value']}, aimed at {target['bound']}")
    about = {"n_merged": N_MERGED, "regmix_leaf": REGMIX_LEAF}
    write(options.out, {**about, "settings": result, "targets": aimed})


if __name__ == "__main__":
    main()
