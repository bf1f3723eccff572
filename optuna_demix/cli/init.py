"""``optuna-demix init``: a study's file from folders of data or checkpoints."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from optuna_demix.cli._next import next_command, say_next, search_commands
from optuna_demix.cli._options import add_command
from optuna_demix.cli._questions import agreed, ask, is_terminal
from optuna_demix.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna_demix.cli._options import Commands
    from optuna_demix.starting import Benchmarks, Wishes

Value = TypeVar("Value")


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "init",
        _init,
        "write a study's file from folders of data or checkpoints, tasks and a budget",
        "optuna-demix init --data data --base base --tasks hellaswag gsm8k --budget 100B\n\n"
        "It asks for what is missing, loads no model, downloads nothing and overwrites nothing.",
        takes_study=False,
    )
    parser.add_argument(
        "study",
        metavar="STUDY.yaml",
        nargs="?",
        default="study.yaml",
        help="the file to write (default: study.yaml)",
    )
    parser.add_argument(
        "--components",
        type=Path,
        metavar="DIR",
        help="folder of components, a checkpoint in each subfolder; one named base is the base",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of data, a subfolder or file for each dataset; beside --components for sizes",
    )
    parser.add_argument(
        "--base", type=Path, metavar="DIR", help="checkpoint that all components start from"
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="tokenizer of a base that is still to train"
    )
    parser.add_argument(
        "--parameters", type=_number, metavar="N", help="size of that base, such as 150M"
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        action="extend",
        default=[],
        metavar="TASK",
        help="lm-eval tasks: TASK, TASK/METRIC or CAPABILITY=TASK",
    )
    parser.add_argument(
        "--include-path",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="DIR",
        help="folders of tasks of your own; without --tasks all of them",
    )
    parser.add_argument(
        "--budget", type=_number, metavar="N", help="tokens of the planned run, such as 100B"
    )
    parser.add_argument(
        "--max-epochs",
        type=_epochs,
        default=4.0,
        metavar="N",
        help="how often that run may repeat a dataset (default: 4)",
    )
    parser.add_argument(
        "--tokens",
        nargs="+",
        action="extend",
        type=_size,
        default=[],
        metavar="NAME=N",
        help="size of a dataset in tokens, instead of an estimate",
    )
    parser.add_argument(
        "--token-dtype",
        choices=("uint16", "uint32"),
        help="type of token ids in files that do not say it",
    )
    parser.add_argument(
        "--component-tokens",
        type=_number,
        metavar="N",
        help="tokens of each component's training (default: 6 a parameter, 1 if text is scarce)",
    )
    parser.add_argument(
        "--base-tokens",
        type=_number,
        metavar="N",
        help="tokens of the training of a new base (default: 20 a parameter, at most 4 epochs)",
    )
    parser.add_argument(
        "--general",
        metavar="NAME",
        help="dataset that is half of every component's training, or none (default: by its name)",
    )
    parser.add_argument(
        "--confirm-run-unsafe-code",
        action="store_true",
        help="allow tasks that run code which the model writes, in a sandbox",
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing")


def _init(arguments: argparse.Namespace) -> int:
    from optuna_demix.starting import (
        choose_benchmarks,
        exists,
        inspect,
        make_draft,
        write_study,
    )

    file = Path(arguments.study)
    if file.exists() or file.is_symlink():
        raise exists(file)
    asks = not arguments.yes and is_terminal()
    if asks:
        _ask_for_missing(arguments)
    elif missing := _missing(arguments):
        hint = "" if arguments.yes else "there is no terminal to ask on: "
        raise InputError(f"init: {hint}give {' and '.join(missing)}")
    wishes = _wishes(arguments)
    found = inspect(wishes)
    benchmarks = choose_benchmarks(arguments.tasks, arguments.include_path)
    if asks:
        wishes = _ask_for_trust(wishes, benchmarks)
    draft = make_draft(wishes, found, benchmarks, file)
    for note in draft.notes:
        print(f"  {note}")
    for capability, chosen in draft.capabilities.items():
        print(f"  {capability}: {', '.join(f'{each.task}/{each.metric}' for each in chosen)}")
    if asks and not agreed(f"Write {file}?", default=True):
        print("nothing was written")
        return 0
    config = write_study(draft, file)
    print(f"{file}: written; optuna-demix check --bill tells what the study costs")
    train = [] if config.training is None else [next_command(arguments, "train")]
    say_next(arguments, *train, *search_commands(arguments, config))
    return 0


def _missing(arguments: argparse.Namespace) -> list[str]:
    """Options that nothing can be written without, in words."""
    missing = []
    if arguments.components is None and arguments.data is None:
        missing.append("--components or --data")
    if arguments.components is None and arguments.base is None:
        needed = {"--tokenizer": arguments.tokenizer, "--parameters": arguments.parameters}
        lacking = [option for option, value in needed.items() if value is None]
        if len(lacking) == 2 and arguments.data is not None:
            missing.append("--base (or --tokenizer and --parameters)")
        elif lacking and arguments.data is not None:
            missing += lacking
    if not arguments.tasks and not arguments.include_path:
        missing.append("--tasks or --include-path")
    return missing


def _ask_for_missing(arguments: argparse.Namespace) -> None:
    from optuna_demix.starting import read_number

    if arguments.components is None and arguments.data is None:
        arguments.components = ask(
            "Folder of components, one checkpoint in each subfolder (nothing: still to train):",
            _folder,
        )
    if arguments.components is None and arguments.data is None:
        arguments.data = ask(
            "Folder of data, one subfolder or file for each dataset:", _required(_folder)
        )
    if arguments.components is None and arguments.base is None and arguments.tokenizer is None:
        arguments.base = ask("Folder of the base checkpoint (nothing: train one):", _folder)
    if arguments.components is None and arguments.base is None:
        if arguments.tokenizer is None:
            arguments.tokenizer = ask("Folder of its tokenizer:", _required(_folder))
        if arguments.parameters is None:
            arguments.parameters = ask("Its parameters, such as 150M:", read_number)
    if not arguments.tasks and not arguments.include_path:
        question = "lm-eval tasks, such as: hellaswag gsm8k humaneval (or folders of tasks):"
        words = ask(question, _required(str.split))
        arguments.include_path = [Path(word) for word in words if Path(word).is_dir()]
        arguments.tasks = [word for word in words if not Path(word).is_dir()]
    if arguments.budget is None:
        question = "Tokens of the planned run, such as 100B (nothing: no caps on shares):"
        arguments.budget = ask(question, lambda answer: read_number(answer) if answer else None)


def _ask_for_trust(wishes: Wishes, benchmarks: Benchmarks) -> Wishes:
    if not benchmarks.unsafe or wishes.run_unsafe_code:
        return wishes
    tasks = ", ".join(benchmarks.unsafe)
    trusted = agreed(f"Run code that the model writes, in a sandbox, for {tasks}?", default=False)
    return dataclasses.replace(wishes, run_unsafe_code=trusted)


def _wishes(arguments: argparse.Namespace) -> Wishes:
    from optuna_demix.starting import Wishes

    return Wishes(
        components=arguments.components,
        data=arguments.data,
        base=arguments.base,
        tokenizer=arguments.tokenizer,
        parameters=arguments.parameters,
        include_path=arguments.include_path,
        budget=arguments.budget,
        max_epochs=arguments.max_epochs,
        tokens=dict(arguments.tokens),
        token_dtype=arguments.token_dtype,
        component_tokens=arguments.component_tokens,
        base_tokens=arguments.base_tokens,
        general=arguments.general,
        run_unsafe_code=arguments.confirm_run_unsafe_code,
    )


def _folder(answer: str) -> Path | None:
    """A folder that is there; ``None`` for no answer."""
    if not answer:
        return None
    folder = Path(answer).expanduser()
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    return folder


def _required(read: Callable[[str], Value]) -> Callable[[str], Value]:
    def checked(answer: str) -> Value:
        if not answer:
            raise ValueError("this is needed")
        return read(answer)

    return checked


def _number(text: str) -> int:
    from optuna_demix.starting import read_number

    try:
        return read_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _epochs(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value


def _size(text: str) -> tuple[str, int]:
    name, given, number = text.rpartition("=")
    if not given or not name:
        raise argparse.ArgumentTypeError(f"write NAME=N, got {text!r}")
    return name, _number(number)
