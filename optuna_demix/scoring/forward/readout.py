"""Log-likelihoods of requests, read from a model's logits.

lm-eval takes the log-softmax of every position and synchronizes with the device for every
request; here it is taken of the positions that are scored, a few megabytes at a time in memory
that is reused, and answers are fetched once at the end. Log-softmax is row by row, the most
likely token needs a comparison only where every token of a request may be it, and every sum runs
over the same values in the same order: hence the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Every run of scored tokens starts at a multiple of this many elements, as a freshly allocated
# tensor would: CUDA reductions split a run by the alignment of its first element.
_ALIGNMENT = 16
# CUDA's log-softmax reads rows in packets of this many bytes. Where a row is no multiple of it,
# the order of its sums depends on the row's place, so rows must stay where they are.
_PACKET_BYTES = 16
_CACHED_BYTES = 4 << 20  # of log-probabilities that a processor's caches keep at hand


class Reading(NamedTuple):
    """A request and the predictions that answer it.

    Attributes:
        request: Its number.
        tokens: The tokens of its continuation, (n,).
        scored: Where each of them is scored, (n,).
        compared: Where each of them is compared with the likeliest token, (n,).
    """

    request: int
    tokens: Sequence[int]
    scored: Sequence[int]
    compared: Sequence[int]

    def moved(self, place: Callable[[int], int]) -> Reading:
        """The same, with every position replaced."""
        return Reading(
            self.request,
            self.tokens,
            [place(position) for position in self.scored],
            [place(position) for position in self.compared],
        )


@dataclass(frozen=True)
class Readout:
    """Where the answers are in the predictions of one forward pass.

    Attributes:
        positions: Rows of the predictions that any request reads, ascending, (R,).
        rows: For every pair of a prediction and a token, the entry of ``positions``, ascending,
            (E,).
        tokens: The token of every pair, (E,).
        requests: Numbers of the requests, those of equally many tokens side by side, (m,).
        runs: ``(first, last + 1, tokens)`` of the requests of each length.
        scored: Pairs whose log-probabilities a request adds, then zeros, (m, n).
        compared: Pairs that must be the likeliest for a greedy answer, then E, (m, n).
    """

    positions: Tensor
    rows: Tensor
    tokens: Tensor
    requests: tuple[int, ...]
    runs: tuple[tuple[int, int, int], ...]
    scored: Tensor
    compared: Tensor

    def to(self, device: torch.device) -> Readout:
        """The same on a device."""
        if device.type == "cpu":
            return self
        return replace(
            self,
            **{
                name: getattr(self, name).to(device, non_blocking=True)
                for name in ("positions", "rows", "tokens", "scored", "compared")
            },
        )

    def content(self) -> list[object]:
        """Everything that the numbers depend on, to be hashed."""
        parts = (self.positions, self.rows, self.tokens, self.scored)
        return [self.requests, self.runs, *(part.numpy().tobytes() for part in parts)]


class ReadoutBuilder:
    """Collects positions and requests of one forward pass."""

    def __init__(self) -> None:
        self._positions: list[int] = []
        self._readings: list[tuple[int, Reading]] = []

    def add(self, positions: Iterable[int], readings: Iterable[Reading]) -> None:
        """Add positions, above all added before, and the requests that read them."""
        start = len(self._positions)
        self._positions.extend(positions)
        self._readings.extend((start, reading) for reading in readings)

    def finish(self) -> Readout:
        """The readout of all that was added."""
        wanted = {
            (start + place, token)
            for start, (_, tokens, scored, compared) in self._readings
            for places in (scored, compared)
            for place, token in zip(places, tokens, strict=True)
        }
        pairs = sorted(wanted)
        entry = {pair: i for i, pair in enumerate(pairs)}
        ordered = sorted(self._readings, key=lambda item: len(item[1][1]))  # by tokens; stable
        width = len(ordered[-1][1][1])
        width += -width % _ALIGNMENT
        scored = torch.zeros(len(ordered), width, dtype=torch.long)
        compared = torch.full((len(ordered), width), len(pairs))
        runs: dict[int, list[int]] = {}
        for line, (start, (_, tokens, score_at, compare_at)) in enumerate(ordered):
            n = len(tokens)
            runs.setdefault(n, []).append(line)
            for matrix, places in ((scored, score_at), (compared, compare_at)):
                found = [entry[start + p, t] for p, t in zip(places, tokens, strict=True)]
                matrix[line, :n] = torch.tensor(found)
        return Readout(
            positions=torch.tensor(self._positions),
            rows=torch.tensor([row for row, _ in pairs]),
            tokens=torch.tensor([token for _, token in pairs]),
            requests=tuple(request for _, (request, *_) in ordered),
            runs=tuple((lines[0], lines[-1] + 1, n) for n, lines in runs.items()),
            scored=scored,
            compared=compared,
        )


class Scratch:
    """Memory that one batch after another is computed in.

    Fresh memory for tens of megabytes is given back to the system and faulted in again on every
    batch, which on a CPU costs more than the log-softmax itself.
    """

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uninitialized memory of ``shape``, with the dtype and device of ``like``."""
        size = prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size or flat.dtype != like.dtype:
            self._flat[name] = flat = like.new_empty(size)
        return flat[:size].view(shape)


