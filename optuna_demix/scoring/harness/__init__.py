"""Everything that touches lm-evaluation-harness."""

from __future__ import annotations
