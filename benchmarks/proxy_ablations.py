"""What the agreement of merged proxies with really trained models depends on.

Tiny Llama models (172 k parameters) on the quickstart's text of five domains, all continued from
one base. References are trained on mixtures drawn like a search draws them, each with two seeds;
proxies are merged at the same mixtures from components. Scores are bits per byte of held-out text
and small multiple choice, three capabilities. Budgets keep the paper's proportions
(arXiv 2602.00747, Tables 2 and 3): its 50 B tokens of a reference are 240 k here.

- table2: merged proxies at four component budgets beside trained proxies at four budgets; trained
  totals count one model for each of 112 searched mixtures, as the paper does.
- merge_methods, general_share, more_data: the proxy under other merges, other shares of general
  data in the components, ten datasets, and components trained longer than the references.
- corrections: what a few references gain when proxies are corrected with them.

Every number is a mean over the training seeds of the references; intervals resample references.
Models and scores are kept in the run directory: a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, print_table, provenance, quiet, write
from _fidelity_models import (
    DOMAINS_SETTING,
    FIVE,
    PROXY_SEED,
    SHARE,
    TEN,
    Workshop,
    nearest_weights,
    sampled_weights,
)
from _fidelity_scores import (
    Scorer,
    Scores,
    ceiling_of,
    corrections,
    row_of,
    scored_references,
    tokens_at,
    write_mixtures,
    write_scores,
)

from optuna_demix.config import StudyConfig
from optuna_demix.fidelity.check import drift_of

SEARCHED = 112  # mixtures of a search: models that trained proxies cost
METHODS: Mapping[str, dict[str, Any]] = {
    "linear": {},
    "task_arithmetic": {"lambda": 1.5},
    "ties": {"density": 0.5},
    "dare_linear": {"density": 0.5},
    "dare_ties": {"density": 0.5},
    "breadcrumbs": {"density": 0.9},
    "della": {"density": 0.5},
    "multislerp": {},
    "karcher": {},
}
"""Parameters of each; task_arithmetic with lambda 1 is linear, as weights sum to 1."""
KNOWN, DRAWS = (8, 16), 60
_AGREEMENT = {
    "rho": ".3f",
    "ci95": "",
    "quarter": ".3f",
    "ci95_quarter": "",
    "recovery": ".3f",
}
_TARGETS = (
    ("macro Spearman", "rho", 0.90),
    ("best quarter", "rho_top_quarter", 0.60),
    ("recovery", "recovery", 0.85),
)


@dataclass(frozen=True)
class Sizes:
    """How large the experiment is. Budgets are the paper's, 50 B of it being one reference here.

    Attributes:
        base: Tokens of the base.
        reference: Tokens of a reference.
        n_references: Number of mixtures.
        seeds: Training seeds of the references.
        component: Tokens of a component, for each budget.
        chosen: The budget that every comparison outside Table 2 uses.
        proxy: Tokens of a trained proxy, for each budget.
        shares: Shares of general data that are compared.
        long: Tokens of components trained beyond the references.
        n_ten: Number of references of the ten datasets.
    """

    base: int = 1_600_000
    reference: int = 240_000
    n_references: int = 48
    seeds: tuple[int, ...] = (1, 2)
    component: tuple[int, ...] = (9_600, 48_000, 144_000, 240_000)
    chosen: int = 144_000
    proxy: tuple[int, ...] = (9_600, 19_200, 38_400, 57_600)
    shares: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    long: tuple[int, ...] = (480_000, 960_000)
    n_ten: int = 32


QUICK = Sizes(
    base=400_000,
    reference=64_000,
    n_references=12,
    component=(16_000, 64_000),
    chosen=64_000,
    proxy=(8_000, 16_000),
    shares=(0.0, 0.5),
    long=(),
    n_ten=0,
)


class Experiment:
    """All comparisons.

    Args:
        shop: Trains the models.
        sizes: How large it is.
    """

    def __init__(self, shop: Workshop, sizes: Sizes) -> None:  # noqa: D107
        self.shop, self.sizes = shop, sizes
        shop.prepare()
        self._main = Scorer(self._components(sizes.chosen))
        space = self._main.space
        self.weights = sampled_weights(space, sizes.n_references)  # (n, K)
        self.shares = space.data_shares(self.weights)  # (n, D)
        self.datasets = self._main.space.datasets
        self.capabilities = self._main.capabilities
        self.references = scored_references(
            self._main, shop, sizes.reference, sizes.seeds, self.shares
        )
        self.merged = {tokens: self._merged(tokens) for tokens in sizes.component}
        self.trained: dict[int, Scores] = {}

    def _components(self, tokens: int, **options: Any) -> StudyConfig:
        return self.shop.components(f"components-{tokens}", tokens, **options)

    def _merged(self, tokens: int) -> Scores:
        """Scores of the proxies merged from components of a budget."""
        return Scorer(self._components(tokens)).proxies(self.weights)

    def _row(self, proxies: Scores, **facts: Any) -> dict[str, Any]:
        return {**facts, **row_of(proxies, self.references, self.capabilities)}

    def table2(self) -> list[dict[str, Any]]:
        """Merged proxies beside trained ones."""
        rows = []
        for tokens in self.sizes.component:
            study = self._components(tokens)
            total = tokens * len(study.components)
            facts = {"method": "merged", "tokens_per_model": tokens, "total_tokens": total}
            rows.append(self._row(self.merged[tokens], **facts, drift=_drift(study)))
        for tokens in self.sizes.proxy:
            folders = self.shop.references(f"trained-{tokens}", tokens, PROXY_SEED, self.shares)
            self.trained[tokens] = self._main.models(folders)
            facts = {
                "method": "trained",
                "tokens_per_model": tokens,
                "total_tokens": tokens * SEARCHED,
            }
            rows.append(self._row(self.trained[tokens], **facts))
        return rows

    def merge_methods(self) -> list[dict[str, Any]]:
        """Every merge method on the components of the chosen budget."""
        rows = []
        for method, parameters in METHODS.items():
            study = self.shop.study(
                f"method-{method}",
                tokens=self.sizes.chosen,
                seed=0,
                merging={"method": method, "parameters": parameters},
                components_of=f"components-{self.sizes.chosen}",
            )
            scores = Scorer(study).proxies(self.weights)
            rows.append(self._row(scores, method=method, parameters=parameters))
        return rows

    def general_share(self) -> list[dict[str, Any]]:
        """Other shares of general data in components, merged as near the references as can be."""
        rows = []
        for share in self.sizes.shares:
            if share == SHARE:
                study = self._components(self.sizes.chosen)
            else:
                key = f"general-{round(100 * share)}"
                study = self.shop.components(key, self.sizes.chosen, share=share)
            scorer = Scorer(study)
            weights, missed = nearest_weights(self.shares, scorer.space.composition)
            scores = scorer.proxies(weights)
            rows.append(
                self._row(
                    scores,
                    general_share=share,
                    drift=_drift(study),
                    farthest_mixture=round(missed, 4),
                )
            )
        return rows

    def longer(self) -> list[dict[str, Any]]:
        """Components trained for longer and longer, up to several times the references."""
        rows = []
        for tokens in (*self.sizes.component, *self.sizes.long):
            scores = self.merged[tokens] if tokens in self.merged else self._merged(tokens)
            drift = _drift(self._components(tokens))
            rows.append(self._row(scores, tokens_per_component=tokens, drift=drift))
        return rows

    def more_datasets(self) -> list[dict[str, Any]]:
        """Ten datasets instead of five, with references of their own."""
        if not self.sizes.n_ten:
            return []
        self.shop.halve()
        rows = []
        for datasets, key in ((FIVE, "components"), (TEN, "ten")):
            n = self.sizes.n_ten
            name = f"{key}-{self.sizes.chosen}"
            study = self.shop.components(name, self.sizes.chosen, datasets=datasets)
            scorer = Scorer(study)
            weights = sampled_weights(scorer.space, n)
            shares = scorer.space.data_shares(weights)
            if datasets is FIVE:
                references = [{b: s[:n] for b, s in one.items()} for one in self.references]
            else:
                references = [
                    scorer.models(
                        self.shop.references(
                            f"ten-references-{seed}",
                            self.sizes.reference,
                            seed,
                            shares,
                            datasets=datasets,
                        )
                    )
                    for seed in self.sizes.seeds
                ]
            rows.append(
                {
                    "datasets": len(datasets.names),
                    "references": n,
                    "total_tokens": self.sizes.chosen * len(datasets.names),
                    "ceiling": ceiling_of(references, scorer.capabilities),
                    **row_of(scorer.proxies(weights), references, scorer.capabilities),
                }
            )
        return rows

    def corrections(self) -> list[dict[str, Any]]:
        """What a few references gain for the others."""
        proxies = self.merged[self.sizes.chosen]
        rows = []
        for n_known in KNOWN:
            if n_known + 8 > len(self.shares):
                continue
            rows += corrections(
                proxies,
                np.sqrt(self.weights),
                self.references,
                self.capabilities,
                n_known=n_known,
                draws=DRAWS,
            )
        return rows


def _drift(study: StudyConfig) -> float:
    """Mean drift of the components from the base."""
    found = drift_of(study) or {}
    return round(float(np.mean(list(found.values()))), 4)


def chosen_row(rows: Sequence[Mapping[str, Any]], chosen: int) -> Mapping[str, Any]:
    """The row of Table 2 of the proxies merged from components of the chosen budget."""
    (row,) = (r for r in rows if r["method"] == "merged" and r["tokens_per_model"] == chosen)
    return row


def ratio_at_equal_rho(
    rows: Sequence[Mapping[str, Any]], chosen: int
) -> tuple[float | None, float | None]:
    """Training tokens of trained proxies over those of merged ones, at the merged correlation.

    Returns:
        The ratio, None if no trained budget reaches the correlation; and a lower bound in that
        case: the ratio of the largest budget that falls short.
    """
    merged = chosen_row(rows, chosen)
    trained = [row for row in rows if row["method"] == "trained"]
    totals = [row["total_tokens"] for row in trained]
    tokens = tokens_at(merged["rho"]["macro"], totals, [row["rho"]["macro"] for row in trained])
    if tokens is not None:
        return round(tokens / merged["total_tokens"], 2), None
    return None, round(totals[-1] / merged["total_tokens"], 2)


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of agreement as a line of a table."""

    def interval(values: Sequence[float | None]) -> str:
        low, high = values
        return "" if low is None or high is None else f"{low:.2f} to {high:.2f}"

    line = {key: value for key, value in row.items() if not isinstance(value, (dict, list))}
    line |= {"rho": row["rho"]["macro"], "ci95": interval(row["ci95"])}
    if row["rho_top_quarter"]["macro"] is not None:
        line["quarter"] = row["rho_top_quarter"]["macro"]
        line["ci95_quarter"] = interval(row["ci95_top_quarter"])
    if row["recovery"]["macro"] is not None:
        line["recovery"] = row["recovery"]["macro"]
    return line


