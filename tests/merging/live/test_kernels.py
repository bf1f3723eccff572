"""The weighted sum and the election, eager and compiled."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optuna_demix.merging.live import kernels as _kernels
from optuna_demix.merging.live.kernels import Kernels, elected_sum, moved_base, weighted_sum

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
N, K, BLOCK = 3, 4, 128
EAGER = Kernels(compiled=False)


def _rows(dtype: torch.dtype, *, n: int = N, block: int = BLOCK, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, K, block, generator=generator).to(dtype)


def _sum(
    rows: torch.Tensor,
    w: list[float],
    dtype: torch.dtype | None = None,
    *,
    kernels: Kernels = EAGER,
) -> torch.Tensor:
    out = torch.full((len(rows), rows.shape[2]), torch.nan, dtype=dtype or rows.dtype)
    kernels.run(weighted_sum, rows, out, torch.tensor(w, dtype=torch.float32))
    return out


def _elect(
    rows: torch.Tensor,
    w: list[float],
    *,
    normalize: bool = True,
    scale: float = 1.0,
    kernels: Kernels = EAGER,
) -> torch.Tensor:
    out = torch.full((len(rows), rows.shape[2]), torch.nan, dtype=rows.dtype)
    weights = torch.tensor(w, dtype=torch.float32)
    numbers = (weights, weights, torch.tensor(scale))
    kernels.run(elected_sum, rows, out, *numbers, normalize)
    return out


def _move(rows: torch.Tensor, w: list[float], *, kernels: Kernels = EAGER) -> torch.Tensor:
    out = torch.full((len(rows), rows.shape[2]), torch.nan, dtype=rows.dtype)
    kernels.run(moved_base, rows, out, torch.tensor(w, dtype=torch.float32))
    return out


def _exact(rows: torch.Tensor, w: list[float]) -> torch.Tensor:
    """The sum in float64, one row after another."""
    total = torch.zeros(len(rows), rows.shape[2], dtype=torch.float64)
    for k, weight in enumerate(w):
        total += weight * rows[:, k].double()
    return total


def ulps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """How many representable numbers lie between two 16-bit floats."""

    def order(x: torch.Tensor) -> torch.Tensor:
        bits = x.view(torch.int16).int()
        return torch.where(bits < 0, -32768 - bits, bits)

    return (order(a) - order(b)).abs()


weights = st.lists(st.floats(-2.0, 2.0, width=32), min_size=K, max_size=K)


@given(w=weights)
def test_float32_is_the_exact_sum_to_rounding(w: list[float]) -> None:
    rows = _rows(torch.float32)
    scale = _exact(rows.abs(), [abs(weight) for weight in w])
    error = (_sum(rows, w).double() - _exact(rows, w)).abs()
    assert bool((error <= K * torch.finfo(torch.float32).eps * scale + 1e-37).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_exact_sum_rounded_once(dtype: torch.dtype) -> None:
    rows = _rows(dtype, n=8, block=4096)
    w = [0.11, 0.23, 0.31, 0.35]
    merged, exact = _sum(rows, w), _exact(rows, w).to(dtype)
    assert (merged == exact).float().mean() >= 0.99
    # Where terms cancel, the float32 sum itself is off by more than a unit of a tiny result.
    large = exact.abs() > 2**-8
    assert bool((ulps(merged, exact)[large] <= 1).all())


def test_ties_are_rounded_to_even() -> None:
    below = 1.0 + 2**-7  # bfloat16 neighbors of 1 lie 2^-7 apart
    rows = torch.tensor([1.0, below, below, below + 2**-7]).bfloat16().view(2, 2, 1)
    half_way = _sum(rows.expand(2, 2, 64).contiguous(), [0.5, 0.5])
    assert half_way[:, 0].tolist() == [1.0, 1.0 + 2**-6]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_single_weight_other_than_one_still_scales(dtype: torch.dtype) -> None:
    rows = _rows(dtype)
    assert torch.equal(_sum(rows, [0.0, 0.5, 0.0, 0.0]), rows[:, 1] * 0.5)


def test_no_weight_at_all_gives_zeros() -> None:
    assert not _sum(_rows(torch.float32), [0.0] * K).any()


@given(w=weights, v=weights)
def test_merging_is_linear(w: list[float], v: list[float]) -> None:
    rows = _rows(torch.float32)
    both = _sum(rows, [a + b for a, b in zip(w, v, strict=True)])
    torch.testing.assert_close(both, _sum(rows, w) + _sum(rows, v), rtol=0, atol=1e-5)


@given(w=weights, order=st.permutations(range(K)))
def test_the_order_of_components_does_not_matter(w: list[float], order: list[int]) -> None:
    rows = _rows(torch.float32)
    permuted = _sum(rows[:, order].contiguous(), [w[k] for k in order])
    torch.testing.assert_close(permuted, _sum(rows, w), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_and_blocks_does_not_change_a_bit(dtype: torch.dtype) -> None:
    rows = _rows(dtype, n=4, block=1 << 16)
    w = [0.1, 0.2, 0.3, 0.4]
    expected = _sum(rows, w)
    threads = torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            assert torch.equal(_sum(rows, w), expected)
    finally:
        torch.set_num_threads(threads)
    one_by_one = torch.cat([_sum(block[None], w) for block in rows])
    assert torch.equal(one_by_one, expected)


def test_sums_of_half_precision_components_can_be_kept_in_float32() -> None:
    rows = _rows(torch.bfloat16)
    w = [0.1, 0.2, 0.3, 0.4]
    torch.testing.assert_close(
        _sum(rows, w, torch.float32).double(), _exact(rows, w), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("step", [1, 64, BLOCK, 3 * BLOCK])
def test_a_step_smaller_or_larger_than_a_block_merges_all(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    rows = _rows(torch.bfloat16, n=7)
    w = [0.1, 0.2, 0.3, 0.4]
    expected = _sum(rows, w)
    monkeypatch.setattr(_kernels, "_CPU_STEP", step)
    assert torch.equal(_sum(rows, w), expected)


class TestElection:
    def test_losers_are_left_out_and_winners_averaged(self) -> None:
        base = 10.0
        #             wins, loses   sum 0: plus wins   all agree   nothing moved
        moves = [[3.0, -1.0, 2.0, 0.0], [-1.0, 1.0, 4.0, 0.0], [1.0, 0.0, 6.0, 0.0]]
        rows = torch.tensor([*moves, [0.0] * 4]).add(base).repeat_interleave(16, dim=1)[None]
        merged = _elect(rows, [0.5, 0.25, 0.25])[0, ::16] - base
        # (0.5·3 + 0.25·1)/0.75; −0.5 + 0.25 < 0: minus wins; all three; none
        expected = [1.75 / 0.75, -1.0, 0.5 * 2 + 0.25 * 4 + 0.25 * 6, 0.0]
        torch.testing.assert_close(merged, torch.tensor(expected))

    def test_plus_wins_a_draw(self) -> None:
        rows = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1).expand(1, 3, 64).contiguous()
        assert (_elect(rows, [0.5, 0.5]) == 1.0).all()

    def test_without_division_the_sum_of_the_winners_is_scaled(self) -> None:
        rows = torch.tensor([4.0, -1.0, 1.0]).view(1, 3, 1).expand(1, 3, 64).contiguous()
        merged = _elect(rows, [0.5, 0.5], normalize=False, scale=2.0)
        assert (merged == 1.0 + 2.0 * 0.5 * 3.0).all()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_components_that_agree_are_averaged(self, dtype: torch.dtype) -> None:
        rows = _rows(dtype)
        rows[:, :-1] = rows[:, -1:] + rows[:, :-1].abs() + 0.5
        w = [0.2, 0.3, 0.5]
        torch.testing.assert_close(_elect(rows, w), _sum(rows, [*w, 0.0]))


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    """Compiled ones, for all tests: each compilation takes a second."""
    compiled = Kernels(compiled=True)
    _sum(_rows(torch.float32), [1.0] * K, kernels=compiled)
    if not compiled.compiled:
        pytest.skip("no C++ compiler here")
    return compiled


class TestCompiled:
    @pytest.fixture(autouse=True)
    def _compiled(self, kernels: Kernels) -> Iterator[None]:
        yield
        assert kernels.compiled  # still: what cannot be compiled runs eagerly

    @pytest.mark.parametrize(
        ("dtype", "shape"),
        [
            (torch.float32, (5, 4096)),
            (torch.bfloat16, (5, 4096)),
            (torch.bfloat16, (2, 63)),
        ],
    )
    def test_a_sum_has_the_bits_of_the_eager_path(
        self, kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int]
    ) -> None:
        rows = _rows(dtype, n=shape[0], block=shape[1])
        w = [0.11, 0.23, 0.31, 0.35]
        assert torch.equal(_sum(rows, w, kernels=kernels), _sum(rows, w))

    # Two bfloat16 at a time is what differs most from the eager path.
    @pytest.mark.parametrize(
        ("dtype", "shape"),
        [
            (torch.bfloat16, (5, 4096)),
            *(
                pytest.param(dtype, shape, marks=pytest.mark.slow)
                for dtype in (torch.float32, torch.bfloat16)
                for shape in ((1, 64), (5, 4096), (2, 63))
                if (dtype, shape) != (torch.bfloat16, (5, 4096))
            ),
        ],
    )
    def test_so_have_moves_and_elections(
        self, kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int]
    ) -> None:
        rows = _rows(dtype, n=shape[0], block=shape[1])
        w = [0.11, 0.23, 0.31]
        assert torch.equal(_move(rows, w, kernels=kernels), _move(rows, w))
        elected = _elect(rows, w, scale=0.7)
        assert torch.equal(_elect(rows, w, scale=0.7, kernels=kernels), elected)

    def test_pairs_of_bfloat16_are_rounded_to_even(self, kernels: Kernels) -> None:
        below = 1.0 + 2**-7
        pairs = torch.tensor([[1.0, below], [below, below + 2**-7], [-1.0, -below]]).bfloat16()
        rows = torch.zeros(3, K, 64, dtype=torch.bfloat16)
        rows[:, :2] = pairs[:, :, None]
        w = [0.5, 0.5, 0.0, 0.0]
        merged = _sum(rows, w, kernels=kernels)
        assert merged[:, 0].tolist() == [1.0, 1.0 + 2**-6, -1.0]
        assert torch.equal(merged, _sum(rows, w))

    @pytest.mark.parametrize("scale", [1e38, -1e38, 1e-39, 0.0])
    def test_pairs_of_bfloat16_overflow_and_underflow_alike(
        self, kernels: Kernels, scale: float
    ) -> None:
        rows = _rows(torch.bfloat16, block=4096)
        w = [scale, scale, 0.0, scale]
        assert torch.equal(_sum(rows, w, kernels=kernels), _sum(rows, w))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_columns_of_a_larger_block_will_do(self, kernels: Kernels, dtype: torch.dtype) -> None:
        rows = _rows(dtype, n=1, block=1024)[:, :, 128:320]
        w = [0.1, 0.2, 0.3, 0.4]
        assert torch.equal(_sum(rows, w, kernels=kernels), _sum(rows.contiguous(), w))


class TestFallback:
    def test_without_a_compiler_the_eager_path_serves(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no working C++\ncompiler")

        monkeypatch.setattr(torch, "compile", refuse)
        kernels, rows = Kernels(compiled=True), _rows(torch.float32)
        expected = _sum(rows, [0.1, 0.2, 0.3, 0.4])
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                out = torch.empty(N, BLOCK)
                kernels.run(weighted_sum, rows, out, torch.tensor([0.1, 0.2, 0.3, 0.4]))
                assert torch.equal(out, expected)
        assert not kernels.compiled
        assert len(caplog.records) == 1
        assert "no working C++ compiler" in caplog.text

    def test_with_torch_compile_disabled_the_eager_path_serves(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch._dynamo.config, "disable", True)
        kernels, rows = Kernels(compiled=True), _rows(torch.float32)
        out = torch.empty(N, BLOCK)
        kernels.run(weighted_sum, rows, out, torch.ones(K))
        assert not kernels.compiled
        assert torch.equal(out, _sum(rows, [1.0] * K))
