"""Whether two components cut text into the same tokens, and whether each has an embedding.

Files are not compared but what transformers makes of them: one tokenizer has many spellings.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from transformers import AutoTokenizer

from optuna_demix._wording import one_line, shortened
from optuna_demix.merging._problem import problem, read_problem
from optuna_demix.merging._quiet import quiet_transformers
from optuna_demix.merging.checkpoints.tokenizer_files import token_files, vocabulary_file

if TYPE_CHECKING:
    from pathlib import Path

    from optuna_demix.merging.checkpoints.checkpoint import Checkpoint

# Left behind by whoever padded or truncated last; they do not change how text is cut into tokens.
_CALL_STATE = ("truncation", "padding")
# Where a token stands in the text, which nobody asks for.
_OFFSETS = "trim_offsets"
# Tokenizers that cannot be compared as a whole must agree on these.
_PROBES = (
    "",
    "Hello, world! It's 12,345.67 o'clock.",
    "  two spaces\n\n\ttab, then lines\r\n",
    "def f(x: int) -> int:\n    return x ** 2  # squared\n",
    "∫ e^{-x²} dx = √π; naïve café, Straße, Ελλάδα, Москва, 東京, 서울, العربية 🙂👩‍🔬",
    "<s></s><unk><pad><|endoftext|><|im_start|>user<|im_end|>[INST][/INST]",
)
REMEDY = "merge only models trained with one tokenizer, or copy the right tokenizer files there"
CHOOSE = "set merging.config_of to the component whose tokens and settings are to stand for all"


def require_tokenizer(checkpoint: Checkpoint, *, trust_remote_code: bool) -> None:
    """Refuse a checkpoint with which no text can be scored.

    Raises:
        ComponentError: If it has no tokenizer, or one whose files are damaged or need a package
            or code that is not there.
    """
    if vocabulary_file(checkpoint.tokenizer_path) is None:
        remedy = "copy the tokenizer files there, and into every other component"
        raise problem(checkpoint.label, "no tokenizer", remedy, file=checkpoint.tokenizer_path)
    try:
        _load(checkpoint, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever a tokenizer's own class raises
        what = f"its tokenizer cannot be loaded ({one_line(error)})"
        remedy = "install what it needs or copy the tokenizer files there again"
        raise problem(checkpoint.label, what, remedy, file=checkpoint.tokenizer_path) from error


class StandardTokenizer:
    """The tokenizer that stands for all components; loaded where files alone do not decide.

    Args:
        checkpoint: The component that it belongs to.
        n_embeddings: Rows of the model's embedding table.
        trust_remote_code: Let tokenizers run code from their own directory.
    """

    def __init__(
        self, checkpoint: Checkpoint, n_embeddings: int, *, trust_remote_code: bool
    ) -> None:
        self._checkpoint = checkpoint
        self._n_embeddings = n_embeddings
        self._trust_remote_code = trust_remote_code

    @cached_property
    def _tokenizer(self) -> Any:
        return _load(self._checkpoint, trust_remote_code=self._trust_remote_code)

    def check_same(self, other: Checkpoint, *, same_ends: bool) -> None:
        """Refuse a component that would cut text into other tokens.

        Added tokens beyond the embedding table are not compared: no component can have learned
        one.

        Args:
            other: The component.
            same_ends: Whether the tokens that begin and end a text have to be the same too.

        Raises:
            ComponentError: Naming the first disagreement.
        """
        first = self._checkpoint
        ours, theirs = vocabulary_file(first.tokenizer_path), vocabulary_file(other.tokenizer_path)
        if ours is None or theirs is None:
            if theirs is not None:
                what = f"has a tokenizer, but {first.label} ({first.tokenizer_path}) has none"
                raise problem(other.label, what, REMEDY, file=other.tokenizer_path / theirs)
            if ours is not None:
                what = f"missing, but {first.label} has it"
                raise problem(other.label, what, REMEDY, file=other.tokenizer_path / ours)
            return
        changed = _first_other_file(first, other)
        if changed is None:
            return
        try:
            left = self._tokenizer
            right = _load(other, trust_remote_code=self._trust_remote_code)
        except Exception as error:  # whatever a tokenizer's own class raises
            what = (
                f"content differs from that of {first.label} ({first.tokenizer_path}), and it "
                f"cannot be told whether the tokens do ({one_line(error)})"
            )
            raise problem(other.label, what, REMEDY, file=other.tokenizer_path / changed) from (
                error
            )
        if same_ends:
            _check_ends(first, other, left, right)
        said = _difference(left, right, self._n_embeddings)
        if said is not None:
            what = f"{said} {first.label} ({first.tokenizer_path / ours})"
            raise problem(other.label, what, REMEDY, file=other.tokenizer_path / theirs)

    def check_fits(self) -> None:
        """Refuse ids beyond the embedding table where ordinary text makes them.

        An added token may lie beyond it: most texts do without, and scoring refuses those that do
        not. A tokenizer that cannot be loaded is left to those who need it.

        Raises:
            ComponentError: Naming a token.
        """
        checkpoint = self._checkpoint
        if vocabulary_file(checkpoint.tokenizer_path) is None:
            return
        try:
            tokenizer = self._tokenizer
        except Exception:  # whatever a tokenizer's own class raises
            return
        added = set(tokenizer.added_tokens_encoder)
        ids = {token: i for token, i in tokenizer.get_vocab().items() if token not in added}
        ends = [tokenizer.bos_token_id, tokenizer.eos_token_id, *tokenizer("").input_ids]
        ids |= {tokenizer.convert_ids_to_tokens(i): i for i in ends if i is not None}
        token = max(ids, key=lambda token: ids[token], default=None)
        if token is not None and ids[token] >= self._n_embeddings:
            what = (
                f"token {token!r} is id {ids[token]}, but the model has {self._n_embeddings} "
                "embeddings"
            )
            raise problem(checkpoint.label, what, REMEDY, file=checkpoint.tokenizer_path)


def _load(checkpoint: Checkpoint, *, trust_remote_code: bool) -> Any:
    with quiet_transformers():
        return AutoTokenizer.from_pretrained(
            checkpoint.tokenizer_path, trust_remote_code=trust_remote_code
        )


def _first_other_file(first: Checkpoint, other: Checkpoint) -> str | None:
    """Return the name of the first file that only one has or that differs, or None."""
    ours, theirs = token_files(first.tokenizer_path), token_files(other.tokenizer_path)
    for name in {**theirs, **ours}:
        if name not in ours or name not in theirs:
            return name
        if _read(first, ours[name]) != _read(other, theirs[name]):
            return name
    return None


def _read(checkpoint: Checkpoint, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise read_problem(checkpoint.label, error, file) from error


def _check_ends(first: Checkpoint, other: Checkpoint, left: Any, right: Any) -> None:
    """Compare what lm-eval puts before texts and stops at; what is not said is not compared."""
    for field, ours, theirs in (
        ("eos_token", left.eos_token, right.eos_token),
        ("bos_token", left.bos_token or left.eos_token, right.bos_token or right.eos_token),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            what = (
                f"{field!r} is {theirs!r}, but {ours!r} in {first.label} ({first.tokenizer_path})"
            )
            raise problem(other.label, what, CHOOSE, file=other.tokenizer_path)


def _difference(left: Any, right: Any, n_embeddings: int) -> str | None:
    """Describe the first thing in which ``right`` departs from ``left``, or return None."""
    ours, theirs = _canonical(left, n_embeddings), _canonical(right, n_embeddings)
    if ours is None or theirs is None:
        return _difference_in_ids(left, right, n_embeddings)
    if ours == theirs:
        return None
    said = _difference_in_tables(
        (_vocabulary(ours), _vocabulary(theirs)), (_added(ours), _added(theirs))
    )
    if said is not None:
        return said
    ours, theirs = {**ours["model"], **ours}, {**theirs["model"], **theirs}
    fields = [field for field in {**ours, **theirs} if ours.get(field) != theirs.get(field)]
    return f"field {next(field for field in fields if field != 'model')!r} differs from that of"


def _canonical(tokenizer: Any, n_embeddings: int) -> dict[str, Any] | None:
    """Return a fast tokenizer as its library writes it, whatever it was read from."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    try:
        content: dict[str, Any] = json.loads(backend.to_str())
    except Exception:  # a part written in Python cannot be written down
        return None
    for state in _CALL_STATE:
        content.pop(state, None)
    content["added_tokens"] = [
        token for token in content["added_tokens"] if token["id"] < n_embeddings
    ]
    for part in ("pre_tokenizer", "post_processor", "decoder"):
        content[part] = _without_offsets(content.get(part))
    return content


