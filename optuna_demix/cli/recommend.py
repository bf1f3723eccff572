"""``optuna-demix recommend``: the best mixture a study has found."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix._wording import unknown_name
from optuna_demix.cli._console import console, quiet_optuna, say, write_output
from optuna_demix.cli._next import next_command, say_next
from optuna_demix.cli._options import add_command, add_device, add_no_progress, add_storage
from optuna_demix.cli._study import open_study
from optuna_demix.errors import InputError, StudyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.study import Study

    from optuna_demix.cli._options import Commands
    from optuna_demix.config import StudyConfig
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search._result import Mixture, Recommendation
    from optuna_demix.search.objective import Scores
    from optuna_demix.study.agreement import ProxyComparison
    from optuna_demix.study.direct import DirectRecommendation


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "recommend",
        _recommend,
        "print the best mixture a study has found",
        "optuna-demix recommend study.yaml --storage sqlite:///mix.db --study-name mix --verify",
    )
    add_storage(parser, required=False)
    parser.add_argument(
        "--proxy",
        choices=("merged", "probabilities"),
        default="merged",
        help="merged: what a study's trials say (default); probabilities: the mixture of the "
        "components' token probabilities, which needs no study",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        metavar="NAME=WEIGHT",
        help="what each capability counts, instead of the study's own composite: "
        "--weights code=2 math=1; capabilities that are not named count 0",
    )
    parser.add_argument(
        "--verify", action="store_true", help="merge and score the mixtures, do not only predict"
    )
    parser.add_argument("--json", metavar="FILE", help="write it as JSON too; - prints only JSON")
    add_device(parser)
    add_no_progress(parser)


def _recommend(arguments: argparse.Namespace) -> int:
    direct = arguments.proxy == "probabilities"
    if direct:
        answer = _Answer(_from_probabilities(arguments))
    else:
        answer = _from_trials(arguments)
    if arguments.json == "-":
        print(answer.to_json())
        return 0
    if arguments.json:
        write_output(Path(arguments.json), answer.to_json() + "\n")
    print(answer)
    say_next(arguments, _next(arguments, answer))
    return 0


def _next(arguments: argparse.Namespace, answer: _Answer) -> str:
    """What follows: nothing is exported before it was measured, where that can be done."""
    if arguments.proxy == "probabilities":
        return next_command(arguments, "check")
    params = getattr(answer.recommendation, "params", {})
    if not arguments.verify and not params:
        weights = ["--weights", *arguments.weights] if arguments.weights else []
        return next_command(
            arguments, "recommend", "--verify", *weights, like="storage study_name device"
        )
    return next_command(arguments, "export", "--format", "json", like="storage study_name")


@dataclass(frozen=True)
class _Answer:
    """What is printed: a recommendation, and where it was verified by two proxies both of them."""

    recommendation: Recommendation | DirectRecommendation
    proxies: ProxyComparison | None = None

    def to_json(self) -> str:
        plain = self.recommendation.to_dict()
        if self.proxies is not None:
            plain["proxies"] = self.proxies.to_dict()
        return json.dumps(plain, indent=2, allow_nan=False, default=str)

    def __str__(self) -> str:
        tables = [str(self.recommendation)]
        if self.proxies is not None:
            tables.append(str(self.proxies))
        return "\n\n".join(tables)


def _weighted(config: StudyConfig, given: list[str] | None) -> StudyConfig:
    """The study with other weights of its capabilities."""
    if given is None:
        return config
    weights = dict.fromkeys(config.capabilities, 0.0)
    for part in given:
        name, _, number = part.rpartition("=")
        if name not in weights:
            raise InputError(f"--weights: {unknown_name(name, weights, 'capability')}")
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = math.nan
        if not 0.0 <= weights[name] < math.inf:
            raise InputError(f"--weights: {part!r} is not NAME=WEIGHT with a number from 0 on")
    if not any(weights.values()):
        raise InputError("--weights: they are all 0; give one capability a positive weight")
    sampler = config.sampler.model_copy(update={"composite": weights})
    return config.model_copy(update={"sampler": sampler})


def _from_probabilities(arguments: argparse.Namespace) -> DirectRecommendation:
    for option in ("storage", "study_name", "verify"):
        if getattr(arguments, option):
            raise InputError(
                f"--{option.replace('_', '-')} is of no use to --proxy probabilities, which reads "
                "no study; leave one of the two out"
            )
    from optuna_demix.config import load_study_config
    from optuna_demix.config.space import space_of
    from optuna_demix.study.direct import recommend_directly
    from optuna_demix.study.probabilities import build_probabilities

    config = _weighted(load_study_config(arguments.study), arguments.weights)
    space = space_of(config)
    quiet_optuna(quiet=True)
    report = console(shown=not arguments.no_progress)
    proxy = build_probabilities(config, space, device=arguments.device, report=report)
    if proxy.slow:
        report(f"lm-eval itself scores each mixture on {', '.join(proxy.slow)}: this takes longer")
    return recommend_directly(config, space, proxy)


def _from_trials(arguments: argparse.Namespace) -> _Answer:
    if arguments.study_name is None:
        raise InputError("--study-name is missing; name the study, or give --proxy probabilities")
    from optuna_demix.config import load_study_config
    from optuna_demix.config.space import space_of
    from optuna_demix.search.recommendation import recommend
    from optuna_demix.study.search import options_of

    config = load_study_config(arguments.study)
    if arguments.weights and config.objective == "composite":
        raise InputError(
            "--weights: the trials of this study have a single objective, whose weights stand; "
            "give --proxy probabilities, or make a study with 'objective: capabilities'"
        )
    config = _weighted(config, arguments.weights)
    space = space_of(config)
    study = open_study(arguments, config)
    options = options_of(config, space, study)
    result = recommend(study, space, options=options)
    if not arguments.verify:
        return _Answer(result)
    if result.params:
        raise StudyError(
            f"study {study.study_name!r} has parameters beside the mixture "
            f"({', '.join(result.params)}), which a merge does not have; leave --verify out"
        )
    return _verified(arguments, config, space, study, result, options.scalar_composite)


def _verified(
    arguments: argparse.Namespace,
    config: StudyConfig,
    space: MixtureSpace,
    study: Study,
    result: Recommendation,
    composite: str | Sequence[float],
) -> _Answer:
    """The recommendation with its mixtures scored, by both proxies where the study has both."""
    from optuna_demix.config.study import objective_names
    from optuna_demix.search._result import distinct_mixtures
    from optuna_demix.search.recommendation import verify
    from optuna_demix.study.agreement import side_by_side
    from optuna_demix.study.evaluation import build_objective
    from optuna_demix.study.fingerprint import differences

    report = console(shown=not arguments.no_progress)
    objective, fingerprint = build_objective(
        config, space, device=arguments.device, merge_always=True, report=report
    )
    changed = differences(study, fingerprint)
    if changed:
        say(f"warning: not what the study was made with: {'; '.join(changed[:3])}")
    groups = distinct_mixtures(result.mixtures)
    names = {id(result.mixtures[group[0]]): group for group in groups}
    found: dict[str, Scores] = {}

    def score(mixture: Mixture) -> list[float]:
        scores = objective.score(mixture.merge_weights)
        found.update(dict.fromkeys(names[id(mixture)], scores))
        return objective.values(scores)

    with report.step("verify", unit="merge", total=len(groups)) as step:
        result = verify(result, study, score, done=step.advance)
    if objective.probabilities is None:
        return _Answer(result)
    comparison = side_by_side(
        {name: found[name] for name in result.mixtures},
        objective.layout(),
        objective_names(config),
        space,
        objective.probabilities,
        composite,
    )
    return _Answer(result, comparison)
