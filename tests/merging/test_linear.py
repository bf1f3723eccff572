"""The weighted sum, block by block."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optuna_demix.errors import ComponentError
from optuna_demix.merging import METHODS
from optuna_demix.merging.linear import linear
from optuna_demix.merging.methods import find_method

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
N, K, BLOCK = 3, 4, 128


def _blocks(dtype: torch.dtype, *, n: int = N, block: int = BLOCK) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, K, block, generator=generator).to(dtype)


def _merge(blocks: torch.Tensor, w: list[float], dtype: torch.dtype | None = None) -> torch.Tensor:
    out = torch.full((len(blocks), blocks.shape[2]), torch.nan, dtype=dtype or blocks.dtype)
    linear(blocks, torch.tensor(w, dtype=torch.float64), out)
    return out


def _exact(blocks: torch.Tensor, w: list[float]) -> torch.Tensor:
    """The sum in float64, one tensor after another."""
    total = torch.zeros(len(blocks), blocks.shape[2], dtype=torch.float64)
    for k, weight in enumerate(w):
        total += weight * blocks[:, k].double()
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
    blocks = _blocks(torch.float32)
    scale = _exact(blocks.abs(), [abs(weight) for weight in w])
    error = (_merge(blocks, w).double() - _exact(blocks, w)).abs()
    assert bool((error <= K * torch.finfo(torch.float32).eps * scale + 1e-37).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_exact_sum_rounded_once(dtype: torch.dtype) -> None:
    blocks = _blocks(dtype, n=8, block=4096)
    w = [0.11, 0.23, 0.31, 0.35]
    merged, exact = _merge(blocks, w), _exact(blocks, w).to(dtype)
    assert (merged == exact).float().mean() >= 0.99
    # Where terms cancel, the float32 sum itself is off by more than a unit of a tiny result.
    large = exact.abs() > 2**-8
    assert bool((ulps(merged, exact)[large] <= 1).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", range(K))
def test_one_hot_weights_return_the_component_bit_for_bit(dtype: torch.dtype, k: int) -> None:
    blocks = _blocks(dtype)
    blocks[:, k, 0] = -0.0  # 1 · (−0) + 0 · x is +0
    blocks[:, k, 1] = torch.finfo(dtype).smallest_normal / 4
    merged = _merge(blocks, [float(i == k) for i in range(K)])
    assert torch.equal(merged.view(torch.uint8), blocks[:, k].contiguous().view(torch.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_single_weight_other_than_one_still_scales(dtype: torch.dtype) -> None:
    blocks = _blocks(dtype)
    assert torch.equal(_merge(blocks, [0.0, 0.5, 0.0, 0.0]), blocks[:, 1] * 0.5)


def test_no_weight_at_all_gives_zeros() -> None:
    assert not _merge(_blocks(torch.float32), [0.0] * K).any()


@given(w=weights, v=weights)
def test_merging_is_linear(w: list[float], v: list[float]) -> None:
    blocks = _blocks(torch.float32)
    both = _merge(blocks, [a + b for a, b in zip(w, v, strict=True)])
    torch.testing.assert_close(both, _merge(blocks, w) + _merge(blocks, v), rtol=0, atol=1e-5)


@given(w=weights, order=st.permutations(range(K)))
def test_the_order_of_components_does_not_matter(w: list[float], order: list[int]) -> None:
    blocks = _blocks(torch.float32)
    permuted = _merge(blocks[:, order].contiguous(), [w[k] for k in order])
    torch.testing.assert_close(permuted, _merge(blocks, w), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_and_blocks_does_not_change_a_bit(dtype: torch.dtype) -> None:
    blocks = _blocks(dtype, n=4, block=1 << 16)
    w = [0.1, 0.2, 0.3, 0.4]
    expected = _merge(blocks, w)
    threads = torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            assert torch.equal(_merge(blocks, w), expected)
    finally:
        torch.set_num_threads(threads)
    one_by_one = torch.cat([_merge(block[None], w) for block in blocks])
    assert torch.equal(one_by_one, expected)


def test_sums_of_half_precision_components_can_be_kept_in_float32() -> None:
    blocks = _blocks(torch.bfloat16)
    w = [0.1, 0.2, 0.3, 0.4]
    torch.testing.assert_close(
        _merge(blocks, w, torch.float32).double(), _exact(blocks, w), rtol=1e-5, atol=1e-6
    )


def test_more_blocks_than_one_step_are_all_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = _blocks(torch.bfloat16, n=7)
    w = [0.1, 0.2, 0.3, 0.4]
    expected = _merge(blocks, w)
    monkeypatch.setattr("optuna_demix.merging.linear._STEP", {"cpu": 3 * BLOCK})
    assert torch.equal(_merge(blocks, w), expected)


def test_methods_are_found_by_name() -> None:
    assert find_method("linear") is METHODS["linear"]
    with pytest.raises(ComponentError, match="unknown merge method 'lineer'; use one of: linear"):
        find_method("lineer")
