"""The computations over rows of an arena, eager and compiled, with equal bits on a CPU.

Sums are float32 whatever the storage; each result is rounded once, to nearest even. Products and
sums are kept apart (no fused multiply-add), in the order of the rows, so that the eager and the
compiled path, any number of threads and any cut into blocks give the same proxy.

Each computation is a function of float32 rows. How these come out of the storage and how the
result goes back is the same for all: by element or, compiled for bfloat16, two at a time.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from optuna_demix._wording import one_line
from optuna_demix.merging.arena.deltas import GROUP, DeltaBlocks

_log = logging.getLogger(__name__)
# Elements of an eager step: a float32 row and the accumulators stay in cache.
_CPU_STEP = 1 << 18
_DEVICE_STEP = 1 << 25
_MAX_VARIANTS = 64  # of a computation in one process: dtypes, numbers of rows, one block or many
_HIGH_HALF = -(1 << 16)  # mask of the upper 16 bits of an int32
Rows: TypeAlias = Sequence[torch.Tensor]
Computation: TypeAlias = Callable[..., torch.Tensor]
_Key: TypeAlias = tuple[Callable[..., Any], bool]  # what was compiled, and whether by pairs


def weighted_sum(rows: Rows, coefficients: torch.Tensor) -> torch.Tensor:
    """Return ``sum_r c_r · rows_r``.

    Args:
        rows: R float32 tensors of one shape. Read-only.
        coefficients: (R,), float32, on the device of the rows.
    """
    total = rows[0] * coefficients[0]
    for r in range(1, len(rows)):
        total += rows[r] * coefficients[r]
    return total


def moved_base(rows: Rows, coefficients: torch.Tensor) -> torch.Tensor:
    """Return the base plus a weighted sum of task vectors, ``base + sum_k c_k (rows_k − base)``.

    Args:
        rows: Components, then the base: K + 1 float32 tensors of one shape. Read-only.
        coefficients: (K,), float32, on the device of the rows.
    """
    *components, base = rows
    return base + weighted_sum([row - base for row in components], coefficients)


def elected_sum(
    rows: Rows,
    coefficients: torch.Tensor,
    weights: torch.Tensor,
    scale: torch.Tensor,
    normalize: bool,
) -> torch.Tensor:
    """Return the base plus those parts of task vectors whose sign wins, element by element.

    With x_k = c_k (rows_k − base), the sign of Σ x_k wins, plus if the sum is 0. The result is
    ``base + scale · Σ x_k / Σ weights_k`` over the k whose x_k has that sign.

    Args:
        rows: Components, then the base: K + 1 float32 tensors of one shape. Read-only.
        coefficients: (K,), float32, on the device of the rows.
        weights: (K,), float32.
        scale: A float32 scalar.
        normalize: Divide by the sum of the weights that won, where it is not 0.
    """
    *components, base = rows
    parts = [(row - base) * coefficients[k] for k, row in enumerate(components)]
    votes = parts[0]
    for part in parts[1:]:
        votes = votes + part
    plus = votes >= 0
    moved = torch.zeros_like(base)
    divisor = torch.zeros_like(base)
    for k, part in enumerate(parts):
        won = torch.where(plus, part > 0, part < 0)
        moved = moved + torch.where(won, part, 0.0)
        divisor = divisor + torch.where(won, weights[k], 0.0)
    if normalize:
        moved = moved / torch.where(divisor == 0, 1.0, divisor)
    return base + moved * scale


class Kernels:
    """Runs computations over blocks, compiled where that is wanted and possible.

    Args:
        compiled: Let torch.compile fuse each computation into one pass over memory. It needs a
            C++ compiler at run time (on CUDA: Triton); without one, or if compilation fails, a
            warning is logged and the eager path serves.
    """

    def __init__(self, *, compiled: bool) -> None:
        self._compiled: dict[_Key, Any] | None = {} if compiled else None

    @property
    def compiled(self) -> bool:
        """Whether the compiled path is in use."""
        return self._compiled is not None

    def run(
        self, compute: Computation, rows: torch.Tensor, out: torch.Tensor, *numbers: Any
    ) -> None:
        """Write ``compute(rows, *numbers)``.

        Args:
            compute: One of the functions above.
            rows: (m, R, n), of any float type, on any device. Read-only.
            out: Result, (m, n), on the same device, perhaps of another float type.
            numbers: The further arguments of ``compute``.
        """
        if self._compiled is not None:
            try:
                self._run_compiled(compute, rows, out, numbers)
                return
            except Exception as error:  # whatever a compiler can raise
                self._give_up(error)
        _run_eager(compute, rows, out, numbers)

    def run_deltas(
        self, blocks: DeltaBlocks, out: torch.Tensor, coefficients: torch.Tensor
    ) -> None:
        """Write ``c_K · base + sum_k c_k · delta_k``.

        Args:
            blocks: m blocks of K differences and their base. Read-only.
            out: Result, (m, n), on the same device, of any float type.
            coefficients: (K + 1,), float32, on that device.
        """
        if self._compiled is not None:
            try:
                self._call_compiled(
                    (_added_deltas, False), lambda: _added_deltas, *blocks, out, coefficients
                )
                return
            except Exception as error:  # whatever a compiler can raise
                self._give_up(error)
        _run_eager_deltas(blocks, out, coefficients)

    def _give_up(self, error: Exception) -> None:
        self._compiled = None
        _log.warning("merging without compiled kernels, which is slower: %s", one_line(error))

    def _run_compiled(
        self, compute: Computation, rows: torch.Tensor, out: torch.Tensor, numbers: tuple[Any, ...]
    ) -> None:
        packed = _can_pack(rows, out)
        if packed:
            rows, out = rows.view(torch.int32), out.view(torch.int32)
        kernel = _by_pairs if packed else _by_element
        self._call_compiled((compute, packed), lambda: kernel(compute), rows, out, *numbers)

    def _call_compiled(self, key: _Key, make: Callable[[], Any], *arguments: Any) -> None:
        assert self._compiled is not None
        if torch._dynamo.config.disable:
            raise RuntimeError("torch.compile is disabled (TORCHDYNAMO_DISABLE)")
        if key not in self._compiled:
            # fullgraph: an error rather than a silent, memory-hungry eager run of the whole.
            self._compiled[key] = torch.compile(make(), fullgraph=True, dynamic=True)
        with torch._dynamo.config.patch(recompile_limit=_MAX_VARIANTS):
            self._compiled[key](*arguments)


def _added_deltas(
    elements: torch.Tensor,  # (m, K, n), int8 or float8
    scales: torch.Tensor,  # (m, K, n / GROUP), float32
    base: torch.Tensor,  # (m, n)
    out: torch.Tensor,  # (m, n)
    coefficients: torch.Tensor,  # (K + 1,), float32
) -> None:
    # Everything in groups, results too: loops over 64 neighbours become vector instructions.
    def in_groups(row: torch.Tensor) -> torch.Tensor:
        return torch.unflatten(row, -1, (-1, GROUP))

    def scaled(k: int) -> torch.Tensor:
        factors = scales[:, k] * coefficients[k]
        return in_groups(elements[:, k]).float() * factors.unsqueeze(-1)

    total = scaled(0)
    for k in range(1, elements.shape[1]):
        total += scaled(k)
    in_groups(out).copy_(in_groups(base).float() * coefficients[elements.shape[1]] + total)


def _by_element(compute: Computation) -> Callable[..., None]:
    def kernel(rows: torch.Tensor, out: torch.Tensor, *numbers: Any) -> None:
        out.copy_(compute([rows[:, r].float() for r in range(rows.shape[1])], *numbers))

    return kernel


def _by_pairs(compute: Computation) -> Callable[..., None]:
    """Two bfloat16 at a time, as int32: whole vectors are loaded and stored, none is widened.

    A bfloat16 is the upper half of a float32, so that a shift or a mask converts it. Rounding to
    nearest even adds just below half a unit of the half that stays, and one more if it is odd.
    """

    def rounded(x: torch.Tensor) -> torch.Tensor:
        bits = x.view(torch.int32)
        return bits + (0x7FFF + ((bits >> 16) & 1))

    def kernel(rows: torch.Tensor, out: torch.Tensor, *numbers: Any) -> None:
        pairs = [rows[:, r] for r in range(rows.shape[1])]
        low = compute([(pair << 16).view(torch.float32) for pair in pairs], *numbers)
        high = compute([(pair & _HIGH_HALF).view(torch.float32) for pair in pairs], *numbers)
        out.copy_(((rounded(low) >> 16) & 0xFFFF) | (rounded(high) & _HIGH_HALF))

    return kernel


def _can_pack(rows: torch.Tensor, out: torch.Tensor) -> bool:
    return (
        rows.dtype == out.dtype == torch.bfloat16
        and rows.device.type == "cpu"
        and sys.byteorder == "little"
        and rows.shape[2] % 2 == 0
        and rows.storage_offset() % 2 == out.storage_offset() % 2 == 0
        and all(stride % 2 == 0 for stride in (*rows.stride()[:2], out.stride(0)))
    )


def _run_eager_deltas(blocks: DeltaBlocks, out: torch.Tensor, coefficients: torch.Tensor) -> None:
    step = max(1, (_CPU_STEP if out.device.type == "cpu" else _DEVICE_STEP) // out.shape[1])
    for start in range(0, len(out), step):
        which = slice(start, start + step)
        pieces = (blocks.elements[which], blocks.scales[which], blocks.base[which])
        _added_deltas(*pieces, out[which], coefficients)


def _run_eager(
    compute: Computation, rows: torch.Tensor, out: torch.Tensor, numbers: tuple[Any, ...]
) -> None:
    """Compute piece by piece, so that what is needed in between stays in cache."""
    kernel = _by_element(compute)
    step = _CPU_STEP if rows.device.type == "cpu" else _DEVICE_STEP
    n = rows.shape[2]
    blocks, columns = max(1, step // n), min(n, step)
    for part, target in zip(torch.split(rows, blocks), torch.split(out, blocks), strict=True):
        for start in range(0, n, columns):
            stop = start + columns
            kernel(part[:, :, start:stop], target[:, start:stop], *numbers)
