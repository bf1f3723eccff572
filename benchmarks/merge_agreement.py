"""Whether merged proxies are what mergekit makes of the same components, method by method.

Four small Llama models, made from one base by random steps, are merged by `LiveModel` and by
mergekit's own functions (``mergekit.merge_methods``, in memory). Beside mergekit as it runs by
itself, which computes in the type of the tensors except in `linear` and `karcher`, its float64
result stands as the truth. Reported over all elements are

- equal: share of elements that have the bits of the truth rounded to the storage type;
- ulp: largest distance from it, in units of the storage type's last place at the largest of the
  values that meet in an element (so that cancellation does not count as error);
- flips: share of elements further off than 16 such units, which is what a vote for a sign that
  rounding decides looks like.

Two things are made alike for the truth. Random methods cannot draw alike, numpy once, at arena
build, here, and torch at every merge there: mergekit is handed our masks, and the probabilities
it would have drawn with are compared with ours (chances: the largest difference). Among equal
magnitudes, common in bfloat16, mergekit keeps whichever its unstable sort puts first; its sorts
are made stable, which is our rule. The figures of mergekit by itself come without the second
change. It rescales DARE and DELLA in float32 even where all else is float64, so their truth is
true to a few float32 units. Its `karcher` knows no weights; the function it calls does, and is
what is compared.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from _common import parser, print_table, provenance, write

from optuna_demix.merging import Arena, ComponentSet, LiveModel, MergeMethod, find_method

CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("linear", {}),
    ("task_arithmetic", {}),
    ("task_arithmetic", {"lambda": 0.7}),
    ("ties", {"density": 0.5}),
    ("ties", {"density": 0.2, "lambda": 1.3, "rescale": True}),
    ("dare_linear", {"density": 0.5}),
    ("dare_ties", {"density": 0.5}),
    ("breadcrumbs", {"density": 0.7, "gamma": 0.01}),
    ("della", {"density": 0.5, "epsilon": 0.15}),
    ("multislerp", {}),
    ("multislerp", {"use_base": True}),
    ("karcher", {}),
)
N_MIXTURES = 3
NAMES = ("web", "code", "math", "law")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_INTEGER = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
_FLIP = 16.0  # units in the last place: more is no rounding
_COLUMNS = {
    "method": "",
    "parameters": "",
    "dtype": "",
    "equal": ".5f",
    "ulp": ".2f",
    "flips": ".1e",
    "mergekit_equal": ".5f",
    "mergekit_ulp": ".2f",
    "mergekit_flips": ".1e",
    "chances": ".0e",
}
State = dict[str, torch.Tensor]


def make_models(folder: Path, *, hidden: int, layers: int, dtype: torch.dtype) -> None:
    """Save a base and components, each the base after a random step."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8 * hidden,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    base = LlamaForCausalLM(config)
    for parameter in base.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.01)
    start = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    base.to(dtype).save_pretrained(folder / "base")
    for name in NAMES:
        model = LlamaForCausalLM(config)
        model.load_state_dict(start)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.005)
        model.to(dtype).save_pretrained(folder / name)


def merge_ours(folder: Path, method: MergeMethod, w: list[float]) -> State:
    """Our proxy, through an arena."""
    paths = {name: folder / name for name in NAMES}
    components = ComponentSet.open(paths, base=folder / "base")
    arena = Arena.build(components, folder / "components.arena", method=method)
    live = LiveModel(arena, method=method)
    live.merge(w)
    return {slot.name: live.model.state_dict()[slot.name].clone() for slot in arena.layout.slots}


class Mergekit:
    """mergekit on the same files."""

    def __init__(self, folder: Path) -> None:
        """Load the models."""
        from safetensors.torch import load_file

        files = {name: folder / name / "model.safetensors" for name in ("base", *NAMES)}
        self.states = {name: load_file(file) for name, file in files.items()}
        self.largest_difference_of_chances = 0.0

    def merge(self, method: MergeMethod, w: list[float], *, dtype: torch.dtype | None) -> State:
        """Return its proxy, computed in ``dtype`` or, with None, as it does by itself."""
        return {name: self._merge(name, method, w, dtype) for name in self.states["base"]}

    def _merge(
        self, name: str, method: MergeMethod, w: list[float], dtype: torch.dtype | None
    ) -> torch.Tensor:
        from mergekit.merge_methods.api import merge_tensors
        from mergekit.merge_methods.karcher import karcher_merge_tensors

        tensors = [self.states[component][name] for component in NAMES]
        if method.name == "karcher":
            promoted = [tensor.to(dtype or tensor.dtype) for tensor in tensors]
            return karcher_merge_tensors(promoted, w, **method.parameters)
        given = dict(method.parameters)
        uses_base = given.pop("use_base", "lambda" in given)
        seed = given.pop("seed", None)
        if uses_base:
            tensors = [*tensors, self.states["base"][name]]
        with self._masks(name, method) if seed is not None else _nothing():
            return merge_tensors(
                tensors,
                method.name,
                parameters={"weight": dict(enumerate(w)), **given},
                ids=list(range(len(tensors))),
                base_index=len(NAMES) if uses_base else None,
                dtype=dtype,
            )

    @contextmanager
    def _masks(self, name: str, method: MergeMethod) -> Iterator[None]:
        """Let ``torch.bernoulli`` return our masks of a tensor, one component after another."""
        rule = method.preparation.sparsity
        assert rule is not None
        base = self.states["base"][name].float()
        deltas = iter([self.states[component][name].float() - base for component in NAMES])
        components = iter(NAMES)

        def ours(chances: torch.Tensor) -> torch.Tensor:
            delta = next(deltas)
            apart = float((chances.reshape(delta.shape).float() - rule.chances(delta)).abs().max())
            self.largest_difference_of_chances = max(self.largest_difference_of_chances, apart)
            mask = rule.kept(delta, component=next(components), tensor=name)
            return mask.reshape(chances.shape).to(chances.dtype)

        with mock.patch.object(torch, "bernoulli", ours):
            yield


