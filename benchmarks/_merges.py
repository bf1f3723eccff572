"""Scores of the quickstart's real components: every mixture is merged and run on held-out text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _laws import FloatArray

from optuna_demix.merging import Arena, LiveModel

_TASKS = "tasks/data/quickstart_{}_bpb.jsonl"
_PASSAGES = 6  # of each domain
_TOKENS = 128  # of each passage: the length the models were trained at


class MergedLosses:
    """Loss in bits per token on held-out passages of each domain, of real merges.

    A merge is exact and the passages are always the same, so that there is no noise. What was
    scored once is remembered.

    Args:
        run_dir: Folder of a finished quickstart.

    Attributes:
        names: The components, which are the domains as well, K of them.
        digest: Changes with the components and with what is scored.
    """

    def __init__(self, run_dir: Path) -> None:
        arena = run_dir / "components.arena"
        self._live = LiveModel(Arena.open(arena))
        self.names = self._live.names
        texts = [_passages(run_dir / _TASKS.format(name)) for name in self.names]
        content = arena.read_bytes() + json.dumps([texts, _TOKENS]).encode()
        self.digest = hashlib.sha256(content).hexdigest()[:12]
        tokenizer = self._live.tokenizer
        ids = [tokenizer(text)["input_ids"][:_TOKENS] for texts_of in texts for text in texts_of]
        self._inputs = torch.zeros((len(ids), _TOKENS), dtype=torch.long)
        self._targets = torch.full((len(ids), _TOKENS), -100)
        for row, tokens in enumerate(ids):
            self._inputs[row, : len(tokens)] = torch.tensor(tokens)
            self._targets[row, : len(tokens) - 1] = torch.tensor(tokens[1:])
        self._known: dict[bytes, FloatArray] = {}

    def __call__(self, X: FloatArray) -> FloatArray:
        """Losses (n, K) of mixtures (n, K)."""
        return np.stack([self._of_one(x) for x in X])

    @torch.no_grad()
    def _of_one(self, w: FloatArray) -> FloatArray:
        key = np.ascontiguousarray(w, dtype=float).tobytes()
        if key not in self._known:
            self._live.merge(w)
            logits = self._live.model(self._inputs).logits  # (rows, tokens, vocabulary)
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), self._targets.flatten(), reduction="none"
            )
            totals = losses.view(len(self.names), -1).sum(dim=1)
            counts = (self._targets >= 0).view(len(self.names), -1).sum(dim=1)
            self._known[key] = (totals / counts).double().numpy() / np.log(2.0)
        return self._known[key]


def _passages(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines[:_PASSAGES]]
    return [row["text"] for row in rows]
