"""Which elements of a task vector a merge method keeps, tensor by tensor.

A task vector is what training changed, ``T − B``. The choice does not depend on the merge weights
and is made once, when the arena is built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

_DRAWN_ELEMENTS = 1 << 22  # at a time


@dataclass(frozen=True)
class Sparsity:
    """A rule for keeping elements; part of an arena's key.

    Attributes:
        rule: ``magnitude`` keeps the largest (TIES, arXiv 2306.01708); ``outliers`` drops the
            very largest too (Model Breadcrumbs, 2312.06795); ``random`` keeps any with equal
            probability (DARE, 2311.03099); ``magprune`` keeps larger ones with larger probability
            (DELLA, 2406.11617).
        density: Share of the elements to keep.
        gamma: Share of the largest elements to drop (``outliers``).
        epsilon: Probabilities run from ``density − epsilon`` to ``density + epsilon`` along the
            ranks in a row (``magprune``).
        seed: Of the random rules.
    """

    rule: Literal["magnitude", "outliers", "random", "magprune"]
    density: float
    gamma: float = 0.0
    epsilon: float = 0.0
    seed: int = 0

    def fields(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def kept(self, delta: torch.Tensor, *, component: str, tensor: str) -> torch.Tensor:
        """Return a mask of the elements to keep, of the shape of ``delta``.

        Args:
            delta: Task vector of one tensor, float32, in its own shape.
            component: Name of the component; with the tensor's name it selects the random draw.
            tensor: Name of the tensor.
        """
        if self.density >= 1.0:
            return torch.ones_like(delta, dtype=torch.bool)
        if self.rule in _CHOICES:
            return _CHOICES[self.rule](self, delta)
        return _draw(self.chances(delta), self.seed, f"{component}\n{tensor}")

    def chances(self, delta: torch.Tensor) -> torch.Tensor:
        """Return the probability of each element to be kept by a random rule."""
        return _CHANCES[self.rule](self, delta)


def _magnitude(rule: Sparsity, delta: torch.Tensor) -> torch.Tensor:
    count = max(1, int(rule.density * delta.numel()))
    return _smallest(-delta.abs(), count)


def _outliers(rule: Sparsity, delta: torch.Tensor) -> torch.Tensor:
    size, kept = delta.numel(), int(rule.density * delta.numel())
    # Fewer outliers are dropped if the density asks for the elements.
    dropped = max(0, size - kept - int(rule.gamma * size))
    magnitude = delta.abs()
    return _smallest(magnitude, dropped + kept) & ~_smallest(magnitude, dropped)


def _equal_chances(rule: Sparsity, delta: torch.Tensor) -> torch.Tensor:
    return torch.full((), rule.density).expand(delta.shape)


def _ranked_chances(rule: Sparsity, delta: torch.Tensor) -> torch.Tensor:
    rows = delta if delta.ndim >= 2 else delta.reshape(1, -1)
    ranks = rows.abs().argsort(dim=1, stable=True).argsort(dim=1).float()
    last = max(1, rows.shape[1] - 1)
    chances = rule.density - rule.epsilon + ranks / last * (2 * rule.epsilon)
    return chances.reshape(delta.shape)


_Rule: TypeAlias = "Callable[[Sparsity, torch.Tensor], torch.Tensor]"
_CHOICES: dict[str, _Rule] = {"magnitude": _magnitude, "outliers": _outliers}
_CHANCES: dict[str, _Rule] = {"random": _equal_chances, "magprune": _ranked_chances}


def _smallest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Mask of the ``count`` smallest; among equals the first in memory.

    By a partial sort rather than a full one, which would need eight bytes an element for indices.
    """
    flat = values.reshape(-1)
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if count >= len(flat):
        return torch.ones_like(values, dtype=torch.bool)
    threshold = float(np.partition(flat.numpy(), count - 1)[count - 1])
    mask = flat < threshold
    missing = count - int(mask.sum())
    mask[(flat == threshold).nonzero()[:missing, 0]] = True
    return mask.view(values.shape)


def _draw(chances: torch.Tensor, seed: int, name: str) -> torch.Tensor:
    """Mask of elements that are each kept with their own probability.

    Numpy's generator, seeded by content: the same bits on every host, in any order of tensors.
    """
    digest = hashlib.sha256(f"{seed}\n{name}".encode()).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
    flat = chances.reshape(-1)
    mask = torch.empty(chances.numel(), dtype=torch.bool)
    for start in range(0, len(mask), _DRAWN_ELEMENTS):
        part = slice(start, min(start + _DRAWN_ELEMENTS, len(mask)))
        uniform = torch.from_numpy(rng.random(part.stop - part.start, dtype=np.float32))
        mask[part] = uniform < flat[part]
    return mask.view(chances.shape)
