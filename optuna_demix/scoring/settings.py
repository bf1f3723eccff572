"""``TaskSettings``: how lm-eval puts a task's documents to a model and reads its answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from optuna_demix._wording import unknown_name
from optuna_demix.errors import TaskError

_NAMED = "a mapping of names to finite values"
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Settings of lm-eval's run, of all tasks or of one; ``None`` leaves one open.

    Attributes:
        num_fewshot: Examples in the prompt.
        limit: Only the first so many documents (>= 1) or that fraction of them (< 1).
        apply_chat_template: Put prompts into the tokenizer's chat template, or into the one of
            this name where it has several.
        system_instruction: What prompts begin with; in a chat, the system's message.
        fewshot_as_multiturn: Examples as turns of the chat, as by default, or all in one message.
        gen_kwargs: Arguments of generation that replace the task's own: ``max_gen_toks``,
            ``until``, ``temperature`` and whatever else the model's ``generate`` takes.
        repeats: Answers to each question, where texts are sampled and the task's filters keep
            several: of ``pass@k`` at least ``k``.
        metadata: Arguments of tasks that make their own data, such as RULER's lengths.
        think_end_token: Only what follows the last such token, by its text or id, is the answer.
    """

    num_fewshot: int | None = None
    limit: float | None = None
    apply_chat_template: bool | str | None = None
    system_instruction: str | None = None
    fewshot_as_multiturn: bool | None = None
    gen_kwargs: Mapping[str, Any] | None = field(default=None, hash=False)
    repeats: int | None = None
    metadata: Mapping[str, Any] | None = field(default=None, hash=False)
    think_end_token: str | int | None = None

    def check(self, where: str) -> None:
        """Refuse values that lm-eval would misread.

        Raises:
            TaskError: Naming ``where`` they were given and the field.
        """
        said = self.problem()
        if said is not None:
            raise TaskError(f"{where}: {said}")

    def problem(self) -> str | None:
        """What is wrong with the first field that lm-eval would misread."""
        shots, length = self.num_fewshot, _generated(self.gen_kwargs)
        template, token = self.apply_chat_template, self.think_end_token
        for name, value, usable, wanted in (
            ("num_fewshot", shots, _is_whole(shots, least=0), "a whole number >= 0"),
            (
                "limit",
                self.limit,
                _is_limit(self.limit),
                "a number of documents (>= 1) or a fraction of them (between 0 and 1)",
            ),
            (
                "apply_chat_template",
                template,
                isinstance(template, bool) or (isinstance(template, str) and bool(template)),
                "true, false or the name of a template",
            ),
            (
                "system_instruction",
                self.system_instruction,
                isinstance(self.system_instruction, str),
                "text",
            ),
            (
                "fewshot_as_multiturn",
                self.fewshot_as_multiturn,
                isinstance(self.fewshot_as_multiturn, bool),
                "true or false",
            ),
            ("gen_kwargs", self.gen_kwargs, _is_named(self.gen_kwargs), _NAMED),
            ("repeats", self.repeats, _is_whole(self.repeats, least=1), "a whole number >= 1"),
            ("metadata", self.metadata, _is_named(self.metadata), _NAMED),
            ("max_gen_toks", length, _is_whole(length, least=1), "a whole number >= 1"),
            (
                "think_end_token",
                token,
                isinstance(token, str) or _is_whole(token, least=0),
                "the text or the id of a token",
            ),
        ):
            if value is not None and not usable:
                return f"{name} must be {wanted}, not {value!r}"
        return None

    def over(self, defaults: TaskSettings) -> TaskSettings:
        """These settings, and those of ``defaults`` where they are open, ready for lm-eval.

        Mappings are joined key by key. What makes no difference takes one form, so that equal
        runs have equal settings.
        """
        found: dict[str, Any] = {}
        for each in fields(TaskSettings):
            own, other = getattr(self, each.name), getattr(defaults, each.name)
            if isinstance(own, Mapping) and isinstance(other, Mapping):
                own = {**other, **own}
            found[each.name] = other if own is None else own
        chat = found["apply_chat_template"] or None
        multiturn = found["fewshot_as_multiturn"] is not False  # as in ``simple_evaluate``
        token = found["think_end_token"]
        return TaskSettings(
            **{
                **found,
                "apply_chat_template": chat,
                "system_instruction": found["system_instruction"] or None,
                "fewshot_as_multiturn": multiturn if chat else None,
                "gen_kwargs": found["gen_kwargs"] or None,
                "metadata": found["metadata"] or None,
                # As lm-eval reads it.
                "think_end_token": int(token) if str(token).isdigit() else token or None,
            }
        )


def resolve(
    common: TaskSettings, own: Mapping[str, TaskSettings], *, where: str
) -> dict[str, TaskSettings]:
    """The settings that each benchmark is run with.

    Args:
        common: Those of all benchmarks.
        own: Those that each has for itself, by name.
        where: What an error calls the common ones.

    Raises:
        TaskError: If they contradict each other.
    """
    runs = {name: given.over(common) for name, given in own.items()}
    chats = {name: bool(run.apply_chat_template) for name, run in runs.items()}
    for place, given, is_chat in (
        (where, common, any(chats.values())),
        *((f"benchmark {name!r}", given, chats[name]) for name, given in own.items()),
    ):
        if given.fewshot_as_multiturn and not is_chat:
            raise TaskError(
                f"{place}: fewshot_as_multiturn makes turns of a chat, but there is none; set "
                "apply_chat_template or remove it"
            )
    return runs


def check_template(tokenizer: Any, template: bool | str | None) -> None:
    """Refuse a chat template that the tokenizer does not have.

    Raises:
        TaskError: Naming the field.
    """
    known = getattr(tokenizer, "chat_template", None)
    said = None
    if not template:
        return
    if not known:
        said = "the tokenizer has no chat template; give it one or remove the setting"
    elif not isinstance(known, Mapping):
        if isinstance(template, str):
            said = f"the tokenizer has one template, and none called {template!r}; set it to true"
    elif isinstance(template, str):
        if template not in known:
            said = unknown_name(template, sorted(known), "template")
    elif "default" not in known:
        said = f"the tokenizer has no default template; name one of {', '.join(sorted(known))}"
    if said is not None:
        raise TaskError(f"apply_chat_template: {said}")


def check_bos(tokenizer: Any, add_bos_token: bool | None) -> None:
    """Refuse a BOS token that the tokenizer does not have.

    Raises:
        TaskError: Naming the field.
    """
    if add_bos_token and getattr(tokenizer, "bos_token", None) is None:
        raise TaskError("add_bos_token: the tokenizer has no BOS token; remove the setting")


def check_positive(setting: str, value: object) -> None:
    """Refuse what is not a whole number of at least 1.

    Raises:
        TaskError: Naming the setting.
    """
    if not _is_whole(value, least=1):
        hint = "; 'auto' would change the scores' last bits" if value == "auto" else ""
        raise TaskError(f"{setting} must be a whole number >= 1, not {value!r}{hint}")


def _is_whole(value: object, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_limit(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value > 0 and (value <= 1 or value == int(value))


def _is_named(value: object) -> bool:
    named = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    return named and _is_finite(value)


def _is_finite(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _generated(gen_kwargs: Any) -> Any:
    """How many tokens may be generated, by any of the names that lm-eval knows it by."""
    if not isinstance(gen_kwargs, Mapping):
        return None
    return next((gen_kwargs[name] for name in _LENGTHS if name in gen_kwargs), None)
