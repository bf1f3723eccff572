"""What is wrong with a ``study.yaml``, said in our own words.

pydantic finds the faults. What a field takes is worded from its annotation, so that each kind of
fault has words, new ones included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from optuna_demix._wording import shortened, unknown_name

_SHOWN = 3  # faults that are worded; the others are counted
_UNKNOWN = ("extra_forbidden", "invalid_key")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line that names each bad field and says what to do about it.

    Args:
        error: What pydantic has found.
        model: The model that was validated.
    """
    faults = [(_place(model, item["loc"]), item) for item in error.errors(include_url=False)]
    # pydantic complains about each choice of a union; one that was entered fits better.
    entered = {place.path[: place.choice] for place, _ in faults if place.is_in_choice}
    messages: dict[tuple[str, ...], str] = {}
    for place, item in faults:
        if place.is_in_choice or place.path not in entered:
            messages.setdefault(place.path, _message(place, item))
    shown = list(messages.values())[:_SHOWN]
    more = len(messages) - len(shown)
    # A key of the file may hold line breaks; a message must not.
    return " ".join(("; ".join(shown) + (f"; and {more} more" if more else "")).split())


@dataclass(frozen=True)
class _Place:
    """A place in the file, and what may stand there.

    Attributes:
        path: The keys that lead to it.
        kind: The annotation of what may stand there; ``None`` for an unknown field.
        choice: Length of the path at the last field that takes one of several kinds.
        fields: For an unknown field: the fields there are.
        is_key: Whether it is the key itself that is wrong.
    """

    path: tuple[str, ...]
    kind: Any
    choice: int | None = None
    fields: tuple[str, ...] = ()
    is_key: bool = False

    @property
    def is_in_choice(self) -> bool:
        """Whether it lies inside of one of several kinds."""
        return self.choice is not None and len(self.path) > self.choice


def _place(model: type[BaseModel], location: Sequence[int | str]) -> _Place:
    """Follow pydantic's location, which names the chosen kind of a union as well."""
    kind: Any = model
    path: list[str] = []
    choice: int | None = None
    parts = list(location)
    while parts:
        kinds = _choices(kind)
        if len(kinds) > 1:
            choice = len(path)
            parts.pop(0)
            if not parts:
                break
            kinds = [member for member in kinds if _is_container(member)]
        kind, part = _bare(kinds[0]), parts.pop(0)
        if part == "[key]":
            return _Place(tuple(path), kind, choice, is_key=True)
        path.append(str(part))
        if _is_model(kind):
            if part not in kind.model_fields:
                return _Place(tuple(path), None, choice, tuple(kind.model_fields))
            kind = _annotated(kind.model_fields[part])
        elif parts[:1] != ["[key]"]:
            kind = _item(kind)
    return _Place(tuple(path), kind, choice)


def _message(place: _Place, item: Any) -> str:
    field = ".".join(place.path)
    if item["type"] == "value_error":
        reason = str(item["ctx"]["error"])
        return f"{field}: {reason}" if field else reason
    if item["type"] in _UNKNOWN or place.kind is None:
        return f"{field}: {unknown_name(place.path[-1], place.fields, 'field')}"
    if item["type"] == "missing":
        return f"{field}: is missing; add it"
    given = item["input"]
    if place.is_key:
        return f"{field}: a name must be text, got {_shown(given)}; put it in quotes"
    is_infinite = isinstance(given, float) and not math.isfinite(given)
    finite = "finite " if is_infinite else ""
    hint = ""
    if _bare(place.kind) is str and isinstance(given, int | float):
        hint = "; put it in quotes"
    where = f"{field}: " if field else ""
    return f"{where}must be {wanted(place.kind, finite)}, got {_shown(given)}{hint}"


