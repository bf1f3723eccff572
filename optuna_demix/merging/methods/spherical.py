"""Means on a sphere: multislerp and the Karcher mean, tensor by tensor.

Every tensor is a direction and a length. Both methods find a direction in the span of the
components' and give it the weighted mean of their lengths, so the result is a weighted sum of the
components, and its coefficients follow from their inner products, which the arena holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from optuna_demix._typing import FloatArray
from optuna_demix.errors import ComponentError
from optuna_demix.merging.methods.plan import MergePlan

_EPS = 1e-8  # mergekit's


def multislerp(
    w: FloatArray, grams: FloatArray, tensors: Sequence[str], *, use_base: bool
) -> MergePlan:
    """Return the plan of barycentric interpolation on a sphere.

    The published procedure maps the directions to the plane that touches the sphere at their
    weighted mean, averages there, and maps back. The average of deviations from the mean is zero,
    so the mean, brought back to the sphere, is the result.

    Args:
        w: Merge weights, (K,); divided by their sum.
        grams: Inner products by tensor, (T, K, K).
        tensors: Names of the tensors, (T,), for messages.
        use_base: The components are task vectors, to be added to the base.

    Raises:
        ComponentError: If the weights sum to 0, or directions cancel in some tensor.
    """
    w = _normalized(w)
    lengths = np.sqrt(np.diagonal(grams, axis1=1, axis2=2))  # (T, K)
    shares = w / (lengths + _EPS)  # (T, K), of the mean direction
    mean = np.sqrt(np.maximum(np.einsum("tj,tjk,tk->t", shares, grams, shares), 0.0))  # (T,)
    moved = lengths.any(axis=1)  # an all-zero tensor has no direction: it stays zero
    canceled = (mean < _EPS) & moved
    if bool(canceled.any()) and len(w) > 2:
        name = tensors[int(np.argmax(canceled))]
        raise ComponentError(
            f"merge method 'multislerp': the components cancel out in tensor {name!r} at these "
            "weights; use another method"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        coefficients = (lengths @ w / mean)[:, None] * shares
    flat = (mean < _EPS)[:, None]
    coefficients = np.where(flat | _is_one_hot(w), w, coefficients)
    return MergePlan(coefficients, around_base=use_base).simplified()


def karcher(w: FloatArray, grams: FloatArray, *, max_iter: int, tol: float) -> MergePlan:
    """Return the plan of the weighted Karcher mean (arXiv 2603.04972).

    The point of the sphere from which the weighted sum of squared angles is least, by repeated
    averaging in the plane that touches the sphere at the last estimate.

    Args:
        w: Merge weights, (K,).
        grams: Inner products by tensor, (T, K, K).
        max_iter: Most steps.
        tol: Lengths and angles below it count as zero.

    Raises:
        ComponentError: If the weights sum to 0.
    """
    if _is_one_hot(w):
        return MergePlan(w)
    _normalized(w)
    table = np.stack([_karcher(w, gram, max_iter, tol) for gram in grams])
    return MergePlan(table).simplified()


def _karcher(w: FloatArray, gram: FloatArray, max_iter: int, tol: float) -> FloatArray:
    """Coefficients of one tensor, (K,)."""
    lengths = np.sqrt(np.diagonal(gram))
    valid = lengths > tol
    share = float(w[valid].sum())
    if share == 0.0:
        return np.zeros_like(w)
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=valid)
    cosines = gram * np.outer(inverse, inverse)  # of valid components, (K, K)
    alpha = np.where(valid, w, 0.0) / share
    mean = alpha.copy()  # all directions are sums of the components' directions
    length = _length(mean, cosines)
    if length < tol:
        mean = np.zeros_like(w)
        mean[int(np.argmax(valid))] = 1.0
    else:
        mean /= length
    for _ in range(max_iter):
        dots = np.clip(cosines @ mean, -1.0, 1.0)
        angles = np.arccos(dots)
        far = valid & (angles >= tol)
        pull = np.divide(alpha * angles, np.sin(angles), out=np.zeros_like(w), where=far)
        tangent = pull - float(pull @ dots) * mean
        step = _length(tangent, cosines)
        if step < tol:
            break
        mean = np.cos(step) * mean + np.sin(step) / step * tangent
        mean /= _length(mean, cosines)
    return float(w @ lengths) * mean * inverse


def _length(direction: FloatArray, cosines: FloatArray) -> float:
    return math.sqrt(max(float(direction @ cosines @ direction), 0.0))


def _normalized(w: FloatArray) -> FloatArray:
    total = float(w.sum())
    if total == 0.0:
        raise ComponentError("the merge weights sum to 0; a mean on a sphere needs another sum")
    return w / total


def _is_one_hot(w: FloatArray) -> bool:
    return bool(np.count_nonzero(w) == 1 and w.max() == 1.0)
