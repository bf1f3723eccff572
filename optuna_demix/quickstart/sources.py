"""The five domains of the quickstart, as documents of real text.

Three come with the package as compressed excerpts (see ``data/NOTICE``): ``general``, ``prose``
and ``math``. Two are read from what is installed: ``code`` is the standard library of the running
interpreter and ``docs`` the docstrings of scientific packages, parsed without importing them.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import lzma
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from optuna_demix.errors import InputError

EXCERPTS = Path(__file__).parent / "data"
EXCERPT_DOMAINS = ("general", "prose", "math")
DOC_PACKAGES = ("numpy", "scipy", "pandas", "sklearn")

# Tests, bundled wheels, tables and text topics are no examples of library code.
_SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "_bundled",
        "encodings",
        "idle_test",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
    }
)
_SOURCE_CHARS = (1_000, 30_000)
_MIN_DOCSTRING = 500
_MAX_DOCSTRINGS = 15_000  # characters from one file, lest a few large files fill the domain


class Document(NamedTuple):
    """One piece of text which is either trained on or held out as a whole."""

    id: str
    text: str


class SourceError(InputError):
    """A source of text is missing or too small; the message says which and what to do."""


def digest(text: str) -> str:
    """Hash a text; orders documents at random, but alike on every machine."""
    return hashlib.sha256(text.encode()).hexdigest()


def excerpt(domain: str) -> Iterator[Document]:
    """Yield the documents of an excerpt, in a fixed pseudo-random order."""
    path = EXCERPTS / f"{domain}.jsonl.xz"
    try:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            documents = [Document(**json.loads(line)) for line in lines]
    except (OSError, EOFError, lzma.LZMAError, ValueError, TypeError) as error:
        raise SourceError(
            f"{path}: cannot be read ({error}); install optuna-demix again"
        ) from error
    yield from sorted(documents, key=lambda document: digest(document.id))


def standard_library() -> Iterator[Document]:
    """Yield source files of the running interpreter's standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in _python_files(root):
        text = _read(path)
        if _SOURCE_CHARS[0] <= len(text) <= _SOURCE_CHARS[1]:
            yield Document(path.relative_to(root).as_posix(), text)


def docstrings() -> Iterator[Document]:
    """Yield the longer docstrings of each file of the scientific packages as one document."""
    files = []
    for package in DOC_PACKAGES:
        spec = importlib.util.find_spec(package)  # finds a top-level package, imports nothing
        for folder in (spec and spec.submodule_search_locations) or ():
            root = Path(folder)
            files += [
                (f"{package}/{p.relative_to(root).as_posix()}", p) for p in _python_files(root)
            ]
    for name, path in sorted(files, key=lambda file: digest(file[0])):
        text = ""
        for docstring in _long_docstrings(_read(path)):
            if len(text) + len(docstring) <= _MAX_DOCSTRINGS:
                text += docstring + "\n\n\n"
        if text:
            yield Document(name, text.strip())


def _python_files(root: Path) -> list[Path]:
    """The package's own modules, in a pseudo-random order which only their names decide."""
    files = [
        path
        for path in root.rglob("*.py")
        if _SKIPPED_FOLDERS.isdisjoint(path.relative_to(root).parts)
    ]
    return sorted(files, key=lambda path: digest(path.relative_to(root).as_posix()))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):  # a broken link, or a source in another encoding
        return ""


def _long_docstrings(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError:  # templates
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
            if len(text) >= _MIN_DOCSTRING:
                yield f"{node.name}\n{text}"


DOMAINS: dict[str, Callable[[], Iterator[Document]]] = {
    "general": lambda: excerpt("general"),
    "prose": lambda: excerpt("prose"),
    "code": standard_library,
    "math": lambda: excerpt("math"),
    "docs": docstrings,
}
