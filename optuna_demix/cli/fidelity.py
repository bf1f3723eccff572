"""``optuna-demix fidelity``: both proxies beside really trained models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from optuna_demix.cli._console import console, write_output
from optuna_demix.cli._next import next_command, say_next
from optuna_demix.cli._options import add_command, add_device, add_no_progress

if TYPE_CHECKING:
    from optuna_demix.cli._options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "fidelity",
        _fidelity,
        "compare both proxies with models really trained on the same mixtures",
        "optuna-demix fidelity study.yaml --references run/models/references",
    )
    parser.add_argument(
        "--references",
        metavar="DIR",
        help="folder of the references; default: models/references in the study's run_dir",
    )
    parser.add_argument(
        "--repeats", metavar="DIR", help="the same references trained with another seed"
    )
    parser.add_argument("--json", metavar="FILE", help="write it as JSON too; - prints only JSON")
    parser.add_argument("--plots", metavar="DIR", help="write a scatter plot per capability (SVG)")
    add_device(parser)
    add_no_progress(parser)


def _fidelity(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.fidelity import check_fidelity, scatter

    config = load_study_config(arguments.study)
    folder = config.run_path / "models" / "references"
    say = console(shown=not arguments.no_progress)
    with say.step("scoring models", unit="model") as step:
        result = check_fidelity(
            config,
            Path(arguments.references) if arguments.references else folder,
            repeats=Path(arguments.repeats) if arguments.repeats else None,
            device=arguments.device,
            done=step.update,
            report=say,
        )
    for capability in result.benchmark_names if arguments.plots else ():
        file = _plot_file(Path(arguments.plots), capability)
        write_output(file, scatter(result, capability), option="--plots")
    if arguments.json == "-":
        print(result.to_json())
        return 0
    if arguments.json:
        write_output(Path(arguments.json), result.to_json() + "\n")
    print(result)
    say_next(arguments, next_command(arguments, "check"))
    return 0


def _plot_file(folder: Path, capability: str) -> Path:
    """The file of a capability's plot: another one for each name, whatever it holds."""
    return folder / f"{quote(capability, safe=' ')}.svg"
