"""All components as one flat, memory-mapped file."""

from __future__ import annotations
