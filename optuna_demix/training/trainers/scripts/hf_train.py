"""Trains one model with transformers' Trainer, as a file of settings says; resumes by itself.

Texts are streamed by ``datasets``, shuffled in a buffer, packed into blocks of one length and then
mixed, so that shares are of tokens. A source that ends begins again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

BUFFER = 10_000  # documents that are shuffled
TEXTS = 256  # documents that are tokenized at a time


def texts_of(source: Mapping[str, Any], seed: int) -> Iterator[str]:
    """Texts of a source without end."""
    stream = load_dataset(**{"split": "train", **source["load"]}, streaming=True)
    epoch = 0
    while True:
        empty = True
        for example in stream.shuffle(seed=seed + epoch, buffer_size=BUFFER):
            empty = False
            yield source["template"].format_map(example)
        if empty:
            raise SystemExit(f"{source['load']}: holds no document")
        epoch += 1


def blocks_of(texts: Iterator[str], tokenizer: Any, length: int) -> Iterator[list[int]]:
    """Blocks of tokens, with a document's end between any two documents."""
    left: list[int] = []
    while True:
        batch = [text for _, text in zip(range(TEXTS), texts, strict=False)]
        for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            left += [*ids, tokenizer.eos_token_id]
        for start in range(0, len(left) - length + 1, length):
            yield left[start : start + length]
        left = left[len(left) // length * length :]


def turns(shares: Sequence[float]) -> Iterator[int]:
    """Which source gives the next block: always the one that is furthest behind its share."""
    given = np.asarray(shares, dtype=np.float64)  # (n,)
    behind = np.zeros_like(given)
    while True:
        behind += given
        chosen = int(np.argmax(behind))
        behind[chosen] -= 1.0
        yield chosen


class Mixture(torch.utils.data.IterableDataset[dict[str, list[int]]]):
    """Blocks of all sources in the proportions of their shares."""

    def __init__(self, content: Mapping[str, Any], tokenizer: Any, seed: int) -> None:
        self._sources = list(content["sources"].values())
        self._length = content["sequence_length"]
        self._tokenizer = tokenizer
        self._seed = seed

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        streams = [
            blocks_of(texts_of(source, self._seed), self._tokenizer, self._length)
            for source in self._sources
        ]
        for chosen in turns([source["share"] for source in self._sources]):
            yield {"input_ids": next(streams[chosen])}


def late_decay(step: int, *, warmup: int, steps: int, decay: int, final: float) -> float:
    """The rate of a step as a share of the peak: up, along, and down as one minus a root."""
    if step < warmup:
        return step / warmup
    into = step - (steps - decay)
    return 1.0 - (1.0 - final) * min(into / decay, 1.0) ** 0.5 if into > 0 and decay else 1.0


class LateTrainer(Trainer):
    """Trainer with :func:`late_decay`, where the settings ask for it."""

    late: dict[str, Any] | None = None

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make the schedule."""
        if self.late is None:
            make: Any = super().create_scheduler
            return make(num_training_steps, optimizer)
        rate = partial(late_decay, **self.late)
        chosen: Any = optimizer or self.optimizer
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(chosen, rate)
        return self.lr_scheduler


def collate(rows: Sequence[Mapping[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A batch whose labels are its tokens; the model shifts them."""
    tokens = torch.tensor([row["input_ids"] for row in rows])  # (b, sequence_length)
    return {"input_ids": tokens, "labels": tokens}


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", type=Path, help="file of settings")
    parser.add_argument("final", type=Path, help="where the trained model is saved")
    given = parser.parse_args()
    content = json.loads(given.settings.read_text(encoding="utf-8"))
    parser_of: Any = HfArgumentParser
    (arguments,) = parser_of(TrainingArguments).parse_dict(content["arguments"])
    tokenizer = AutoTokenizer.from_pretrained(content["tokenizer"])
    trainer = LateTrainer(
        model=AutoModelForCausalLM.from_pretrained(content["start"], dtype=torch.float32),
        args=arguments,
        train_dataset=Mixture(content, tokenizer, arguments.seed),
        data_collator=collate,
    )
    trainer.late = content["late_decay"]
    last: Any = get_last_checkpoint
    trainer.train(resume_from_checkpoint=last(arguments.output_dir))
    trainer.save_model(str(given.final))
    if trainer.is_world_process_zero():
        trainer.state.save_to_json(str(given.final / "trainer_state.json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
