"""Which elements of a task vector are kept."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optuna_demix.merging.methods.preparation import Preparation
from optuna_demix.merging.methods.sparsify import Sparsity

NAMES = ("web", "code")


def _kept(
    rule: Sparsity, delta: torch.Tensor, *, component: str = "web", tensor: str = "t"
) -> torch.Tensor:
    return rule.kept(delta, component=component, tensor=tensor)


def _delta(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(
    values=st.lists(st.integers(-4, 4), min_size=1, max_size=40),
    density=st.floats(0.01, 0.99),
)
def test_magnitude_keeps_the_largest_the_first_among_equals(
    values: list[int], density: float
) -> None:
    delta = torch.tensor(values, dtype=torch.float32)
    mask = _kept(Sparsity("magnitude", density), delta)
    count = max(1, int(density * len(values)))
    order = torch.sort(delta.abs(), descending=True, stable=True).indices[:count]
    expected = torch.zeros(len(values), dtype=torch.bool)
    expected[order] = True
    assert torch.equal(mask, expected)


@given(
    values=st.lists(st.integers(-4, 4), min_size=1, max_size=40),
    density=st.floats(0.01, 0.99),
    gamma=st.floats(0.0, 0.5),
)
def test_outliers_drops_both_ends(values: list[int], density: float, gamma: float) -> None:
    delta = torch.tensor(values, dtype=torch.float32)
    mask = _kept(Sparsity("outliers", density, gamma=gamma), delta)
    size, count = len(values), int(density * len(values))
    dropped = max(0, size - count - int(gamma * size))
    order = torch.sort(delta.abs(), stable=True).indices[dropped : dropped + count]
    expected = torch.zeros(size, dtype=torch.bool)
    expected[order] = True
    assert torch.equal(mask, expected)


def test_outliers_drops_the_very_largest() -> None:
    delta = torch.arange(1.0, 101.0)
    mask = _kept(Sparsity("outliers", 0.5, gamma=0.1), delta)
    assert mask.nonzero()[:, 0].tolist() == list(range(40, 90))


def test_random_keeps_the_share_asked_for() -> None:
    mask = _kept(Sparsity("random", 0.3), _delta(200, 500))
    assert mask.float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_magprune_keeps_larger_elements_more_often() -> None:
    delta = _delta(200, 500)
    mask = _kept(Sparsity("magprune", 0.5, epsilon=0.3), delta).float()
    ranks = delta.abs().argsort(dim=1).argsort(dim=1) / 499
    for low in (0.0, 0.25, 0.5, 0.75):
        chosen = (ranks >= low) & (ranks < low + 0.25)
        expected = 0.2 + 0.6 * (low + 0.125)
        assert mask[chosen].mean().item() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 1), (2, 3, 4)])
@pytest.mark.parametrize("rule", ["magnitude", "outliers", "random", "magprune"])
def test_tensors_of_any_shape_can_be_sparsified(shape: tuple[int, ...], rule: str) -> None:
    mask = _kept(Sparsity(rule, 0.5, gamma=0.1, epsilon=0.1), _delta(*shape))  # type: ignore[arg-type]
    assert mask.shape == shape and mask.dtype == torch.bool


def test_a_draw_depends_on_seed_component_and_tensor_alone() -> None:
    delta = _delta(64, 64)
    mask = _kept(Sparsity("random", 0.5), delta)
    assert torch.equal(_kept(Sparsity("random", 0.5), 2 * delta), mask)
    assert not torch.equal(_kept(Sparsity("random", 0.5, seed=1), delta), mask)
    assert not torch.equal(_kept(Sparsity("random", 0.5), delta, component="code"), mask)
    assert not torch.equal(_kept(Sparsity("random", 0.5), delta, tensor="u"), mask)


class TestPreparation:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_dropped_elements_become_the_base_and_scales_restore_the_mass(
        self, dtype: torch.dtype
    ) -> None:
        rows = torch.stack([_delta(20, 30, seed=seed) for seed in range(3)]).to(dtype)
        before = rows.clone()
        preparation = Preparation(True, Sparsity("magnitude", 0.4), "scales")
        scales = preparation.apply(rows, names=NAMES, tensor="t")
        assert torch.equal(rows[2], before[2])
        for k in range(2):
            changed = rows[k] != before[k]
            assert int((rows[k] != before[2]).sum()) == 240
            assert torch.equal(rows[k][changed], before[2][changed])
            moved = (rows[k].double() - rows[2].double()).abs().sum()
            mass = (before[k].double() - before[2].double()).abs().sum()
            assert float(scales[k] * moved) == pytest.approx(float(mass), rel=1e-6)

    def test_a_component_that_did_not_move_keeps_scale_one(self) -> None:
        rows = torch.ones(3, 8)
        preparation = Preparation(True, Sparsity("random", 0.5), "scales")
        assert preparation.apply(rows, names=NAMES, tensor="t").tolist() == [1.0, 1.0]

    @pytest.mark.parametrize("base", [False, True])
    def test_gram_is_the_inner_products(self, base: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("optuna_demix.merging.methods.preparation._CHUNK_ELEMENTS", 7)
        rows = torch.stack([_delta(5, 6, seed=seed) for seed in range(2 + base)])
        gram = Preparation(base, None, "gram").apply(rows, names=NAMES, tensor="t")
        flat = rows.double().view(len(rows), -1)
        if base:
            flat = flat[:2] - flat[2]
        torch.testing.assert_close(torch.from_numpy(gram).view(2, 2), flat @ flat.T)

    def test_it_survives_being_written_down(self) -> None:
        for preparation in (
            Preparation(),
            Preparation(True, Sparsity("outliers", 0.5, gamma=0.1), "scales"),
            Preparation(True, None, "gram"),
        ):
            assert Preparation.from_fields(preparation.fields()) == preparation
