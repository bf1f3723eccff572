"""What a model is given for one scoring, counted without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """One text that a model writes.

    Attributes:
        prompt: Tokens that it reads.
        most: Tokens that it writes at most.
        screened: Whether only promising models write it.
    """

    prompt: int
    most: int
    screened: bool = False


@dataclass(frozen=True)
class Workload:
    """What a model is given for one scoring.

    Attributes:
        requests: Number of requests, by lm-eval's name of what is asked; repeated ones count.
        passes: Rows and tokens of a row, padding counted, of each forward pass that computes
            log-likelihoods.
        texts: What it writes.
    """

    requests: Mapping[str, int]
    passes: tuple[tuple[int, int], ...] = ()
    texts: tuple[Text, ...] = ()

    @property
    def n_requests(self) -> int:
        """Number of all requests."""
        return sum(self.requests.values())

    @property
    def read(self) -> int:
        """Tokens that log-likelihoods are computed from, padding counted."""
        return sum(rows * tokens for rows, tokens in self.passes)
