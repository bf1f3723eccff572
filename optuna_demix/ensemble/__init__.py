"""The mixture of the components' token probabilities, a proxy that needs no merge.

Each component is scored once. The probability of a token under merge weights ``w`` is then the
weighted mean of the probabilities that the components give it (MDE, arXiv 2502.15950), and a
request's log-likelihood is the sum of its tokens' logarithms. Numpy only.
"""

from __future__ import annotations

from optuna_demix.ensemble.mixing import ProbabilityMixture
from optuna_demix.ensemble.rows import RowStore

__all__ = ["ProbabilityMixture", "RowStore"]
