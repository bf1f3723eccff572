"""How long a merge takes, from component weights to a model ready to score, beside other ways.

Seven components of a Llama. Ours is `LiveModel.merge` on a built arena, with compiled and with
eager kernels. Beside it, in processes of their own, all files in the page cache:

- state-dict loop: state dicts in memory, tensor by tensor in Python, ``load_state_dict``;
- mergekit command: ``mergekit-yaml`` to disk and ``from_pretrained``, as published scripts do;
- mergekit to disk: the same without the cost of starting a process;
- mergekit-evolve in memory: plan, execute, copy into a live model. Its class cannot be imported
  beside current lm-eval, and its planner fails under current pydantic: patched for both;
- mergekit merge_state_dicts: mergekit's call for state dicts in memory, ``load_state_dict``.

bandwidth_share is the traffic a merge cannot avoid, K models read and one written, over its time
and over the read bandwidth of this machine, which is a plain sum of floats (anonymous memory or
the mapped arena, whichever is faster), timed in turns with the merges. A processor that reads a
line of memory before it writes it moves one model more than is counted.

Also measured: memory of several workers on one arena (proportional set size, which counts shared
pages once), and the distance of merged parameters from the float64 sum.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import parser, print_table, provenance, write
from _random_components import random_components

from optuna_demix.merging import Arena, ComponentSet

K = 7
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden": 64, "inner": 64, "layers": 1, "vocabulary": 64},
    "10M": {"hidden": 288, "inner": 768, "layers": 8, "vocabulary": 8192},
    "100M": {"hidden": 768, "inner": 2048, "layers": 11, "vocabulary": 32000},
    "300M": {"hidden": 1024, "inner": 2816, "layers": 21, "vocabulary": 32000},
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# How many merges of each way are counted; in a quick run one.
PEERS = {
    "state-dict loop": 3,
    "mergekit command": 2,
    "mergekit to disk": 2,
    "mergekit-evolve in memory": 3,
    "mergekit merge_state_dicts": 3,
}
REPEATS = 15
N_WORKERS = 4
_HERE = Path(__file__).resolve().parent
_COLUMNS = {
    "size": "",
    "params": ",d",
    "dtype": "",
    "way": "",
    "seconds": ".4f",
    "bandwidth_share": ".3f",
    "note": "",
}


def make_components(folder: Path, size: str, dtype: torch.dtype) -> list[Path]:
    """Save K Llamas of random numbers."""
    from transformers import LlamaConfig

    shape = SIZES[size]
    config = LlamaConfig(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["inner"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=8,
        tie_word_embeddings=True,
        dtype=dtype,
        architectures=["LlamaForCausalLM"],
    )
    return random_components(folder, config, dtype, [f"component{k}" for k in range(K)])


def call(python: str, script: str, role: str, *extra: str, threads: int) -> dict[str, Any]:
    """Run a script of this folder in a process of its own; return what it prints."""
    command = [python, str(_HERE / script), role, *extra, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(threads))
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"{role}: {lines[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _environment(threads: int) -> dict[str, str]:
    path = os.pathsep.join([str(_HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}


def measure(
    size: str, dtype: str, mixtures: list[list[float]], python: str | None, options: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of all ways at one size and type, and what else our process found."""
    if options.work:
        Path(options.work).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=options.work, prefix="merge-"))
    try:
        paths = make_components(folder, size, DTYPES[dtype])
        given = ["--components", *map(str, paths), "--mixtures"]
        peers: dict[str, Any] = {}
        for way, repeats in PEERS.items():
            counted = 1 if options.quick else repeats
            chosen = json.dumps([*mixtures[:counted], mixtures[-1]])
            interpreter = python if "mergekit" in way else sys.executable
            if interpreter is None:
                peers[way] = {"note": "skipped: no mergekit"}
                continue
            peers[way] = call(
                interpreter, "_merge_peers.py", way, *given, chosen, threads=options.threads
            )
        arena = ["--arena", str(folder / "components.arena")]
        ours = call(
            sys.executable,
            "_merge_ours.py",
            "time",
            *given,
            json.dumps(mixtures),
            *arena,
            threads=options.threads,
        )
        if (size, dtype) == options.memory_of:
            ours["memory"] = memory(folder, folder / "components.arena", mixtures[0])
    finally:
        shutil.rmtree(folder)
    return _rows(size, dtype, ours, peers), ours


def _rows(
    size: str, dtype: str, ours: dict[str, Any], peers: dict[str, Any]
) -> list[dict[str, Any]]:
    timings = ours["timings"]
    rate = 1.0 / min(np.median(timings["read"]), np.median(timings["read_mapped"]))  # bytes/s
    ways = {
        "ours": {"seconds": timings["ours"], "probe": ours["probe"]},
        "ours, eager": {"seconds": timings["eager"], "probe": ours["probe"]},
        **peers,
    }
    rows = []
    for way, result in ways.items():
        row = {"size": size, "params": ours["parameters"], "dtype": dtype, "way": way}
        if "seconds" in result:
            seconds = float(np.median(result["seconds"]))
            row["seconds"] = seconds
            row["bandwidth_share"] = ours["bytes_moved"] / seconds / rate
            row["n"] = len(result["seconds"])
            apart = np.abs(np.subtract(result["probe"], ours["probe"])).max()
            row["same_result"] = bool(apart <= 0.02 * np.abs(ours["probe"]).max())
        if "note" in result:
            row["note"] = result["note"]
        rows.append(row)
    return rows


