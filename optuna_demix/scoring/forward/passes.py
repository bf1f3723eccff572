"""Forward passes over a plan, in smaller pieces where memory does not suffice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from optuna_demix.errors import TaskError
from optuna_demix.scoring.forward.readout import (
    Readout,
    Scratch,
    gather,
    gather_tokens,
    read,
    read_tokens,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Pass(Protocol):
    """One forward pass of a plan."""

    @property
    def readout(self) -> Readout:
        """Where its answers are."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens of a row."""

    def pieces(self, size: int) -> Sequence[Any]:
        """The same in passes of at most ``size`` rows."""


class Passes:
    """Runs a model over plans, and remembers how many tokens fit into memory at once.

    Args:
        logits_of: The model: logits, (..., V), of a pass of the plan.

    Attributes:
        capacity: Most tokens, padding included, of a forward pass of several rows; ``None`` as
            long as everything has fitted.
    """

    def __init__(self, logits_of: Callable[[Any], Tensor]) -> None:
        self._logits_of = logits_of
        self.capacity: int | None = None

    def run(
        self, passes: Sequence[Pass], *, count: int, greedy: bool
    ) -> tuple[list[float], list[bool]]:
        """Run a plan.

        Args:
            passes: The plan.
            count: Number of requests in all passes.
            greedy: Also compare every scored token with the most likely one.

        Returns:
            Of every request the log-likelihood of its continuation, and whether the continuation
            is the greedy one (all ``False`` without ``greedy``).

        Raises:
            TaskError: If not even one row fits into memory.
        """
        found = list(self._read(passes, partial(read, greedy=greedy)))
        return gather(found, count=count)

    def run_tokens(self, passes: Sequence[Pass], *, count: int) -> list[NDArray[np.float32]]:
        """Run a plan for the log-probability of each token.

        Args:
            passes: The plan.
            count: Number of requests in all passes.

        Returns:
            Of every request the log-probabilities of its continuation's tokens, (n,).

        Raises:
            TaskError: If not even one row fits into memory.
        """
        return gather_tokens(self._read(passes, read_tokens), count=count)

    def _read(
        self, passes: Sequence[Pass], reader: Callable[[Readout, Tensor, Scratch], _Result]
    ) -> Iterator[tuple[Readout, _Result]]:
        """Run a plan, in smaller pieces where memory does not suffice."""
        scratch = Scratch()
        waiting = list(passes[::-1])
        while waiting:
            current = waiting.pop()
            rows, tokens = current.shape
            if self.capacity is not None and rows > max(1, self.capacity // tokens):
                waiting.extend(current.pieces(max(1, self.capacity // tokens))[::-1])
                continue
            answers = or_none_without_memory(partial(self._answer, current, scratch, reader))
            if answers is None:
                scratch = Scratch()
                self._halve(rows, tokens)
                waiting.append(current)
                continue
            yield current.readout, answers

    def _answer(
        self,
        current: Pass,
        scratch: Scratch,
        reader: Callable[[Readout, Tensor, Scratch], _Result],
    ) -> _Result:
        # The logits live as an argument only: none beside the next pass's.
        return reader(current.readout, self._logits_of(current), scratch)

    def _halve(self, rows: int, tokens: int) -> None:
        if rows == 1:
            raise no_room(tokens)
        self.capacity = rows * tokens // 2
        _log.warning(
            "out of memory with %d rows of %d tokens: going on with at most %d tokens at once",
            rows,
            tokens,
            self.capacity,
        )


def no_room(tokens: int) -> TaskError:
    """The error for a single row of so many tokens that does not fit into memory."""
    return TaskError(
        f"scoring: a forward pass of one row of {tokens} tokens does not fit into memory; "
        "lower scoring.max_length, choose a smaller dtype or a larger device"
    )


def or_none_without_memory(compute: Callable[[], _Result]) -> _Result | None:
    """What ``compute`` returns; ``None``, with all it held released, if memory did not suffice."""
    try:
        return compute()
    except RuntimeError as error:
        # The CPU allocator has no error class of its own.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate" not in str(error):
            raise
    # Out here, where no traceback holds the tensors any more.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
