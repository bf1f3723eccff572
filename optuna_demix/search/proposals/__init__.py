"""From rows to the next proposal: fit, acquisition, schedules, convergence."""

from __future__ import annotations
