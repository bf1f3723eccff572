"""``ProbabilityMixture``: log-likelihoods of requests under any merge weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from optuna_demix._typing import FloatArray

_CHUNK_TOKENS = 1 << 18  # read at once; in float64 a few megabytes for each component
_CHUNK_ELEMENTS = 1 << 18  # of mixtures times tokens: what a processor's caches hold
_FAR = 80.0  # nats below the best component: further down float32 nears its smallest number


class ProbabilityMixture:
    r"""Requests under mixtures of the components' token probabilities.

    With :math:`\ell_i(t)` the log-probability that component i gives token t, a request has

    .. math:: \sum_t \log \sum_i w_i \exp \ell_i(t),

    which is concave in w. Probabilities are kept relative to the best component's, in float32; the
    few tokens that some component finds more than 80 nats less likely than another are kept as
    logarithms, so that nothing underflows.

    Args:
        rows: Log-probabilities of all tokens by component, K arrays (T,).
        counts: Number of tokens of each request, (R,), which sum to T; a request without tokens
            has log-likelihood 0.

    Raises:
        ValueError: If shapes do not fit or a log-probability is not finite.
    """

    def __init__(self, rows: Sequence[NDArray[np.float32]], counts: ArrayLike) -> None:
        sizes = np.asarray(counts, dtype=np.int64)
        n_tokens = int(sizes.sum())
        if not rows or any(row.shape != (n_tokens,) for row in rows):
            raise ValueError(f"every component needs the log-probabilities of {n_tokens} tokens")
        self._n_requests = len(sizes)
        self._filled = np.flatnonzero(sizes)  # reduceat takes no empty runs
        self._sizes = sizes[self._filled]
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._ratios = np.empty((len(rows), n_tokens), dtype=np.float32)
        best = np.empty(n_tokens)
        far: list[NDArray[np.intp]] = []
        logs: list[FloatArray] = []
        for first in range(0, n_tokens, _CHUNK_TOKENS):
            part = slice(first, first + _CHUNK_TOKENS)
            values = np.stack([np.asarray(row[part], dtype=np.float64) for row in rows])
            if not np.isfinite(values).all():
                raise ValueError("a log-probability is not finite")
            best[part] = values.max(axis=0)
            values -= best[part]
            deep = np.flatnonzero(values.min(axis=0) < -_FAR)
            far.append(first + deep)
            logs.append(values[:, deep])
            values[:, deep] = 0.0
            np.exp(values, out=values)
            self._ratios[:, part] = values
        self._far = np.concatenate([np.empty(0, dtype=np.intp), *far])
        self._far_logs = np.concatenate([np.empty((len(rows), 0)), *logs], axis=1)  # (K, F)
        owners = np.repeat(np.arange(len(self._filled)), self._sizes)
        self._far_owners = owners[self._far]
        self._best = self._sums(best[None])[0]  # of each filled request

    @property
    def n_components(self) -> int:
        """Number of components, K."""
        return len(self._ratios)

    @property
    def n_requests(self) -> int:
        """Number of requests, R."""
        return self._n_requests

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all requests, T."""
        return self._ratios.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that the probabilities take in memory."""
        return self._ratios.nbytes + self._far_logs.nbytes

    def log_likelihoods(self, weights: ArrayLike) -> FloatArray:
        """Log-likelihood of every request.

        Args:
            weights: Merge weights on the simplex, (n, K).

        Returns:
            Log-likelihoods, (n, R).
        """
        W = self._on_simplex(weights)
        found = np.zeros((len(W), self._n_requests))
        step = max(1, _CHUNK_ELEMENTS // max(1, self.n_tokens))
        for first in range(0, len(W), step):
            some = W[first : first + step]
            mixed = some.astype(np.float32) @ self._ratios
            np.log(mixed, out=mixed)
            sums = self._best + self._sums(mixed)
            if len(self._far):
                np.add.at(sums.T, self._far_owners, self._far_mixed(some).T)
            found[first : first + step, self._filled] = sums
        return found

    def pull_back(self, weights: ArrayLike, slopes: ArrayLike) -> FloatArray:
        """Gradients with respect to the merge weights.

        The derivative of a request's log-likelihood by :math:`w_i` is the sum over its tokens of
        component i's probability divided by the mixture's.

        Args:
            weights: Merge weights on the simplex, (K,).
            slopes: Of m functions, the derivatives with respect to the log-likelihoods, (m, R).

        Returns:
            Their derivatives with respect to the merge weights, (m, K).
        """
        w = self._on_simplex(np.asarray(weights)[None])[0]
        by_request = np.asarray(slopes, dtype=np.float64)[:, self._filled]
        mixed = w.astype(np.float32) @ self._ratios  # (T,)
        inverse = 1.0 / mixed
        inverse[self._far] = 0.0
        gradients = np.empty((len(by_request), len(w)))
        for row, slope in enumerate(by_request):
            factors = np.repeat(slope.astype(np.float32), self._sizes)
            factors *= inverse
            gradients[row] = self._ratios @ factors
        if len(self._far):
            shares = np.exp(self._far_logs - self._far_mixed(w[None])[0])  # (K, F)
            gradients += by_request[:, self._far_owners] @ shares.T
        return gradients

    def _on_simplex(self, weights: ArrayLike) -> FloatArray:
        W = np.asarray(weights, dtype=np.float64)
        if W.ndim != 2 or W.shape[1] != self.n_components:
            raise ValueError(f"merge weights must be (n, {self.n_components}), got {W.shape}")
        if not (np.isfinite(W).all() and (W >= 0).all() and np.allclose(W.sum(axis=1), 1.0)):
            raise ValueError("merge weights must be at least 0 and sum to 1")
        return W

    def _sums(self, tokens: NDArray[np.floating]) -> FloatArray:
        """Sums (n, filled requests) over the tokens (n, T) of each request."""
        if not len(self._starts):
            return np.zeros((len(tokens), 0))
        sums: FloatArray = np.add.reduceat(tokens, self._starts, axis=1, dtype=np.float64)
        return sums

    def _far_mixed(self, W: FloatArray) -> FloatArray:
        """Logarithm (n, F) of the mixed probability of the far tokens, relative to the best."""
        with np.errstate(divide="ignore"):
            logs = np.log(W)[:, :, None] + self._far_logs  # (n, K, F)
        top = logs.max(axis=1)
        mixed: FloatArray = top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
        return mixed
