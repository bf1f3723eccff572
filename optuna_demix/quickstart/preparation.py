"""Write the folder of the quickstart: its text, tokenizer, lm-eval tasks and ``study.yaml``.

Everything is made from the excerpts in ``data/`` and from what is installed, offline, and the same
installation always gives the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from optuna_demix._files import write_whole
from optuna_demix.quickstart.items import ENDINGS, choice_items, passage_items
from optuna_demix.quickstart.sources import (
    DOC_PACKAGES,
    DOMAINS,
    EXCERPT_DOMAINS,
    EXCERPTS,
    SourceError,
)
from optuna_demix.quickstart.splits import Split, split

VOCABULARY = 1024
TOKENIZER_CHARS = 400_000
"""Characters of each domain that the tokenizer is trained on."""
END_OF_TEXT = "<|endoftext|>"

STUDY_FILE = Path(__file__).parent / "study.yaml"
"""The study as it is written into a folder; its paths start there."""
PARTS = ("data", "tokenizer", "tasks")

_HERE = Path(__file__).parent
_TEMPLATES = _HERE / "tasks"
_MANIFEST = "prepared.json"
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def prepare(folder: Path, report: Callable[[str], None] = print) -> Path:
    """Make what is missing or out of date of the quickstart in a folder.

    It makes

    * ``data/<domain>/train.jsonl`` and ``heldout.jsonl``, one document ``{"id", "text"}`` a line,
    * ``tokenizer/``, a byte-level BPE tokenizer trained on equal parts of all domains,
    * ``tasks/``, lm-eval tasks, with their items in ``tasks/data/``,
    * ``prepared.json``, versions and digests of all this: a second call checks them,
    * ``study.yaml``, which is left alone if it is there.

    Args:
        folder: The folder; it is made.
        report: Called with each line for the user.

    Returns:
        The folder's ``study.yaml``.

    Raises:
        SourceError: If a source of text is missing, damaged or too small, or if the folder holds
            files of the same names that were made by something else.
        OSError: If it cannot be written.
    """
    study, inputs = folder / STUDY_FILE.name, _inputs()
    if _is_done(folder, inputs):
        report(f"{folder}: text, tokenizer and tasks are up to date")
    else:
        _refuse_foreign(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".preparing-", dir=folder) as aside:
            _make(Path(aside), report)
            outputs = _digests(Path(aside))
            # Until all parts are in place the manifest matches nothing: they are made again.
            _write_manifest(folder, {})
            for part in PARTS:
                shutil.rmtree(folder / part, ignore_errors=True)
                os.replace(Path(aside) / part, folder / part)
            _write_manifest(folder, {"inputs": inputs, "outputs": outputs})
        report(f"{folder}: text, tokenizer and tasks are ready")
    if not study.exists():
        write_whole(study, STUDY_FILE.read_text(encoding="utf-8"))
    return study


def _refuse_foreign(folder: Path) -> None:
    """Never replace what was not made here."""
    for part in (*PARTS, STUDY_FILE.name):
        if (folder / part).exists() and not (folder / _MANIFEST).exists():
            raise SourceError(
                f"{folder / part}: exists, but is not of the quickstart; "
                "move it away or choose another folder"
            )


def _make(folder: Path, report: Callable[[str], None]) -> None:
    splits: dict[str, Split] = {}
    for domain, documents in DOMAINS.items():
        parts = splits[domain] = split(domain, documents())
        for name, chosen in parts._asdict().items():
            rows = (document._asdict() for document in chosen)
            _write_lines(folder / "data" / domain / f"{name}.jsonl", rows)
        report(
            f"{domain:8} {len(parts.train):5} documents to train on, {len(parts.heldout)} held out"
        )
    _save_tokenizer(splits, folder / "tokenizer")
    report(f"tokenizer of {VOCABULARY} tokens")
    items = folder / "tasks" / "data"
    for domain, parts in splits.items():
        _write_lines(items / f"quickstart_{domain}_bpb.jsonl", passage_items(parts))
        if domain in ENDINGS:
            choices = choice_items(domain, parts)
            _write_lines(items / f"quickstart_{domain}_choice.jsonl", choices)
    for template in _templates():
        shutil.copyfile(template, folder / "tasks" / template.name)
    report(f"{len(list(items.iterdir()))} lm-eval tasks")


def _save_tokenizer(splits: Mapping[str, Split], folder: Path) -> None:
    # Threads would only race with the interpreter's; the text is small.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_equal_parts(splits), trainer)
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)
    whole: Any = PreTrainedTokenizerFast  # untyped in transformers
    whole(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def _equal_parts(splits: Mapping[str, Split]) -> Iterator[str]:
    for parts in splits.values():
        left = TOKENIZER_CHARS
        for document in parts.train:
            yield document.text[:left]
            left -= min(left, len(document.text))
            if not left:
                break


def _inputs() -> dict[str, str]:
    """Everything the output depends on: versions of installed sources, digests of our own."""
    versions = {"python": platform.python_version()}
    for name in (*DOC_PACKAGES, "tokenizers", "transformers"):
        try:
            versions[name] = importlib.metadata.version(_DISTRIBUTIONS.get(name, name))
        except importlib.metadata.PackageNotFoundError:
            raise SourceError(
                f"the quickstart needs {_DISTRIBUTIONS.get(name, name)}; "
                "pip install 'optuna-demix[models]'"
            ) from None
    own = [_HERE / f"{name}.py" for name in ("preparation", "sources", "splits", "items")]
    own += [EXCERPTS / f"{domain}.jsonl.xz" for domain in EXCERPT_DOMAINS]
    own += _templates()
    return versions | {path.relative_to(_HERE).as_posix(): _file_digest(path) for path in own}


def _templates() -> list[Path]:
    return sorted(path for path in _TEMPLATES.iterdir() if path.is_file())


def _is_done(folder: Path, inputs: Mapping[str, str]) -> bool:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return bool(manifest == {"inputs": inputs, "outputs": _digests(folder)})


def _digests(folder: Path) -> dict[str, str]:
    """Digest every file of the parts, by relative path."""
    files = [path for part in PARTS for path in (folder / part).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): _file_digest(path) for path in sorted(files)}


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise SourceError(f"{path}: missing; install optuna-demix again") from None


def _write_manifest(folder: Path, content: object) -> None:
    write_whole(folder / _MANIFEST, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
