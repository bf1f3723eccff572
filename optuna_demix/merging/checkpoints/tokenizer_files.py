"""Files of a tokenizer: which there are in a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Files that hold a vocabulary, the most complete first.
_VOCABULARIES = (
    "tokenizer.json",
    "tekken.json",
    "tokenizer.model",
    "tokenizer.model.v*",
    "tiktoken.model",
    "*.tiktoken",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "vocab.json",
    "vocab.txt",
)
_FURTHER = (
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)


def vocabulary_file(directory: Path) -> str | None:
    """Return the name of the most complete vocabulary file of a directory, if it has any."""
    return next((name for pattern in _VOCABULARIES for name in _files(directory, pattern)), None)


def token_files(directory: Path) -> dict[str, Path]:
    """Return the files that decide the tokens of a text, by name."""
    return {
        name: directory / name
        for pattern in (*_VOCABULARIES, *_FURTHER)
        for name in _files(directory, pattern)
    }


def _files(directory: Path, pattern: str) -> list[str]:
    return sorted(file.name for file in directory.glob(pattern) if file.is_file())
