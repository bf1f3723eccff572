"""How good a mixture a search finds with its trials, beside its rivals.

On each surface every method has the same number of objective calls, with the same noise for the
same seed and trial, and recommends a mixture at 28, 56, 112 and 224 calls. Reported is the true,
noise-free regret of the recommended mixture: 0 is the optimum, 1 the prior (see ``_surfaces.py``).
All are told the same scores of several benchmarks. Optuna's samplers can only use their composite,
the mean of the benchmarks after each is divided by its spread over random mixtures; the
data-mixing methods, and ours, may fit each benchmark. A method with several ways to recommend
counts with the one that is better on that surface at that budget (see ``_peers.py``).

A run takes hours on one core. With ``--cache`` each finished search is written down at once, so
that a run can be stopped and resumed; searches of code that has changed are repeated.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import importlib.util
import json
import multiprocessing
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, print_table, provenance, write
from _peers import METHODS, VERSIONS, Run
from _surfaces import ANALYTIC, Surface, quickstart, regmix_law

import optuna_demix

OURS, DEMIX = "ours", "demix_published"
BUDGETS, SEEDS = (28, 56, 112, 224), 10
QUICK_BUDGETS, QUICK_SEEDS = (28, 56), 1
SURFACES = ("regmix_law", "quickstart", *ANALYTIC)
_PACKAGE = Path(optuna_demix.__file__).parent
_OURS_SOURCES = ("search/**/*.py", "mixture/**/*.py", "surrogate/*.py")


@dataclass(frozen=True)
class Cell:
    """One search: a method on a surface with a seed."""

    surface: str
    method: str
    seed: int


@dataclass(frozen=True)
class Sources:
    """Where real data lie: the RegMix files, and a finished quickstart."""

    data: Path | None
    quickstart: Path


def surface_of(name: str, seed: int, sources: Sources) -> Surface:
    """A surface by name; those that are drawn at random are another one for each seed."""
    return _drawn(name, seed) if name in ANALYTIC else _real(name, sources)


@functools.lru_cache(maxsize=4)
def _drawn(name: str, seed: int) -> Surface:
    return ANALYTIC[name](seed)


@functools.lru_cache(maxsize=2)
def _real(name: str, sources: Sources) -> Surface:
    if name == "quickstart":
        return quickstart(sources.quickstart)
    if sources.data is None:
        raise ValueError(f"{name} needs the RegMix files")
    return regmix_law(sources.data)


@functools.lru_cache(maxsize=1)
def _ours_version() -> str:
    """Digest of the sources that decide what we propose; comments and layout do not count."""
    files = sorted(path for part in _OURS_SOURCES for path in _PACKAGE.glob(part))
    trees = [ast.dump(ast.parse(path.read_text(encoding="utf-8"))) for path in files]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()[:12]


def version_of(method: str) -> str:
    """What must be the same for a cached search to be used."""
    return VERSIONS[method] + ("+" + _ours_version() if method == OURS else "")


def search(cell: Cell, budgets: Sequence[int], sources: Sources) -> dict[str, Any]:
    """Run one search and judge what it recommends.

    Returns:
        Its record: for each budget the regret of each way to recommend, and that of the best
        mixture it had tried by then.
    """
    surface = surface_of(cell.surface, cell.seed, sources)
    run = Run(surface, cell.seed)
    start = time.perf_counter()
    picked = METHODS[cell.method](run, budgets)
    seconds = time.perf_counter() - start
    regrets = {
        str(n): {how: float(surface.regret(w)[0]) for how, w in ways.items()}
        for n, ways in picked.items()
    }
    tried = surface.regret(np.stack(run.tried))
    best_tried = {str(n): float(tried[:n].min()) for n in budgets}
    return {
        **vars(cell),
        "version": version_of(cell.method),
        "surface_version": surface.version,
        "regrets": regrets,
        "best_tried": best_tried,
        "seconds": round(seconds, 2),
    }


def _prepare_worker() -> None:
    """One thread a process, and no word of what is not a result."""
    import optuna
    import torch
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore")


def read_cache(path: Path | None) -> dict[Cell, dict[str, Any]]:
    """Records of finished searches; of two of the same cell the later one."""
    if path is None or not path.exists():
        return {}
    records = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line cut short by a kill
        records[Cell(record["surface"], record["method"], record["seed"])] = record
    return records


def is_current(record: dict[str, Any], budgets: Sequence[int], surface_version: str) -> bool:
    """Whether a record is what a search would find now."""
    return (
        record["version"] == version_of(record["method"])
        and record["surface_version"] == surface_version
        and {str(n) for n in budgets} <= record["regrets"].keys()
    )


def run_all(
    cells: Sequence[Cell], options: argparse.Namespace, budgets: Sequence[int]
) -> dict[Cell, dict[str, Any]]:
    """Records of all cells, from the cache or run in other processes."""
    from tqdm import tqdm

    cached = {} if options.cache is None else read_cache(options.cache)
    done = {
        cell: cached[cell]
        for cell in cells
        if cell in cached
        and cell.method not in options.redo
        and is_current(cached[cell], budgets, surface_version(cell, options.sources))
    }
    open_cells = [cell for cell in cells if cell not in done]
    for cell, record in tqdm(
        _searched(open_cells, budgets, options), total=len(open_cells), unit="search"
    ):
        done[cell] = record
        if options.cache is not None:
            with options.cache.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    return done


def surface_version(cell: Cell, sources: Sources) -> str:
    """Version of a cell's surface."""
    return surface_of(cell.surface, cell.seed, sources).version