@contextmanager
def _stable_sorts() -> Iterator[None]:
    """Let equal elements keep their order in ``torch.sort`` and ``torch.argsort``."""
    with (
        mock.patch.object(torch, "sort", functools.partial(torch.sort, stable=True)),
        mock.patch.object(torch, "argsort", functools.partial(torch.argsort, stable=True)),
    ):
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def compare(merged: State, truth: State, sizes: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Compare a proxy with the float64 one; ``sizes`` are the largest values merged."""
    equal, apart = [], []
    for name, tensor in merged.items():
        bits = _INTEGER[tensor.dtype]
        rounded = truth[name].to(tensor.dtype)
        equal.append((tensor.contiguous().view(bits) == rounded.contiguous().view(bits)).ravel())
        size = torch.maximum(sizes[name].double(), truth[name].double().abs())
        size = size.clamp_min(torch.finfo(tensor.dtype).tiny)
        unit = torch.exp2(torch.floor(torch.log2(size))) * torch.finfo(tensor.dtype).eps
        apart.append(((tensor.double() - truth[name].double()).abs() / unit).ravel())
    distance = torch.cat(apart)
    return {
        "equal": float(torch.cat(equal).double().mean()),
        "ulp": float(distance.max()),
        "flips": float((distance > _FLIP).double().mean()),
    }


def run(*, hidden: int, layers: int, seed: int = 0) -> list[dict[str, Any]]:
    """One row for each method and dtype."""
    rows = []
    mixtures = np.random.default_rng(seed).dirichlet(np.ones(len(NAMES)), N_MIXTURES)
    for label, dtype in DTYPES.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_models(folder, hidden=hidden, layers=layers, dtype=dtype)
            for method, given in CASES:
                row = {"method": method, "parameters": _text(given), "dtype": label}
                rows.append({**row, **agreement(folder, find_method(method, given), mixtures)})
    return rows


def agreement(folder: Path, method: MergeMethod, mixtures: np.ndarray) -> dict[str, float]:
    """Figures of one method, the worst over the mixtures (for equal: the mean)."""
    peer = Mergekit(folder)
    sizes = {
        name: torch.stack([state[name].abs().float() for state in peer.states.values()]).amax(0)
        for name in peer.states["base"]
    }
    figures, chances = [], 0.0
    for w in mixtures.tolist():
        peer.largest_difference_of_chances = 0.0
        with _stable_sorts():
            truth = peer.merge(method, w, dtype=torch.float64)
        chances = max(chances, peer.largest_difference_of_chances)
        ours = compare(merge_ours(folder, method, w), truth, sizes)
        theirs = compare(peer.merge(method, w, dtype=None), truth, sizes)
        figures.append({**ours, **{f"mergekit_{key}": value for key, value in theirs.items()}})
    result = {}
    for key in figures[0]:
        summary = np.mean if key.endswith("equal") else np.max
        result[key] = float(summary([figure[key] for figure in figures]))
    if "seed" in method.parameters:
        result["chances"] = chances
    return result


def _text(given: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in given.items())


def main() -> None:
    """Run the benchmark from the command line."""
    arguments = parser(__doc__.splitlines()[0])
    options = arguments.parse_args()
    try:
        import mergekit  # noqa: F401
    except ImportError:
        arguments.error("mergekit is not installed here: pip install 'optuna-demix[mergekit]'")
    from transformers.utils import logging

    logging.disable_progress_bar()
    rows = run(
        hidden=32 if options.quick else 128, layers=2 if options.quick else 4, seed=options.seed
    )
    print_table(rows, _COLUMNS)
    write(options.out, {**provenance(), "quick": options.quick, "rows": rows})


if __name__ == "__main__":
    main()