def check(result: Mapping[str, Any], chosen: int) -> list[dict[str, Any]]:
    """What was aimed at, and whether it was reached."""
    row = chosen_row(result["table2"], chosen)
    found = [
        {"target": what, "value": row[key]["macro"], "bound": bound}
        for what, key, bound in _TARGETS
    ]
    ratio = result["token_ratio_at_equal_rho"]
    found.append({"target": "times fewer training tokens", "value": ratio, "bound": 6.4})
    for target in found:
        target["met"] = target["value"] is not None and target["value"] >= target["bound"]
    return found


def show(result: Mapping[str, Any]) -> None:
    """Print every table."""
    budget = {"method": "", "tokens_per_model": "d", "total_tokens": "d"}
    print("\nTable 2")
    print_table([flat(row) for row in result["table2"]], {**budget, **_AGREEMENT})
    if result["ceiling"]:
        ceiling = result["ceiling"]
        print(
            f"ceiling, one seed ranked by another: {ceiling['rho_macro']:.3f}, best quarter "
            f"{ceiling['rho_top_quarter']:.3f}"
        )
    print(f"times fewer training tokens at equal rho: {result['token_ratio_at_equal_rho']}")
    for key, columns in (
        ("merge_methods", {"method": ""}),
        ("general_share", {"general_share": ".2f", "drift": ".3f", "farthest_mixture": ".3f"}),
        ("longer_components", {"tokens_per_component": "d", "drift": ".3f"}),
        ("more_datasets", {"datasets": "d", "references": "d"}),
    ):
        print(f"\n{key}")
        print_table([flat(row) for row in result[key]], {**columns, **_AGREEMENT})
    if result["corrections"]:
        print("\ncorrections, on references not learned from")
        columns = {name: ".3f" for name in result["corrections"][0]}
        columns |= {"correction": "", "n_known": "d"}
        print_table(result["corrections"], columns)
    for target in result["targets"]:
        verdict = "met   " if target["met"] else "MISSED"
        print(f"{verdict} {target['target']}: {target['value']}, required {target['bound']}")


