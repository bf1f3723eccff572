"""A draft as the text of a ``study.yaml``, with comments."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from optuna_demix.starting.draft import GENERAL_SHARE, Draft, Entry

_WIDE = 2**31  # no line is broken


def study_text(draft: Draft, *, name: str) -> str:
    """The file.

    Args:
        draft: What it says.
        name: Its own name, for the comment that opens it.
    """
    return "\n".join(_lines(draft, name)) + "\n"


def _lines(draft: Draft, name: str) -> Iterator[str]:
    yield "# Written by optuna-demix init. Change what you like, then check it again:"
    yield f"#   optuna-demix check {shlex.quote(ascii(name)[1:-1])}"
    yield "# optuna-demix check --schema lists every field."
    yield _pair("run_dir", draft.run_dir, "everything that the study makes")
    if draft.base is not None:
        yield _pair("base", draft.base, "the model that all components start from")
    if draft.datasets:
        yield ""
        yield "datasets:  # the corpora that the mixture weighs"
        yield from _entries(draft.datasets)
    yield ""
    if any(entry.value for entry in draft.components.values()):
        yield "components:  # one model for each dataset, all from one base"
        yield from _entries(draft.components)
    else:
        names = scalar(list(draft.components))
        yield f"components: {names}  # trained by 'optuna-demix train'"
    if draft.general is not None:
        share = {"dataset": draft.general, "share": GENERAL_SHARE}
        yield _pair("general", share, "this part of every other component's data")
    yield ""
    if draft.mixture:
        yield "mixture:"
        yield from _entries(draft.mixture)
    else:
        yield "# mixture: {budget: 1e12, max_epochs: 4}  # with tokens of datasets: caps of shares"
    yield ""
    yield "capabilities:  # a direction of the search for each: the mean of its benchmarks"
    for capability, benchmarks in draft.capabilities.items():
        yield f"  {scalar(capability)}:"
        for chosen in benchmarks:
            fields: dict[str, Any] = {"task": chosen.task, "metric": chosen.metric}
            if chosen.higher_is_better is not None:
                fields["higher_is_better"] = chosen.higher_is_better
            yield f"    - {scalar(fields)}" + _comment(chosen.note)
    if draft.scoring:
        yield ""
        yield "scoring:"
        yield from _entries(draft.scoring)
    if draft.config_of is not None:
        yield ""
        note = "components end texts differently: all are scored as this one"
        yield _pair("merging", {"config_of": draft.config_of}, note)
    yield ""
    yield "sampler: {seed: 0}"
    if draft.training:
        yield ""
        yield "training:  # of what 'optuna-demix train' makes"
        yield from _entries(draft.training)


def _entries(entries: Mapping[str, Entry]) -> Iterator[str]:
    for name, entry in entries.items():
        yield "  " + _pair(name, entry.value, entry.note)


def _pair(name: str, value: Any, note: str) -> str:
    return f"{scalar(name)}: {scalar(value)}" + _comment(note)


def _comment(note: str) -> str:
    # What a name holds must not end the comment, or be refused by YAML.
    shown = "".join(letter if letter.isprintable() else " " for letter in note)
    return "  # " + " ".join(shown.split()) if shown.strip() else ""


def scalar(value: Any) -> str:
    """A value in one line of YAML that reads the same wherever it stands."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(k)}: {scalar(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(scalar, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "true" if value is True else "false" if value is False else str(value)


def _text(value: str) -> str:
    """A text as it stands inside of a list, quoted where it must be."""
    for style in (None, '"'):
        shown = yaml.safe_dump(
            [value], default_flow_style=True, default_style=style, width=_WIDE, allow_unicode=True
        )
        shown = shown.removesuffix("\n").removeprefix("[").removesuffix("]")
        if len(shown.splitlines()) <= 1:
            break
    return shown
