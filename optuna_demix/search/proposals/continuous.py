"""The next proposal from a fit: startup design, acquisition, spacing."""

from __future__ import annotations

TRIED = 4  # trials in which a component must have taken part before it can be judged
NUDGES = 8  # tries to tell a proposal apart without coming close to another
EVALUATIONS = 3  # of one mixture, with reevaluate
SAME = 1e-9  # total variation below which two mixtures are the same