def _searched(
    cells: Sequence[Cell], budgets: Sequence[int], options: argparse.Namespace
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    if options.jobs == 1:
        _prepare_worker()
        for cell in cells:
            yield cell, search(cell, budgets, options.sources)
        return
    context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
    with ProcessPoolExecutor(options.jobs, context, initializer=_prepare_worker) as pool:
        futures = {pool.submit(search, cell, budgets, options.sources): cell for cell in cells}
        for future in as_completed(futures):
            yield futures[future], future.result()


def summarize(
    records: dict[Cell, dict[str, Any]], budgets: Sequence[int]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Means over seeds.

    Returns:
        A row for each surface, budget and method; and by "surface, budget, method" which way to
        recommend counted, where there were several.
    """
    regrets: dict[tuple[str, int, str], dict[str, list[float]]] = {}
    for cell, record in records.items():
        for n in budgets:
            ways = regrets.setdefault((cell.surface, n, cell.method), {})
            for how, regret in record["regrets"][str(n)].items():
                ways.setdefault(how, []).append(regret)
    rows, counted = [], {}
    for (surface, n, method), ways in regrets.items():
        how, found = min(ways.items(), key=lambda item: float(np.mean(item[1])))
        error = np.std(found, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else 0.0
        rows.append(
            {
                "surface": surface,
                "budget": n,
                "method": method,
                "regret_mean": round(float(np.mean(found)), 5),
                "regret_se": round(float(error), 5),
                "seeds": len(found),
            }
        )
        if len(ways) > 1:
            counted[f"{surface}, {n}, {method}"] = how
    return rows, counted


def means_over_surfaces(rows: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Mean regret over surfaces by budget and method, best first."""
    regrets: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        methods = regrets.setdefault(row["budget"], {})
        methods.setdefault(row["method"], []).append(row["regret_mean"])
    means: dict[int, dict[str, float]] = {}
    for n, methods in sorted(regrets.items()):
        of = {method: round(float(np.mean(found)), 5) for method, found in methods.items()}
        means[n] = dict(sorted(of.items(), key=lambda item: item[1]))
    return means


def summary_of(means: dict[int, dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Ours, published DeMix and the best peer for each budget."""
    summary = {}
    for n, of in means.items():
        best = next((method for method in of if method != OURS), None)
        summary[str(n)] = {
            "ours": of.get(OURS),
            "demix_published": of.get(DEMIX),
            "best_peer": of.get(best) if best else None,
            "best_peer_name": best,
        }
    return summary


def check(rows: list[dict[str, Any]], summary: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What was aimed at, with the regret reached and the one allowed."""
    targets: list[dict[str, Any]] = []

    def add(text: str, budget: int, value: float | None, bound: float | None) -> None:
        if value is not None and bound is not None:
            met = bool(value <= bound)
            targets.append(
                {"target": text, "budget": budget, "value": value, "bound": bound, "met": met}
            )

    for n, of in summary.items():
        demix = of["demix_published"]
        half = None if demix is None else round(0.5 * demix, 5)
        add("mean at most half of published DeMix", int(n), of["ours"], half)
        peer = f"mean at most the best peer ({of['best_peer_name']})"
        add(peer, int(n), of["ours"], of["best_peer"])
    for row in rows:
        if row["method"] != OURS:
            continue
        peers = [
            peer
            for peer in rows
            if peer["method"] != OURS
            and (peer["surface"], peer["budget"]) == (row["surface"], row["budget"])
        ]
        if peers:
            best = min(peers, key=lambda peer: float(peer["regret_mean"]))
            text = f"{row['surface']}: at most the best peer ({best['method']}) + its error"
            bound = round(best["regret_mean"] + best["regret_se"], 5)
            add(text, row["budget"], row["regret_mean"], bound)
    return targets


def show(
    rows: list[dict[str, Any]],
    means: dict[int, dict[str, float]],
    targets: list[dict[str, Any]],
) -> None:
    """Print a table for each budget, methods by their mean, and the verdicts."""
    surfaces = list(dict.fromkeys(row["surface"] for row in rows))
    for n, of in means.items():
        print(f"\n{n} objective calls: regret of the recommended mixture ± standard error")
        lines = []
        for method, mean in of.items():
            line = {"method": method, "mean": f"{mean:.3f}"}
            for row in rows:
                if (row["budget"], row["method"]) == (n, method):
                    line[row["surface"]] = f"{row['regret_mean']:.3f} ±{row['regret_se']:.3f}"
            lines.append(line)
        print_table(lines, dict.fromkeys(["method", "mean", *surfaces], ""))
    print()
    for target in targets:
        verdict = "met   " if target["met"] else "MISSED"
        figures = f"{target['value']:.4f}, allowed {target['bound']:.4f}"
        print(f"{verdict} {target['budget']:3d} calls: {target['target']}: {figures}")


def _list_of(allowed: Sequence[str]) -> Any:
    """Argument type: names separated by commas."""

    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in names if name not in allowed]
        if unknown or not names:
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(unknown) or 'nothing given'}; known: {', '.join(allowed)}"
            )
        return names

    return parse


def _arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    arguments = parser(__doc__.splitlines()[0])
    methods, surfaces = list(METHODS), list(SURFACES)
    arguments.add_argument("--data", type=Path, metavar="DIR", help="folder of the RegMix files")
    arguments.add_argument(
        "--quickstart",
        type=Path,
        metavar="RUN_DIR",
        default=Path("runs/quickstart"),
        help="folder of a finished quickstart (default: runs/quickstart)",
    )
    arguments.add_argument("--surfaces", type=_list_of(surfaces), help=", ".join(surfaces))
    arguments.add_argument(
        "--methods", type=_list_of(methods), default=methods, help=", ".join(methods)
    )
    arguments.add_argument("--seeds", type=int, help=f"number of seeds (default: {SEEDS})")
    arguments.add_argument(
        "--budgets",
        type=lambda text: tuple(sorted(int(n) for n in text.split(","))),
        help="objective calls, separated by commas (default: 28,56,112,224)",
    )
    arguments.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    arguments.add_argument(
        "--cache", type=Path, metavar="FILE.jsonl", help="keep finished searches here"
    )
    arguments.add_argument(
        "--redo", type=_list_of(methods), default=[], help="methods whose cache is not used"
    )
    options = arguments.parse_args()
    if options.surfaces is None:
        options.surfaces = list(ANALYTIC) if options.quick else surfaces
    if "regmix_law" in options.surfaces and options.data is None:
        arguments.error("regmix_law needs --data DIR, the folder of the RegMix files")
    if "quickstart" in options.surfaces:
        if not (options.quickstart / "summary.json").exists():
            arguments.error(f"no finished quickstart in {options.quickstart}: make quickstart")
    options.sources = Sources(options.data, options.quickstart)
    if "cma_es" in options.methods and importlib.util.find_spec("cmaes") is None:
        arguments.error("cma_es needs the package cmaes: pip install cmaes, or leave it out")
    return arguments, options


def main() -> None:
    """Run the benchmark from the command line."""
    arguments, options = _arguments()
    budgets = options.budgets or (QUICK_BUDGETS if options.quick else BUDGETS)
    count = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    seeds = list(range(options.seed, options.seed + count))
    cells = [
        Cell(surface, method, seed)
        for seed in seeds
        for surface in options.surfaces
        for method in options.methods
    ]
    try:
        records = run_all(cells, options, budgets)
    except OSError as error:
        arguments.error(str(error))
    records = {cell: records[cell] for cell in cells}
    rows, counted = summarize(records, budgets)
    means = means_over_surfaces(rows)
    summary = summary_of(means)
    targets = check(rows, summary)
    show(rows, means, targets)
    result = {**provenance(), "quick": options.quick, "seeds": seeds}
    result["seconds"] = {
        method: round(sum(r["seconds"] for c, r in records.items() if c.method == method))
        for method in options.methods
    }
    tables = {"rows": rows, "summary": summary, "means": means, "recommended": counted}
    write(options.out, {**result, **tables, "targets": targets})


if __name__ == "__main__":
    main()
