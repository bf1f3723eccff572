"""Datasets, components and the constraints of the mixture."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from optuna_demix.config._base import (
    NonNegativeNumber,
    PositiveNumber,
    Share,
    StrictModel,
    TokenCount,
)


class DatasetConfig(StrictModel):
    """A corpus that the mixture weighs."""

    files: list[str] = Field(default_factory=list)
    """Text to train on: paths or globs of ``.jsonl`` files (one ``{"text": …}`` a line) or plain
    ``.txt`` files (one document a file). Needed by ``train`` alone."""
    tokens: TokenCount | None = None
    """Size of the whole corpus in tokens; needed for epoch caps."""


class ComponentConfig(StrictModel):
    """A model trained on one dataset (plus a fixed share of general data)."""

    path: str | None = None
    """Directory of the checkpoint; default ``<run_dir>/models/<component>``."""
    hub: str | None = None
    """``owner/repository`` on the Hugging Face hub, instead of ``path``."""
    hub_type: Literal["model", "dataset"] = "model"
    """Kind of that repository on the hub."""
    subfolder: str | None = None
    """Folder inside the repository that holds the checkpoint."""
    revision: str | None = None
    """Commit, tag or branch of the repository."""
    composition: dict[str, Share] | None = None
    """Data shares this component was trained on, ``{dataset: share}``; default: its own dataset,
    with the study's ``general`` share where that is given."""

    @model_validator(mode="after")
    def _one_source(self) -> ComponentConfig:
        if self.path is not None and self.hub is not None:
            raise ValueError("give either 'path' or 'hub', not both")
        if self.hub is None and (self.subfolder is not None or self.revision is not None):
            raise ValueError("'subfolder' and 'revision' belong to 'hub'; add it or remove them")
        return self


class GeneralConfig(StrictModel):
    """The general data that every component is trained on beside its own (paper, section 3)."""

    dataset: str
    """Name of the general dataset."""
    share: Share = 0.5
    """Its share in each component; the paper uses 0.5."""


class GroupConfig(StrictModel):
    """Bounds on a sum: of merge weights of components, or of data shares of datasets."""

    name: str
    """What messages call it; unique within the study."""
    members: list[str]
    """Components where ``of`` is ``weights``, datasets where it is ``shares``."""
    lower: Share = 0.0
    """Least sum."""
    upper: Share = 1.0
    """Largest sum."""
    of: Literal["weights", "shares"] = "weights"
    """What is summed: merge weights of components, or data shares of datasets."""


class MixtureConfig(StrictModel):
    """The mixtures that are allowed; see :class:`~optuna_demix.mixture.MixtureSpace`."""

    prior: dict[str, NonNegativeNumber] | None = None
    """Natural weight of each component; only the ratios count. Default: the ``tokens`` of the
    datasets that bear the components' names, if all have some, else equal weights."""
    lower: Share | dict[str, Share] = 0.0
    """Least merge weight: one number for all, or one by component (the others 0)."""
    upper: Share | dict[str, Share] = 1.0
    """Largest merge weight: one number for all, or one by component (the others 1)."""
    min_weight: Share = 0.0
    """Least weight of a component that takes part: every merge weight is 0 or at least this."""
    max_epochs: PositiveNumber | dict[str, PositiveNumber] | None = None
    """How often the planned run may repeat a dataset: one number for all, or one by dataset. The
    data share of a dataset is at most ``max_epochs * tokens / budget``."""
    budget: TokenCount | None = None
    """Tokens of the planned training run; needed for epoch caps."""
    groups: list[GroupConfig] = Field(default_factory=list)
    """Bounds on sums of merge weights or of data shares."""
