"""A whole ``study.yaml``."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from optuna_demix._wording import shortened, unknown_name
from optuna_demix.config._base import StrictModel
from optuna_demix.config._names import check_folders, check_name
from optuna_demix.config._phases import check_phases
from optuna_demix.config.merging import MergingConfig
from optuna_demix.config.mixture import (
    ComponentConfig,
    DatasetConfig,
    GeneralConfig,
    MixtureConfig,
    PhaseConfig,
)
from optuna_demix.config.probabilities import ProbabilitiesConfig
from optuna_demix.config.scoring import BenchmarkConfig, ScoringConfig
from optuna_demix.config.search import DashboardConfig, SamplerConfig
from optuna_demix.config.training import TrainingConfig
from optuna_demix.errors import ConfigError, TaskError
from optuna_demix.scoring.settings import resolve

_PREFIX = "w"  # of parameters that would be named as an objective


class StudyConfig(StrictModel):
    """A whole ``study.yaml``."""

    run_dir: str = "run"
    """Where everything the study makes is kept."""
    base: str | None = None
    """Directory of the base checkpoint; default ``<run_dir>/models/base``."""
    datasets: dict[str, DatasetConfig] = Field(default_factory=dict)
    """Corpora by name; default: one for each component."""
    components: dict[str, ComponentConfig] = Field(min_length=1)
    """Component models by name; a plain list of names will do."""
    general: GeneralConfig | None = None
    """General data in every component."""
    mixture: MixtureConfig = Field(default_factory=MixtureConfig)
    """Allowed mixtures; with ``phases``, what holds for the whole run."""
    phases: list[PhaseConfig] = Field(default_factory=list)
    """Stages of the run, in order, each with a mixture of its own."""
    capabilities: dict[str, list[BenchmarkConfig]] = Field(min_length=1)
    """Benchmarks by capability; the score of a capability is the mean of its benchmarks."""
    objective: Literal["capabilities", "composite"] = "capabilities"
    """``capabilities``: one direction for each; ``composite``: a single one, the weighted mean of
    the capabilities."""
    proxy: Literal["auto", "merged", "probabilities"] = "auto"
    """What stands for a trained mixture: ``merged`` weights, ``probabilities`` (the components'
    token probabilities, mixed), or ``auto``: probabilities where a score is smooth in them, the
    mean of both for accuracies, merged weights for the rest. It means ``merged`` with racing, the
    published schedule, ``merging.delta_dtype``, or a merge method of your choice."""
    probabilities: ProbabilitiesConfig = Field(default_factory=ProbabilitiesConfig)
    """How token probabilities are mixed."""
    scoring: ScoringConfig = Field(default_factory=ScoringConfig)
    """How lm-eval is run."""
    merging: MergingConfig = Field(default_factory=MergingConfig)
    """How components are merged."""
    sampler: SamplerConfig = Field(default_factory=SamplerConfig)
    """Options of the sampler."""
    dashboard: DashboardConfig = Field(default_factory=DashboardConfig)
    """What workers show in the dashboard."""
    training: TrainingConfig | None = None
    """How ``optuna-demix train`` makes the models; not needed where they exist."""
    _source: Path = Path("study.yaml")

    @model_validator(mode="before")
    @classmethod
    def _expand_lists(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("components"), list):
            names = data["components"]
            for name in names:
                if not isinstance(name, str):
                    given = shortened(repr(name), 60)
                    raise ValueError(
                        f"components: a name must be text, got {given}; put it in quotes"
                    )
                if names.count(name) > 1:
                    raise ValueError(f"components: {name!r} is there twice; remove one")
            data = {**data, "components": {name: {} for name in names}}
        if isinstance(data, dict) and isinstance(data.get("components"), dict):
            filled = {n: {} if c is None else c for n, c in data["components"].items()}
            data = {**data, "components": filled}
        return data

    @model_validator(mode="after")
    def _names_agree(self) -> StudyConfig:
        for field in ("datasets", "components"):
            for name in getattr(self, field):
                check_name(name, field)
        check_folders(name for name, c in self.components.items() if c.hub is None)
        datasets = self.dataset_names
        if self.general is not None and self.general.dataset not in datasets:
            raise ValueError(
                f"general.dataset: {unknown_name(self.general.dataset, datasets, 'dataset')}"
            )
        for name in self.components:
            for dataset in self.composition_of(name):
                if dataset not in datasets:
                    raise ValueError(
                        f"components.{name}.composition: "
                        f"{unknown_name(dataset, datasets, 'dataset')}"
                    )
        chosen = self.merging.config_of
        if chosen is not None and chosen not in self.components:
            hint = unknown_name(chosen, list(self.components), "component")
            raise ValueError(f"merging.config_of: {hint}")
        if self.phases:
            check_phases(self.phases, self.mixture, list(self.components))
        labels = [b.label for benchmarks in self.capabilities.values() for b in benchmarks]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(
                    f"capabilities: benchmark {label!r} is there twice; give one of them a 'name'"
                )
        for capability, benchmarks in self.capabilities.items():
            if not benchmarks:
                raise ValueError(f"capabilities.{capability}: no benchmark; add one or remove it")
        own = {
            b.label: b.settings for benchmarks in self.capabilities.values() for b in benchmarks
        }
        try:
            resolve(self.scoring.settings, own, where="scoring")
        except TaskError as error:
            raise ValueError(str(error)) from None
        if self.scoring.racing is not None and self.objective != "composite":
            raise ValueError(
                "scoring.racing: Optuna prunes trials of a single objective only; set "
                "'objective: composite' or remove 'racing'"
            )
        self._check_screen(labels)
        asked = self._asks_for_merges()
        if self.proxy == "probabilities" and asked:
            raise ValueError(
                f"proxy: 'probabilities' merges nothing, but {asked} asks for it; leave one out"
            )
        if isinstance(self.sampler.composite, dict):
            for name in self.sampler.composite:
                if name not in self.capabilities:
                    hint = unknown_name(name, list(self.capabilities), "capability")
                    raise ValueError(f"sampler.composite: {hint}")
            for name in self.capabilities:
                if name not in self.sampler.composite:
                    raise ValueError(
                        f"sampler.composite: no weight for capability {name!r}; give one, 0 to "
                        "leave it out"
                    )
            if not any(w > 0 for w in self.sampler.composite.values()):
                raise ValueError("sampler.composite: at least one weight must be positive")
        return self

    def _check_screen(self, labels: Sequence[str]) -> None:
        screen = self.scoring.screen
        if screen is None:
            return
        named = [] if screen.benchmarks == "auto" else screen.benchmarks
        for field, names in (("benchmarks", named), ("answers", screen.answers)):
            for name in names:
                if name not in labels:
                    hint = unknown_name(name, labels, "benchmark")
                    raise ValueError(f"scoring.screen.{field}: {hint}")
        for field, clashes in (
            ("scoring.racing", self.scoring.racing is not None),
            ("proxy: probabilities", self.proxy == "probabilities"),
            ("sampler.schedule: demix", self.sampler.schedule == "demix"),
        ):
            if clashes:
                raise ValueError(f"scoring.screen does not go with {field}; remove one of them")

    @property
    def resolved_proxy(self) -> Literal["auto", "merged", "probabilities"]:
        """The proxy, with ``auto`` as ``merged`` where something asks for merges."""
        return "merged" if self.proxy == "auto" and self._asks_for_merges() else self.proxy

    def _asks_for_merges(self) -> str | None:
        """The field that only merged weights can serve, if there is one."""
        if self.scoring.racing is not None:
            return "scoring.racing"
        if self.sampler.schedule == "demix":
            return "sampler.schedule"
        if self.merging.delta_dtype is not None:
            return "merging.delta_dtype"
        return "merging.method" if self.merging.method != "linear" else None

    @property
    def source(self) -> Path:
        """The file this configuration was read from."""
        return self._source

    @property
    def dataset_names(self) -> list[str]:
        """Names of the datasets, in order."""
        return list(self.datasets) or list(self.components)

    @property
    def mixture_name(self) -> str | None:
        """Prefix of the parameters; ``None`` where they are named as the components."""
        if self.mixture.name is not None:
            return self.mixture.name or None
        is_shared = not self.components.keys().isdisjoint(objective_names(self))
        return _PREFIX if is_shared else None

    @property
    def capability_weights(self) -> dict[str, float]:
        """Weight of each capability in a scalar composite; they sum to 1."""
        weights = self.sampler.composite
        raw = {
            name: weights[name] if isinstance(weights, dict) else 1.0 for name in self.capabilities
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
    def include_paths(self) -> list[Path]:
        """Directories of local lm-eval tasks."""
        given = self.scoring.include_path or []
        return [self.resolve(path) for path in ([given] if isinstance(given, str) else given)]

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

    def dataset_files(self, dataset: str) -> list[str]:
        """Files and folders of a dataset, those of a pattern sorted, and URLs as they are given.

        Raises:
            ConfigError: If the dataset names no file, or a pattern matches none.
        """
        config = self.datasets.get(dataset, DatasetConfig())
        where = f"{self._source}: datasets.{dataset}.files"
        if not config.files and config.hub is None:
            raise ConfigError(f"{where} is empty; name the text to train on")
        return paths_of(config, self._source.parent, where)


def paths_of(dataset: DatasetConfig, folder: Path, where: str) -> list[str]:
    """Files and folders of a dataset, those of a pattern sorted, and URLs as they are given.

    Args:
        dataset: The dataset.
        folder: Where relative paths start.
        where: The field that names them, for messages.

    Raises:
        ConfigError: If a pattern matches nothing.
    """
    found: list[str] = []
    for pattern in dataset.files:
        if "://" in pattern:
            found.append(pattern)
            continue
        path = os.path.abspath(folder / Path(pattern).expanduser())
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if not matches and os.path.exists(f"{path}.idx"):
            matches = [f"{path}.bin"]  # Megatron names both files by what they share
        if not matches:
            raise ConfigError(
                f"{where}: nothing matches {pattern!r}; correct the path or make the data first"
            )
        found += matches
    return found


def capabilities_of(config: StudyConfig) -> dict[str, list[str]]:
    """Names of the benchmarks of each capability."""
    return {
        capability: [benchmark.label for benchmark in benchmarks]
        for capability, benchmarks in config.capabilities.items()
    }


def objective_names(config: StudyConfig) -> list[str]:
    """Names of the study's objectives: what ``optuna-dashboard`` shows on its axes."""
    return list(config.capabilities) if config.objective == "capabilities" else ["composite"]
