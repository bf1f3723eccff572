"""What is to be trained: one run for each model, and what all runs of a call share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from optuna_demix._progress import Report
from optuna_demix.config import BudgetConfig, StudyConfig, TrainingConfig
from optuna_demix.training.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Run:
    """One model to train.

    Attributes:
        name: ``base``, the component's name, or ``references/<i>``.
        section: Field of the study which gives its budget.
        path: Where it will lie.
        budget: Tokens and learning rate.
        shares: Positive data shares by dataset; they sum to 1.
        steps: Optimizer steps.
        merge_weights: Where the shares come from, for a sampled reference.
    """

    name: str
    section: str
    path: Path
    budget: BudgetConfig
    shares: dict[str, float]
    steps: int
    merge_weights: dict[str, float] | None = None

    @property
    def is_base(self) -> bool:
        return self.section == "training.base"


@dataclass(frozen=True)
class Job:
    """What all runs of one call share."""

    config: StudyConfig
    training: TrainingConfig
    vocabulary: Vocabulary
    device: str
    report: Report

    @property
    def block_tokens(self) -> int:
        return self.training.sequence_length

    def partial(self, run: Run) -> Path:
        """Where a run keeps its checkpoints until it is done; one folder, whatever its name."""
        return self.config.run_path / "models" / ".partial" / quote(run.name, safe="")

    def lease(self, name: str) -> Path:
        """The lease on training a model; beside its checkpoints, and no name begins with a dot."""
        return self.config.run_path / "models" / ".partial" / f".{quote(name, safe='')}.lease"

    def text_lease(self, dataset: str) -> Path:
        """The lease on tokenizing a dataset."""
        return self.config.run_path / "cache" / f".{quote(dataset, safe='')}.lease"
