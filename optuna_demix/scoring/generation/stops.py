"""Stop strings, looked for only where a token can have completed one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PARTIAL = "\ufffd"  # what a decoder makes of part of a character
_HELD_BACK = 8  # characters that the clean-up of spaces may still change
_SPECIAL_TOKENS = 2  # without text, that may lie inside a stop string in the window

Decode = Callable[[Sequence[int]], str]


def is_cut(text: str, stops: Sequence[str]) -> bool:
    """Whether cutting a text at stop strings gives the same whatever follows it.

    The text is cut before the first place of each stop string in turn, as lm-eval does. A string
    that stands earlier in the list may begin in the end of the text, in front of one that is
    complete, and would then cut away part of it.
    """
    earliest = len(text)  # where one that is not complete yet may begin
    for stop in stops:
        place = text.find(stop)
        if place >= 0:
            return place + len(stop) <= earliest
        for start in range(max(0, len(text) - len(stop) + 1), earliest):
            if stop.startswith(text[start:]):
                earliest = start
                break
    return False


class StopWatch:
    """Says when a text has ended.

    Args:
        decode: Text of tokens, without special ones.
        stops: Stop strings; empty ones do not count.
        held_back: Last characters of a text which later tokens may still change.
    """

    def __init__(self, decode: Decode, stops: Sequence[str], *, held_back: int = 0) -> None:
        self._decode = decode
        self._stops = [stop for stop in stops if stop]
        self._held_back = held_back
        self._last = {stop[-1] for stop in self._stops}
        self._completes: dict[int, bool] = {}
        longest = max((len(stop.encode()) for stop in self._stops), default=0)
        self._window = longest + held_back + _SPECIAL_TOKENS

    def ended(self, tokens: Sequence[int], *, waiting: bool = False) -> tuple[bool, bool]:
        """Look at a text after its last token.

        Args:
            tokens: All tokens of the text, at least one.
            waiting: What was returned as the second value after the token before.

        Returns:
            Whether the text has ended; and, if not, whether a stop string is there that the next
            token has to settle.
        """
        if not waiting and not self._may_complete(tokens[-1]):
            return False, False
        if not waiting and not self._has_stop(self._decode(tokens[-self._window :])):
            return False, False
        text = self._decode(tokens)
        stable = text.rstrip(_PARTIAL)
        stable = stable[: len(stable) - self._held_back]
        ended = is_cut(stable, self._stops)
        return ended, not ended and self._has_stop(text)

    def _has_stop(self, text: str) -> bool:
        return any(stop in text for stop in self._stops)

    def _may_complete(self, token: int) -> bool:
        """Whether a token can bring the last character of a stop string."""
        if token not in self._completes:
            # Twice, because the first token of a text may lose its space.
            text = self._decode([token, token])
            self._completes[token] = _PARTIAL in text or any(c in text for c in self._last)
        return self._completes[token]


def stop_watch(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> StopWatch:
    """What says when a text has ended that a tokenizer decodes."""
    cleans = getattr(tokenizer, "clean_up_tokenization_spaces", False)
    return StopWatch(
        lambda tokens: str(tokenizer.decode([*tokens], skip_special_tokens=True)),
        stops,
        held_back=_HELD_BACK if cleans else 0,
    )
