"""What is left of a merge method once the merge weights are known: numbers for the kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray


@dataclass(frozen=True)
class Election:
    """Elements of task vectors vote for a sign; the losers are left out (TIES, arXiv 2306.01708).

    Attributes:
        weights: Merge weights, (K,), by whose sum over the winners an element is divided.
        normalize: Whether it is divided.
        scale: Factor of the merged task vector.
    """

    weights: FloatArray
    normalize: bool
    scale: float


@dataclass(frozen=True)
class MergePlan:
    """How rows of the arena become one proxy.

    Attributes:
        coefficients: Factor of each row, (R,) or, where tensors differ, (T, R). With
            ``around_base``, of each task vector, (K,) or (T, K).
        around_base: Add task vectors, rows minus the last one, to the last one: the base. The
            task vectors of components trained from one base are small, and so is their error.
        election: With ``around_base``, how elements vote; None if all of them count.
    """

    coefficients: FloatArray
    around_base: bool = False
    election: Election | None = None

    def part(self, first: int, stop: int) -> MergePlan:
        """Return the plan of the tensors from ``first`` to below ``stop``."""
        if self.coefficients.ndim == 1:
            return self
        return replace(self, coefficients=self.coefficients[first:stop])

    def simplified(self) -> MergePlan:
        """Return the plan with one set of coefficients if all tensors have the same."""
        table = self.coefficients
        if table.ndim == 2 and len(table) and bool((table == table[0]).all()):
            return replace(self, coefficients=table[0])
        return self
