"""How components, and a base that is not there yet, are to be trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from optuna_demix._wording import one_line
from optuna_demix.errors import ComponentError, InputError
from optuna_demix.starting.draft import GENERAL_SHARE, Entry
from optuna_demix.starting.folders import relative
from optuna_demix.starting.sizes import (
    BASE_TOKENS_PER_PARAMETER,
    COMPONENT_TOKENS_PER_PARAMETER,
    EPOCHS,
    batch_of,
    compact,
    in_words,
    learning_rate,
    llama_of,
    longest_of,
    rounded,
    sequence_of,
)


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer that can cut text.

    Attributes:
        path: Its directory.
        size: Number of token ids.
        encode: Texts to token ids, without special tokens.
    """

    path: Path
    size: int
    encode: Callable[[list[str]], list[list[int]]]

    @classmethod
    def of(cls, path: Path) -> Tokenizer:
        """Load one.

        Raises:
            InputError: If there is none, or it does not say what ends a text.
        """
        from optuna_demix.training.data.vocabulary import encoder_of, load_tokenizer

        where = f"tokenizer {path}"
        if not path.is_dir():
            raise InputError(f"{where}: no such folder; correct --tokenizer or --base")
        try:
            loaded = load_tokenizer(path)
        except Exception as error:  # tokenizers raise bare Exception on a damaged file
            raise InputError(
                f"{where}: cannot be loaded ({one_line(error)}); give another with --tokenizer"
            ) from None
        if loaded.eos_token_id is None:
            raise InputError(
                f"{where}: has no eos_token, which must separate documents; set it in "
                "tokenizer_config.json"
            )
        return cls(path, len(loaded), encoder_of(loaded))


@dataclass(frozen=True)
class Start:
    """What components start from.

    Attributes:
        tokenizer: The tokenizer.
        parameters: Size of the base.
        longest: Its longest input, where that is known.
        is_there: Whether the base exists.
    """

    tokenizer: Tokenizer
    parameters: int
    longest: int | None
    is_there: bool


def start_of(base: Path | None, tokenizer: Path | None, parameters: int | None) -> Start:
    """The base that is there, or the size of one from nothing.

    Raises:
        InputError: If neither is given, or the base is damaged.
    """
    if base is None:
        if tokenizer is None or parameters is None:
            raise InputError(
                "--data: components need a base to start from; give --base DIR, or --tokenizer "
                "DIR and --parameters N to train one"
            )
        found = Tokenizer.of(tokenizer)
        return Start(found, parameters, longest_of(parameters), is_there=False)
    if parameters is not None:
        raise InputError("--parameters is the size of a base from nothing; leave it or --base out")
    from optuna_demix.merging import ComponentSet

    try:
        opened = ComponentSet.open({"base": base})
    except ComponentError as error:
        raise ComponentError(str(error).replace("component 'base'", f"--base {base}", 1)) from None
    found = Tokenizer.of(tokenizer or base)
    return Start(found, opened.n_parameters, opened.longest_input, is_there=True)


def training_of(
    start: Start,
    sizes: Mapping[str, int],
    general: str | None,
    component_tokens: int | None,
    base_tokens: int | None,
    folder: Path,
) -> tuple[dict[str, Entry], list[str]]:
    """The section ``training``, and what has to be said about it.

    Args:
        start: What components start from.
        sizes: Tokens of each dataset.
        general: The general dataset, if components have a share of it.
        component_tokens: Tokens of a component's run, if the user has said it.
        base_tokens: Those of a base from nothing, likewise.
        folder: Folder of the study.

    Raises:
        InputError: If there is too little text.
    """
    if not sizes:
        raise InputError("--data: no dataset's size can be told; give --tokens NAME=N for each")
    shares = {name: 1.0 if general in (None, name) else 1.0 - GENERAL_SHARE for name in sizes}
    smallest = min(sizes, key=lambda name: sizes[name] / shares[name])
    sequence = sequence_of(start.longest, min(sizes.values()))
    notes: list[str] = []
    entries: dict[str, Entry] = {"tokenizer": Entry(relative(start.tokenizer.path, folder))}
    parameters = start.parameters
    if not start.is_there:
        model, parameters = llama_of(parameters, start.tokenizer.size, sequence)
        entries["model"] = Entry(
            model, f"{in_words(parameters)} parameters, embeddings among them"
        )
    most = rounded(min(EPOCHS * size / shares[name] for name, size in sizes.items()))
    wanted = rounded(COMPONENT_TOKENS_PER_PARAMETER * parameters)
    least = rounded(parameters)  # the paper's shortest runs were of 1.2 tokens a parameter
    tokens = component_tokens or min(wanted, max(most, least))
    why = f"{tokens / parameters:.3g} tokens a parameter"
    if component_tokens is None:
        notes.append(
            f"each component is trained on {in_words(tokens)} tokens, {why}; --component-tokens "
            "changes it"
        )
    if tokens > most:
        epochs = tokens * shares[smallest] / sizes[smallest]
        notes.append(f"{smallest} is small: training repeats it {epochs:.3g} times")
    if tokens < sequence:
        raise InputError(
            f"a component would be trained on {tokens:,} tokens, less than one sequence of "
            f"{sequence:,}; add text to {smallest} or give --component-tokens"
        )
    entries["sequence_length"] = Entry(sequence)
    entries["batch_size"] = Entry(batch_of(tokens, sequence), "sequences of a step")
    rate = learning_rate(parameters)
    if not start.is_there:
        total = EPOCHS * sum(sizes.values())
        of_base = base_tokens or max(
            rounded(min(BASE_TOKENS_PER_PARAMETER * parameters, total)),
            sequence * entries["batch_size"].value,
        )
        each = f"{of_base / parameters:.3g} tokens a parameter"
        entries["base"] = Entry({"tokens": compact(of_base), "learning_rate": 2 * rate}, each)
        notes.append(
            f"a base of {in_words(parameters)} parameters is trained on {in_words(of_base)} "
            f"tokens, {each}; --base-tokens changes it"
        )
    entries["component"] = Entry({"tokens": compact(tokens), "learning_rate": rate}, why)
    return entries, notes
