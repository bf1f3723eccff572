"""``optuna-demix export``: data shares as training frameworks read them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix._wording import unknown_name
from optuna_demix.cli._console import quiet_optuna, say, write_output
from optuna_demix.cli._next import next_command, say_next
from optuna_demix.cli._options import add_command, add_storage
from optuna_demix.errors import InputError

if TYPE_CHECKING:
    from optuna_demix.cli._options import Commands
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
        help="json, yaml, megatron, nemo, olmo-core, nanotron, mosaicml or huggingface",
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
        "--phase", metavar="NAME", help="the mixture of one phase, where the run has phases"
    )


def _export(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.config.space import space_of
    from optuna_demix.export import FORMATS, export, left_out, sources_of
    from optuna_demix.search.recommendation import recommend
    from optuna_demix.storage.connection import connect, storage_url
    from optuna_demix.study.attach import check_directions, load_study
    from optuna_demix.study.search import options_of

    if arguments.format not in FORMATS:
        export([], arguments.format)  # says which there are
    lengths = dict(_length(item) for item in arguments.example_tokens)
    config = load_study_config(arguments.study)
    space = space_of(config)
    quiet_optuna(quiet=True)
    study = load_study(
        connect(storage_url(arguments.storage)), study_name=arguments.study_name, sampler=None
    )
    check_directions(study, config)
    result = recommend(study, space, options=options_of(config, space, study))
    mixture = result.mixtures[arguments.mixture]
    shares, part = _shares_of(next(iter(mixture.weights.values())), arguments.phase)
    budget = config.mixture.budget
    sources = sources_of(
        shares,
        paths=arguments.paths,
        example_tokens=lengths,
        tokens={name: data.tokens for name, data in config.datasets.items() if data.tokens},
        budget=None if budget is None else part * budget,
    )
    kind = arguments.mixture.replace("_", " ")
    if arguments.phase:
        kind = f"phase {arguments.phase!r} of the {kind}"
    comment = f"{kind} data shares of study {study.study_name!r}, {result.n_trials} trials"
    lines = [" ".join(comment.split())]
    small = left_out(shares, sources)
    if small:
        named = ", ".join(f"{name} ({share:.1e})" for name, share in small.items())
        lines.append(f"left out, since the share rounds to 0: {named}")
        say(lines[-1])
    text = export(sources, arguments.format, comment="\n".join(lines))
    for source in sources:
        if source.epochs is not None:
            say(f"{source.name}: {source.share:.2%} of the data, {source.epochs:.2f} epochs")
    if mixture.params:
        say(f"with {', '.join(f'{name} = {value}' for name, value in mixture.params.items())}")
    if arguments.out:
        write_output(Path(arguments.out), text, option="--out")
    else:
        print(text, end="")
    say_next(arguments, next_command(arguments, "report", like="storage study_name"))
    return 0


def _shares_of(weights: Weights, phase: str | None) -> tuple[dict[str, float], float]:
    """Data shares to write, and the part of the budget that they are of."""
    phases = weights.phases
    if phase is None and len(phases) > 1:
        raise InputError(
            f"the run has the phases {', '.join(map(repr, phases))}, each with a mixture of its "
            "own; name one with --phase"
        )
    if phase is None:
        return weights.data_shares, 1.0
    if phase not in phases:
        raise InputError(f"--phase: {unknown_name(phase, list(phases), 'phase')}")
    return phases[phase].data_shares, phases[phase].share


def _length(text: str) -> tuple[str, float]:
    """Name and number of ``NAME=N``."""
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError:
        raise InputError(f"--example-tokens {text!r} is not NAME=N") from None
