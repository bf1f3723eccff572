"""One transformers model in memory whose weights are rewritten by each merge."""

from __future__ import annotations
