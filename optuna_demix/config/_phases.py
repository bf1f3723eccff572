"""Which phases of a run can be searched together."""

from __future__ import annotations

from collections.abc import Sequence

from optuna_demix._wording import unknown_name
from optuna_demix.config.mixture import LimitsConfig, MixtureConfig, PhaseConfig

# What a phase has for itself, and the whole run cannot have.
_OF_PHASES = ("prior", "lower", "upper", "min_weight", "hierarchy", "search")


def check_phases(
    phases: Sequence[PhaseConfig], mixture: MixtureConfig, components: Sequence[str]
) -> None:
    """Refuse phases that do not say which components stand for which of them.

    Raises:
        ValueError: Naming the phase or field.
    """
    given = _given(mixture)
    if given:
        raise ValueError(
            f"mixture.{given[0]}: the study has phases, and 'mixture' holds what bounds the whole "
            "run; remove it here and give it to a phase"
        )
    names = [phase.name for phase in phases]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"phases: {name!r} is there twice; change one of them")
    free = [phase for phase in phases if not phase.fixed]
    if not free:
        raise ValueError("phases: all are fixed; set one to 'fixed: false'")
    for phase in phases:
        if phase.fixed:
            _check_fixed(phase)
    home: dict[str, str] = {}
    for phase in free:
        if phase.components is None and len(free) > 1:
            raise ValueError(
                f"phases: {free[0].name!r} and {free[1].name!r} are searched, but a merge knows "
                "only the mixture of the whole run and not its order; set 'fixed: true' for one "
                f"of them, or give phase {phase.name!r} 'components' of its own"
            )
        for component in components if phase.components is None else phase.components:
            if component not in components:
                hint = unknown_name(component, components, "component")
                raise ValueError(f"phases: phase {phase.name!r}: components: {hint}")
            if component in home:
                raise ValueError(
                    f"phases: component {component!r} is in {home[component]!r} and "
                    f"{phase.name!r}; remove it from one"
                )
            home[component] = phase.name
    for component in components:
        if component not in home:
            raise ValueError(f"phases: component {component!r} is in no phase; add or remove it")


def _check_fixed(phase: PhaseConfig) -> None:
    if phase.prior is None:
        raise ValueError(
            f"phases: phase {phase.name!r} is fixed; give 'prior', its share of each dataset"
        )
    others = [field for field in _given(phase) if field != "prior"]
    others += [
        f for f in ("max_epochs", "groups", "constraints", "components") if getattr(phase, f)
    ]
    if others:
        raise ValueError(
            f"phases: phase {phase.name!r} is fixed, so that {others[0]!r} limits nothing; remove "
            "it"
        )


def _given(limits: LimitsConfig) -> list[str]:
    """Fields of one mixture that are not at their defaults."""
    fields = LimitsConfig.model_fields
    return [
        name
        for name in _OF_PHASES
        if getattr(limits, name) != fields[name].get_default(call_default_factory=True)
    ]
