"""The tokenizer of a study."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_demix._wording import one_line
from optuna_demix.config import StudyConfig, TrainingConfig
from optuna_demix.errors import ConfigError
from optuna_demix.training._files import file_digest

# What makes up a tokenizer; the last changes no token, but belongs to the model.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class Vocabulary:
    """The study's tokenizer.

    Attributes:
        path: Its directory.
        digest: Digest of its files.
        size: Number of token ids.
        eos: Id that ends a document.
        bos: Id that begins one, if there is one.
        pad: Id of padding, if there is one.
        encode: Texts to token ids, without special tokens.
    """

    path: Path
    digest: str
    size: int
    eos: int
    bos: int | None
    pad: int | None
    encode: Callable[[list[str]], list[list[int]]]

    @classmethod
    def open(cls, config: StudyConfig, training: TrainingConfig) -> Vocabulary:
        """Load the tokenizer of a study."""
        path = config.resolve(training.tokenizer)
        field = f"{config.source}: training.tokenizer"
        if not path.is_dir():
            raise ConfigError(
                f"{field}: {path} is no directory; train a tokenizer first or correct the path"
            )
        try:
            tokenizer = load_tokenizer(path)
        except Exception as error:  # tokenizers raise bare Exception on a damaged file
            raise ConfigError(
                f"{field}: {path} holds no usable tokenizer ({one_line(error)})"
            ) from None
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                f"{field}: {path} has no eos_token, which must separate the documents; set it in "
                "tokenizer_config.json"
            )
        digest = hashlib.sha256()
        for name in TOKENIZER_FILES[:-1]:
            if (path / name).is_file():
                digest.update(f"{name}\0{file_digest(path / name)}\0".encode())

        return cls(
            path,
            digest.hexdigest(),
            len(tokenizer),
            tokenizer.eos_token_id,
            tokenizer.bos_token_id,
            tokenizer.pad_token_id,
            encoder_of(tokenizer),
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest integers that hold every id."""
        return np.dtype("<u2") if self.size <= 1 << 16 else np.dtype("<u4")

    def check(self, ids: npt.NDArray[Any], place: str, start: int | None = None) -> None:
        """Refuse ids that the tokenizer does not have.

        Args:
            ids: Token ids, (n,).
            place: The file they are from.
            start: Which of its ids is the first, if that is known.

        Raises:
            ConfigError: If one is negative or too large, or they are no integers.
        """
        if ids.dtype.kind not in "iu":
            raise ConfigError(f"{place}: holds {ids.dtype}, not token ids")
        if not len(ids) or (int(ids.max()) < self.size and int(ids.min()) >= 0):
            return
        at = int(np.flatnonzero((ids < 0) | (ids >= self.size))[0])
        number = f" {start + at + 1:,}" if start is not None else ""
        raise ConfigError(
            f"{place}: token{number} is {int(ids[at])}, but {self.path} has ids below "
            f"{self.size:,}; give the tokenizer that made the file, or correct token_dtype"
        )


def load_tokenizer(path: Path) -> Any:
    """The tokenizer in a directory, without its code; raises whatever is wrong with its files."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(
        str(path), local_files_only=True, trust_remote_code=False
    )
    tokenizer.model_max_length = sys.maxsize  # whole documents: no warning of their length
    return tokenizer


def encoder_of(tokenizer: Any) -> Callable[[list[str]], list[list[int]]]:
    """Texts to token ids, without special tokens."""
    if not tokenizer.is_fast:

        def encode_slowly(texts: list[str]) -> list[list[int]]:
            if not texts:
                return []
            ids: list[list[int]] = tokenizer(
                texts, add_special_tokens=False, return_attention_mask=False
            )["input_ids"]
            return ids

        return encode_slowly
    rust = tokenizer.backend_tokenizer
    rust.no_truncation()  # as transformers does for each call
    rust.no_padding()

    def encode(texts: list[str]) -> list[list[int]]:
        # Without what transformers makes of each encoding, which takes as long as tokenizing.
        return [e.ids for e in rust.encode_batch_fast(texts, add_special_tokens=False)]

    return encode
