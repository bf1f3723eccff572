"""The results of training: a trained model, or the exception that says it was stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class TrainingInterrupted(Exception):
    """Training was stopped by a signal; the same command resumes it.

    Attributes:
        signum: The signal.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


@dataclass(frozen=True)
class TrainedModel:
    """A model that is trained.

    Attributes:
        name: ``base``, the component's name, or ``references/<i>``.
        path: Directory of its weights, tokenizer and :data:`RECORD_FILE`.
        data_shares: Share of each dataset in what it was trained on.
        merge_weights: For a sampled reference: the merge weights its data shares come from.
        tokens: Tokens it was trained on.
        steps: Optimizer steps.
        final_loss: Mean training loss of the last tenth of the steps, nats a token.
        seconds: Time the steps took, interruptions left out.
        skipped: Whether it was there already.
    """

    name: str
    path: Path
    data_shares: dict[str, float]
    merge_weights: dict[str, float] | None
    tokens: int
    steps: int
    final_loss: float
    seconds: float
    skipped: bool
