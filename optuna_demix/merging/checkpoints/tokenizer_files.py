"""Tokenizer files: which there are, and whether two components tokenize alike."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from optuna_demix.merging._problem import problem, read_problem

if TYPE_CHECKING:
    from pathlib import Path

    from optuna_demix.merging.checkpoints.checkpoint import Checkpoint

# Files that hold a vocabulary, the most complete first.
VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
# Left behind by whoever padded or truncated last; they do not change how text is cut into tokens.
_CALL_STATE = ("truncation", "padding")
# Fields of tokenizer_config.json that change the tokens of a text.
_TOKEN_FIELDS = (
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "bos_token",
    "do_lower_case",
    "eos_token",
    "unk_token",
)
_REMEDY = "merge only models trained with one tokenizer, or copy the right tokenizer files there"


def check_same_tokenizer(first: Checkpoint, other: Checkpoint) -> None:
    """Refuse ``other`` if it would cut text into other tokens than ``first``.

    Raises:
        ComponentError: Naming the first disagreement.
    """
    kind = vocabulary_file(first.path)
    if kind is None:
        found = vocabulary_file(other.path)
        if found is not None:
            what = f"has a tokenizer, but {first.label} ({first.path}) has none"
            raise problem(other.label, what, _REMEDY, file=other.path / found)
        return
    if not (other.path / kind).is_file():
        what = f"missing, but {first.label} has it"
        raise problem(other.label, what, _REMEDY, file=other.path / kind)
    _check_vocabulary(first, other, kind)
    if kind == "vocab.json":  # a byte-pair vocabulary is nothing without its merges
        _check_bytes(first, other, "merges.txt")
    _check_token_fields(first, other)


def check_token_ids_fit(checkpoint: Checkpoint, vocab_size: int) -> None:
    """Refuse a tokenizer whose ids reach beyond the embedding table.

    Raises:
        ComponentError: Naming the largest id.
    """
    file = checkpoint.path / "tokenizer.json"
    if not file.is_file():
        return
    content = _read_json(checkpoint, file)
    ids = [*_vocabulary(content).values(), *_added_tokens(content).values()]
    largest = max((number for number in ids if isinstance(number, int)), default=-1)
    if largest >= vocab_size:
        what = f"token id {largest} is beyond the model's {vocab_size} embeddings"
        raise problem(checkpoint.label, what, _REMEDY, file=file)


def vocabulary_file(directory: Path) -> str | None:
    """Return the name of the most complete vocabulary file of a directory, if it has any."""
    return next((name for name in VOCABULARY_FILES if (directory / name).is_file()), None)


def _check_vocabulary(first: Checkpoint, other: Checkpoint, kind: str) -> None:
    if not kind.endswith(".json"):
        _check_bytes(first, other, kind)
        return
    ours, theirs = first.path / kind, other.path / kind
    if _read(first, ours) == _read(other, theirs):
        return
    left, right = _read_json(first, ours), _read_json(other, theirs)
    for state in _CALL_STATE:
        left.pop(state, None)
        right.pop(state, None)
    if left != right:
        what = f"{_first_difference(left, right)} {first.label} ({ours})"
        raise problem(other.label, what, _REMEDY, file=theirs)


def _first_difference(left: dict[str, Any], right: dict[str, Any]) -> str:
    """Describe the first thing in which ``right`` departs from ``left``."""
    for tokens, others in (
        (_vocabulary(left), _vocabulary(right)),
        (_added_tokens(left), _added_tokens(right)),
    ):
        for token in [*tokens, *others]:
            if tokens.get(token) != others.get(token):
                id_there, id_here = (
                    "no token" if token not in table else f"id {table[token]}"
                    for table in (tokens, others)
                )
                return f"{token!r} is {id_here}, but {id_there} in"
    for key in sorted({*left, *right}):
        if left.get(key) != right.get(key):
            part = "merges" if key == "model" else key
            return f"field {part!r} differs from that of"
    return "differs from that of"


def _vocabulary(content: dict[str, Any]) -> dict[str, Any]:
    """Return token -> id of a ``tokenizer.json`` or of a bare ``vocab.json``."""
    model = content.get("model")
    if not isinstance(model, dict):
        return content if all(isinstance(value, int) for value in content.values()) else {}
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, list):  # unigram models list [token, score]
        return {entry[0]: position for position, entry in enumerate(vocabulary)}
    return vocabulary if isinstance(vocabulary, dict) else {}


def _added_tokens(content: dict[str, Any]) -> dict[str, Any]:
    added = content.get("added_tokens")
    if not isinstance(added, list):
        return {}
    return {
        token["content"]: token.get("id")
        for token in added
        if isinstance(token, dict) and "content" in token
    }


def _check_token_fields(first: Checkpoint, other: Checkpoint) -> None:
    name = "tokenizer_config.json"
    ours, theirs = first.path / name, other.path / name
    if not (ours.is_file() and theirs.is_file()):
        return
    left, right = _read_json(first, ours), _read_json(other, theirs)
    for field in _TOKEN_FIELDS:
        # A field left out means the tokenizer class's default, which the other may spell out.
        if field in left and field in right and _text(left[field]) != _text(right[field]):
            what = f"field {field!r} is {_text(right[field])!r}, but {_text(left[field])!r} in"
            raise problem(other.label, f"{what} {first.label} ({ours})", _REMEDY, file=theirs)


def _text(token: Any) -> Any:
    """Return a token's text, whether it was saved plain or with its stripping rules."""
    return token.get("content") if isinstance(token, dict) else token


def _check_bytes(first: Checkpoint, other: Checkpoint, name: str) -> None:
    ours, theirs = first.path / name, other.path / name
    if _read(first, ours) != _read(other, theirs):
        what = f"content differs from that of {first.label} ({ours})"
        raise problem(other.label, what, _REMEDY, file=theirs)


def _read(checkpoint: Checkpoint, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise read_problem(checkpoint.label, error, file) from error


def _read_json(checkpoint: Checkpoint, file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(checkpoint, file))
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
    except (ValueError, RecursionError) as error:
        what, remedy = f"not valid JSON ({error})", "copy the tokenizer files there again"
        raise problem(checkpoint.label, what, remedy, file=file) from error
    return content
