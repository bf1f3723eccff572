"""Turns text into blocks of tokens, and puts them into the order in which training sees them."""

from __future__ import annotations