def keep(folder: Path, experiment: Experiment) -> None:
    """Write raw scores and mixtures."""
    folder.mkdir(parents=True, exist_ok=True)
    sets: dict[str, Scores] = {
        f"reference, seed {seed}": scores
        for seed, scores in zip(experiment.sizes.seeds, experiment.references, strict=True)
    }
    sets |= {f"merged, {tokens}": scores for tokens, scores in experiment.merged.items()}
    sets |= {f"trained, {tokens}": scores for tokens, scores in experiment.trained.items()}
    write_scores(folder / "scores.csv", sets)
    write_mixtures(folder / "mixtures.csv", experiment.shares, experiment.datasets)


def main() -> None:
    """Run the benchmark from the command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument(
        "--run",
        type=Path,
        default=None,
        metavar="DIR",
        help="where models and scores are kept (default: runs/fidelity, or runs/fidelity-quick)",
    )
    arguments.add_argument("--keep", type=Path, metavar="DIR", help="write raw scores there")
    options = arguments.parse_args()
    quiet()
    sizes = QUICK if options.quick else Sizes()
    root = options.run or Path("runs") / ("fidelity-quick" if options.quick else "fidelity")
    shop = Workshop(root.resolve(), DOMAINS_SETTING, sizes.base)
    experiment = Experiment(shop, sizes)
    rows = experiment.table2()
    ratio, bound = ratio_at_equal_rho(rows, sizes.chosen)
    result: dict[str, Any] = {
        "table2": rows,
        "ceiling": ceiling_of(experiment.references, experiment.capabilities),
        "token_ratio_at_equal_rho": ratio,
        "token_ratio_is_above": bound,
        "merge_methods": experiment.merge_methods(),
        "general_share": experiment.general_share(),
        "longer_components": experiment.longer(),
        "corrections": experiment.corrections(),
        "more_datasets": experiment.more_datasets(),
    }
    result["targets"] = check(result, sizes.chosen)
    show(result)
    if options.keep:
        keep(options.keep, experiment)
    about = {
        **provenance(),
        "quick": options.quick,
        "seeds": {"references": list(sizes.seeds)},
        "n_references": sizes.n_references,
    }
    write(options.out, {**about, **result})


if __name__ == "__main__":
    main()
