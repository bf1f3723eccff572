"""Token ids that lie in several files, as blocks of one length."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_demix.training.data.shards import Shard

_MOST_OPEN = 128  # a map keeps its file open, and a process may open about a thousand


class Blocks:
    """The blocks of a dataset, mapped into memory where they lie.

    A block may begin in one file and end in the next. What is pickled are the places alone.

    Args:
        shards: Where the ids lie, one after another.
        block_tokens: Ids of a block; the rest of less than one is left out.
    """

    def __init__(self, shards: Sequence[Shard], block_tokens: int) -> None:
        self.shards = tuple(shards)
        self._block_tokens = block_tokens
        self._ends = np.cumsum([shard.length for shard in shards], dtype=np.int64)
        self._open: OrderedDict[int, npt.NDArray[Any]] = OrderedDict()

    @property
    def tokens(self) -> int:
        """Number of ids, those of the rest included."""
        return int(self._ends[-1])

    def __len__(self) -> int:
        return self.tokens // self._block_tokens

    def __getitem__(self, index: int) -> npt.NDArray[Any]:
        """Ids of a block, (block_tokens,)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        begin = index * self._block_tokens
        end = begin + self._block_tokens
        first = int(np.searchsorted(self._ends, begin, side="right"))
        if end <= self._ends[first]:
            return self._part(first, begin, end)
        last = int(np.searchsorted(self._ends, end, side="left"))
        return np.concatenate([self._part(i, begin, end) for i in range(first, last + 1)])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def _part(self, i: int, begin: int, end: int) -> npt.NDArray[Any]:
        """What shard ``i`` has of the ids from ``begin`` to ``end``."""
        ids = self._open.pop(i, None)
        if ids is None:
            ids = self.shards[i].mapped()
            if len(self._open) >= _MOST_OPEN:
                self._open.popitem(last=False)
        self._open[i] = ids
        start = int(self._ends[i]) - self.shards[i].length
        return ids[max(begin - start, 0) : end - start]