Answers = tuple["Tensor", "Tensor | None"]


def read(readout: Readout, logits: Tensor, scratch: Scratch, *, greedy: bool) -> Answers:
    """Answer the requests of one forward pass.

    Args:
        readout: Where the answers are.
        logits: Predictions; all but the last dimension, V, are flattened.
        scratch: Memory to work in.
        greedy: Also tell whether continuations are the greedy ones.

    Returns:
        The log-likelihood of each of ``readout.requests`` and, with ``greedy``, whether it is the
        greedy continuation; both (m,) and still on the device.
    """
    flat = logits.reshape(-1, logits.shape[-1])  # (B * L, V)
    on_device = readout.to(logits.device)
    read_pairs = _read_in_cache if logits.device.type == "cpu" else _read_at_once
    values, hits = read_pairs(on_device, flat, scratch, greedy=greedy)  # (E,), (E,)
    return _sums(on_device, values), None if hits is None else _all_hit(on_device, hits)


def read_tokens(readout: Readout, logits: Tensor, scratch: Scratch) -> Tensor:
    """Log-probabilities (E,) of all pairs of one forward pass, which :func:`read` would add."""
    flat = logits.reshape(-1, logits.shape[-1])  # (B * L, V)
    read_pairs = _read_in_cache if logits.device.type == "cpu" else _read_at_once
    values, _ = read_pairs(readout.to(logits.device), flat, scratch, greedy=False)
    return values


def _sums(readout: Readout, values: Tensor) -> Tensor:
    """Log-likelihood of every request, (m,)."""
    scored = values[readout.scored]  # (m, n)
    if values.device.type == "cpu":  # each row as if it were alone
        return torch.cat([scored[a:b, :n].sum(dim=1) for a, b, n in readout.runs])
    # On other devices a sum depends on how many there are: one for each request.
    return torch.stack([scored[i, :n].sum() for a, b, n in readout.runs for i in range(a, b)])


def _all_hit(readout: Readout, hits: Tensor) -> Tensor:
    """Whether all tokens of every request are the likeliest, (m,)."""
    return torch.cat([hits, hits.new_ones(1)])[readout.compared].all(dim=1)


