"""Components kept as differences from their base, in eight bits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from optuna_demix.errors import ComponentError
from optuna_demix.merging import Arena, ComponentSet, LiveModel, find_method
from optuna_demix.merging.arena.deltas import (
    DeltaBlocks,
    DeltaType,
    delta_blocks,
    encode_deltas,
)
from optuna_demix.merging.arena.layout import Part, plan_layout
from optuna_demix.merging.live.kernels import Kernels
from tests.forking import run_forked

Paths = dict[str, Path]
KINDS: tuple[DeltaType, ...] = ("int8", "float8")


@pytest.fixture
def base(saved: Callable[..., Path], tmp_path: Path) -> Path:
    """A model unlike all components."""
    return saved(tmp_path / "base", seed=7)


def _build(paths: Paths, base: Path, path: Path, kind: DeltaType, **options: Any) -> Arena:
    components = ComponentSet.open(paths, base=base)
    method = find_method("linear", delta_dtype=kind)
    return Arena.build(components, path, method=method, **{"block_size": 256, **options})


def _views(deltas: torch.Tensor, base: torch.Tensor, kind: DeltaType) -> DeltaBlocks:
    """One block of differences (K, n) and their base (n,)."""
    encoded = encode_deltas(deltas, kind).reshape(-1)
    raw = torch.cat([encoded, base.view(torch.uint8)])[None]
    part = Part(base.dtype, plan_layout({"a": (len(base),)}, n_rows=2, block_size=len(base)))
    return delta_blocks(raw, part, kind)


def _values(blocks: DeltaBlocks) -> torch.Tensor:
    """What blocks mean, (m, K, n), float64."""
    groups = blocks.elements.float().double().unflatten(-1, (-1, 64))
    return (groups * blocks.scales.double().unsqueeze(-1)).flatten(-2)


def _bound(deltas: torch.Tensor, kind: DeltaType) -> torch.Tensor:
    """How far a value may be from a difference, (…, n)."""
    groups = deltas.double().unflatten(-1, (-1, 64))
    largest = groups.abs().amax(dim=-1, keepdim=True)
    if kind == "int8":
        allowed = (largest / 254).expand_as(groups)
    else:
        allowed = torch.maximum(groups.abs() / 16, largest / 448 / 1024)
    return allowed.flatten(-2) * 1.001 + 1e-42  # the scale itself is rounded to float32


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000), exponent=st.integers(-44, 30), zeros=st.booleans())
@settings(max_examples=40, deadline=None)
def test_differences_come_back_within_the_bound(
    kind: DeltaType, seed: int, exponent: int, zeros: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    deltas = torch.randn(3, 256, generator=generator) ** 3 * torch.tensor(10.0) ** exponent
    if zeros:
        deltas[1] = 0.0
    values = _values(_views(deltas, torch.zeros(256), kind))[0]
    assert bool(((values - deltas.double()).abs() <= _bound(deltas, kind)).all())
    if zeros:
        assert not values[1].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(
    seed=st.integers(0, 1000),
    w=st.lists(st.floats(-1.0, 2.0), min_size=3, max_size=3),
    exponent=st.integers(-6, 2),
)
@settings(max_examples=30, deadline=None)
def test_a_merge_is_the_exact_sum_rounded(
    kind: DeltaType, dtype: torch.dtype, seed: int, w: list[float], exponent: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    deltas = torch.randn(3, 256, generator=generator) * 10.0**exponent
    blocks = _views(deltas, torch.randn(256, generator=generator).to(dtype), kind)
    coefficients = torch.tensor([*w, sum(w)], dtype=torch.float32)
    out = torch.full((1, 256), torch.nan, dtype=dtype)
    Kernels(compiled=False).run_deltas(blocks, out, coefficients)
    parts = torch.cat([_values(blocks), blocks.base.double()[:, None]], dim=1)
    parts = parts * coefficients.double()[None, :, None]
    exact = parts.sum(dim=1)
    # Half a unit of the result's type, and float32's own sums of terms that may cancel.
    allowed = exact.abs() * torch.finfo(dtype).eps * 0.5 + parts.abs().sum(dim=1) * 2**-22
    allowed = allowed + torch.finfo(torch.float32).tiny  # below it numbers are coarser
    assert bool(((out.double() - exact).abs() <= allowed).all())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_and_eager_merges_are_the_same_bits(kind: DeltaType) -> None:
    generator = torch.Generator().manual_seed(0)
    deltas = torch.randn(3, 512, generator=generator)
    blocks = _views(deltas, torch.randn(512, generator=generator).bfloat16(), kind)
    coefficients = torch.tensor([0.2, 0.3, 0.5, 1.0])
    outs = [torch.full((1, 512), torch.nan, dtype=torch.bfloat16) for _ in range(2)]
    compiled = Kernels(compiled=True)
    compiled.run_deltas(blocks, outs[0], coefficients)
    assert compiled.compiled
    Kernels(compiled=False).run_deltas(blocks, outs[1], coefficients)
    assert torch.equal(*outs)


class TestArena:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("dtype", [None, "bfloat16"])
    def test_vertices_are_the_components_within_the_bound(
        self, paths: Paths, base: Path, tmp_path: Path, kind: DeltaType, dtype: str | None
    ) -> None:
        arena = _build(paths, base, tmp_path / "x.arena", kind, dtype=dtype)
        arena.verify()
        live = LiveModel(arena, method=find_method("linear", delta_dtype=kind))
        of_base = load_file(base / "model.safetensors")
        for k, path in enumerate(paths.values()):
            live.merge(np.eye(3)[k])
            merged = live.model.state_dict()
            for name, wanted in load_file(path / "model.safetensors").items():
                stored = of_base[name].to(arena.dtype).float()
                delta = (wanted - stored).reshape(-1)
                padded = torch.zeros(-(-len(delta) // 64) * 64)
                padded[: len(delta)] = delta
                # Groups of the file are those of the tensor: each begins at a multiple of 64.
                allowed = _bound(padded, kind)[: len(delta)].view(wanted.shape)
                allowed = allowed + wanted.abs() * torch.finfo(arena.dtype).eps
                error = (merged[name].double() - wanted.double()).abs()
                assert bool((error <= allowed * 1.1 + 1e-6).all()), name

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_component_that_is_the_base_stays_it(
        self, paths: Paths, tmp_path: Path, kind: DeltaType
    ) -> None:
        arena = _build(paths, paths["code"], tmp_path / "x.arena", kind)
        live = LiveModel(arena, method=find_method("linear", delta_dtype=kind))
        live.merge([0.0, 1.0, 0.0])
        merged = live.model.state_dict()
        for name, wanted in load_file(paths["code"] / "model.safetensors").items():
            assert torch.equal(merged[name], wanted)

    def test_it_is_smaller(self, paths: Paths, base: Path, tmp_path: Path) -> None:
        plain = Arena.build(ComponentSet.open(paths), tmp_path / "plain", block_size=256)
        arena = _build(paths, base, tmp_path / "x.arena", "int8")
        assert plain.nbytes == arena.n_blocks * 256 * 3 * 4
        assert arena.nbytes == arena.n_blocks * (3 * (256 + 256 // 64 * 4) + 256 * 4)

    def test_keys_differ_by_the_element_type(
        self, paths: Paths, base: Path, tmp_path: Path
    ) -> None:
        one = _build(paths, base, tmp_path / "x.arena", "int8")
        components = ComponentSet.open(paths, base=base)
        other = find_method("linear", delta_dtype="float8")
        assert one.differences(components, method=other) == [
            "it holds the components as differences in int8, not as differences in float8"
        ]
        assert _build(paths, base, tmp_path / "x.arena", "float8").key != one.key

    def test_a_live_model_of_whole_components_refuses_it(
        self, paths: Paths, base: Path, tmp_path: Path
    ) -> None:
        arena = _build(paths, base, tmp_path / "x.arena", "int8")
        with pytest.raises(ComponentError, match="built for another merge method"):
            LiveModel(arena)

    def test_verify_names_the_damaged_row(self, paths: Paths, base: Path, tmp_path: Path) -> None:
        arena = _build(paths, base, tmp_path / "x.arena", "int8")
        data = arena.path.stat().st_size - arena.nbytes
        row = 256 + 4 * 4
        for start, owner in ((row + 5, "component 'code'"), (3 * row + 5, "the base")):
            content = bytearray(arena.path.read_bytes())
            content[data + 2 * (3 * row + 256 * 4) + start] ^= 4
            damaged = tmp_path / "damaged.arena"
            damaged.write_bytes(content)
            with pytest.raises(ComponentError, match=f"block 2 of {owner} is damaged"):
                Arena.open(damaged).verify()

    def test_a_killed_build_is_gone_on_with(
        self, paths: Paths, base: Path, tmp_path: Path
    ) -> None:
        program = (
            "import os, sys\n"
            "from optuna_demix.merging import Arena, ComponentSet, find_method\n"
            "*paths, base, file = sys.argv[1:]\n"
            "named = dict(zip(('web', 'code', 'math'), paths))\n"
            "components = ComponentSet.open(named, base=base)\n"
            "Arena.build(components, file, method=find_method('linear', delta_dtype='int8'),\n"
            "            block_size=256, progress=lambda done, all: done == 4 and os._exit(9))\n"
        )
        file = tmp_path / "x.arena"
        arguments = [*map(str, paths.values()), str(base), str(file)]
        died = run_forked(
            ["python", "-c", program, *arguments], cwd=tmp_path, environment={**os.environ}
        )
        assert died.returncode == 9, died.stderr
        assert not file.exists()
        done: list[int] = []
        arena = _build(paths, base, file, "int8", progress=lambda count, of: done.append(count))
        arena.verify()
        assert done[0] == 4
        whole = _build(paths, base, tmp_path / "whole.arena", "int8")
        assert file.read_bytes() == whole.path.read_bytes()

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("resident", [True, False])
    def test_a_cuda_model_equals_the_cpu_one(
        self, paths: Paths, base: Path, tmp_path: Path, kind: DeltaType, resident: bool
    ) -> None:
        method = find_method("linear", delta_dtype=kind)
        arena = _build(paths, base, tmp_path / "x.arena", kind)
        cpu = LiveModel(arena, method=method)
        for compiled in (False, True):
            cuda = LiveModel(
                arena, device="cuda", method=method, resident=resident, compiled=compiled
            )
            for w in ([0.2, 0.3, 0.5], [0.0, 1.0, 0.0]):
                cpu.merge(w)
                cuda.merge(w)
                pairs = zip(cpu.model.parameters(), cuda.model.parameters(), strict=True)
                for ours, theirs in pairs:
                    torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-6, atol=1e-7)

    def test_no_base_is_said(self, paths: Paths, tmp_path: Path) -> None:
        method = find_method("linear", delta_dtype="int8")
        with pytest.raises(ComponentError, match="as differences in int8 needs the base"):
            Arena.build(ComponentSet.open(paths), tmp_path / "x.arena", method=method)


def test_other_methods_are_refused_by_name() -> None:
    with pytest.raises(ComponentError, match="'ties' cannot work on .* differences in int8"):
        find_method("ties", {"density": 0.5}, delta_dtype="int8")