def _without_offsets(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _without_offsets(value) for key, value in part.items() if key != _OFFSETS}
    return [_without_offsets(value) for value in part] if isinstance(part, list) else part


def _vocabulary(content: dict[str, Any]) -> dict[str, int]:
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):  # unigram models list [token, score]
        return {entry[0]: position for position, entry in enumerate(vocabulary)}
    return dict(vocabulary)


def _added(content: dict[str, Any]) -> dict[str, int]:
    return {token["content"]: token["id"] for token in content["added_tokens"]}


def _difference_in_ids(left: Any, right: Any, n_embeddings: int) -> str | None:
    known = [
        {token: number for token, number in tokenizer.get_vocab().items() if number < n_embeddings}
        for tokenizer in (left, right)
    ]
    said = _difference_in_tables((known[0], known[1]))
    if said is not None:
        return said
    for text in _PROBES:
        ours, theirs = left(text).input_ids, right(text).input_ids
        if ours != theirs:
            ids = [shortened(str(found), 60) for found in (theirs, ours)]
            return f"{shortened(text, 40)!r} becomes {ids[0]}, but {ids[1]} in"
    return None


def _difference_in_tables(*pairs: tuple[dict[str, int], dict[str, int]]) -> str | None:
    for tokens, others in pairs:
        for token in [*tokens, *others]:
            if tokens.get(token) != others.get(token):
                id_there, id_here = (
                    "no token" if token not in table else f"id {table[token]}"
                    for table in (tokens, others)
                )
                return f"{token!r} is {id_here}, but {id_there} in"
    return None
