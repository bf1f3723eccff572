"""Text to token blocks, and the order in which training sees them."""

from __future__ import annotations
