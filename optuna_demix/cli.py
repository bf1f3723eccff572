"""The ``optuna-demix`` command: arguments, progress, exit codes.

Exit status: 0 done, 1 a worker gave up after failures, 2 a mistake that the user can mend,
130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix.errors import DemixError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna_demix.config import StudyConfig

_DESCRIPTION = """\
Search pre-training data mixtures with merged-model proxies, in an Optuna study.

  optuna-demix check studies/quickstart/study.yaml
  optuna-demix train studies/quickstart/study.yaml
  optuna create-study --storage sqlite:///mix.db --study-name mix \\
      --directions maximize maximize maximize
  optuna-demix worker studies/quickstart/study.yaml --storage sqlite:///mix.db \\
      --study-name mix --n-trials 64 --n-workers 2
  optuna-demix recommend studies/quickstart/study.yaml --storage sqlite:///mix.db \\
      --study-name mix --verify
  optuna-dashboard sqlite:///mix.db
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments; default: those of the process.

    Returns:
        The exit status.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] | None = getattr(arguments, "run", None)
    if run is None:
        parser.print_help()
        return 2
    try:
        return run(arguments)
    except DemixError as error:
        print(f"optuna-demix: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("optuna-demix: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    from optuna_demix import __version__

    parser = argparse.ArgumentParser(
        prog="optuna-demix",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"optuna-demix {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_check(commands)
    _add_train(commands)
    _add_worker(commands)
    _add_recommend(commands)
    _add_fidelity(commands)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_line: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help_line,
        description=f"{help_line[0].upper()}{help_line[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", metavar="STUDY.yaml", help="the study's file")
    parser.set_defaults(run=run)
    return parser


def _add_storage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--storage", metavar="URL", help="database; default: OPTUNA_STORAGE")
    parser.add_argument("--study-name", metavar="NAME", required=True, help="study in it")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number>")


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "check",
        _check,
        "check a study's file without loading a model or downloading anything",
        "optuna-demix check studies/demix_paper/study.yaml",
    )
    parser.add_argument(
        "--no-tasks", action="store_true", help="do not look the lm-eval tasks up (faster)"
    )


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "train",
        _train,
        "train the base, the components and, on request, references",
        "optuna-demix train studies/quickstart/study.yaml --references 8",
    )
    parser.add_argument(
        "--only", nargs="+", action="extend", metavar="NAME", help="models to train; default: all"
    )
    parser.add_argument(
        "--references", type=_count, default=0, metavar="N", help="references at sampled mixtures"
    )
    parser.add_argument(
        "--retrain",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="models to train again",
    )
    _add_device(parser)
    parser.add_argument("--no-progress", action="store_true", help="print lines, not a bar")


def _add_worker(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "worker",
        _worker,
        "evaluate trials of a shared study",
        "optuna-demix worker studies/quickstart/study.yaml --storage sqlite:///mix.db "
        "--study-name mix --n-trials 64",
    )
    _add_storage(parser)
    parser.add_argument(
        "--n-trials",
        type=_positive,
        metavar="N",
        help="stop when the study has N trials, those of other workers included",
    )
    parser.add_argument(
        "--timeout", type=_seconds, metavar="S", help="start no trial after S seconds"
    )
    parser.add_argument(
        "--n-workers", type=_positive, default=1, metavar="W", help="processes on this host"
    )
    parser.add_argument("--seed", type=int, help="instead of the study's own seed")
    _add_device(parser)
    parser.add_argument("--no-progress", action="store_true", help="show no bar")


def _add_recommend(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "recommend",
        _recommend,
        "print the best mixture a study has found",
        "optuna-demix recommend studies/quickstart/study.yaml --storage sqlite:///mix.db "
        "--study-name mix --verify",
    )
    _add_storage(parser)
    parser.add_argument(
        "--verify", action="store_true", help="merge and score the mixtures, do not only predict"
    )
    parser.add_argument("--json", metavar="FILE", help="write it as JSON too; - prints only JSON")
    _add_device(parser)
    parser.add_argument("--no-progress", action="store_true", help="show no bar")


