"""The three computations over rows of an arena, eager and compiled, with equal bits on a CPU.

Sums are float32 whatever the storage; each result is rounded once, to nearest even. Products and
sums are kept apart (no fused multiply-add), in the order of the rows, so that the eager and the
compiled path, any number of threads and any cut into blocks give the same proxy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

_LOG = logging.getLogger(__name__)
# Elements of an eager step: a float32 row and the accumulators stay in cache.
_STEP = {"cpu": 1 << 18}
_DEVICE_STEP = 1 << 25
_VARIANTS = 64  # of a kernel in one process: dtypes, numbers of rows, one block or many

Kernel: TypeAlias = Callable[..., None]


def weighted_sum(rows: torch.Tensor, out: torch.Tensor, coefficients: torch.Tensor) -> None:
    """Write ``sum_r c_r · rows_r``.

    Args:
        rows: (m, R, n), of any float type. Read-only.
        out: Result, (m, n), on the same device, perhaps of another float type.
        coefficients: (R,), float32, on the device of the rows.
    """
    total = rows[:, 0].float() * coefficients[0]
    for r in range(1, rows.shape[1]):
        total += rows[:, r].float() * coefficients[r]
    out.copy_(total)


def moved_base(rows: torch.Tensor, out: torch.Tensor, coefficients: torch.Tensor) -> None:
    """Write the base plus a weighted sum of task vectors, ``base + sum_k c_k (rows_k − base)``.

    Args:
        rows: Components, then the base, (m, K + 1, n), of any float type. Read-only.
        out: Result, (m, n), on the same device, perhaps of another float type.
        coefficients: (K,), float32, on the device of the rows.
    """
    n_components = rows.shape[1] - 1
    base = rows[:, n_components].float()
    moved = (rows[:, 0].float() - base) * coefficients[0]
    for k in range(1, n_components):
        moved += (rows[:, k].float() - base) * coefficients[k]
    out.copy_(base + moved)


def elected_sum(
    rows: torch.Tensor,
    out: torch.Tensor,
    coefficients: torch.Tensor,
    weights: torch.Tensor,
    scale: torch.Tensor,
    normalize: bool,
) -> None:
    """Write the base plus those parts of task vectors whose sign wins, element by element.

    With x_k = c_k (rows_k − base), the sign of Σ x_k wins, plus if the sum is 0. The result is
    ``base + scale · Σ x_k / Σ weights_k`` over the k whose x_k has that sign.

    Args:
        rows: Components, then the base, (m, K + 1, n), of any float type. Read-only.
        out: Result, (m, n), on the same device, perhaps of another float type.
        coefficients: (K,), float32, on the device of the rows.
        weights: (K,), float32.
        scale: A float32 scalar.
        normalize: Divide by the sum of the weights that won, where it is not 0.
    """
    n_components = rows.shape[1] - 1
    base = rows[:, n_components].float()
    parts = [(rows[:, k].float() - base) * coefficients[k] for k in range(n_components)]
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
    out.copy_(base + moved * scale)


class Kernels:
    """Runs the computations, compiled where that is wanted and possible."""

    def __init__(self, *, compiled: bool) -> None:
        """Choose the path.

        Args:
            compiled: Let torch.compile fuse each computation into one pass over memory. It needs
                a C++ compiler at run time (on CUDA: Triton); without one, or if compilation
                fails, a warning is logged and the eager path serves.
        """
        self._compiled: dict[Kernel, Any] | None = {} if compiled else None

    @property
    def compiled(self) -> bool:
        """Whether the compiled path is in use."""
        return self._compiled is not None

    def run(self, kernel: Kernel, rows: torch.Tensor, out: torch.Tensor, *given: Any) -> None:
        """Run ``kernel(rows, out, *given)``; one of the functions above."""
        if self._compiled is not None:
            try:
                self._run_compiled(kernel, rows, out, given)
                return
            except Exception as error:  # whatever a compiler can raise
                self._compiled = None
                _LOG.warning(
                    "merging without compiled kernels, which is slower: %s",
                    " ".join(str(error).split())[:200],
                )
        _run_eager(kernel, rows, out, given)

    def _run_compiled(
        self, kernel: Kernel, rows: torch.Tensor, out: torch.Tensor, given: tuple[Any, ...]
    ) -> None:
        assert self._compiled is not None
        if torch._dynamo.config.disable:
            raise RuntimeError("torch.compile is disabled (TORCHDYNAMO_DISABLE)")
        if kernel not in self._compiled:
            # fullgraph: an error rather than a silent, memory-hungry eager run of the whole.
            self._compiled[kernel] = torch.compile(kernel, fullgraph=True, dynamic=True)
        with torch._dynamo.config.patch(recompile_limit=_VARIANTS):
            self._compiled[kernel](rows, out, *given)


def _run_eager(
    kernel: Kernel, rows: torch.Tensor, out: torch.Tensor, given: tuple[Any, ...]
) -> None:
    """Run a kernel piece by piece, so that what it needs in between stays in cache."""
    step = _STEP.get(rows.device.type, _DEVICE_STEP)
    n = rows.shape[2]
    blocks, columns = max(1, step // n), min(n, step)
    for part, target in zip(torch.split(rows, blocks), torch.split(out, blocks), strict=True):
        for start in range(0, n, columns):
            stop = start + columns
            kernel(part[:, :, start:stop], target[:, start:stop], *given)
