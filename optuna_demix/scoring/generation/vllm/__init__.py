"""Texts by vLLM, in this process and from the live model's own weights.

vLLM reads tokens and writes tokens. Where it ends a text, what it cannot write and how its tokens
become texts are decided as for our own loop. Written against vLLM 0.32.

vLLM is imported when the first engine starts.
"""

from __future__ import annotations

from optuna_demix.scoring.generation.vllm.writer import VllmEngine

__all__ = ["VllmEngine"]
