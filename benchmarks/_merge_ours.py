"""Our way from component weights to a model ready to score, timed in a process of its own.

Run by ``merge_throughput.py``; prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from optuna_demix.merging import Arena, ComponentSet, LiveModel

_LARGEST_BUFFER = 2 << 30  # bytes read to measure bandwidth
_CHECKED_BLOCKS = 16


def main() -> None:
    """Time merges, or merge once and wait while the memory is looked at."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("time", "wait"))
    parser.add_argument("--components", nargs="+", type=Path)
    parser.add_argument("--arena", type=Path, required=True)
    parser.add_argument("--mixtures", type=json.loads, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.role == "wait":
        wait(options.arena, options.mixtures[0])
        return
    print(json.dumps(measure(options.components, options.arena, options.mixtures)))


def measure(paths: list[Path], file: Path, mixtures: list[list[float]]) -> dict[str, Any]:
    """Build the arena and time merges, compiled and eager, and plain reads, in turns."""
    start = time.perf_counter()
    components = ComponentSet.open({path.name: path for path in paths})
    arena = Arena.build(components, file)
    built = time.perf_counter() - start
    start = time.perf_counter()
    compiled = LiveModel(arena, compiled=True)
    compiled.merge(mixtures[0])
    first = time.perf_counter() - start
    eager = LiveModel(arena, compiled=False)
    eager.merge(mixtures[0])
    buffer = torch.zeros(min(_LARGEST_BUFFER, arena.nbytes) // 4)
    mapped = arena.blocks.view(-1).view(torch.float32)
    timings: dict[str, list[float]] = {"ours": [], "eager": [], "read": [], "read_mapped": []}
    for w in mixtures:
        timings["read"].append(_seconds(lambda: buffer.sum()) / buffer.nbytes)
        timings["ours"].append(_seconds(lambda w=w: compiled.merge(w)))
        timings["eager"].append(_seconds(lambda w=w: eager.merge(w)))
        timings["read_mapped"].append(_seconds(lambda: mapped.sum()) / mapped.nbytes)
    same = all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(compiled.model.parameters(), eager.model.parameters(), strict=True)
    )
    return {
        "parameters": arena.n_parameters,
        "arena_bytes": arena.nbytes,
        "bytes_moved": arena.nbytes + arena.nbytes // len(arena.names),
        "build_seconds": built,
        "first_merge_seconds": first,
        "timings": timings,
        "compiled": all(shard.kernels.compiled for shard in compiled._shards),
        "eager_gives_the_same_bits": same,
        "probe": [float(x) for x in compiled.model.get_input_embeddings().weight[1, :8]],
        "accuracy": _accuracy(arena, compiled, mixtures[-1]),
    }


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _accuracy(arena: Arena, live: LiveModel, w: list[float]) -> dict[str, float]:
    """Compare the first blocks of the current proxy with the float64 sum.

    The distance is in units in the last place of the exact value, and of the largest of the
    values summed: where these cancel, the first is no measure of the sum's quality.
    """
    rows = arena.blocks[:_CHECKED_BLOCKS]
    exact = torch.zeros(rows.shape[0], rows.shape[2], dtype=torch.float64)
    for k, weight in enumerate(w):
        exact += weight * rows[:, k].double()
    merged = live._flats[0].view(arena.layout.n_blocks, -1)[: len(rows)].double()
    largest = rows.abs().amax(dim=1).double()
    eps = torch.finfo(arena.dtype).eps
    tiny = torch.finfo(arena.dtype).tiny

    def unit(x: torch.Tensor) -> torch.Tensor:
        return torch.exp2(torch.floor(torch.log2(x.abs().clamp_min(tiny)))) * eps

    apart = (merged - exact).abs()
    rounded = exact.to(arena.dtype).double()
    return {
        "elements": exact.numel(),
        "correctly_rounded": float((merged == rounded).double().mean()),
        "max_ulp_of_largest": float((apart / unit(largest)).max()),
        "share_within_1_ulp": float((apart <= unit(exact)).double().mean()),
        "max_ulp": float((apart / unit(exact)).max()),
    }


def wait(file: Path, w: list[float]) -> None:
    """Merge once, say so, and stay until stdin is closed."""
    live = LiveModel(Arena.open(file), compiled=True)
    live.merge(w)
    sizes = {
        "arena_bytes": live.arena.nbytes,
        "model_bytes": sum(shard.flat.nbytes for shard in live._shards),
    }
    print(json.dumps(sizes), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
