"""``optuna-demix export``: data shares as training frameworks read them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix._wording import unknown_name
from optuna_demix.cli._console import say, write_output
from optuna_demix.cli._next import next_command, say_next
from optuna_demix.cli._options import add_command, add_storage
from optuna_demix.cli._study import open_study
from optuna_demix.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna_demix.cli._options import Commands
    from optuna_demix.config import StudyConfig
    from optuna_demix.export import Stage
    from optuna_demix.search._weights import Weights


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "export",
        _export,
        "write the data shares to train on as a training framework reads them",
        "optuna-demix export study.yaml --storage sqlite:///mix.db "
        "--study-name mix --format megatron --paths '/data/{dataset}_text_document'",
    )
    add_storage(parser)
    parser.add_argument(
        "--format",
        required=True,
        metavar="FORMAT",
        help="json, yaml, megatron, megatron-bridge, nemo, nemotron, energon, energon-epochs, "
        "olmo-core, olmo-core-composable, nanotron, torchtitan, torchtitan-grain, litdata, "
        "mosaicml, mosaicml-epochs or huggingface",
    )
    parser.add_argument("--out", metavar="FILE", help="write it there; default: print it")
    parser.add_argument(
        "--paths",
        default="{dataset}",
        metavar="TEMPLATE",
        help="where the data lies, with {dataset} for each name",
    )
    parser.add_argument(
        "--example-tokens",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=N",
        help="mean tokens of an example, for formats that draw examples; default: all equal",
    )
    parser.add_argument(
        "--mixture",
        default="recommended",
        choices=("recommended", "best_trial", "prior", "uniform"),
        help="which mixture; default: recommended",
    )
    parser.add_argument(
        "--phase",
        metavar="NAME",
        help="the mixture of one phase, where the run has phases; default: all in order, as json, "
        "yaml, nanotron or olmo-core-composable",
    )
    parser.add_argument(
        "--step-tokens",
        type=float,
        metavar="N",
        help="tokens of a training step, to give the steps that phases start with",
    )


def _export(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.config.space import space_of
    from optuna_demix.export import FORMATS, export, export_stages
    from optuna_demix.search.recommendation import recommend
    from optuna_demix.study.search import options_of

    if arguments.format not in FORMATS:
        export([], arguments.format)  # says which there are
    lengths = dict(_length(item) for item in arguments.example_tokens)
    config = load_study_config(arguments.study)
    space = space_of(config)
    study = open_study(arguments, config)
    result = recommend(study, space, options=options_of(config, space, study))
    for line in result.warnings if arguments.mixture == "recommended" else ():
        say(f"warning: {line}")
    mixture = result.mixtures[arguments.mixture]
    weights = next(iter(mixture.weights.values()))
    whole_run = arguments.phase is None and len(weights.phases) > 1
    if not whole_run and arguments.step_tokens is not None:
        raise InputError("--step-tokens is for a whole run in phases; leave it out")
    kind = arguments.mixture.replace("_", " ")
    if arguments.phase:
        kind = f"phase {arguments.phase!r} of the {kind}"
    comment = f"{kind} data shares of study {study.study_name!r}, {result.n_trials} trials"
    stages, remarks = _stages(_parts(weights, arguments), config, arguments.paths, lengths)
    text_above = "\n".join([" ".join(comment.split()), *remarks])
    if whole_run:
        text = export_stages(
            stages, arguments.format, step_tokens=arguments.step_tokens, comment=text_above
        )
    else:
        text = export(stages[0].sources, arguments.format, comment=text_above)
    for remark in remarks:
        say(remark)
    if mixture.params:
        say(f"with {', '.join(f'{name} = {value}' for name, value in mixture.params.items())}")
    if arguments.out:
        write_output(Path(arguments.out), text, option="--out")
    else:
        print(text, end="")
    say_next(arguments, next_command(arguments, "report", like="storage study_name"))
    return 0


def _parts(
    weights: Weights, arguments: argparse.Namespace
) -> list[tuple[str, float, dict[str, float]]]:
    """Name, share of the budget and data shares of what is to be written."""
    from optuna_demix.export import STAGED

    phases, phase = weights.phases, arguments.phase
    if phase is not None and phase not in phases:
        raise InputError(f"--phase: {unknown_name(phase, list(phases), 'phase')}")
    if phase is None and len(phases) < 2:
        return [("", 1.0, weights.data_shares)]
    if phase is None and arguments.format not in STAGED:
        raise InputError(
            f"the run has the phases {', '.join(map(repr, phases))}, and the reader of "
            f"{arguments.format!r} has none; name one with --phase, or write them all as one of "
            f"{', '.join(STAGED)}"
        )
    return [
        (name, part.share, part.data_shares)
        for name, part in phases.items()
        if phase is None or name == phase
    ]


def _stages(
    parts: Sequence[tuple[str, float, dict[str, float]]],
    config: StudyConfig,
    paths: str,
    lengths: Mapping[str, float],
) -> tuple[list[Stage], list[str]]:
    """What to write, and what to say about it: left-out datasets, and epochs."""
    from optuna_demix.export import Stage, left_out, sources_of

    budget = config.mixture.budget
    stages, small, epochs = [], [], []
    for name, share, shares in parts:
        sources = sources_of(
            shares,
            paths=paths,
            example_tokens=lengths,
            tokens={name: data.tokens for name, data in config.datasets.items() if data.tokens},
            budget=None if budget is None else share * budget,
        )
        stages.append(Stage(name, share, sources))
        where = f"{name}: " if len(parts) > 1 else ""
        tiny = left_out(shares, sources)
        if tiny:
            named = ", ".join(f"{name} ({value:.1e})" for name, value in tiny.items())
            small.append(f"{where}left out, since the share rounds to 0: {named}")
        epochs += [
            f"{where}{source.name}: {source.share:.2%} of the data, {source.epochs:.2f} epochs"
            for source in sources
            if source.epochs is not None
        ]
    if len(parts) > 1:
        epochs += _run_epochs(stages)
    return stages, small + epochs


def _run_epochs(stages: Sequence[Stage]) -> list[str]:
    """How often the whole run sees each dataset whose size is known."""
    total: dict[str, float] = {}
    for stage in stages:
        for source in stage.sources:
            if source.epochs is not None:
                total[source.name] = total.get(source.name, 0.0) + source.epochs
    return [f"whole run: {name}: {value:.2f} epochs" for name, value in total.items()]


def _length(text: str) -> tuple[str, float]:
    """Name and number of ``NAME=N``."""
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError:
        raise InputError(f"--example-tokens {text!r} is not NAME=N") from None
