"""Merge methods: how weights and components become the parameters of a proxy."""

from __future__ import annotations
