"""States of the global random generators, kept apart from those of the caller."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RandomState:
    """States of the global generators that tasks and sampled generation may draw from."""

    python: Any
    numpy: Any
    torch: Tensor
    cuda: tuple[Tensor, ...]

    @classmethod
    def current(cls) -> RandomState:
        """The states as they are."""
        ready = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        cuda = tuple(torch.cuda.get_rng_state_all()) if ready else ()
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)

    @classmethod
    def seeded(cls, python: int, numpy: int, torch_: int) -> RandomState:
        """The states after seeding each generator."""
        before = cls.current()
        random.seed(python)
        np.random.seed(numpy)
        torch.manual_seed(torch_)
        state = cls.current()
        before.restore()
        return state

    def restore(self) -> None:
        """Set the generators to these states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(list(self.cuda))


@contextmanager
def random_state(state: RandomState) -> Iterator[None]:
    """Draw from these states inside, and leave the caller's as they were."""
    before = RandomState.current()
    state.restore()
    try:
        yield
    finally:
        before.restore()
