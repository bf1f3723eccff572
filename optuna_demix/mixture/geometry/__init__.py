"""Polytopes inside the simplex: projection, sampling, moves. Arrays only."""

from __future__ import annotations
