"""Write the text, the tokenizer and the lm-eval tasks of the quickstart.

Everything is made from the excerpts under ``data/`` and from what is installed, offline, and the
same installation always gives the same bytes. In the run directory it makes

* ``data/<domain>/train.jsonl`` and ``heldout.jsonl``, one document ``{"id", "text"}`` a line,
* ``tokenizer/``, a byte-level BPE tokenizer trained on equal parts of all domains,
* ``tasks/``, copies of the lm-eval tasks beside this file, with their items in ``tasks/data/``,
* ``prepared.json``, versions and digests of all this: a second run checks them and does nothing.

Example::

    python studies/quickstart/prepare.py --run-dir runs/quickstart
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from items import ENDINGS, choice_items, passage_items
from sources import DOC_PACKAGES, DOMAINS, EXCERPT_DOMAINS, EXCERPTS, SourceError
from splits import Split, split

VOCABULARY = 1024
TOKENIZER_CHARS = 400_000  # characters of each domain that the tokenizer is trained on
END_OF_TEXT = "<|endoftext|>"

HERE = Path(__file__).parent
TEMPLATES = HERE / "tasks"
MANIFEST = "prepared.json"
PARTS = ("data", "tokenizer", "tasks")
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def prepare(run_dir: Path) -> bool:
    """Make what is missing or out of date in ``run_dir``.

    Returns:
        Whether anything was made.

    Raises:
        SourceError: if a source of text is missing, damaged or too small, or if ``run_dir`` holds
            directories of the same names that were made by something else.
    """
    inputs = _inputs()
    if _is_done(run_dir, inputs):
        print(f"{run_dir}: text, tokenizer and tasks are up to date")
        return False
    _refuse_foreign(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".preparing-", dir=run_dir) as aside:
        _make(Path(aside))
        outputs = _digests(Path(aside))
        # Until all parts are in place the manifest matches nothing, so that they are made again.
        _replace_manifest(run_dir, Path(aside), {})
        for part in PARTS:
            shutil.rmtree(run_dir / part, ignore_errors=True)
            os.replace(Path(aside) / part, run_dir / part)
        _replace_manifest(run_dir, Path(aside), {"inputs": inputs, "outputs": outputs})
    print(f"{run_dir}: text, tokenizer and tasks are ready")
    return True


def _refuse_foreign(run_dir: Path) -> None:
    """Never replace a directory that this script did not make."""
    for part in PARTS:
        if (run_dir / part).exists() and not (run_dir / MANIFEST).exists():
            raise SourceError(
                f"{run_dir / part}: exists, but was not made by this script; "
                "move it away or choose another --run-dir"
            )


def _make(folder: Path) -> None:
    splits: dict[str, Split] = {}
    for domain, documents in DOMAINS.items():
        parts = splits[domain] = split(domain, documents())
        for name, chosen in parts._asdict().items():
            rows = (document._asdict() for document in chosen)
            _write_lines(folder / "data" / domain / f"{name}.jsonl", rows)
        print(
            f"{domain:8} {len(parts.train):5} documents to train on, {len(parts.heldout)} held out"
        )
    _save_tokenizer(splits, folder / "tokenizer")
    print(f"tokenizer of {VOCABULARY} tokens")
    items = folder / "tasks" / "data"
    for domain, parts in splits.items():
        _write_lines(items / f"quickstart_{domain}_bpb.jsonl", passage_items(parts))
        if domain in ENDINGS:
            choices = choice_items(domain, parts)
            _write_lines(items / f"quickstart_{domain}_choice.jsonl", choices)
    for template in sorted(TEMPLATES.iterdir()):
        shutil.copyfile(template, folder / "tasks" / template.name)
    print(f"{len(list(items.iterdir()))} lm-eval tasks")


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
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


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
                f"package {name!r} is not installed; run `pip install 'optuna-demix[models]'`"
            ) from None
    own = [HERE / name for name in ("prepare.py", "sources.py", "splits.py", "items.py")]
    own += [EXCERPTS / f"{domain}.jsonl.xz" for domain in EXCERPT_DOMAINS]
    own += sorted(TEMPLATES.iterdir())
    return versions | {path.relative_to(HERE).as_posix(): _file_digest(path) for path in own}


def _is_done(run_dir: Path, inputs: Mapping[str, str]) -> bool:
    try:
        manifest = json.loads((run_dir / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return bool(manifest == {"inputs": inputs, "outputs": _digests(run_dir)})


def _digests(folder: Path) -> dict[str, str]:
    """Digest every file of the parts, by relative path."""
    files = [path for part in PARTS for path in (folder / part).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): _file_digest(path) for path in sorted(files)}


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise SourceError(f"{path}: missing; restore it with `git checkout {path}`") from None


def _replace_manifest(run_dir: Path, aside: Path, content: object) -> None:
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    (aside / MANIFEST).write_text(text, encoding="utf-8")
    os.replace(aside / MANIFEST, run_dir / MANIFEST)


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run-dir", type=Path, required=True, help="where to write, e.g. runs/quickstart"
    )
    arguments = parser.parse_args()
    try:
        prepare(arguments.run_dir)
    except (SourceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
