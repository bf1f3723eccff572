"""The progress of training, over all models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from optuna_demix._progress import Report, Step


class Progress:
    """Tokens of all models, with the step and the loss of the one that is trained.

    Args:
        tokens: Where they are counted.
        report: Where lines go.
    """

    def __init__(self, tokens: Step, report: Report) -> None:
        self._tokens = tokens
        self.say = report
        self._step, self._steps, self._step_tokens = 0, 0, 0
        self._waits = ""

    def begin(self, name: str, steps: int, step_tokens: int, done: int) -> None:
        """A model begins, or goes on after ``done`` steps."""
        self._steps, self._step_tokens, self._step = steps, step_tokens, done
        self._tokens.rename(name)
        self._tokens.note("")
        self._waits = ""
        self._tokens.skip(done * step_tokens)
        again = f", resuming after step {done:,}" if done else ""
        self.say(f"{name}: training {steps * step_tokens:,} tokens in {steps:,} steps{again}")

    def advance(self) -> None:
        """A step is done."""
        self._step += 1
        self._tokens.advance(self._step_tokens)

    def loss(self, value: float) -> None:
        """Show the loss of the last steps."""
        self._tokens.note(f"step {self._step:,} of {self._steps:,}, loss {value:.4f}")

    def lost(self, name: str) -> None:
        """Another process has taken the model over: what was done of it does not count."""
        self._tokens.skip(-self._step * self._step_tokens)
        self._step = 0
        self.say(f"{name}: another process has taken it over, which had not heard of this one")

    def wait(self, holders: Mapping[str, str]) -> None:
        """Nothing to do until others have trained models; ``holders`` says who does which."""
        told = "; ".join(f"{name}, which {holder} trains" for name, holder in holders.items())
        if told and told != self._waits:
            self._waits = told
            self._tokens.rename(f"waiting for {', '.join(holders)}")
            self._tokens.note("")
            self.say(f"waiting for {told}")

    def trained_elsewhere(self, name: str, tokens: int) -> None:
        """Another process has trained a model."""
        self._tokens.skip(tokens)
        self.say(f"{name}: was trained by another process")


@contextmanager
def training_progress(total: int, report: Report) -> Iterator[Progress]:
    """The progress of training for as long as the block lasts.

    Args:
        total: Tokens of all models that are to be trained.
        report: Where it is shown.
    """
    if not total:
        report = Report(report)  # all is there: no bar
    with report.step("train", unit="token", total=total, announced=False) as tokens:
        yield Progress(tokens, report)
