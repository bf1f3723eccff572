"""How components are merged."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from optuna_demix.config._base import StrictModel
from optuna_demix.merging.methods.parameters import check_deltas, resolve


class MergingConfig(StrictModel):
    """How components become a proxy."""

    method: str = "linear"
    """``linear``, ``task_arithmetic``, ``ties``, ``dare_linear``, ``dare_ties``, ``breadcrumbs``,
    ``della``, ``multislerp`` or ``karcher``. All but ``linear``, ``karcher`` and ``multislerp``
    (unless it has ``use_base``) need the study's ``base``."""
    parameters: dict[str, float | int | bool] = Field(default_factory=dict)
    """Its parameters, as mergekit names them: ``{density: 0.5, lambda: 1.0}``."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Storage type of the arena and of proxies; default: the components' own."""
    delta_dtype: Literal["int8", "float8"] | None = None
    """Keep each component as its difference from the study's ``base`` in this type, ``int8`` or
    ``float8``, which takes about half the memory of bfloat16 and a quarter of float32; for
    ``linear`` only. Default: components as they are."""
    arena: str | None = None
    """File of the arena; default ``<run_dir>/components.arena``."""
    config_of: str | None = None
    """The component whose configuration, generation settings and tokenizer proxies get; must be
    given where components end texts differently."""

    @model_validator(mode="after")
    def _known_method(self) -> MergingConfig:
        resolve(self.method, self.parameters)
        check_deltas(self.method, self.delta_dtype)
        return self
