"""The tiny tokenizers and the tiny Llama that tests make: one place for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

VOCABULARY = 320  # of the byte-level tokenizer
LLAMA: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}
"""Fields of the smallest Llama."""


def llama_config(**changes: Any) -> Any:
    """The smallest Llama, with some fields changed."""
    from transformers import LlamaConfig

    return LlamaConfig(**{**LLAMA, **changes})


def byte_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer of 320 tokens, learned from some text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", bos_token="<eos>")


def word_tokenizer(words: Sequence[str], **special: str) -> Any:
    """A tokenizer of whole words, numbered as given; ``<unk>`` must be one of them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate(words)}
    raw = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", **special)