def memory(folder: Path, arena: Path, w: list[float]) -> dict[str, Any]:
    """Proportional set sizes of workers that have merged, less what such processes always cost.

    That is measured with as many workers on an arena of almost nothing.
    """
    nothing = folder / "nothing"
    nothing.mkdir()
    tiny = {path.name: path for path in make_components(nothing, "tiny", torch.bfloat16)}
    Arena.build(ComponentSet.open(tiny), nothing / "components.arena")
    empty = _proportional(nothing / "components.arena", w)
    found = _proportional(arena, w)
    expected = found["arena_bytes"] + N_WORKERS * found["model_bytes"]
    used = found["bytes"] - empty["bytes"]
    return {
        "workers": N_WORKERS,
        "arena_bytes": found["arena_bytes"],
        "model_bytes": found["model_bytes"],
        "process_bytes": empty["bytes"] // N_WORKERS,
        "bytes": used,
        "one_arena_and_n_models": expected,
        "ratio": used / expected,
    }


def _proportional(arena: Path, w: list[float]) -> dict[str, int]:
    """Start workers that merge once; return the sum of their sizes once all have."""
    command = [sys.executable, str(_HERE / "_merge_ours.py"), "wait", "--arena", str(arena)]
    processes = [
        subprocess.Popen(
            [*command, "--mixtures", json.dumps([w]), "--threads", "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(1),
        )
        for _ in range(N_WORKERS)
    ]
    try:
        sizes: dict[str, int] = {}
        for process in processes:
            assert process.stdout is not None
            sizes = json.loads(process.stdout.readline())
        return {**sizes, "bytes": sum(_pss(process.pid) for process in processes)}
    finally:
        for process in processes:
            process.communicate()


def _pss(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:") * 1024


def check(
    rows: list[dict[str, Any]], found: list[dict[str, Any]], ratios: dict[str, float]
) -> list[dict[str, Any]]:
    """What was aimed at, with the figure reached and the one required."""
    targets = []

    def add(text: str, value: float, bound: float, *, most: bool = False) -> None:
        met = value <= bound if most else value >= bound
        targets.append({"target": text, "value": value, "bound": bound, "met": bool(met)})

    for row in rows:
        if row["way"] == "ours" and row["size"] != "10M":
            label = f"share of the bandwidth, {row['size']} {row['dtype']}"
            add(label, row["bandwidth_share"], 0.90)
    for name, bound in (("vs_mergekit_disk", 20.0), ("vs_mergekit_memory", 5.0)):
        if name in ratios:
            add(f"{name}, {ratios_at(rows)}", ratios[name], bound)
    for ours in found:
        if "memory" in ours:
            ratio = ours["memory"]["ratio"]
            add("memory over one arena and N models", ratio, 1.05, most=True)
    return targets


def ratios_at(rows: list[dict[str, Any]]) -> str:
    """Size and type at which ratios are taken: the largest in bf16."""
    return f"{rows[-1]['size']} bf16"


def ratios_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How many times longer other ways take."""
    seconds = {
        row["way"]: row["seconds"]
        for row in rows
        if f"{row['size']} {row['dtype']}" == ratios_at(rows) and "seconds" in row
    }
    names = {
        "vs_mergekit_disk": "mergekit command",
        "vs_mergekit_to_disk_in_process": "mergekit to disk",
        "vs_mergekit_memory": "mergekit-evolve in memory",
        "vs_mergekit_state_dicts": "mergekit merge_state_dicts",
        "vs_state_dict": "state-dict loop",
    }
    return {name: seconds[way] / seconds["ours"] for name, way in names.items() if way in seconds}


def _mergekit_python(given: str | None) -> str | None:
    """The interpreter that can import mergekit, if there is one."""
    chosen = given or sys.executable
    try:
        done = subprocess.run([chosen, "-c", "import mergekit"], capture_output=True)
    except OSError:
        return None
    return chosen if done.returncode == 0 else None


def main() -> None:
    """Run the benchmark from the command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument(
        "--mergekit-python", metavar="PATH", help="interpreter that has mergekit; default: this"
    )
    arguments.add_argument(
        "--work", type=Path, metavar="DIR", help="where to put up to 20 GB of models"
    )
    arguments.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="of every way (default: cores)"
    )
    options = arguments.parse_args()
    python = _mergekit_python(options.mergekit_python)
    if options.mergekit_python and python is None:
        arguments.error(f"--mergekit-python {options.mergekit_python}: cannot import mergekit")
    sizes = ["10M"] if options.quick else ["10M", "100M", "300M"]
    options.memory_of = ("10M" if options.quick else "100M", "bf16")
    rng = np.random.default_rng(options.seed)
    mixtures = rng.dirichlet(np.ones(K), 5 if options.quick else REPEATS).tolist()
    rows: list[dict[str, Any]] = []
    found = []
    for size in sizes:
        for dtype in DTYPES:
            made, ours = measure(size, dtype, mixtures, python, options)
            rows += made
            found.append({"size": size, "dtype": dtype, **_summary(ours)})
            print_table(made, _COLUMNS)
    ratios = ratios_of(rows)
    targets = check(rows, found, ratios)
    for name, value in ratios.items():
        print(f"{name}, {ratios_at(rows)}: {value:.1f}")
    for target in targets:
        verdict = "met   " if target["met"] else "MISSED"
        print(f"{verdict} {target['target']}: {target['value']:.3f}, required {target['bound']}")
    result = {**provenance(), "quick": options.quick, "threads": options.threads}
    extra = {"rows": rows, "ratios": ratios, "ours": found, "targets": targets}
    write(options.out, {**result, **extra})


def _summary(ours: dict[str, Any]) -> dict[str, Any]:
    """What is kept of our process beside its rows."""
    kept = {name: ours[name] for name in ours if name not in ("timings", "probe")}
    for name in ("read", "read_mapped"):
        kept[f"{name}_gb_per_s"] = 1e-9 / float(np.median(ours["timings"][name]))
    return kept


if __name__ == "__main__":
    main()
