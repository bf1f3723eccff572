"""Writes the references of ``study.yaml`` and of the commands into their pages.

A page holds ``<!-- reference: study.yaml -->`` or ``<!-- reference: commands -->``; the text comes
from the models and the parsers at each build, so that it cannot differ from them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from optuna_demix.cli._main import build_parser
from optuna_demix.config import StudyConfig
from optuna_demix.config._messages import _annotated, wanted

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from sphinx.application import Sphinx

_SHARED = {"TaskSettingsConfig": "Settings of a run", "LimitsConfig": "Limits of a mixture"}
"""Sections of their own for what several sections take."""
_MARK = re.compile(r"<!-- reference: (\S+) -->")


def setup(app: Sphinx) -> dict[str, bool]:
    """Fill the marks of each page when it is read."""
    app.connect("source-read", _fill)
    app.connect("env-get-outdated", lambda *_: ["reference/study_yaml", "reference/cli"])
    return {"parallel_read_safe": True}


def _fill(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = _MARK.sub(lambda mark: WRITERS[mark[1]](), source[0])


# study.yaml ----------------------------------------------------------------------------------


def study_reference() -> str:
    """Every section of ``study.yaml`` with its fields, as Markdown."""
    return "\n".join(_sections())


def _sections() -> Iterator[str]:
    written: set[type[BaseModel]] = set()
    waiting: list[tuple[str, type[BaseModel]]] = [("The whole file", StudyConfig)]
    while waiting:
        title, model = waiting.pop(0)
        if model in written:
            continue
        written.add(model)
        yield f"\n## {title}\n\n{_plain(model.__doc__ or '')}"
        shared = _SHARED.get(model.__base__.__name__ if model.__base__ else "")
        path = "" if model is StudyConfig else title.strip("`")
        inside: list[tuple[str, type[BaseModel]]] = []
        for name, field in model.model_fields.items():
            if shared and name not in model.__annotations__:
                continue
            yield f"\n`{name}`\n: {_field(field)}"
            inside += [(_path(path, name, field), inner) for inner in _models(field.annotation)]
        if shared and model.__base__:
            anchor = shared.lower().replace(" ", "-")
            yield f"\nBeside these it takes the [{shared[0].lower()}{shared[1:]}](#{anchor})."
            inside.append((shared, model.__base__))
        waiting[:0] = inside


def _path(path: str, name: str, field: FieldInfo) -> str:
    """Where a model stands, with ``<name>`` for a key that the user chooses."""
    here = name if path in ("", *_SHARED.values()) else f"{path}.{name}"
    text = str(field.annotation)
    key = ".<name>" if text.startswith("dict") or "| dict" in text else ""
    item = "[]" if "list[" in text else ""
    return f"`{here}{key}{item}`"


def _field(field: FieldInfo) -> str:
    kind = wanted(_annotated(field))
    if "mapping of fields" in kind or "mappings of fields" in kind:
        kind = kind.split(" (")[0]
    if field.is_required():
        default = "**required**"
    else:
        value = field.default if field.default is not PydanticUndefined else None
        default = "no default" if value in (None, [], {}) else f"default `{_shown(value)}`"
    kind = re.sub(r"'(\S+?)'", r"`\1`", kind)
    return f"*{kind[0].upper()}{kind[1:]}; {default}.*\n\n  {_plain(field.description or '')}"


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from _models(part)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(text: str) -> str:
    """A docstring as Markdown."""
    words = " ".join(text.split())
    words = re.sub(r":class:`~?(?:\w+\.)*(\w+)`", r"`\1`", words)
    return words.replace("``", "`").replace("<name>", "`<name>`")


# Commands ------------------------------------------------------------------------------------


def command_reference() -> str:
    """Every command with its options, as Markdown."""
    return "\n".join(_commands(build_parser(), 2))


def _commands(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield f"\n{'#' * level} `{command.prog}`\n"
                yield _markdown(command.description or "")
                yield f"\n```text\n{command.format_usage().removeprefix('usage: ')}```"
                yield from map(_option, _options(command))
                if command.epilog:
                    lines = command.epilog.removeprefix("example:").strip().splitlines()
                    example = "\n".join(line.strip() for line in lines)
                    yield f"\n```sh\n{example}\n```"
                yield from _commands(command, level + 1)


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            yield action


def _option(action: argparse.Action) -> str:
    value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices
                               else action.dest.upper())  # fmt: skip
    if not action.option_strings:
        name = str(value)
    elif action.nargs == 0:
        name = action.option_strings[0]
    else:
        name = f"{action.option_strings[0]} {value}"
    default = action.default
    told = default in (None, False, [], argparse.SUPPRESS) or "default" in (action.help or "")
    rest = "" if told else f" Default: `{default}`."
    must = " Required." if action.required and action.option_strings else ""
    return f"\n`{name}`\n: {_markdown(_sentence(action.help or ''))}{must}{rest}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _markdown(text: str) -> str:
    """Words of a help text, with what looks like code as code."""
    text = re.sub(r"(?<![\w`])(--[a-z][a-z-]*)", r"`\1`", text)
    text = re.sub(r"([<{][\w-]+[>}])", r"`\1`", text)
    return text.replace("%%", "%")


WRITERS: dict[str, Callable[[], str]] = {
    "study.yaml": study_reference,
    "commands": command_reference,
}
