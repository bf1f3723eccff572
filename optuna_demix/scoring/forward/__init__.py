"""Forward passes: batches, packed prefixes, and answers read from logits."""

from __future__ import annotations
