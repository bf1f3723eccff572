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


class LinearConstraintConfig(StrictModel):
    """Bounds on a sum with coefficients: of merge weights, or of data shares.

    Attributes:
        coefficients: Coefficient by component (or dataset); those left out are 0.
        lower: Least sum.
        upper: Largest sum.
        of: What is summed.
        name: Name for messages.
    """

    coefficients: dict[str, Number] = Field(min_length=1)
    lower: Number | None = None
    upper: Number | None = None
    of: Literal["weights", "shares"] = "weights"
    name: str | None = None


class TopicConfig(StrictModel):
    """A topic and the components it is made of; a plain list of these will do.

    Attributes:
        sources: The components.
        lower: Least merge weight of the whole topic.
        upper: Largest merge weight of the whole topic.
        source_lower: Least part of the topic that each source is, one number for all or by name.
        source_upper: Largest part of the topic that a source is, likewise.
        prior: Natural weight of the topic, for all topics or none; default: that of its sources.
    """

    sources: list[str] = Field(min_length=1)
    lower: Share = 0.0
    upper: Share = 1.0
    source_lower: Share | dict[str, Share] = 0.0
    source_upper: Share | dict[str, Share] = 1.0
    prior: NonNegativeNumber | None = None


class LimitsConfig(StrictModel):
    """What one mixture may be: of the study, or of a phase.

    Attributes:
        prior: Natural weight by component; default: tokens of the datasets, else uniform.
        lower: Least merge weight, one number for all or by component.
        upper: Largest merge weight, likewise.
        min_weight: Every merge weight is 0 or at least this.
        max_epochs: How often a dataset may be repeated, one number for all or by dataset.
        groups: Bounds on sums of merge weights or data shares.
        constraints: Bounds on such sums with coefficients.
        hierarchy: Components of each topic.
        search: What varies: ``all`` weights, those of ``topics`` (the sources of each keep the
            prior's proportions) or those of ``sources`` (topics keep the prior's weights).
    """

    prior: dict[str, NonNegativeNumber] | None = None
    lower: Share | dict[str, Share] = 0.0
    upper: Share | dict[str, Share] = 1.0
    min_weight: Share = 0.0
    max_epochs: PositiveNumber | dict[str, PositiveNumber] | None = None
    groups: list[GroupConfig] = Field(default_factory=list)
    constraints: list[LinearConstraintConfig] = Field(default_factory=list)
    hierarchy: dict[str, TopicConfig] = Field(default_factory=dict)
    search: Literal["all", "topics", "sources"] = "all"

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
    """The mixtures that are allowed; see :class:`~optuna_demix.mixture.MixtureSpace`.

    Attributes:
        budget: Tokens of the planned run, all of its phases.
    """

    budget: TokenCount | None = None


class PhaseConfig(LimitsConfig):
    """A stage of the run with a mixture of its own; what it limits holds in this stage.

    Attributes:
        name: Name of the phase.
        share: Its share of the budget.
        fixed: Whether its mixture is given, as ``prior``: a share for each dataset.
        components: Components that are merged for this phase; default: all of the study.
    """

    name: str
    share: Share
    fixed: bool = False
    components: list[str] | None = None
