"""What the own loop cannot do, found before the first text is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from optuna_demix._wording import one_line
from optuna_demix.errors import TaskError
from optuna_demix.scoring.generation.cache import RowCache
from optuna_demix.scoring.generation.passes import go_on, read_prompts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from optuna_demix.scoring.generation.engine import Arguments

TOLERANCE = 1e-4
"""Largest difference of a logit, in parts of the largest one."""
_MAX_ROUNDINGS = 16  # of the model's dtype, where that is more
_PROBES = (11, 5)  # tokens of the prompts that the check reads
_PROBE_SHARED = 3  # of them, that they have in common
_PROBE_STEPS = 2

_WITHOUT_EFFECT = {  # on greedy search that is given its length and its padding
    *("_from_model_config", "transformers_version", "bos_token_id", "eos_token_id"),
    *("pad_token_id", "max_length", "use_cache"),
}
_OF_SAMPLING = {
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff"),
}
_NEUTRAL: Mapping[str, Any] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "diversity_penalty": 0.0,
    "length_penalty": 1.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "early_stopping": False,
    "renormalize_logits": False,
    "remove_invalid_values": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "output_logits": False,
    "return_dict_in_generate": False,
}


def of_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why our own loop can write no text of a model, by its configuration; ``None`` if it can."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    said = of_settings(model, tokenizer)
    if said is not None:
        return said
    if model.config._attn_implementation not in ("sdpa", "eager"):
        return f"attention {model.config._attn_implementation!r} takes no mask of its own"
    try:
        layers = DynamicCache(config=model.config).layers
    except Exception as error:  # whatever a configuration of foreign code lacks
        return f"the model has no plain cache ({type(error).__name__}: {one_line(error)})"
    other = next((layer for layer in layers if type(layer) is not DynamicLayer), None)
    if other is not None:
        return f"the model keeps {type(other).__name__}, not full attention alone"
    return None


def of_settings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why a model's texts are not those of plain greedy search; ``None`` if they are."""
    from transformers import GenerationMixin

    if not isinstance(model, GenerationMixin):
        return "transformers cannot generate with it"
    if model.config.is_encoder_decoder:
        return "the model has an encoder"
    if type(model).generate is not GenerationMixin.generate:
        return "the model has a generate() of its own"
    chosen = model.generation_config.to_diff_dict()
    name = _unknown(chosen, _WITHOUT_EFFECT | _OF_SAMPLING)
    if name is not None:
        return f"the model's generation_config sets {name} to {chosen[name]!r}"
    if tokenizer.eos_token_id not in end_tokens(model):
        return "the tokenizer's end token is none of the model's generation_config"
    if tokenizer.decode([tokenizer.pad_token_id], skip_special_tokens=True):
        return "the tokenizer's padding token has a text"
    return None


def of_arguments(
    arguments: Arguments, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> str | None:
    """Why texts cannot be written with such arguments; ``None`` if they can."""
    others = arguments.others
    if others.get("do_sample"):
        return "texts are sampled"
    name = _unknown(others, _OF_SAMPLING)
    if name is not None:
        return f"{name} is {others[name]!r}"
    if arguments.max_tokens < 1:
        return "no token is to be written"
    ends = end_tokens(model)
    for token, added in getattr(tokenizer, "added_tokens_decoder", {}).items():
        # Texts are decoded without it: only lm-eval's own loop sees it, and by whole batches.
        if (
            added.special
            and token not in ends
            and any(added.content in s for s in arguments.stops)
        ):
            return f"the stop string {added.content!r} is a special token"
    return None


def end_tokens(model: PreTrainedModel) -> frozenset[int]:
    """Tokens that end a text."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if ends is None:
        return frozenset()
    return frozenset([ends] if isinstance(ends, int) else ends)


def of_numbers(
    model: PreTrainedModel, logits_of: Callable[[Tensor], Tensor], *, once: bool = False
) -> str | None:
    """Try rows that join and go on against plain passes.

    Args:
        model: With finite weights.
        logits_of: The plain pass: logits (B, L, V) of token ids (B, L).
        once: Keep what rows begin with once for all, see :mod:`.attention`.

    Returns:
        Why the model cannot be used, or ``None`` if it can.

    Raises:
        TaskError: If the model answers with NaN.
    """
    device = model.device
    size = model.config.get_text_config().vocab_size
    longest = max(_PROBES) + _PROBE_STEPS
    texts = [
        [(3 + 7 * i + (line if i >= _PROBE_SHARED else 0)) % size for i in range(longest)]
        for line in range(len(_PROBES))
    ]
    plain = [logits_of(torch.tensor([text], device=device))[0].float() for text in texts]
    if any(logits.isnan().any() for logits in plain):
        raise TaskError(
            "generation is tried on a few tokens, but the model answers with NaN: give it weights "
            "first, those of any mixture"
        )
    try:
        rows = _in_rows(model, texts, once=once)
    except Exception as error:  # whatever a model's own code makes of a cache it does not know
        return f"the model refuses rows that join ({type(error).__name__}: {one_line(error)})"
    largest = max(float(logits.abs().max()) for logits in plain)
    bound = tolerance(model.dtype) * largest
    for step, logits in enumerate(rows):
        for line, length in enumerate(_PROBES):
            wanted = plain[line][length - 1 + step]
            difference = float((logits[line].float() - wanted).abs().max())
            if not difference <= bound:
                return (
                    f"rows that join change a logit by {difference:.2g}: the model does not keep "
                    "to the attention mask or the positions it is given"
                )
    return None


def tolerance(dtype: torch.dtype) -> float:
    """Difference of a logit that rounding explains, in parts of the largest one."""
    return max(TOLERANCE, _MAX_ROUNDINGS * torch.finfo(dtype).eps)


def _in_rows(
    model: PreTrainedModel, texts: Sequence[Sequence[int]], *, once: bool
) -> list[Tensor]:
    """Logits (B, V) behind the prompts and behind each of the steps."""
    alone = RowCache(1)
    read_prompts(model, alone, [texts[0][:_PROBE_SHARED]], first=0)
    beginning = alone.beginning(_PROBE_SHARED)
    cache = RowCache(len(texts))
    found = [
        read_prompts(
            model,
            cache,
            [text[:n] for text, n in zip(texts, _PROBES, strict=True)],
            first=0,
            beginning=beginning,
            once=once,
        )
    ]
    for step in range(_PROBE_STEPS):
        lengths = [n + step for n in _PROBES]
        tokens = [text[n] for text, n in zip(texts, lengths, strict=True)]
        fronts = [beginning if once else None] * len(tokens)
        found.append(go_on(model, cache, tokens, lengths, fronts))
    return found


def _unknown(chosen: Mapping[str, Any], known: set[str]) -> str | None:
    """The first setting that may change a greedy text."""
    return next(
        (
            name
            for name, value in chosen.items()
            if name not in known
            and value is not None
            and not (name in _NEUTRAL and value == _NEUTRAL[name])
        ),
        None,
    )