def _add_fidelity(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "fidelity",
        _fidelity,
        "compare merged proxies with models really trained on the same mixtures",
        "optuna-demix fidelity studies/quickstart/study.yaml "
        "--references runs/quickstart/models/references",
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
    _add_device(parser)
    parser.add_argument("--no-progress", action="store_true", help="show no bar")


def _check(arguments: argparse.Namespace) -> int:
    from optuna_demix._config_space import space_of
    from optuna_demix.config import load_study_config
    from optuna_demix.study import create_command, objective_names, sampler_of

    config = load_study_config(arguments.study)
    space = space_of(config)
    sampler_of(config, space)
    print(f"{config.source.name}: {len(space.components)} components, ", end="")
    print(f"{len(space.datasets)} datasets, objectives: {', '.join(objective_names(config))}")
    low, high = space.min_weights(), space.max_weights()
    for i, name in enumerate(space.components):
        print(
            f"  {name}: prior {space.prior[i]:.4f}, weight {low[i]:.4f} to {high[i]:.4f}, ", end=""
        )
        print(_where(config, name))
    if not arguments.no_tasks:
        from optuna_demix.worker import check_benchmarks

        check_benchmarks(config)
        n_tasks = sum(map(len, config.capabilities.values()))
        print(f"  {n_tasks} benchmarks found")
    command = create_command(config, storage="URL", study_name="NAME")
    print(f"make the study with:\n  {command}")
    return 0


def _where(config: StudyConfig, component: str) -> str:
    hub = config.components[component].hub
    if hub is not None:
        return f"fetched from {hub} by the first worker"
    path = config.component_path(component)
    state = "found" if (path / "config.json").is_file() else "not there yet"
    return f"{os.path.relpath(path)} ({state})"


def _train(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.training import TrainingInterrupted, train_study

    config = load_study_config(arguments.study)
    try:
        train_study(
            config,
            only=arguments.only,
            references=arguments.references,
            retrain=arguments.retrain,
            device=arguments.device,
            progress=not arguments.no_progress,
        )
    except TrainingInterrupted as error:
        print(f"optuna-demix: {error}", file=sys.stderr)
        return 128 + error.signum
    return 0


def _worker(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.study import storage_url
    from optuna_demix.worker import is_one_of_several, run_worker, run_workers

    config = load_study_config(arguments.study)
    storage = storage_url(arguments.storage)
    _quiet_optuna(quiet=not arguments.no_progress or is_one_of_several())
    if arguments.n_workers > 1:
        passed = [arguments.study, "--study-name", arguments.study_name]
        passed += ["--device", arguments.device]
        for flag in ("n_trials", "timeout", "seed"):
            value = getattr(arguments, flag)
            if value is not None:
                passed += [f"--{flag.replace('_', '-')}", str(value)]
        return run_workers(
            passed,
            config=config,
            storage=storage,
            study_name=arguments.study_name,
            n_workers=arguments.n_workers,
            n_trials=arguments.n_trials,
            progress=not arguments.no_progress,
        )
    report = run_worker(
        config,
        storage=storage,
        study_name=arguments.study_name,
        n_trials=arguments.n_trials,
        timeout=arguments.timeout,
        device=arguments.device,
        seed=arguments.seed,
        progress=not arguments.no_progress,
        report=_say,
    )
    done = f"{report.complete} trials completed, {report.failed} failed; {report.stopped}"
    if not report.healthy:
        print(f"optuna-demix: error: {done}", file=sys.stderr)
        return 1
    _say(done)
    return 0


def _recommend(arguments: argparse.Namespace) -> int:
    from optuna_demix._config_space import space_of
    from optuna_demix.config import load_study_config
    from optuna_demix.recommend import recommend, verify
    from optuna_demix.study import (
        check_directions,
        composite_of,
        connect,
        differences,
        load_study,
        storage_url,
    )

    config = load_study_config(arguments.study)
    space = space_of(config)
    _quiet_optuna(quiet=True)
    study = load_study(
        connect(storage_url(arguments.storage)), study_name=arguments.study_name, sampler=None
    )
    check_directions(study, config)
    result = recommend(
        study,
        space,
        surrogate=config.sampler.surrogate,
        composite=composite_of(config),
        schedule=config.sampler.schedule,
        seed=config.sampler.seed or 0,
    )
    if arguments.verify:
        from tqdm import tqdm

        from optuna_demix.worker import build_objective

        objective, fingerprint = build_objective(config, space, device=arguments.device)
        changed = differences(study, fingerprint)
        if changed:
            _say(f"warning: not what the study was made with: {'; '.join(changed[:3])}")
        with tqdm(
            total=len(result.mixtures),
            desc="verify",
            unit="merge",
            disable=arguments.no_progress,
            file=sys.stderr,
        ) as bar:
            result = verify(
                result,
                study,
                lambda weights: objective.values(objective.score(weights)),
                done=bar.update,
            )
    if arguments.json == "-":
        print(result.to_json())
        return 0
    if arguments.json:
        _write(Path(arguments.json), result.to_json() + "\n")
    print(result)
    return 0


def _fidelity(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from optuna_demix.config import load_study_config
    from optuna_demix.fidelity import check_fidelity, scatter

    config = load_study_config(arguments.study)
    folder = config.run_path / "models" / "references"
    with tqdm(desc="score", unit="model", disable=arguments.no_progress, file=sys.stderr) as bar:

        def done(count: int, total: int) -> None:
            bar.total = total
            bar.update(count - bar.n)

        result = check_fidelity(
            config,
            Path(arguments.references) if arguments.references else folder,
            repeats=Path(arguments.repeats) if arguments.repeats else None,
            device=arguments.device,
            done=done,
        )
    for capability in result.capabilities if arguments.plots else ():
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in capability)
        _write(Path(arguments.plots) / f"{name}.svg", scatter(result, capability), "--plots")
    if arguments.json == "-":
        print(result.to_json())
        return 0
    if arguments.json:
        _write(Path(arguments.json), result.to_json() + "\n")
    print(result)
    return 0


def _write(path: Path, text: str, flag: str = "--json") -> None:
    """Write a file as a whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise DemixError(
            f"{flag} {path}: cannot be written ({error.strerror}); check the path and the space"
        ) from None


def _quiet_optuna(*, quiet: bool) -> None:
    """Keep Optuna's line for each trial out of the way of a progress bar."""
    import warnings

    import optuna

    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if quiet:
        optuna.logging.set_verbosity(optuna.logging.WARNING)


def _say(line: str) -> None:
    print(f"optuna-demix: {line}", file=sys.stderr)


def _positive(text: str) -> int:
    value = _count(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got {text!r}")
    return value
