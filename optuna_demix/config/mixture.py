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
    """A corpus that the mixture weighs.

    Attributes:
        files: Text to train on: paths or globs of ``.jsonl`` files (one ``{"text": …}`` a line)
            or plain ``.txt`` files (one document a file). Needed by ``train`` alone.
        tokens: Size of the whole corpus in tokens; needed for epoch caps.
    """

    files: list[str] = Field(default_factory=list)
    tokens: TokenCount | None = None


class ComponentConfig(StrictModel):
    """A model trained on one dataset (plus a fixed share of general data).

    Attributes:
        path: Directory of the checkpoint; default ``<run_dir>/models/<component>``.
        hub: ``owner/repository`` on the Hugging Face hub, instead of ``path``.
        hub_type: Kind of that repository.
        subfolder: Folder inside the repository that holds the checkpoint.
        revision: Commit, tag or branch of the repository.
        composition: Data shares this component was trained on, ``{dataset: share}``; default:
            its own dataset, with the study's ``general`` share where that is given.
    """

    path: str | None = None
    hub: str | None = None
    hub_type: Literal["model", "dataset"] = "model"
    subfolder: str | None = None
    revision: str | None = None
    composition: dict[str, Share] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ComponentConfig:
        if self.path is not None and self.hub is not None:
            raise ValueError("give either 'path' or 'hub', not both")
        if self.hub is None and (self.subfolder is not None or self.revision is not None):
            raise ValueError("'subfolder' and 'revision' belong to 'hub'; add it or remove them")
        return self


class GeneralConfig(StrictModel):
    """The general data that every component is trained on beside its own (paper, section 3).

    Attributes:
        dataset: Name of the general dataset.
        share: Its share in each component; the paper uses 0.5.
    """

    dataset: str
    share: Share = 0.5


class GroupConfig(StrictModel):
    """Bounds on a sum: of merge weights of components, or of data shares of datasets."""

    name: str
    members: list[str]
    lower: Share = 0.0
    upper: Share = 1.0
    of: Literal["weights", "shares"] = "weights"


class MixtureConfig(StrictModel):
    """The mixtures that are allowed; see :class:`~optuna_demix.mixture.MixtureSpace`."""

    prior: dict[str, NonNegativeNumber] | None = None
    lower: Share | dict[str, Share] = 0.0
    upper: Share | dict[str, Share] = 1.0
    min_weight: Share = 0.0
    max_epochs: PositiveNumber | dict[str, PositiveNumber] | None = None
    budget: TokenCount | None = None
    groups: list[GroupConfig] = Field(default_factory=list)
