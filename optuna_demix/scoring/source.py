"""The source code behind a function, as far as its author wrote it.

A task's metric calls helpers and reads constants of its module. All of them move a score, so all
of them are read: names are followed through the module's own text, and into modules beside it.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any


@dataclass(frozen=True)
class _Statement:
    """A statement of a module that gives names their values, and the names that it reads."""

    text: str
    reads: frozenset[str]


def reachable_source(value: Any) -> list[str]:
    """Source of a function or class and of what it reaches in its own folder.

    Args:
        value: The function or class.

    Returns:
        The statements, without their places, in an order that is the same everywhere.

    Raises:
        OSError: If there is no source.
        TypeError: If it is of no kind that has one.
    """
    own = textwrap.dedent(inspect.getsource(value)).rstrip()
    file = _file(value)
    if file is None:
        return [own]
    found = {(file.name, ""): own}
    names = _names_of(value)
    # A function that another one made is found by its name in the module.
    start = {name for name, there in names.items() if there is value}
    _follow(file, names, start | _read(own), file.parent, found, set())
    # Its own statement may be there twice; it is one text.
    return list(dict.fromkeys(text for _, text in sorted(found.items())))


def _follow(
    file: Path,
    names: Mapping[str, Any],
    wanted: set[str],
    folder: Path,
    found: dict[tuple[str, str], str],
    seen: set[tuple[str, str]],
) -> None:
    """Add what names of a module mean, and what that reads in turn."""
    statements = _statements("".join(linecache.getlines(str(file))))
    place = file.relative_to(folder).as_posix()
    waiting = sorted(wanted)
    while waiting:
        name = waiting.pop()
        if (place, name) in seen:
            continue
        seen.add((place, name))
        if name in statements:
            found[place, name] = "\n".join(each.text for each in statements[name])
            waiting += sorted({read for each in statements[name] for read in each.reads})
        value = names.get(name)
        other = _file(value)
        if other is None or other == file or folder not in other.parents:
            continue
        if isinstance(value, ModuleType):  # which of its names are read is not told
            _follow(other, vars(value), set(vars(value)), folder, found, seen)
        elif isinstance(value, FunctionType | type):
            _follow(other, _names_of(value), {value.__name__}, folder, found, seen)


def _file(value: Any) -> Path | None:
    """The file that a module, function or class was written in."""
    if not isinstance(value, ModuleType | FunctionType | type):
        return None
    try:
        file = inspect.getsourcefile(value)
    except TypeError:
        return None
    if file is None:
        return None
    linecache.checkcache(file)
    return Path(file).resolve()


def _names_of(value: Any) -> Mapping[str, Any]:
    """The names that a function or class finds in its module."""
    inner = inspect.unwrap(value)
    if isinstance(inner, FunctionType):
        return inner.__globals__
    module = sys.modules.get(value.__module__)
    return {} if module is None else vars(module)


@functools.lru_cache(maxsize=256)
def _statements(text: str) -> dict[str, list[_Statement]]:
    """The statements of a module by the names that they give a value."""
    found: dict[str, list[_Statement]] = {}
    try:
        nodes = ast.parse(text).body
    except SyntaxError:  # has been edited since it was read
        nodes = []
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            continue  # what was imported is followed by its value
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        lines = text.splitlines()[first - 1 : node.end_lineno]
        statement = _Statement("\n".join(lines), frozenset(_names(node)))
        for name in set(_given(node)):
            found.setdefault(name, []).append(statement)
    return found


def _given(node: ast.AST) -> Iterator[str]:
    """The names that a statement gives a value in its module."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    for child in ast.iter_child_nodes(node):
        yield from _given(child)


def _read(text: str) -> set[str]:
    """The names in a piece of a module; none where it is not a statement, as a lambda may be."""
    try:
        return set(_names(ast.parse(text)))
    except SyntaxError:
        return set()


def _names(node: ast.AST) -> Iterator[str]:
    return (n.id for n in ast.walk(node) if isinstance(n, ast.Name))
