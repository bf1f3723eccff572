"""A ``study.yaml`` as checked, frozen data: one module for each of its sections.

What cannot be used is refused while the file is read, with the field and the remedy in one line.
"""

from __future__ import annotations

from optuna_demix.config.loading import load_study_config
from optuna_demix.config.merging import MergingConfig
from optuna_demix.config.mixture import (
    ComponentConfig,
    DatasetConfig,
    GeneralConfig,
    GroupConfig,
    MixtureConfig,
)
from optuna_demix.config.schema import study_schema
from optuna_demix.config.scoring import BenchmarkConfig, RacingConfig, ScoringConfig, ScreenConfig
from optuna_demix.config.search import DashboardConfig, SamplerConfig
from optuna_demix.config.space import mixture_arguments, space_of
from optuna_demix.config.study import StudyConfig, capabilities_of, objective_names
from optuna_demix.config.training import BudgetConfig, TrainingConfig

__all__ = [
    "BenchmarkConfig",
    "BudgetConfig",
    "ComponentConfig",
    "DashboardConfig",
    "DatasetConfig",
    "GeneralConfig",
    "GroupConfig",
    "MergingConfig",
    "MixtureConfig",
    "RacingConfig",
    "SamplerConfig",
    "ScoringConfig",
    "ScreenConfig",
    "StudyConfig",
    "TrainingConfig",
    "capabilities_of",
    "load_study_config",
    "mixture_arguments",
    "objective_names",
    "space_of",
    "study_schema",
]