def wanted(kind: Any, finite: str = "") -> str:
    """What an annotation takes, in words that follow "must be".

    Args:
        kind: The annotation.
        finite: Put before "number".
    """
    choices = _choices(kind)
    if len(choices) > 1:
        return " or ".join(wanted(choice, finite) for choice in choices)
    bare, limits = _bare(choices[0]), _limits(choices[0])
    origin = get_origin(bare)
    if origin is Literal:
        values = [repr(value) for value in get_args(bare)]
        return f"one of {', '.join(values)}" if len(values) > 1 else values[0]
    if bare is bool:
        return "true or false"
    if bare in (int, float):
        return _number(f"{finite}number", limits, is_whole=bare is int)
    if bare is str:
        return "text"
    if _is_model(bare):
        return f"a mapping of fields ({shortened(', '.join(bare.model_fields), 80)})"
    if origin in (dict, list, tuple):
        container = "mapping of names to" if origin is dict else "list of"
        filled = " that is not empty" if limits.get("min_length") else ""
        return f"a {container} {_plural(_item(bare))}{filled}"
    return "a value"


def _number(noun: str, limits: Mapping[str, float], *, is_whole: bool) -> str:
    if is_whole:
        noun = f"whole {noun}"
        limits = {
            {"gt": "ge", "lt": "le"}.get(name, name): value + {"gt": 1, "lt": -1}.get(name, 0)
            for name, value in limits.items()
        }
    words = {name: f"{value:.10g}" for name, value in limits.items()}
    if "ge" in words and "le" in words:
        return f"a {noun} from {words['ge']} to {words['le']}"
    phrases = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    bounds = [f"{phrase} {words[name]}" for name, phrase in phrases.items() if name in words]
    return " ".join([f"a {noun}", " and ".join(bounds)]).strip()


def _plural(kind: Any) -> str:
    choices = _choices(kind)
    bare = _bare(choices[0])
    if len(choices) > 1:
        return "values"
    if _is_model(bare):
        return "mappings of fields"
    simple = {str: "text", int: "whole numbers", float: "numbers", dict: "mappings", list: "lists"}
    return simple.get(get_origin(bare) or bare, "values")


# Annotations ---------------------------------------------------------------------------------


def _annotated(field: FieldInfo) -> Any:
    """The annotation of a field with the limits that pydantic has taken off it."""
    kind: Any = field.annotation
    for limit in field.metadata:
        kind = Annotated[kind, limit]
    return kind


def _choices(kind: Any) -> list[Any]:
    """The kinds of a union, ``None`` left out; of any other kind itself."""
    bare = _bare(kind)
    if get_origin(bare) not in (Union, UnionType):
        return [kind]
    return [member for member in get_args(bare) if member is not NoneType]


def _bare(kind: Any) -> Any:
    """An annotation without its limits, and without ``None`` where one other kind is left."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        members = [member for member in get_args(kind) if member is not NoneType]
        if len(members) == 1:
            return _bare(members[0])
    return kind


def _limits(kind: Any) -> dict[str, float]:
    """The limits of a number, or of the length of a container."""
    found: dict[str, float] = {}
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (member for member in get_args(kind) if member is not NoneType)
    while get_origin(kind) is Annotated:
        kind, *limits = get_args(kind)
        for limit in _flattened(limits):
            for name in ("gt", "ge", "lt", "le", "min_length"):
                value = getattr(limit, name, None)
                if value is not None:
                    found[name] = value
    return found


def _flattened(limits: Iterable[Any]) -> Iterable[Any]:
    for limit in limits:
        yield from limit.metadata if isinstance(limit, FieldInfo) else [limit]


def _item(kind: Any) -> Any:
    """What a container holds."""
    arguments = get_args(kind)
    return arguments[1 if get_origin(kind) is dict else 0]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_container(kind: Any) -> bool:
    bare = _bare(kind)
    return _is_model(bare) or get_origin(bare) in (dict, list, tuple)


def _shown(value: Any) -> str:
    """A value as it stands in a YAML file."""
    if value is None:
        return "nothing"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = str(value)
    return shortened(text, 60)
