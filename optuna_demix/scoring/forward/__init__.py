"""Forward passes: requests laid out in batches, run, and their answers read from the logits.

Knows token ids and a model, neither tasks nor lm-eval. Torch is imported with it.
"""

from __future__ import annotations

from optuna_demix.scoring.forward.batches import Batch, BatchRow, Pair, plan_batches, share_rows
from optuna_demix.scoring.forward.packability import why_unpackable
from optuna_demix.scoring.forward.packed_model import attention_cost, head_sees, packed_logits
from optuna_demix.scoring.forward.packing import PackedBatch, pack
from optuna_demix.scoring.forward.passes import Passes, no_room, or_none_without_memory
from optuna_demix.scoring.forward.readout import Readout, token_counts

__all__ = [
    "Batch",
    "BatchRow",
    "PackedBatch",
    "Pair",
    "Passes",
    "Readout",
    "attention_cost",
    "head_sees",
    "no_room",
    "or_none_without_memory",
    "pack",
    "packed_logits",
    "plan_batches",
    "share_rows",
    "token_counts",
    "why_unpackable",
]
