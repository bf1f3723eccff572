"""What writes texts where lm-eval does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix.scoring.generation import GenerationEngine, GreedyLoop
from optuna_demix.scoring.generation.vllm import VllmEngine

if TYPE_CHECKING:
    from optuna_demix.scoring.harness.model import PreparedModel
    from optuna_demix.scoring.vllm_extra import VllmSettings


def engine_of(
    lm: PreparedModel, generation: str, vllm: VllmSettings | None, rows: int
) -> GenerationEngine | None:
    """The engine that a setting names; ``None`` for lm-eval itself.

    Args:
        lm: The model, whose progress it moves.
        generation: ``"auto"``, ``"hf"`` or ``"vllm"``.
        vllm: What vLLM may use.
        rows: Texts that our own loop writes at once.
    """
    wrote = lm.progress.add
    if generation == "vllm":
        return VllmEngine(
            lm.model, lm.tokenizer, max_length=lm.max_length, settings=vllm, wrote=wrote
        )
    if generation == "auto":
        return GreedyLoop(lm.model, lm.tokenizer, rows=rows, autocast=lm.autocast, wrote=wrote)
    return None
