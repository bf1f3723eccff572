"""Which block comes when: exact data shares, shuffled by the seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optuna_demix._apportion import apportion
from optuna_demix.training._job import Job, Run
from optuna_demix.training.data.blocks import Blocks


@dataclass(frozen=True, eq=False)
class Order:
    """The blocks of a run in the order of training.

    Attributes:
        datasets: Which dataset each block is from, (N,).
        rows: Which of its blocks, (N,).
    """

    datasets: npt.NDArray[np.int16]
    rows: npt.NDArray[np.int64]


def draw_order(run: Run, available: Sequence[int], seed: int, batch_size: int) -> Order:
    """Draw the order of a run.

    Args:
        run: The run; N is its steps times the batch size.
        available: Blocks there are of each of its datasets, (D,).
        seed: Seed of the study's training.
        batch_size: Blocks of a step.
    """
    total = run.steps * batch_size
    counts = apportion(np.array(list(run.shares.values())), total)
    # A base is followed by components on the same text: they must not begin with the same blocks.
    stage = 0 if run.is_base else 1
    labels = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    datasets = np.random.default_rng([seed, stage]).permutation(labels)
    rows = np.empty(total, dtype=np.int64)
    for i, (name, blocks) in enumerate(zip(run.shares, available, strict=True)):
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        epochs = [
            np.random.default_rng([seed, stage, key, epoch]).permutation(blocks)
            for epoch in range(math.ceil(counts[i] / blocks))
        ]
        if epochs:
            rows[datasets == i] = np.concatenate(epochs)[: counts[i]]
    return Order(datasets, rows)


def repetitions(job: Job, runs: Sequence[Run], blocks: Mapping[str, Blocks]) -> Iterator[str]:
    """A line for each dataset that a run sees more than once, with the run that does so most.

    Args:
        job: What all runs share.
        runs: The runs.
        blocks: The blocks of their datasets.
    """
    limits = job.config.mixture.max_epochs
    for name, available in blocks.items():
        asked = [run for run in runs if name in run.shares]
        batch = job.training.batch_size
        epochs = [run.steps * batch * run.shares[name] / len(available) for run in asked]
        if max(epochs, default=0.0) <= 1.0:
            continue
        most = asked[int(np.argmax(epochs))]
        line = (
            f"{name}: its {len(available) * job.block_tokens:,} tokens are less than its share "
            f"of {most.name} needs: {max(epochs):.3g} epochs"
        )
        limit = limits.get(name) if isinstance(limits, dict) else limits
        if limit is not None and max(epochs) > limit:
            tokens = int(most.budget.tokens * limit / max(epochs))
            line += (
                f", more than the {limit:g} of mixture.max_epochs; add text, or lower "
                f"{most.section}.tokens to {tokens:,}"
            )
        yield line


class Rows:
    """A map-style dataset of torch: the blocks of a run, a whole batch at a time."""

    def __init__(self, blocks: Sequence[Blocks], order: Order) -> None:
        self._blocks = blocks
        self._order = order

    def __len__(self) -> int:
        return len(self._order.rows)

    def __getitem__(self, index: int) -> npt.NDArray[np.int64]:
        block: npt.NDArray[np.int64] = self._blocks[self._order.datasets[index]][
            self._order.rows[index]
        ].astype(np.int64)
        return block

    def __getitems__(self, indices: Sequence[int]) -> npt.NDArray[np.int64]:
        return np.stack([self[index] for index in indices])  # (b, sequence_length)


def realized_data(
    run: Run, order: Order, available: Sequence[int], block_tokens: int
) -> dict[str, dict[str, float]]:
    """Count what a run is trained on, and make sure that it is what was asked for."""
    counts = np.bincount(order.datasets, minlength=len(run.shares))
    total = int(counts.sum())
    data: dict[str, dict[str, float]] = {}
    for (name, share), count, blocks in zip(
        run.shares.items(), counts.tolist(), available, strict=True
    ):
        if abs(count - share * total) > 1.0:
            raise RuntimeError(f"{run.name}: {count} of {total} blocks of {name}, asked {share}")
        data[name] = {
            "share_asked": share,
            "share": count / total,
            "blocks": count,
            "tokens": count * block_tokens,
            "epochs": count / blocks,
        }
    return data
