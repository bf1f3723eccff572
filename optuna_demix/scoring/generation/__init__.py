"""Texts of a live model: greedy search in which rows leave when they end.

lm-eval's own way keeps every row of a batch until the last one has ended. Here the place of a row
that has ended is taken by the next prompt at once, what prompts of a task begin with alike is
computed once for each proxy, and stop strings are looked for only after a token that can complete
one. Everything but plain greedy search over full attention is refused, with the reason.

Knows token ids, a model and what decodes tokens, neither tasks nor lm-eval. Torch is imported
with it.
"""

from __future__ import annotations

from optuna_demix.scoring.generation.engine import Arguments, GenerationEngine, Prompt
from optuna_demix.scoring.generation.loop import GreedyLoop
from optuna_demix.scoring.generation.progress import Progress, Watcher

__all__ = ["Arguments", "GenerationEngine", "GreedyLoop", "Progress", "Prompt", "Watcher"]
