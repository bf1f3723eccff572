"""Trials as rows of arrays: parameters, scores, constraints and estimates of pruned trials."""

from __future__ import annotations
