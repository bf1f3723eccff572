"""How token probabilities are mixed."""

from __future__ import annotations

from optuna_demix.config._base import PositiveNumber, StrictModel


class ProbabilitiesConfig(StrictModel):
    """How the components' token probabilities are mixed."""

    exponent: PositiveNumber = 0.8
    """Component i counts as ``w_i ** exponent``, divided by their sum. Below 1, little data of a
    kind teaches more than its share, as it does in training; 1 is the plain mixture."""
