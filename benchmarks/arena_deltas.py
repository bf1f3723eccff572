"""What differences in eight bits save, and what they change.

1. Random Llamas whose components are their base plus 2 % noise: bytes of the arena, seconds of a
   merge (median of rounds in turns, after one that does not count) and the error of weights, with
   components as they are, as differences in int8 and in float8.
2. The quickstart's components and their base: the same errors, and the largest absolute change of
   its scores over random mixtures, the mean and the vertices.

Errors of weights are norms relative to that of the components' merged difference from the base,
where the merge of components as they are counts as exact.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import parser, print_table, provenance, quiet, write
from _quickstart import COMPONENTS, MAX_LENGTH, benchmarks, run_directory
from transformers import LlamaConfig, LlamaForCausalLM

from optuna_demix.merging import Arena, ComponentSet, LiveModel, find_method
from optuna_demix.scoring import HarnessScorer

WAYS = (None, "int8", "float8")
DTYPES = ("float32", "bfloat16")
K = 7
NOISE = 0.02  # of the standard deviation of each tensor
SIZES = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4}
_COLUMNS = {
    "models": "",
    "dtype": "",
    "deltas": "",
    "megabytes": ".1f",
    "seconds": ".4f",
    "weight_error": ".5f",
    "bits_per_byte": ".6f",
    "accuracy": ".4f",
}


def main() -> None:
    """Run both parts and print one table."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    options = arguments.parse_args()
    run = run_directory(arguments, options.run)
    quiet()
    rounds, mixtures = (2, 1) if options.quick else (5, 4)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in DTYPES:
            size = dict.fromkeys(SIZES, 64) | {"num_hidden_layers": 2} if options.quick else SIZES
            paths, base = random_models(Path(scratch, dtype), size, getattr(torch, dtype))
            w = np.random.default_rng(options.seed).dirichlet(np.ones(K), size=rounds + 1)
            rows += compare("random", paths, base, Path(scratch), dtype, w, rounds=rounds)
        paths = {name: run / "models" / name for name in COMPONENTS}
        w = np.random.default_rng(options.seed).dirichlet(np.ones(len(paths)), size=mixtures)
        if not options.quick:
            w = np.vstack([w, np.full(len(paths), 1 / len(paths)), np.eye(len(paths))])
        base, tasks = run / "models" / "base", run / "tasks"
        rows += compare("quickstart", paths, base, Path(scratch), DTYPES[0], w, tasks=tasks)
    print_table(rows, _COLUMNS)
    write(options.out, {**provenance(), "seed": options.seed, "rows": rows})


def random_models(
    folder: Path, size: dict[str, int], dtype: torch.dtype
) -> tuple[dict[str, Path], Path]:
    """Save a base and K models near it."""
    torch.manual_seed(0)
    fields: dict[str, Any] = {"vocab_size": 16_000, "num_attention_heads": 8, **size}
    model: Any = LlamaForCausalLM(LlamaConfig(**fields))
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.to(dtype).save_pretrained(folder / "base")
    for k in range(K):
        moved = {
            name: (tensor + NOISE * tensor.abs().mean() * torch.randn_like(tensor)).to(dtype)
            for name, tensor in base.items()
        }
        model.save_pretrained(folder / f"c{k}", state_dict=moved)
    return {f"c{k}": folder / f"c{k}" for k in range(K)}, folder / "base"


def compare(
    models: str,
    paths: dict[str, Path],
    base: Path,
    scratch: Path,
    dtype: str,
    mixtures: Any,
    *,
    rounds: int = 1,
    tasks: Path | None = None,
) -> list[dict[str, Any]]:
    """Merge the same mixtures in all ways; return a row for each."""
    components = ComponentSet.open(paths, base=base)
    methods = [find_method("linear", delta_dtype=way) for way in WAYS]  # type: ignore[arg-type]
    arenas = [
        Arena.build(components, scratch / f"{models}-{dtype}-{way}", method=method, dtype=dtype)
        for way, method in zip(WAYS, methods, strict=True)
    ]
    lives = [
        LiveModel(arena, method=method, self_test=False)
        for arena, method in zip(arenas, methods, strict=True)
    ]
    origin = of_base(base, lives[0])
    seconds: list[list[float]] = [[] for _ in WAYS]
    errors: list[list[float]] = [[] for _ in WAYS]
    scores: list[list[dict[str, float]]] = [[] for _ in WAYS]
    scorers = [scorer(live, tasks) for live in lives] if tasks is not None else []
    for w in mixtures:
        for i, live in enumerate(lives):
            start = time.perf_counter()
            live.merge(w)
            seconds[i].append(time.perf_counter() - start)
            errors[i].append(weight_error(live, lives[0], origin))
            if scorers:
                scores[i].append(scorers[i].score())
    rows = []
    for i, way in enumerate(WAYS):
        row = {
            "models": models,
            "dtype": dtype,
            "deltas": way or "none",
            "megabytes": arenas[i].nbytes / 1e6,
            "seconds": statistics.median(seconds[i][1:] or seconds[i]),
            "weight_error": statistics.mean(errors[i]),
        }
        for kind, names in (("bits_per_byte", "bpb"), ("accuracy", "choice")):
            changes = [
                abs(value - plain[name])
                for plain, found in zip(scores[0], scores[i], strict=True)
                for name, value in found.items()
                if name.endswith(names)
            ]
            if changes:
                row[kind] = max(changes)
        rows.append(row)
    return rows


def scorer(live: LiveModel, tasks: Path) -> HarnessScorer:
    """The quickstart's tasks on a live model."""
    return HarnessScorer(
        benchmarks(), live.model, live.tokenizer, include_path=tasks, max_length=MAX_LENGTH
    )


def of_base(base: Path, live: LiveModel) -> list[torch.Tensor]:
    """The base's parameters in the order of a live model's."""
    model = LlamaForCausalLM.from_pretrained(base, dtype=live.dtype)
    found = dict(model.named_parameters())
    return [found[name].data for name, _ in live.model.named_parameters()]


def weight_error(live: LiveModel, plain: LiveModel, origin: list[torch.Tensor]) -> float:
    """Norm of the change, relative to that of the merged difference from the base."""
    change = moved = 0.0
    for ours, exact, at in zip(
        live.model.parameters(), plain.model.parameters(), origin, strict=True
    ):
        change += float((ours.float() - exact.float()).square().sum(dtype=torch.float64))
        moved += float((exact.float() - at.float()).square().sum(dtype=torch.float64))
    return float(np.sqrt(change / moved))


if __name__ == "__main__":
    main()
