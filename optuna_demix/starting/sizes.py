"""Sizes of models, budgets of training and learning rates where the user names none."""

from __future__ import annotations

import math
import re
from typing import Any

from optuna_demix.errors import InputError

BASE_TOKENS_PER_PARAMETER = 20
"""Of a base from nothing (Hoffmann et al., arXiv 2203.15556)."""
COMPONENT_TOKENS_PER_PARAMETER = 6
"""The paper's 10 B tokens of a 1.7 B model; with 30 B merges already depart from real training."""
EPOCHS = 4
"""How often text may be repeated before it loses its worth (Muennighoff, arXiv 2305.16264)."""

_LONGEST_SEQUENCE = 1024
_MOST_SEQUENCES = 32  # of a step: fits a GPU with a model of some billions
_STEPS = 100  # at least so many, while a step has several sequences
_HEAD = 64
_SMALL_HEAD = 16  # below a width of 256, as in the quickstart
_WIDTH_PER_LAYER = 96
_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


def read_number(text: str) -> int:
    """Read a number of tokens or parameters: ``150M``, ``1.5e9``, ``100B``, ``2_000``.

    Raises:
        ValueError: If it is none, or not positive.
    """
    found = re.fullmatch(
        r"([0-9][0-9_]*(?:\.[0-9]*)?(?:e\+?[0-9]+)?)\s*([kmbgt]?)", text.strip().lower()
    )
    value = float(found[1].replace("_", "")) * _SUFFIXES[found[2]] if found else 0.0
    if not 1 <= value < 1e18:
        raise ValueError(f"{text!r} is no number of at least 1; write it as 150M, 2e9 or 100B")
    return round(value)


def rounded(number: float, digits: int = 3) -> int:
    """A number to a few digits, for what is only estimated."""
    if number < 1:
        return 0
    return int(round(number, digits - 1 - math.floor(math.log10(number))))


def compact(number: int) -> int | str:
    """A number as people write it into a study: ``8.02e9`` where that is exact, else its digits.

    The text is read as the number again: a field of tokens takes both.
    """
    mantissa, _, exponent = f"{number:.3e}".partition("e")
    short = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return short if number >= 1e6 and float(short) == number else number


def in_words(number: float) -> str:
    """A large number as people say it: ``8.02 B``, ``640``."""
    for unit in ("", " k", " M", " B"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:,.3g} T"


def learning_rate(parameters: int) -> float:
    """Peak learning rate of components of N parameters; a base from nothing takes twice as much.

    The paper's 3e-4 at 1.7 B, falling as ``N ** -0.3``, as GPT-3's table does (arXiv 2005.14165);
    at most the quickstart's 3e-3.
    """
    return float(f"{min(3e-3, 3e-4 * (1.7e9 / parameters) ** 0.3):.2g}")


def longest_of(parameters: int) -> int:
    """The longest input of a base from nothing: as the quickstart's where it is as small."""
    return 128 if parameters < 1e6 else _LONGEST_SEQUENCE


def sequence_of(longest: int | None, smallest: float) -> int:
    """Tokens of a training sequence: a power of two, or the longest input.

    Args:
        longest: The longest input of the model, if it is known.
        smallest: Tokens of the smallest dataset, of which eight sequences should come.
    """
    most = min(_LONGEST_SEQUENCE, longest or _LONGEST_SEQUENCE)
    return min(most, max(8, int(2 ** math.floor(math.log2(max(1.0, smallest / 8))))))


def batch_of(tokens: int, sequence: int) -> int:
    """Sequences of a step, so that a run of these tokens has enough steps: a power of two."""
    most = tokens / (sequence * _STEPS)
    return int(2 ** math.floor(math.log2(min(max(most, 1), _MOST_SEQUENCES))))


def llama_of(parameters: int, vocabulary: int, positions: int) -> tuple[dict[str, Any], int]:
    """Fields of a Llama of about so many parameters, its embeddings among them.

    Args:
        parameters: How many are wanted.
        vocabulary: Tokens of its tokenizer; input and output embeddings are tied.
        positions: The longest input.

    Returns:
        The fields of ``training.model``, and how many parameters that makes.

    Raises:
        InputError: If no such model is near, as the vocabulary alone is larger.
    """
    width, layers = min(
        ((width, layers) for width in _widths() for layers in _layers(width)),
        key=lambda size: abs(math.log(_parameters(size[0], size[1], vocabulary) / parameters)),
    )
    made = _parameters(width, layers, vocabulary)
    if not 1 / 1.3 < made / parameters < 1.3:
        raise InputError(
            f"--parameters {in_words(parameters)}: no Llama with a vocabulary of {vocabulary:,} "
            f"is near; the nearest has {in_words(made)}: give another size or --base"
        )
    head = _HEAD if width >= 4 * _HEAD else _SMALL_HEAD
    return {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": _inner(width),
        "num_hidden_layers": layers,
        "num_attention_heads": width // head,
        "max_position_embeddings": positions,
        "tie_word_embeddings": True,
    }, made


def _widths() -> list[int]:
    return [16, 32, 48, *range(64, 16_384 + 1, 64)]


def _layers(width: int) -> range:
    """Depths that go with a width."""
    natural = max(1, round(width / _WIDTH_PER_LAYER))
    return range(max(1, natural * 3 // 4), natural * 4 // 3 + 2)


def _inner(width: int) -> int:
    return -(-width * 8 // 3 // 16) * 16


def _parameters(width: int, layers: int, vocabulary: int) -> int:
    """Embeddings, and attention, a gated network and two norms in each layer, and a last norm."""
    layer = 4 * width * width + 3 * width * _inner(width) + 2 * width
    return vocabulary * width + layers * layer + width
