"""What a merge method wants done to the components once, when the arena is built.

Whatever does not depend on the merge weights is done here: elements that a method drops are set to
the base's, so that their task vector is exactly zero in any storage type, and the numbers that a
merge needs of a whole tensor (its facts) are computed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from optuna_demix.merging.methods.sparsify import Sparsity

_CHUNK_ELEMENTS = 1 << 20  # a component and step: K of them in float64 stay small
_MIN_MASS = 1e-7  # as in mergekit: below it nothing is rescaled


@dataclass(frozen=True)
class Preparation:
    """What becomes of the components; part of an arena's key.

    Attributes:
        base: Whether the base is there, as the last row.
        sparsity: Which elements of each task vector are kept; needs the base.
        facts: What is known of each tensor: ``scales`` (K,), by which a sparsified task vector
            regains its sum of magnitudes; ``gram`` (K, K), the components' inner products, of
            task vectors where there is a base.
        deltas: The element type of components that are kept as differences from the base, as
            `find_method` was asked to; needs the base, and neither sparsity nor facts.
    """

    base: bool = False
    sparsity: Sparsity | None = None
    facts: Literal["scales", "gram"] | None = None
    deltas: Literal["int8", "float8"] | None = None

    @property
    def by_tensor(self) -> bool:
        """Whether whole tensors must be seen at once."""
        return self.sparsity is not None or self.facts is not None

    @property
    def kept(self) -> str:
        """How components are kept, in words."""
        return "as they are" if self.deltas is None else f"as differences in {self.deltas}"

    def n_rows(self, n_components: int) -> int:
        """Return R, the number of rows of a block."""
        return n_components + self.base

    def n_facts(self, n_components: int) -> int:
        """Return F, the number of facts of a tensor."""
        return {None: 0, "scales": n_components, "gram": n_components**2}[self.facts]

    def fields(self) -> dict[str, Any]:
        """Return it as plain data."""
        sparsity = None if self.sparsity is None else self.sparsity.fields()
        return {
            "base": self.base,
            "sparsity": sparsity,
            "facts": self.facts,
            "deltas": self.deltas,
        }

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Preparation:
        """Read what `fields` returned."""
        sparsity = fields["sparsity"]
        return cls(
            base=fields["base"],
            sparsity=None if sparsity is None else Sparsity(**sparsity),
            facts=fields["facts"],
            deltas=fields["deltas"],
        )

    def apply(self, rows: torch.Tensor, *, names: Sequence[str], tensor: str) -> np.ndarray:
        """Prepare one tensor in place.

        Args:
            rows: The tensor of all components and, where it is there, of the base, (R, *shape),
                in the arena's storage type. Dropped elements become the base's.
            names: Component names, (K,).
            tensor: Its name.

        Returns:
            Its facts, (F,), float64.
        """
        facts = np.zeros(0)
        if self.sparsity is not None:
            facts = _sparsify(self.sparsity, rows, names, tensor)
        if self.facts == "gram":
            facts = _gram(rows, has_base=self.base).ravel()
        return facts if self.facts is not None else np.zeros(0)


def _sparsify(rule: Sparsity, rows: torch.Tensor, names: Sequence[str], tensor: str) -> np.ndarray:
    """Set dropped elements to the base's; return the scale of each component, (K,)."""
    scales = np.ones(len(names))
    base = rows[-1]
    for k, name in enumerate(names):
        delta = rows[k].float() - base.float()
        kept = rule.kept(delta, component=name, tensor=tensor)
        before = float(delta.abs().sum(dtype=torch.float64))
        after = float((delta * kept).abs().sum(dtype=torch.float64))
        if before >= _MIN_MASS and after >= _MIN_MASS:
            scales[k] = before / after
        rows[k] = torch.where(kept, rows[k], base)
    return scales


def _gram(rows: torch.Tensor, *, has_base: bool) -> np.ndarray:
    """Inner products of the components, or of their task vectors, (K, K), in float64."""
    flat = rows.reshape(len(rows), -1)
    n_components = len(rows) - has_base
    total = torch.zeros(n_components, n_components, dtype=torch.float64)
    for start in range(0, flat.shape[1], _CHUNK_ELEMENTS):
        part = flat[:, start : start + _CHUNK_ELEMENTS].double()
        if has_base:
            part = part[:-1] - part[-1]
        total += part @ part.T
    return np.asarray(total.numpy())
