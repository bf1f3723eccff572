"""The models of ``studies/*.yaml``: what a study searches, trains and scores.

A study is one YAML file. Relative paths in it start at its own folder. Unknown fields are refused,
so that a typing error cannot silently change a search.
"""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from optuna_demix._merge_parameters import resolve
from optuna_demix.errors import ConfigError


def _integer_from_float(value: Any) -> Any:
    """Accept ``3e9`` and ``50_000`` where an integer is meant: YAML 1.1 reads them otherwise."""
    if isinstance(value, str):
        try:
            value = float(value.replace("_", ""))
        except ValueError:
            return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


TokenCount = Annotated[PositiveInt, BeforeValidator(_integer_from_float)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetConfig(_Strict):
    """A corpus that the mixture weighs.

    Attributes:
        files: Text to train on: paths or globs of ``.jsonl`` files (one ``{"text": …}`` a line)
            or plain ``.txt`` files (one document a file). Needed by ``train`` alone.
        tokens: Size of the whole corpus in tokens; needed for epoch caps.
    """

    files: list[str] = Field(default_factory=list)
    tokens: TokenCount | None = None


class ComponentConfig(_Strict):
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
            raise ValueError("'subfolder' and 'revision' belong to 'hub', which is missing")
        return self


class GeneralConfig(_Strict):
    """The general data that every component is trained on beside its own (paper, section 3).

    Attributes:
        dataset: Name of the general dataset.
        share: Its share in each component; the paper uses 0.5.
    """

    dataset: str
    share: Share = 0.5


class GroupConfig(_Strict):
    """Bounds on a sum: of merge weights of components, or of data shares of datasets."""

    name: str
    members: list[str]
    lower: Share = 0.0
    upper: Share = 1.0
    of: Literal["weights", "shares"] = "weights"


class MixtureConfig(_Strict):
    """The mixtures that are allowed; see :class:`~optuna_demix.mixture.MixtureSpace`."""

    prior: dict[str, Annotated[float, Field(ge=0.0)]] | None = None
    lower: Share | dict[str, Share] = 0.0
    upper: Share | dict[str, Share] = 1.0
    min_weight: Share = 0.0
    max_epochs: PositiveFloat | dict[str, PositiveFloat] | None = None
    budget: TokenCount | None = None
    groups: list[GroupConfig] = Field(default_factory=list)


class BenchmarkConfig(_Strict):
    """One lm-eval task metric.

    Attributes:
        task: Name of an lm-eval task, built in or from ``scoring.include_path``.
        metric: Metric of the task, ``acc`` or ``exact_match,strict-match`` (with a filter).
        name: What it is called in the study; default ``task/metric``.
        num_fewshot: Number of few-shot examples; default: the task's own.
        limit: Score the first items only.
        higher_is_better: Direction, where the task does not say it.
    """

    task: str
    metric: str
    name: str | None = None
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    limit: PositiveInt | None = None
    higher_is_better: bool | None = None

    @property
    def label(self) -> str:
        """The name of the benchmark in the study."""
        return self.name or f"{self.task}/{self.metric}"


class RacingConfig(_Strict):
    """Scoring in blocks of items, so that a proxy which is losing can be dropped early.

    Attributes:
        blocks: Parts that every benchmark's items are dealt to, in a fixed shuffled order.
        pruner: ``wilcoxon`` compares the blocks of a trial with those of the best one, pair by
            pair; ``median`` its running mean with that of earlier trials.
        p_threshold: Of the Wilcoxon test; smaller drops later.
    """

    blocks: Annotated[int, Field(ge=4)] = 24
    pruner: Literal["wilcoxon", "median"] = "wilcoxon"
    p_threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2


class ScoringConfig(_Strict):
    """How lm-eval scores a proxy.

    Attributes:
        include_path: Directory of local tasks.
        batch_size: Rows of one forward pass; ``auto`` begins with ``max_batch_size`` and halves
            when memory runs out.
        max_batch_size: Where ``auto`` begins; default 64.
        max_length: Longest input in tokens; default: the model's own.
        limit: Score the first items of every task only.
        num_fewshot: Few-shot examples of every task; default: each task's own number.
        seed: Of few-shot examples and of the order of items.
        dtype: Of the model; default: that of the arena.
        mixed_precision_dtype: Run forward passes under autocast to this dtype.
        device_map: The device of the model where ``--device`` names none: ``auto``, ``cpu``,
            ``cuda`` or ``cuda:<i>``.
        shared_prefixes: Compute what requests begin with alike only once; faster, and equal up to
            rounding.
        racing: Score in blocks and drop losing proxies; needs a single objective.
        trust_remote_code: Run code that comes with a component.
        confirm_run_unsafe_code: Allow tasks that run code which the model wrote.
    """

    include_path: str | None = None
    batch_size: PositiveInt | Literal["auto"] = 32
    max_batch_size: PositiveInt | None = None
    max_length: PositiveInt | None = None
    limit: PositiveInt | None = None
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    seed: int = 1234
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    mixed_precision_dtype: Literal["bfloat16", "float16"] | None = None
    device_map: str | None = None
    shared_prefixes: bool = False
    racing: RacingConfig | None = None
    trust_remote_code: bool = False
    confirm_run_unsafe_code: bool = False

    @field_validator("device_map", mode="before")
    @classmethod
    def _one_device(cls, value: Any) -> Any:
        if isinstance(value, Mapping) or value in ("balanced", "balanced_low_0", "sequential"):
            raise ValueError(
                "a live model is one buffer on one device; name it (auto, cpu, cuda or cuda:<i>) "
                "and lower dtype if the model does not fit"
            )
        return value

    @model_validator(mode="after")
    def _batch_size_fits(self) -> ScoringConfig:
        if self.max_batch_size is not None and self.batch_size != "auto":
            raise ValueError("'max_batch_size' belongs to 'batch_size: auto'; remove one of them")
        return self

    @property
    def rows(self) -> int:
        """Rows of one forward pass."""
        return (self.max_batch_size or 64) if self.batch_size == "auto" else self.batch_size


class MergingConfig(_Strict):
    """How components become a proxy.

    Attributes:
        method: ``linear``, ``task_arithmetic``, ``ties``, ``dare_linear``, ``dare_ties``,
            ``breadcrumbs``, ``della``, ``multislerp`` or ``karcher``. All but ``linear``,
            ``karcher`` and ``multislerp`` (unless it has ``use_base``) need the study's ``base``.
        parameters: Its parameters, as mergekit names them: ``{density: 0.5, lambda: 1.0}``.
        dtype: Storage type of the arena and of proxies; default: the components' own.
        arena: File of the arena; default ``<run_dir>/components.arena``.
    """

    method: str = "linear"
    parameters: dict[str, float | int | bool] = Field(default_factory=dict)
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    arena: str | None = None

    @model_validator(mode="after")
    def _known_method(self) -> MergingConfig:
        resolve(self.method, self.parameters)
        return self


class SamplerConfig(_Strict):
    """Options of :class:`~optuna_demix.DemixSampler`.

    Attributes:
        warm_start: Names of earlier studies in the same database to learn from as well.
    """

    surrogate: Literal["auto", "lightgbm", "lightgbm-linear", "law"] | None = None
    schedule: Literal["continuous", "paper"] = "continuous"
    schedule_sizes: tuple[PositiveInt, ...] | None = None
    n_startup_trials: Annotated[int, Field(ge=0)] = 8
    composite: Literal["rank", "mean", "pareto"] | dict[str, float] = "rank"
    exploration: Annotated[float, Field(ge=0.0)] = 1.0
    kl: Annotated[float, Field(ge=0.0)] = 0.0
    reevaluate: bool = False
    warm_start: list[str] = Field(default_factory=list)
    seed: int | None = None


class DashboardConfig(_Strict):
    """What workers show in ``optuna-dashboard``, where that is installed.

    Attributes:
        push: Whether they write plots and the note.
        interval: Least seconds between two updates.
        growth: Least growth of the number of finished trials between them.
    """

    push: bool = True
    interval: PositiveFloat = 300.0
    growth: Annotated[float, Field(ge=0.0)] = 0.1


class BudgetConfig(_Strict):
    """One kind of training run: how many tokens, at which learning rate.

    Attributes:
        tokens: Training tokens.
        learning_rate: Peak of the cosine schedule.
        warmup_ratio: Share of the steps that warm up linearly.
        final_lr_ratio: Where the cosine ends, as a share of the peak (the paper: 0.2).
        composition: Data shares, ``{dataset: share}``; for the base model only.
    """

    tokens: TokenCount
    learning_rate: PositiveFloat
    warmup_ratio: Share = 0.02
    final_lr_ratio: Share = 0.2
    composition: dict[str, Share] | None = None


class TrainingConfig(_Strict):
    """How ``optuna-demix train`` makes base, components and references.

    Attributes:
        model: Keyword arguments of ``transformers.AutoConfig.for_model`` for a base trained from
            scratch; ``model_type`` is required. Without it the study's ``base`` must exist.
        tokenizer: Directory of the tokenizer.
        sequence_length: Tokens of one training sequence.
        batch_size: Sequences of one optimizer step.
        base: The base model's run; without it an existing base is continued.
        component: The run of every component.
        reference: The run of every reference; default: as the components.
    """

    model: dict[str, Any] | None = None
    tokenizer: str
    sequence_length: PositiveInt = 1024
    batch_size: PositiveInt = 32
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    max_grad_norm: PositiveFloat = 1.0
    bf16: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    save_every: PositiveInt = 500
    base: BudgetConfig | None = None
    component: BudgetConfig
    reference: BudgetConfig | None = None


class StudyConfig(_Strict):
    """A whole ``study.yaml``.

    Attributes:
        run_dir: Where everything the study makes is kept.
        base: Directory of the base checkpoint; default ``<run_dir>/models/base``.
        datasets: Corpora by name; default: one for each component.
        components: Component models by name; a plain list of names will do.
        general: General data in every component.
        mixture: Allowed mixtures.
        capabilities: Benchmarks by capability.
        objective: ``capabilities``: one direction for each; ``composite``: a single one, the
            weighted mean of the capabilities.
        scoring: How lm-eval is run.
        merging: How components are merged.
        sampler: Options of the sampler.
        dashboard: What workers show in the dashboard.
        training: How models are trained, where they are.
    """

    run_dir: str = "run"
    base: str | None = None
    datasets: dict[str, DatasetConfig] = Field(default_factory=dict)
    components: dict[str, ComponentConfig] = Field(min_length=1)
    general: GeneralConfig | None = None
    mixture: MixtureConfig = Field(default_factory=MixtureConfig)
    capabilities: dict[str, list[BenchmarkConfig]] = Field(min_length=1)
    objective: Literal["capabilities", "composite"] = "capabilities"
    scoring: ScoringConfig = Field(default_factory=ScoringConfig)
    merging: MergingConfig = Field(default_factory=MergingConfig)
    sampler: SamplerConfig = Field(default_factory=SamplerConfig)
    dashboard: DashboardConfig = Field(default_factory=DashboardConfig)
    training: TrainingConfig | None = None
    _source: Path = Path("study.yaml")

    @model_validator(mode="before")
    @classmethod
    def _expand_lists(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("components"), list):
            names = data["components"]
            for name in names:
                if not isinstance(name, str):
                    raise ValueError(f"components: {_shorten(name)} is not a name")
                if names.count(name) > 1:
                    raise ValueError(f"components: {name!r} is named twice")
            data = {**data, "components": {name: {} for name in names}}
        if isinstance(data, dict) and isinstance(data.get("components"), dict):
            filled = {n: {} if c is None else c for n, c in data["components"].items()}
            data = {**data, "components": filled}
        return data

    @model_validator(mode="after")
    def _names_agree(self) -> StudyConfig:
        datasets = self.dataset_names
        if self.general is not None and self.general.dataset not in datasets:
            raise ValueError(
                f"general.dataset: {_unknown(self.general.dataset, datasets, 'dataset')}"
            )
        for name in self.components:
            for dataset in self.composition_of(name):
                if dataset not in datasets:
                    raise ValueError(
                        f"components.{name}.composition: {_unknown(dataset, datasets, 'dataset')}"
                    )
        for name in self.components:
            if name in ("base", "references") or name.startswith(".") or "/" in name:
                raise ValueError(f"components: {name!r} cannot be a component's name; change it")
        labels = [b.label for benchmarks in self.capabilities.values() for b in benchmarks]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(
                    f"capabilities: benchmark {label!r} is there twice; give one of them a 'name'"
                )
        for capability, benchmarks in self.capabilities.items():
            if not benchmarks:
                raise ValueError(f"capabilities.{capability}: no benchmark; add one or remove it")
        if self.scoring.racing is not None and self.objective != "composite":
            raise ValueError(
                "scoring.racing: Optuna prunes trials of a single objective only; set "
                "'objective: composite' or remove 'racing'"
            )
        if isinstance(self.sampler.composite, dict):
            for name in self.sampler.composite:
                if name not in self.capabilities:
                    hint = _unknown(name, list(self.capabilities), "capability")
                    raise ValueError(f"sampler.composite: {hint}")
            if not any(w > 0 for w in self.sampler.composite.values()):
                raise ValueError("sampler.composite: at least one weight must be positive")
        return self

    @property
    def source(self) -> Path:
        """The file this configuration was read from."""
        return self._source

    @property
    def dataset_names(self) -> list[str]:
        """Names of the datasets, in order."""
        return list(self.datasets) or list(self.components)

    @property
    def capability_weights(self) -> dict[str, float]:
        """Weight of each capability in a scalar composite; they sum to 1."""
        weights = self.sampler.composite
        raw = {
            name: float(weights.get(name, 0.0)) if isinstance(weights, dict) else 1.0
            for name in self.capabilities
        }
        total = sum(raw.values())
        return {name: value / total for name, value in raw.items()}

    def resolve(self, path: str) -> Path:
        """Make a path of the file absolute: relative ones start at the file's folder."""
        return Path(os.path.normpath(self._source.parent / Path(path).expanduser()))

    @property
    def run_path(self) -> Path:
        """Where everything the study makes is kept."""
        return self.resolve(self.run_dir)

    @property
    def base_path(self) -> Path:
        """Directory of the base checkpoint."""
        return self.resolve(self.base) if self.base else self.run_path / "models" / "base"

    @property
    def arena_path(self) -> Path:
        """File of the arena."""
        if self.merging.arena:
            return self.resolve(self.merging.arena)
        return self.run_path / "components.arena"

    @property
    def include_path(self) -> Path | None:
        """Directory of local lm-eval tasks."""
        path = self.scoring.include_path
        return None if path is None else self.resolve(path)

    def component_path(self, name: str) -> Path:
        """Directory of a component's checkpoint; for a hub one, where it is downloaded to."""
        path = self.components[name].path
        return self.resolve(path) if path else self.run_path / "models" / name

    def composition_of(self, component: str) -> dict[str, float]:
        """Data shares a component was trained on, by dataset."""
        given = self.components[component].composition
        if given is not None:
            return dict(given)
        if self.general is None or self.general.dataset == component:
            return {component: 1.0}
        return {component: 1.0 - self.general.share, self.general.dataset: self.general.share}

    def dataset_files(self, dataset: str) -> list[Path]:
        """Files of a dataset, globs expanded, sorted.

        Raises:
            ConfigError: If the dataset names no file, or a pattern matches none.
        """
        config = self.datasets.get(dataset, DatasetConfig())
        if not config.files:
            raise ConfigError(
                f"{self._source}: datasets.{dataset}.files is empty; name the text to train on"
            )
        found: list[Path] = []
        for pattern in config.files:
            matches = sorted(glob.glob(str(self.resolve(pattern)), recursive=True))
            if not matches:
                raise ConfigError(
                    f"{self._source}: datasets.{dataset}.files: nothing matches {pattern!r}; "
                    "correct the path or make the data first"
                )
            found += [Path(match) for match in matches]
        return found


def load_study_config(path: str | os.PathLike[str]) -> StudyConfig:
    """Read and check a ``study.yaml``.

    Args:
        path: The file.

    Raises:
        ConfigError: If the file cannot be read, is not YAML, or has a field that is missing,
            unknown or of the wrong kind; the message names file, field and remedy.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{source}: cannot be read ({reason}); give a study.yaml") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: is not UTF-8 text; give a study.yaml") from None
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: is not valid YAML: {_one_line(error)}") from None
    except RecursionError:
        raise ConfigError(f"{source}: is nested too deeply to be a study.yaml") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: must be a mapping of fields, as in studies/quickstart")
    try:
        config = StudyConfig.model_validate(data)
    except ValidationError as error:
        # A key of the file may hold line breaks; a message must not.
        raise ConfigError(f"{source}: {' '.join(_explain(error).split())}") from None
    config._source = source.resolve()
    return config


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, where YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (dict, list)):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain name", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"field {key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _unknown(name: str, known: Sequence[str], kind: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"no {kind} {name!r}; {hint}"


def _explain(error: ValidationError) -> str:
    """One line that names each bad field and what to do about it."""
    parts = []
    for item in error.errors(include_url=False)[:3]:
        field = ".".join(str(part) for part in item["loc"]) or "study"
        if item["type"] == "extra_forbidden":
            known = _fields_at(item["loc"][:-1])
            parts.append(f"{field}: {_unknown(str(item['loc'][-1]), known, 'field')}")
        elif item["type"] == "missing":
            parts.append(f"{field}: is missing; add it")
        elif item["type"] == "value_error":
            message = item["msg"].removeprefix("Value error, ")
            parts.append(message if field == "study" else f"{field}: {message}")
        else:
            parts.append(f"{field}: {item['msg'].lower()} (got {_shorten(item['input'])})")
    more = error.error_count() - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """Names of the fields that may stand at a place in the file."""
    model: Any = StudyConfig
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # a key or an index of a container: still the same model
        model = _inner_model(field.annotation)
        if model is None:
            return []
    return list(model.model_fields)


def _inner_model(annotation: Any) -> Any:
    """The model inside ``dict[str, Model]``, ``list[Model]`` or ``Model | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        inner = _inner_model(argument)
        if inner is not None:
            return inner
    return None


def mixture_arguments(config: StudyConfig) -> Mapping[str, Any]:
    """Keyword arguments of ``MixtureSpace`` for a study: plain data, no mixture imported."""
    mixture = config.mixture
    return {
        "components": list(config.components),
        "datasets": config.dataset_names,
        "prior": mixture.prior,
        "lower": mixture.lower,
        "upper": mixture.upper,
        "min_weight": mixture.min_weight,
        "composition": {name: config.composition_of(name) for name in config.components},
        "tokens": {name: data.tokens for name, data in config.datasets.items() if data.tokens},
        "budget": mixture.budget,
        "max_epochs": mixture.max_epochs,
        "groups": [group.model_dump() for group in mixture.groups],
    }
