"""Datasets, components and the constraints of the mixture."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from optuna_demix.config._base import (
    NonNegativeNumber,
    Number,
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


class LinearConstraintConfig(StrictModel):
    """Bounds on a sum with coefficients: of merge weights, or of data shares."""

    coefficients: dict[str, Number] = Field(min_length=1)
    """Coefficient by component (or dataset); those left out are 0."""
    lower: Number | None = None
    """Least sum."""
    upper: Number | None = None
    """Largest sum."""
    of: Literal["weights", "shares"] = "weights"
    """What is summed."""
    name: str | None = None
    """What messages call it."""


class TopicConfig(StrictModel):
    """A topic and the components it is made of; a plain list of these will do."""

    sources: list[str] = Field(min_length=1)
    """The components."""
    lower: Share = 0.0
    """Least merge weight of the whole topic."""
    upper: Share = 1.0
    """Largest merge weight of the whole topic."""
    source_lower: Share | dict[str, Share] = 0.0
    """Least part of the topic that each source is, one number for all or by name."""
    source_upper: Share | dict[str, Share] = 1.0
    """Largest part of the topic that a source is, likewise."""
    prior: NonNegativeNumber | None = None
    """Natural weight of the topic, for all topics or none; default: that of its sources."""


class LimitsConfig(StrictModel):
    """What one mixture may be: of the study, or of a phase."""

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
    groups: list[GroupConfig] = Field(default_factory=list)
    """Bounds on sums of merge weights or data shares."""
    constraints: list[LinearConstraintConfig] = Field(default_factory=list)
    """Bounds on sums with coefficients, of merge weights or data shares."""
    hierarchy: dict[str, TopicConfig] = Field(default_factory=dict)
    """Topics, each with the components that it is made of."""
    search: Literal["all", "topics", "sources"] = "all"
    """What varies: ``all`` weights, those of ``topics`` (the sources of each keep the prior's
    proportions) or those of ``sources`` (topics keep the prior's weights)."""

    @model_validator(mode="before")
    @classmethod
    def _expand_topics(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("hierarchy"), dict):
            topics = {
                name: {"sources": topic} if isinstance(topic, list) else topic
                for name, topic in data["hierarchy"].items()
            }
            return {**data, "hierarchy": topics}
        return data

    @model_validator(mode="after")
    def _search_needs_topics(self) -> LimitsConfig:
        if self.search != "all" and not self.hierarchy:
            raise ValueError(f"search: {self.search} needs topics; give 'hierarchy' as well")
        return self


class MixtureConfig(LimitsConfig):
    """The mixtures that are allowed; see :class:`~optuna_demix.mixture.MixtureSpace`."""

    budget: TokenCount | None = None
    """Tokens of the planned run, all of its phases; needed for epoch caps."""
    name: str | None = None
    """Name that stands before the study's parameters, such as ``w`` in ``w/code``; empty for none.
    Default: none, and ``w`` where a component is named as an objective."""


class PhaseConfig(LimitsConfig):
    """A stage of the run with a mixture of its own; what it limits holds in this stage."""

    name: str
    """Name of the phase."""
    share: Share
    """Its share of the budget."""
    fixed: bool = False
    """Whether its mixture is given, as ``prior``: a share for each dataset."""
    components: list[str] | None = None
    """Components that are merged for this phase; default: all of the study."""
