"""The ``optuna-demix`` command: arguments, progress, exit codes.

Exit status: 0 done, 1 a worker gave up after failures, 2 a mistake that the user can mend,
130 interrupted, 143 asked to stop by SIGTERM: schedulers then know that there is work left.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix._whole_file import write_whole
from optuna_demix.errors import DemixError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from optuna_demix.config import StudyConfig
    from optuna_demix.merging import Arena

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
    if argv is None:
        hide_password()
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
    _add_proxy(commands)
    _add_arena(commands)
    _add_report(commands)
    _add_export(commands)
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
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="database, grpc://host:port, journal.log, or @FILE that holds it; default: "
        "OPTUNA_STORAGE",
    )
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
        "optuna-demix train studies/quickstart/study.yaml --references 8\n"
        "  torchrun --nproc-per-node 2 -m optuna_demix train studies/quickstart/study.yaml",
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
    parser.add_argument(
        "--device", default="auto", help="auto, cpu or cuda; torchrun uses several GPUs"
    )
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
        "--until-converged",
        action="store_true",
        help="stop when further trials are expected to gain less than their noise",
    )
    parser.add_argument(
        "--n-workers", type=_positive, default=1, metavar="W", help="processes on this host"
    )
    parser.add_argument("--seed", type=int, help="instead of the study's own seed")
    parser.add_argument(
        "--stop-grace",
        type=_seconds,
        metavar="S",
        help="after SIGTERM hand the trial back if it is not done in S seconds (default: 20)",
    )
    _add_device(parser)
    parser.add_argument(
        "--no-dashboard", action="store_true", help="write no plots and note for optuna-dashboard"
    )
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


def _add_proxy(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    help_line = "serve a database to many workers through Optuna's gRPC proxy"
    parser = commands.add_parser(
        "proxy",
        help=help_line,
        description=f"{help_line[0].upper()}{help_line[1:]}.",
        epilog="example:\n  optuna-demix proxy --storage postgresql://user@host/db --port 13000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--storage", metavar="URL", help="database; default: OPTUNA_STORAGE")
    parser.add_argument("--host", default="localhost", help="address to listen on")
    parser.add_argument("--port", type=_count, default=13000, help="port to listen on")
    parser.add_argument(
        "--threads", type=_positive, default=10, metavar="N", help="calls served at once"
    )
    parser.set_defaults(run=_proxy)


def _add_arena(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    help_line = "build, show, verify or remove the file that holds a study's components"
    parser = commands.add_parser(
        "arena",
        help=help_line,
        description=f"{help_line[0].upper()}{help_line[1:]}. Workers build it by themselves.",
        epilog="example:\n  optuna-demix arena build studies/quickstart/study.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    study = "studies/quickstart/study.yaml"
    for name, run, help_line in (
        ("build", _arena_build, "build the arena, or go on with a build that was killed"),
        ("info", _arena_info, "show what the arena holds and whether it is up to date"),
        ("verify", _arena_verify, "compare all of the arena with its checksums"),
        ("clear", _arena_clear, "remove the arena; the components stay"),
    ):
        action = _command(actions, name, run, help_line, f"optuna-demix arena {name} {study}")
        if name in ("build", "verify"):
            action.add_argument("--no-progress", action="store_true", help="show no bar")


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "report",
        _report,
        "draw what a study has found: a page of plots and a note",
        "optuna-demix report studies/quickstart/study.yaml --storage sqlite:///mix.db "
        "--study-name mix --dashboard",
    )
    _add_storage(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for report.html and report.md; default: run_dir/report, "
        "none with --dashboard",
    )
    parser.add_argument(
        "--dashboard", action="store_true", help="show plots and note in optuna-dashboard"
    )


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "export",
        _export,
        "write the data shares to train on as a training framework reads them",
        "optuna-demix export studies/quickstart/study.yaml --storage sqlite:///mix.db "
        "--study-name mix --format megatron --paths '/data/{dataset}_text_document'",
    )
    _add_storage(parser)
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
    from optuna_demix.worker import STOP_GRACE_S, is_one_of_several, run_worker, run_workers

    config = load_study_config(arguments.study)
    storage = storage_url(arguments.storage)
    _quiet_optuna(quiet=not arguments.no_progress or is_one_of_several())
    if arguments.n_workers > 1:
        passed = [arguments.study, "--study-name", arguments.study_name]
        passed += ["--device", arguments.device]
        for flag in ("n_trials", "timeout", "seed", "stop_grace"):
            value = getattr(arguments, flag)
            if value is not None:
                passed += [f"--{flag.replace('_', '-')}", str(value)]
        passed += ["--until-converged"] if arguments.until_converged else []
        passed += ["--no-dashboard"] if arguments.no_dashboard else []
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
        until_converged=arguments.until_converged,
        device=arguments.device,
        seed=arguments.seed,
        stop_grace=STOP_GRACE_S if arguments.stop_grace is None else arguments.stop_grace,
        dashboard=not arguments.no_dashboard,
        progress=not arguments.no_progress,
        report=_say,
    )
    pruned = f"{report.pruned} dropped early, " if report.pruned else ""
    done = f"{report.complete} trials completed, {pruned}{report.failed} failed; {report.stopped}"
    if not report.healthy:
        print(f"optuna-demix: error: {done}", file=sys.stderr)
        return 1
    _say(done)
    return 128 + report.signum if report.signum else 0


def _recommend(arguments: argparse.Namespace) -> int:
    from optuna_demix._config_space import space_of
    from optuna_demix.config import load_study_config
    from optuna_demix.recommend import recommend, verify
    from optuna_demix.study import (
        check_directions,
        connect,
        differences,
        load_study,
        recommend_options,
        storage_url,
    )

    config = load_study_config(arguments.study)
    space = space_of(config)
    _quiet_optuna(quiet=True)
    study = load_study(
        connect(storage_url(arguments.storage)), study_name=arguments.study_name, sampler=None
    )
    check_directions(study, config)
    result = recommend(study, space, **recommend_options(config, study._storage))
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
        file = Path(arguments.plots) / f"{name}.svg"
        _write(file, scatter(result, capability), option="--plots")
    if arguments.json == "-":
        print(result.to_json())
        return 0
    if arguments.json:
        _write(Path(arguments.json), result.to_json() + "\n")
    print(result)
    return 0


def _proxy(arguments: argparse.Namespace) -> int:
    import signal
    import threading

    from optuna_demix._storage import serve
    from optuna_demix.study import storage_url

    _quiet_optuna(quiet=True)
    ended = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda number, frame: ended.set())
    with serve(
        storage_url(arguments.storage),
        host=arguments.host,
        port=arguments.port,
        n_threads=arguments.threads,
    ) as port:
        _say(f"proxy at grpc://{arguments.host}:{port}")
        ended.wait()
    return 0


def _arena_build(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.worker import build_arena, open_components

    config = load_study_config(arguments.study)
    components = open_components(config, report=_say)
    with _blocks("build", shown=not arguments.no_progress) as progress:
        arena = build_arena(config, components, progress=progress)
    print(f"{os.path.relpath(arena.path)}: {arena.nbytes / 1e9:.2f} GB, key {arena.key[:16]}")
    return 0


def _arena_info(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.worker import merge_method, open_components

    config = load_study_config(arguments.study)
    arena = _open_arena(config)
    dtype = str(arena.dtype).removeprefix("torch.")
    rows = "components and their base" if arena.preparation.base else "components"
    print(f"{os.path.relpath(arena.path)}: {arena.nbytes / 1e9:.2f} GB, key {arena.key[:16]}")
    print(f"  {len(arena.names)} {rows}: {', '.join(arena.names)}")
    print(f"  {arena.n_parameters:,} parameters each, {dtype}, in ", end="")
    print(f"{arena.layout.n_blocks:,} blocks of {arena.layout.block_size:,}")
    if arena.preparation.sparsity is not None:
        rule = arena.preparation.sparsity
        print(f"  task vectors sparsified by {rule.rule}, density {rule.density:g}")
    try:
        method, merging = merge_method(config), config.merging
        changed = arena.differences(open_components(config), method=method, dtype=merging.dtype)
    except DemixError as error:
        print(f"  cannot be compared with the study's components: {error}")
        return 0
    print(f"  {'stale: ' + '; '.join(changed) if changed else 'up to date'}")
    return 0


def _arena_verify(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config

    arena = _open_arena(load_study_config(arguments.study))
    with _blocks("verify", shown=not arguments.no_progress) as progress:
        arena.verify(progress=progress)
    print(f"{os.path.relpath(arena.path)}: all {arena.layout.n_blocks:,} blocks are as built")
    return 0


def _arena_clear(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.worker import require_merging

    path = load_study_config(arguments.study).arena_path
    require_merging()
    from optuna_demix.merging import Arena

    freed = Arena.clear(path)
    print(f"{os.path.relpath(path)}: {freed / 1e9:.2f} GB freed" if freed else "nothing to remove")
    return 0


def _open_arena(config: StudyConfig) -> Arena:
    from optuna_demix.worker import require_merging

    if not config.arena_path.exists():
        raise DemixError(
            f"{config.source}: there is no arena at {config.arena_path}; build it with "
            "'optuna-demix arena build', or start a worker, which does"
        )
    require_merging()
    from optuna_demix.merging import Arena

    return Arena.open(config.arena_path)


@contextmanager
def _blocks(what: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar of an arena's blocks; yields the function that is told how many are done."""
    from tqdm import tqdm

    with tqdm(desc=what, unit="block", disable=not shown, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _report(arguments: argparse.Namespace) -> int:
    from optuna_demix._config_space import space_of
    from optuna_demix.config import load_study_config
    from optuna_demix.report.write import write_report
    from optuna_demix.study import check_directions, connect, load_study, storage_url

    config = load_study_config(arguments.study)
    space = space_of(config)
    _quiet_optuna(quiet=True)
    study = load_study(
        connect(storage_url(arguments.storage)), study_name=arguments.study_name, sampler=None
    )
    check_directions(study, config)
    folder = Path(arguments.out) if arguments.out else None
    if folder is None and not arguments.dashboard:
        folder = config.run_path / "report"
    write_report(study, config, space, folder=folder, to_dashboard=arguments.dashboard)
    if folder is not None:
        _say(f"wrote {os.path.relpath(folder / 'report.html')} and report.md")
    if arguments.dashboard:
        _say("the dashboard shows it on the study's page")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from optuna_demix._config_space import space_of
    from optuna_demix.config import load_study_config
    from optuna_demix.export import FORMATS, export, sources_of
    from optuna_demix.recommend import recommend
    from optuna_demix.study import (
        check_directions,
        connect,
        load_study,
        recommend_options,
        storage_url,
    )

    if arguments.format not in FORMATS:
        export([], arguments.format)  # says which there are
    lengths = dict(_length(item) for item in arguments.example_tokens)
    config = load_study_config(arguments.study)
    space = space_of(config)
    _quiet_optuna(quiet=True)
    study = load_study(
        connect(storage_url(arguments.storage)), study_name=arguments.study_name, sampler=None
    )
    check_directions(study, config)
    result = recommend(study, space, **recommend_options(config, study._storage))
    sources = sources_of(
        result.mixtures[arguments.mixture].data_shares,
        paths=arguments.paths,
        example_tokens=lengths,
        tokens={name: data.tokens for name, data in config.datasets.items() if data.tokens},
        budget=config.mixture.budget,
    )
    kind = arguments.mixture.replace("_", " ")
    comment = f"{kind} data shares of study {study.study_name!r}, {result.n_trials} trials"
    text = export(sources, arguments.format, comment=" ".join(comment.split()))
    for source in sources:
        if source.epochs is not None:
            _say(f"{source.name}: {source.share:.2%} of the data, {source.epochs:.2f} epochs")
    if arguments.out:
        _write(Path(arguments.out), text, option="--out")
    else:
        print(text, end="")
    return 0


def _length(text: str) -> tuple[str, float]:
    """Name and number of ``NAME=N``."""
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError:
        raise DemixError(f"--example-tokens {text!r} is not NAME=N") from None


def _write(path: Path, text: str, *, option: str = "--json") -> None:
    """Write what an option asks for."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise DemixError(
            f"{option} {path}: cannot be written ({error.strerror}); check the path and the space"
        ) from None


def _quiet_optuna(*, quiet: bool) -> None:
    """Keep Optuna's line for each trial out of the way of a progress bar."""
    import warnings

    import optuna

    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if quiet:
        optuna.logging.set_verbosity(optuna.logging.WARNING)


def hide_password() -> None:
    """Start this process anew without the storage URL in its arguments, which ``ps`` shows.

    The URL goes into the environment, which other users cannot read. Nothing happens where it
    has no password.
    """
    from optuna_demix._storage import STORAGE_ENV, mask_url

    arguments, url = list(sys.argv[1:]), None
    for i, argument in enumerate(arguments):
        if argument == "--storage" and i + 1 < len(arguments):
            url, removed = arguments[i + 1], slice(i, i + 2)
        elif argument.startswith("--storage="):
            url, removed = argument.partition("=")[2], slice(i, i + 1)
        else:
            continue
        break
    if url is None or mask_url(url) == url:
        return
    del arguments[removed]
    command = [sys.executable, "-m", "optuna_demix", *arguments]
    os.execve(sys.executable, command, {**os.environ, STORAGE_ENV: url})


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


if __name__ == "__main__":
    sys.exit(main())
