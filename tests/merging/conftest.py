"""Tiny models, made in a moment, for everything that merges."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
)
from transformers.utils import logging

from optuna_demix.merging import Arena, ComponentSet
from tests.tiny_models import llama_config, word_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import LlamaConfig

VOCABULARY = 64
NAMES = ("web", "code", "math")

logging.disable_progress_bar()


def _llama(*, tied: bool) -> LlamaConfig:
    return llama_config(
        vocab_size=VOCABULARY,
        intermediate_size=24,
        num_hidden_layers=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
        initializer_range=0.3,
    )


CONFIGS: dict[str, Callable[[], Any]] = {
    "llama-tied": lambda: _llama(tied=True),
    "llama-untied": lambda: _llama(tied=False),
    "gpt-neox": lambda: GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,
    ),
}


def save_tokenizer(directory: Path, *, swap: tuple[int, int] | None = None) -> None:
    """Save a word-level tokenizer of 60 words; ``swap`` exchanges the ids of two words."""
    words = ["<unk>", "<s>", *(f"word{number}" for number in range(58))]
    if swap is not None:
        left, right = swap
        words[left], words[right] = words[right], words[left]
    word_tokenizer(words).save_pretrained(directory)


def save_model(
    directory: Path,
    *,
    family: str = "llama-tied",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    sharded: bool = False,
    tokenizer: bool = True,
    **fields: Any,
) -> Path:
    """Save a randomly initialized model, every parameter different from its default."""
    config = CONFIGS[family]()
    for name, value in fields.items():
        setattr(config, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    shard_size = {"max_shard_size": "8KB"} if sharded else {}
    model.to(dtype).save_pretrained(directory, **shard_size)
    if tokenizer:
        save_tokenizer(directory)
    return directory


@dataclass(frozen=True)
class Family:
    """Three saved components of one kind, shared by all tests of a session: do not change."""

    paths: dict[str, Path]
    dtype: torch.dtype


@pytest.fixture(scope="session")
def family_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Family]:
    """Return saved components of a kind; made once a session."""
    made: dict[tuple[Any, ...], Family] = {}

    def make(
        family: str = "llama-tied", dtype: torch.dtype = torch.float32, sharded: bool = False
    ) -> Family:
        key = (family, dtype, sharded)
        if key not in made:
            root = tmp_path_factory.mktemp("family")
            paths = {
                name: save_model(
                    root / name, family=family, seed=seed, dtype=dtype, sharded=sharded
                )
                for seed, name in enumerate(NAMES)
            }
            made[key] = Family(paths, dtype)
        return made[key]

    return make


@pytest.fixture
def paths(family_of: Callable[..., Family], tmp_path: Path) -> dict[str, Path]:
    """Three tied Llamas in float32 that a test may damage."""
    return {
        name: Path(shutil.copytree(path, tmp_path / name))
        for name, path in family_of().paths.items()
    }


@pytest.fixture
def sharded_paths(family_of: Callable[..., Family], tmp_path: Path) -> dict[str, Path]:
    """The same in several shards."""
    family = family_of("llama-tied", torch.float32, True)
    return {
        name: Path(shutil.copytree(path, tmp_path / "sharded" / name))
        for name, path in family.paths.items()
    }


@pytest.fixture
def arena(paths: dict[str, Path], tmp_path: Path) -> Arena:
    """An arena of several blocks."""
    return Arena.build(ComponentSet.open(paths), tmp_path / "x.arena", block_size=256)


@pytest.fixture(scope="session")
def saved() -> Callable[..., Path]:
    """Return the function that saves a model."""
    return save_model


@pytest.fixture
def edit_json() -> Callable[[Path, Callable[[dict[str, Any]], Any]], None]:
    """Return a function that changes a JSON file in place."""

    def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return edit
