"""Datasets, components and the constraints of the mixture."""

from __future__ import annotations

import re
from string import Formatter
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

DataFormat = Literal[
    "jsonl", "json", "parquet", "arrow", "csv", "text", "saved", "megatron", "mds", "tokens"
]


class DatasetConfig(StrictModel):
    """A corpus that the mixture weighs; where its text is, is needed by ``train`` alone."""

    files: list[str] = Field(default_factory=list)
    """Text or tokens to train on: paths, globs, folders, or URLs that fsspec opens
    (``s3://…``, ``gs://…``, ``hf://…``)."""
    hub: str | None = None
    """``owner/name`` of a dataset on the Hugging Face hub, instead of ``files``."""
    config: str | None = None
    """Configuration (subset) of the dataset on the hub."""
    split: str | None = None
    """Split of the dataset on the hub, or in folders of ``save_to_disk`` and MDS; default:
    ``train``, and in a folder without splits all of it."""
    revision: str | None = None
    """Commit, tag or branch of the dataset on the hub."""
    streaming: bool = True
    """Read the dataset from the hub as it is tokenized, and keep only its tokens."""
    format: DataFormat | None = None
    """What the files are; default: by their names and first bytes."""
    text_field: str | None = None
    """Field or column that holds the text; default ``text``. A column of token ids is taken as it
    is; in MDS shards it is ``tokens``."""
    template: str | None = None
    """Text made of several fields, such as ``"{title}\n\n{body}"``, instead of ``text_field``."""
    token_dtype: Literal["uint16", "uint32"] | None = None
    """Type of the token ids in files that do not say it: ``.bin``, ``.ds``, OLMo's ``.npy``."""
    tokens: TokenCount | None = None
    """Size of the whole corpus in tokens; needed for epoch caps."""

    @model_validator(mode="after")
    def _one_source(self) -> DatasetConfig:
        if self.hub is not None and self.files:
            raise ValueError("give either 'files' or 'hub', not both")
        if self.hub is None and (self.config is not None or self.revision is not None):
            raise ValueError("'config' and 'revision' belong to 'hub'; add it or remove them")
        if self.hub is not None and (self.format is not None or self.token_dtype is not None):
            raise ValueError("'format' and 'token_dtype' belong to 'files'; remove them")
        return self

    @model_validator(mode="after")
    def _one_text(self) -> DatasetConfig:
        if self.template is None:
            return self
        if self.text_field is not None:
            raise ValueError("give either 'text_field' or 'template', not both")
        try:
            parts = list(Formatter().parse(self.template))
        except ValueError as error:
            raise ValueError(
                f"template: must be one for str.format ({error}); {{{{ and }}}} mean braces"
            ) from None
        names = [name for _, name, _, _ in parts if name is not None]
        if not names or any(re.search(r"[.\[]|^\d*$", name) for name in names):
            raise ValueError(
                "template: must hold fields in braces, such as {title}; {{ and }} mean braces"
            )
        return self

    @property
    def field_names(self) -> list[str]:
        """The fields that the text is made of."""
        if self.template is None:
            return [self.text_field or "text"]
        names = [name for _, name, _, _ in Formatter().parse(self.template) if name]
        return list(dict.fromkeys(names))


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
