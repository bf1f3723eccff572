"""One transformers model in memory whose weights are rewritten by each merge.

Torch and transformers are imported with the first name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix.merging.live.live_model import LiveModel
    from optuna_demix.merging.live.whole import load_whole

__all__ = [
    "LiveModel",
    "load_whole",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "LiveModel": "optuna_demix.merging.live.live_model",
        "load_whole": "optuna_demix.merging.live.whole",
    },
)
