"""Merge methods on whole models: their algebra, their arenas, what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from optuna_demix.errors import ComponentError
from optuna_demix.merging import (
    METHODS,
    Arena,
    ComponentSet,
    LiveModel,
    MergeMethod,
    find_method,
)
from optuna_demix.merging.arena.layout import plan_layout
from optuna_demix.merging.live.blocks import merge_blocks, segments
from optuna_demix.merging.live.kernels import Kernels
from optuna_demix.merging.methods.parameters import PARAMETERS

Paths = dict[str, Path]
CASES: dict[str, dict[str, Any]] = {
    "linear": {},
    "task_arithmetic": {"lambda": 0.8},
    "ties": {"density": 0.6},
    "dare_linear": {"density": 0.6},
    "dare_ties": {"density": 0.6},
    "breadcrumbs": {"density": 0.7, "gamma": 0.05},
    "della": {"density": 0.6, "epsilon": 0.1},
    "multislerp": {},
    "karcher": {},
}
W = [0.2, 0.3, 0.5]
NORM = "model.norm.weight"


def _arena(
    paths: Paths, base: Path, folder: Path, method: str, *, block_size: int = 256, **given: Any
) -> tuple[Arena, MergeMethod]:
    chosen = find_method(method, given or CASES[method])
    components = ComponentSet.open(paths, base=base)
    file = folder / f"{method}-{len([*folder.iterdir()])}.arena"
    return Arena.build(components, file, method=chosen, block_size=block_size), chosen


def _live(
    paths: Paths, base: Path, folder: Path, method: str, *, block_size: int = 256, **given: Any
) -> LiveModel:
    arena, chosen = _arena(paths, base, folder, method, block_size=block_size, **given)
    return LiveModel(arena, method=chosen)


def _merged(
    arena: Arena, method: MergeMethod, w: list[float], *, step: int | None = None
) -> dict[str, torch.Tensor]:
    """Merge without a model, so many blocks at once; returns its tensors."""
    layout = arena.layout
    plan = method.plan(np.array(w), arena.facts, [slot.name for slot in layout.slots])
    out = torch.zeros(layout.n_blocks, layout.block_size)
    for start in range(0, layout.n_blocks, step or layout.n_blocks):
        blocks = slice(start, min(start + (step or layout.n_blocks), layout.n_blocks))
        merge_blocks(
            plan,
            arena.blocks[blocks],
            out[blocks],
            layout=layout,
            blocks=blocks,
            kernels=Kernels(compiled=False),
        )
    flat = out.view(-1)
    return {
        slot.name: flat[slot.offset : slot.offset + slot.n_elements].view(slot.shape)
        for slot in layout.slots
    }


def _state(live: LiveModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in live.model.state_dict().items()}


@pytest.fixture(scope="session")
def trained(
    saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Paths, Path]:
    """Three components a small step away from their base."""
    root = tmp_path_factory.mktemp("trained")
    base = saved(root / "base", seed=0)
    start = load_file(base / "model.safetensors")
    paths = {}
    for seed, name in enumerate(("web", "code", "math"), start=1):
        paths[name] = saved(root / name, seed=0)
        generator = torch.Generator().manual_seed(seed)
        moved = {
            key: tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
            for key, tensor in start.items()
        }
        save_file(moved, paths[name] / "model.safetensors", metadata={"format": "pt"})
    return paths, base


@pytest.fixture(scope="session")
def live_of(
    trained: tuple[Paths, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], LiveModel]:
    """Return the live model of a method; made once a session."""
    made: dict[str, LiveModel] = {}

    def make(method: str) -> LiveModel:
        if method not in made:
            made[method] = _live(*trained, tmp_path_factory.mktemp("live"), method)
        return made[method]

    return make


@given(
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=8),
    block_size=st.sampled_from([64, 128, 512]),
    data=st.data(),
)
def test_segments_cover_each_tensor_once(
    sizes: list[int], block_size: int, data: st.DataObject
) -> None:
    shapes = {f"t{number}": (size,) for number, size in enumerate(sizes)}
    layout = plan_layout(shapes, n_rows=2, block_size=block_size)
    start = data.draw(st.integers(0, layout.n_blocks - 1))
    stop = data.draw(st.integers(start + 1, layout.n_blocks))
    owner = np.full((layout.n_blocks, block_size), -1)
    found = [*segments(layout, slice(start, stop))]
    for segment in found:
        part = owner[segment.blocks, segment.columns]
        assert part.size and (part == -1).all()
        owner[segment.blocks, segment.columns] = segment.tensor
    for number, slot in enumerate(layout.slots):
        flat = owner.reshape(-1)[slot.offset : slot.offset + slot.n_elements]
        inside = np.arange(slot.offset, slot.offset + slot.n_elements) // block_size
        assert ((flat == number) == ((inside >= start) & (inside < stop))).all()
        assert sum(segment.tensor == number for segment in found) <= 3


def test_names_and_parameters_are_listed_alike() -> None:
    assert [*METHODS] == [*PARAMETERS] == [*CASES]


@pytest.mark.parametrize("method", CASES)
class TestEveryMethod:
    def test_components_that_are_the_base_stay_the_base(
        self, trained: tuple[Paths, Path], tmp_path: Path, method: str
    ) -> None:
        _, base = trained
        same = {name: base for name in ("a", "b", "c")}
        merged = _merged(*_arena(same, base, tmp_path, method), W)
        expected = load_file(base / "model.safetensors")
        for name, tensor in expected.items():
            torch.testing.assert_close(merged[name], tensor, rtol=1e-6, atol=0)

    def test_the_order_of_components_does_not_matter(
        self,
        trained: tuple[Paths, Path],
        live_of: Callable[..., LiveModel],
        tmp_path: Path,
        method: str,
    ) -> None:
        paths, base = trained
        live = live_of(method)
        live.merge(W)
        turned = _arena(dict(reversed(paths.items())), base, tmp_path, method)
        for name, tensor in _merged(*turned, W[::-1]).items():
            apart = (tensor - live.model.state_dict()[name]).abs()
            # Rounding may decide a vote on an element or two.
            assert (apart > 1e-5).float().mean() <= 1e-3

    def test_tied_weights_stay_tied(self, live_of: Callable[..., LiveModel], method: str) -> None:
        live = live_of(method)
        live.merge(W)
        model = live.model
        assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
        assert not any(bool(tensor.isnan().any()) for tensor in _state(live).values())

    def test_repeated_merges_do_not_drift(
        self, live_of: Callable[..., LiveModel], method: str
    ) -> None:
        live = live_of(method)
        live.merge(W)
        first = _state(live)
        live.merge([0.9, 0.1, 0.0])
        live.merge(W)
        assert all(torch.equal(first[name], tensor) for name, tensor in _state(live).items())

    @pytest.mark.parametrize("block_size", [64, 1 << 15])
    def test_the_size_of_blocks_does_not_matter(
        self,
        trained: tuple[Paths, Path],
        live_of: Callable[..., LiveModel],
        tmp_path: Path,
        method: str,
        block_size: int,
    ) -> None:
        live = live_of(method)
        live.merge(W)
        other = _arena(*trained, tmp_path, method, block_size=block_size)
        for name, tensor in _merged(*other, W).items():
            assert torch.equal(tensor, live.model.state_dict()[name]), name

    @pytest.mark.parametrize("step", [1, 3])
    def test_merging_chunk_by_chunk_is_merging_at_once(
        self, live_of: Callable[..., LiveModel], method: str, step: int
    ) -> None:
        live = live_of(method)
        live.merge(W)
        state = live.model.state_dict()
        for name, tensor in _merged(live.arena, live.method, W, step=step).items():
            assert torch.equal(tensor, state[name]), name

    def test_an_arena_of_another_method_is_refused(
        self, trained: tuple[Paths, Path], live_of: Callable[..., LiveModel], method: str
    ) -> None:
        other = "ties" if method != "ties" else "linear"
        with pytest.raises(ComponentError, match="built for another merge method than"):
            LiveModel(live_of(method).arena, method=find_method(other, CASES[other]))


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("linear", {}),
        ("task_arithmetic", {"lambda": 1.0}),
        ("ties", {"density": 1.0}),
        ("multislerp", {}),
        ("multislerp", {"use_base": True}),
        ("karcher", {}),
    ],
)
def test_one_hot_weights_give_the_component(
    trained: tuple[Paths, Path], tmp_path: Path, method: str, parameters: dict[str, Any]
) -> None:
    paths, base = trained
    live = _live(paths, base, tmp_path, method, **parameters)
    exact = method != "ties" and "use_base" not in parameters
    for k, path in enumerate(paths.values()):
        live.merge(np.eye(3)[k])
        state = live.model.state_dict()
        for name, tensor in load_file(path / "model.safetensors").items():
            if exact:
                assert torch.equal(state[name], tensor), name
            else:
                torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(w=st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3), scale=st.floats(0.1, 2.0))
def test_task_arithmetic_is_the_base_plus_scaled_task_vectors(
    trained: tuple[Paths, Path],
    live_of: Callable[..., LiveModel],
    w: list[float],
    scale: float,
) -> None:
    paths, base = trained
    method = find_method("task_arithmetic", {"lambda": scale})
    merged = _merged(live_of("task_arithmetic").arena, method, w)
    start = load_file(base / "model.safetensors")[NORM].double()
    expected = start.clone()
    for weight, path in zip(w, paths.values(), strict=True):
        expected += scale * weight * (load_file(path / "model.safetensors")[NORM] - start)
    torch.testing.assert_close(merged[NORM].double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["dare_linear", "breadcrumbs"])
def test_sparse_sums_are_linear_in_the_weights(
    live_of: Callable[..., LiveModel], trained: tuple[Paths, Path], method: str
) -> None:
    live = live_of(method)
    start = load_file(trained[1] / "model.safetensors")[NORM]
    moved = []
    for w in ([0.2, 0.3, 0.5], [0.5, 0.1, 0.4], [0.7, 0.4, 0.9]):
        live.merge(w)
        moved.append(live.model.state_dict()[NORM] - start)
    torch.testing.assert_close(moved[0] + moved[1], moved[2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["multislerp", "karcher"])
def test_spherical_means_keep_the_mean_length(
    live_of: Callable[..., LiveModel], trained: tuple[Paths, Path], method: str
) -> None:
    live = live_of(method)
    live.merge(W)
    for name, tensor in _state(live).items():
        if name == "lm_head.weight":
            continue
        lengths = [
            load_file(path / "model.safetensors")[name].norm() for path in trained[0].values()
        ]
        expected = sum(w * length for w, length in zip(W, lengths, strict=True))
        torch.testing.assert_close(tensor.norm(), expected, rtol=1e-5, atol=0)


def test_a_random_method_draws_anew_with_another_seed(
    trained: tuple[Paths, Path], tmp_path: Path
) -> None:
    states = []
    for seed in (0, 0, 1):
        arena, method = _arena(*trained, tmp_path, "dare_linear", density=0.5, seed=seed)
        states.append(_merged(arena, method, W)[NORM])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("method", ["ties", "multislerp"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_merge_too(
    family_of: Callable[..., Any], tmp_path: Path, method: str, dtype: torch.dtype
) -> None:
    paths = family_of("llama-tied", dtype).paths
    exact = family_of("llama-tied", torch.float32).paths
    live = _live(paths, paths["web"], tmp_path, method)
    full = _live(exact, exact["web"], tmp_path, method)
    live.merge(W)
    full.merge(W)
    assert live.model.dtype == dtype
    apart = (live.model.state_dict()[NORM].float() - full.model.state_dict()[NORM]).abs()
    assert apart.median() < 0.01


class TestBadInput:
    @pytest.mark.parametrize("method", [name for name in CASES if name != "linear"])
    def test_a_missing_base_is_named(
        self, trained: tuple[Paths, Path], tmp_path: Path, method: str
    ) -> None:
        chosen = find_method(method, CASES[method])
        components = ComponentSet.open(trained[0])
        if not chosen.preparation.base:
            assert Arena.build(components, tmp_path / "a", method=chosen).base_digest is None
            return
        with pytest.raises(ComponentError, match=f"'{method}' needs the base model"):
            Arena.build(components, tmp_path / "a", method=chosen)
        assert not [*tmp_path.iterdir()]

    @pytest.mark.parametrize(
        ("method", "parameters", "message"),
        [
            ("lineer", {}, "unknown merge method 'lineer'; did you mean 'linear'"),
            ("soup", {}, "unknown merge method 'soup'; use one of: linear, "),
            ("ties", {}, "'ties' needs the parameter 'density', above 0 and at most 1"),
            ("ties", {"density": 0.0}, "'density' must be above 0 and at most 1, got 0.0"),
            ("ties", {"density": float("nan")}, "'density' must be above 0"),
            ("ties", {"density": True}, "'density' must be above 0 and at most 1, got True"),
            ("ties", {"density": 0.5, "normalize": 1}, "'normalize' must be true or false, got 1"),
            ("ties", {"densty": 0.5}, "no parameter 'densty'; did you mean 'density'"),
            ("linear", {"density": 0.5}, "no parameter 'density'; remove it"),
            ("dare_ties", {"density": 0.5, "seed": 0.5}, "'seed' must be a whole number"),
            ("della", {"density": 0.1}, "density 0.1 ± epsilon 0.15 must stay above 0"),
            ("breadcrumbs", {"density": 0.5, "gamma": 1.0}, "'gamma' must be from 0"),
        ],
    )
    def test_a_bad_parameter_is_named(
        self, method: str, parameters: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ComponentError, match=message.replace("(", r"\(")):
            find_method(method, parameters)

    def test_components_that_cancel_on_a_sphere_are_named(
        self, trained: tuple[Paths, Path], saved: Callable[..., Path], tmp_path: Path
    ) -> None:
        paths = {}
        state = load_file(trained[1] / "model.safetensors")
        for name, sign in (("a", 1.0), ("b", -1.0), ("c", 1.0)):
            paths[name] = saved(tmp_path / name)
            signed = {key: sign * tensor for key, tensor in state.items()}
            save_file(signed, paths[name] / "model.safetensors", metadata={"format": "pt"})
        live = _live(paths, trained[1], tmp_path, "multislerp")
        with pytest.raises(ComponentError, match="cancel out in tensor 'model.embed_tokens"):
            live.merge([0.25, 0.5, 0.25])
        with pytest.raises(ComponentError, match="merge weights sum to 0"):
            live.merge([0.5, 0.0, -0.5])

    @pytest.mark.parametrize("method", ["ties", "karcher"])
    @pytest.mark.parametrize("victim", ["math", "base"])
    def test_numbers_that_are_not_finite_are_named(
        self,
        trained: tuple[Paths, Path],
        saved: Callable[..., Path],
        tmp_path: Path,
        method: str,
        victim: str,
    ) -> None:
        paths, base = trained
        state = load_file(base / "model.safetensors")
        state[NORM][3] = float("nan")
        damaged = saved(tmp_path / "damaged")
        save_file(state, damaged / "model.safetensors", metadata={"format": "pt"})
        if victim == "base":
            base = damaged
        else:
            paths = {**paths, victim: damaged}
        if victim == "base" and method == "karcher":
            _live(paths, base, tmp_path, method)  # the base is not looked at
            return
        label = "base" if victim == "base" else "component 'math'"
        with pytest.raises(ComponentError, match=f"{label}: .*'{NORM}' holds NaN or infinity"):
            _live(paths, base, tmp_path, method)
