from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_demix.config import BudgetConfig
from optuna_demix.training._job import Run
from optuna_demix.training.data.order import Order, apportion, draw_order, realized_data

pytest.importorskip("torch")
pytest.importorskip("transformers")


class TestOrder:
    @given(
        st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12).filter(lambda x: sum(x) > 1e-3),
        st.integers(1, 10_000),
    )
    def test_parts_sum_and_are_off_by_less_than_one(self, raw: list[float], total: int) -> None:
        shares = np.array(raw) / sum(raw)
        parts = apportion(shares, total)
        assert parts.sum() == total
        assert np.all(np.abs(parts - shares * total) < 1.0)

    def run(self, name: str = "code", steps: int = 10) -> Run:
        budget = load_budget()
        section = "training.base" if name == "base" else "training.component"
        return Run(name, section, Path(name), budget, {"web": 0.3, "code": 0.7}, steps)

    def test_every_block_is_seen_before_one_is_repeated(self) -> None:
        order = draw_order(self.run(steps=10), [100, 5], seed=0, batch_size=4)
        seen = order.rows[order.datasets == 1]  # 28 blocks of 5
        for epoch in range(5):
            assert sorted(seen[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
        assert len({tuple(seen[5 * e : 5 * e + 5]) for e in range(5)}) > 1  # shuffled anew
        assert len(set(order.rows[order.datasets == 0])) == 12  # 100 blocks: none twice

    def test_order_depends_on_the_seed_and_not_on_the_name(self) -> None:
        def rows(name: str, seed: int) -> list[int]:
            order = draw_order(self.run(name), [50, 50], seed=seed, batch_size=4)
            return (order.rows + 1000 * order.datasets).tolist()

        assert rows("code", 0) == rows("math", 0)
        assert rows("code", 0) != rows("code", 1)
        assert rows("code", 0) != rows("base", 0)

    def test_realized_shares_are_counted_from_the_order(self) -> None:
        order = draw_order(self.run(steps=10), [100, 5], seed=0, batch_size=4)
        data = realized_data(self.run(steps=10), order, [100, 5], block_tokens=8)
        assert [data[name]["blocks"] for name in ("web", "code")] == [12, 28]
        assert [data[name]["tokens"] for name in ("web", "code")] == [96, 224]
        assert data["code"]["epochs"] == 28 / 5

    def test_an_order_of_other_shares_is_refused(self) -> None:
        order = draw_order(self.run(steps=10), [100, 5], seed=0, batch_size=4)
        datasets = order.datasets.copy()
        datasets[np.flatnonzero(datasets == 0)[:2]] = 1
        wrong = Order(datasets, order.rows)
        with pytest.raises(RuntimeError, match="code: 10 of 40 blocks of web, asked 0.3"):
            realized_data(self.run(steps=10), wrong, [100, 5], block_tokens=8)


def load_budget() -> Any:
    return BudgetConfig(tokens=1000, learning_rate=0.1)