def _read_in_cache(readout: Readout, flat: Tensor, scratch: Scratch, *, greedy: bool) -> Answers:
    """Log-probability of every pair, and whether it is the row's highest; block by block."""
    positions, rows, tokens = readout.positions, readout.rows, readout.tokens
    step = max(1, _CACHED_BYTES // (flat.shape[1] * flat.element_size()))
    starts = range(0, len(positions), step)
    values = flat.new_empty(len(rows))
    tops = flat.new_empty(len(positions)) if greedy else None
    cuts = torch.searchsorted(rows, torch.tensor([*starts, len(positions)])).tolist()
    for start, first, last in zip(starts, cuts, cuts[1:], strict=False):
        table = _log_probabilities(flat, positions[start : start + step], scratch)
        pairs = slice(first, last)
        values[pairs] = table[rows[pairs] - start, tokens[pairs]]
        if tops is not None:
            torch.amax(table, dim=1, out=tops[start : start + step])
    if tops is None:
        return values, None
    hits = values == tops[rows]
    # Of equals the first counts, as in lm-eval; look where a whole request is at stake.
    doubtful = torch.unique(readout.compared[_all_hit(readout, hits)])
    doubtful = doubtful[doubtful < len(hits)]
    if len(doubtful):
        places, place = torch.unique(rows[doubtful], return_inverse=True)
        likeliest = [
            _log_probabilities(flat, positions[part], scratch).argmax(dim=1)
            for part in places.split(step)
        ]
        hits[doubtful] = torch.cat(likeliest)[place] == tokens[doubtful]
    return values, hits


def _log_probabilities(flat: Tensor, positions: Tensor, scratch: Scratch) -> Tensor:
    """Log-softmax of the rows at ascending positions, in scratch memory, (positions, V)."""
    table = scratch.take("table", (len(positions), flat.shape[1]), flat)
    low, high = int(positions[0]), int(positions[-1]) + 1
    if high - low == len(positions):
        source = flat[low:high]
    else:
        source = torch.index_select(flat, 0, positions, out=table)
    return torch.log_softmax(source, -1, out=table)


def _read_at_once(readout: Readout, flat: Tensor, scratch: Scratch, *, greedy: bool) -> Answers:
    """Log-probability of every pair, and whether its token is the row's likeliest."""
    positions = readout.positions
    movable = flat.shape[1] * flat.element_size() % _PACKET_BYTES == 0
    if movable and 2 * len(positions) < len(flat):
        chosen = scratch.take("chosen", (len(positions), flat.shape[1]), flat)
        flat, at = torch.index_select(flat, 0, positions, out=chosen), readout.rows
    else:
        at = positions[readout.rows]
    table = scratch.take("table", tuple(flat.shape), flat)
    torch.log_softmax(flat, -1, out=table)
    values = table[at, readout.tokens]
    return values, (table.argmax(dim=-1)[at] == readout.tokens if greedy else None)


def gather(
    found: Sequence[tuple[Readout, Answers]], *, count: int
) -> tuple[list[float], list[bool]]:
    """Put answers into the order of the requests.

    Args:
        found: Readouts and what :func:`read` made of them.
        count: Number of requests.

    Returns:
        Of every request the log-likelihood of its continuation, and whether the continuation is
        the greedy one (all ``False`` where that was not asked for).
    """
    likelihoods = [0.0] * count
    matches = [False] * count
    for readout, (sums, hits) in found:
        requests = readout.requests
        for request, value in zip(requests, sums.tolist(), strict=True):
            likelihoods[request] = value
        if hits is not None:
            for request, hit in zip(requests, hits.tolist(), strict=True):
                matches[request] = hit
    return likelihoods, matches


def gather_tokens(
    found: Iterable[tuple[Readout, Tensor]], *, count: int
) -> list[NDArray[np.float32]]:
    """Put log-probabilities of tokens into the order of the requests.

    Args:
        found: Readouts and what :func:`read_tokens` made of them.
        count: Number of requests.

    Returns:
        Of every request the log-probabilities of its continuation's tokens, in order, (n,).
    """
    tokens = [np.empty(0, dtype=np.float32)] * count
    for readout, values in found:
        scored = values.float().cpu()[readout.scored].numpy()  # (m, width)
        for first, last, n in readout.runs:
            for line in range(first, last):
                tokens[readout.requests[line]] = scored[line, :n]
    return tokens


def token_counts(readouts: Iterable[Readout], *, count: int) -> NDArray[np.int64]:
    """Number of scored tokens of every request, (count,)."""
    counts = np.zeros(count, dtype=np.int64)
    for readout in readouts:
        for first, last, n in readout.runs:
            counts[list(readout.requests[first:last])] = n
    return counts
