"""Checkpoints on disk: reading them, and checking that they can be merged."""

from __future__ import annotations
