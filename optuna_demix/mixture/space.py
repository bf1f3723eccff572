"""`MixtureSpace`: the mixtures a search may try."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optuna_demix.attributes import WEIGHTS_KEY
from optuna_demix.errors import ConstraintError
from optuna_demix.mixture import _arguments as arguments
from optuna_demix.mixture import identity as _identity
from optuna_demix.mixture import trials as _trials
from optuna_demix.mixture._arguments import PerName
from optuna_demix.mixture._specification import Specification, read_only
from optuna_demix.mixture.constraints import Group
from optuna_demix.mixture.geometry.simplex import Array
from optuna_demix.mixture.region import INSIDE, Region

if TYPE_CHECKING:
    import optuna

# Pinned spaces that are kept: a sampler asks for the same ones again and again.
_KEPT_PINS = 16


@dataclass(frozen=True, init=False, eq=False, repr=False)
class MixtureSpace(Region):
    """The polytope of allowed merge weights inside the simplex. Immutable, picklable, comparable.

    A point is a vector of merge weights ``w`` (K,), one a component, which sum to 1. The data
    shares it stands for are ``r = w @ composition`` (D,). Bounds apply to single weights, caps to
    single shares, groups to sums of either.

    Example:
        >>> import numpy as np
        >>> space = MixtureSpace(
        ...     ["web", "code", "math"],
        ...     tokens={"web": 8e9, "code": 1.5e9, "math": 5e8},
        ...     budget=1e10,
        ...     max_epochs=4,
        ... )
        >>> w = space.sample(1000, np.random.default_rng(0))
        >>> w.shape, bool((w[:, 2] <= 0.2).all())
        ((1000, 3), True)

    Args:
        components: Names of the components, K of them, distinct.
        prior: Natural weight of each component, a mapping or a sequence, normalized here. Default:
            the tokens of the datasets which bear the components' names if all do, else uniform.
        lower: Least merge weight: a number for all, a mapping with gaps (0) or a sequence.
        upper: Largest merge weight, likewise (gaps are 1). Equal bounds pin a weight.
        min_weight: Least weight of a component that takes part: every weight is 0 or at least
            this. In [0, 1].
        composition: What each component was trained on: a mapping component -> dataset -> share or
            an array (K, D). Rows sum to 1. Default: component i is dataset i alone.
        tokens: Tokens in each dataset, a mapping with gaps or a sequence (D,).
        budget: Tokens of the planned training run.
        max_epochs: How often a dataset may be repeated in that run, a number for all or a mapping
            with gaps. Caps the share of dataset d at ``max_epochs * tokens / budget``.
        groups: Bounds on sums of merge weights or data shares: `Group` or mappings of its fields.
        datasets: Names of the datasets, D of them. Default: those named in ``composition``, or
            the components.
        name: Prefix ``"<name>/"`` of the parameters, for studies which hold several mixtures.

    Attributes:
        components: Names of the components, K.
        datasets: Names of the datasets, D.
        prior: Natural weights, projected on the polytope if they lie outside, (K,).
        lower: Least merge weights as given, (K,).
        upper: Largest merge weights as given, (K,).
        min_weight: Least weight of a component that takes part; 0 if there is no such minimum.
        composition: Share of each dataset in each component's training data, (K, D).
        caps: Largest data shares, infinite where there is no cap, (D,).
        tokens: Tokens in each dataset, NaN where unknown, (D,); None if none were given.
        budget: Tokens of the planned training run, or None.
        groups: The groups.
        name: The prefix' name, or None.
        param_names: Names of the Optuna parameters, in the order of the components, K.

    Raises:
        ConfigError: If an argument is malformed; the message names the entry.
        ConstraintError: If no mixture satisfies all constraints. The message names a minimal set
            of them which exclude each other.
    """

    datasets: tuple[str, ...]
    lower: Array
    upper: Array
    composition: Array
    caps: Array
    tokens: Array | None
    budget: float | None
    groups: tuple[Group, ...]
    name: str | None
    param_names: tuple[str, ...]

    _given: Specification

    def __init__(
        self,
        components: Sequence[str],
        *,
        prior: PerName | None = None,
        lower: float | PerName = 0.0,
        upper: float | PerName = 1.0,
        min_weight: float = 0.0,
        composition: Mapping[str, Mapping[str, float]] | npt.ArrayLike | None = None,
        tokens: PerName | None = None,
        budget: float | None = None,
        max_epochs: float | Mapping[str, float] | None = None,
        groups: Iterable[Group | Mapping[str, Any]] = (),
        datasets: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        """Read and check the arguments; see the class."""
        given = Specification.parse(
            components,
            prior=prior,
            lower=lower,
            upper=upper,
            min_weight=min_weight,
            composition=composition,
            tokens=tokens,
            budget=budget,
            max_epochs=max_epochs,
            groups=groups,
            datasets=datasets,
            name=name,
        )
        self._take(given, is_checked=False)

    def _take(self, given: Specification, *, is_checked: bool) -> None:
        counts, prefix = given.usage.tokens, "" if given.name is None else f"{given.name}/"
        self.__dict__.update(
            datasets=given.datasets,
            lower=given.lower,
            upper=given.upper,
            composition=given.composition,
            caps=read_only(given.usage.caps),
            tokens=read_only([counts.get(d, np.nan) for d in given.datasets]) if counts else None,
            budget=given.usage.budget,
            groups=given.groups,
            name=given.name,
            param_names=tuple(prefix + component for component in given.components),
            _given=given,
        )
        self._enclose(given, is_checked=is_checked)

    def data_shares(self, w: npt.ArrayLike) -> Array:
        """Return the data shares ``w @ composition`` of merge weights, (D,) or (n, D).

        Raises:
            ConfigError: If ``w`` has the wrong shape.
        """
        shares: Array = self._points(w, finite=False) @ self.composition
        return shares[0] if np.ndim(w) == 1 else shares

    def pin(self, fixed: Mapping[str, float]) -> MixtureSpace:
        """Return this space with some merge weights fixed.

        Args:
            fixed: Component -> weight.

        Raises:
            ConfigError: If a component is unknown or a weight is no number in [0, 1].
            ConstraintError: If no mixture has these weights.
        """
        given = arguments.entries(fixed, self.components, "pin")
        weights = tuple(
            (component, arguments.number(value, f"pin of {component!r}", least=0.0, most=1.0))
            for component, value in given.items()
        )
        return self._pinned(weights) if weights else self

    @functools.cached_property
    def _pinned(self) -> Callable[[tuple[tuple[str, float], ...]], MixtureSpace]:
        return functools.lru_cache(maxsize=_KEPT_PINS)(self._pin)

    def _pin(self, fixed: tuple[tuple[str, float], ...]) -> MixtureSpace:
        lower, upper = self.lower.copy(), self.upper.copy()
        for component, weight in fixed:
            i = self.components.index(component)
            nearest = float(np.clip(weight, lower[i], upper[i]))
            if abs(weight - nearest) > INSIDE:
                side = "upper" if weight > nearest else "lower"
                raise ConstraintError(
                    f"{component!r} cannot be pinned to {weight:g}: "
                    f"its {side} bound is {nearest:g}"
                )
            if 0.0 < nearest < self.min_weight:
                raise ConstraintError(
                    f"{component!r} cannot be pinned to {weight:g}: min_weight is "
                    f"{self.min_weight:g}; pin it to 0 or at least that"
                )
            lower[i] = upper[i] = nearest
        return _rebuild(replace(self._given, lower=lower, upper=upper))

    @property
    def uniform(self) -> Array:
        """The allowed mixture (K,) that is nearest to equal weights."""
        return self.project(np.full(len(self), 1.0 / len(self)))

    # Optuna

    @property
    def weights_key(self) -> str:
        """The user attribute which holds a trial's true weights when its parameters do not."""
        return WEIGHTS_KEY if self.name is None else f"{WEIGHTS_KEY}/{self.name}"

    def distributions(self) -> dict[str, optuna.distributions.FloatDistribution]:
        """Return the Optuna distribution of every parameter, in the components' order."""
        from optuna.distributions import FloatDistribution

        ends = zip(self.lower.tolist(), self.upper.tolist(), strict=True)
        return {
            param: FloatDistribution(low, high)
            for param, (low, high) in zip(self.param_names, ends, strict=True)
        }

    def suggest(self, trial: optuna.trial.BaseTrial) -> dict[str, float]:
        """Suggest a mixture, one float parameter a component, under any sampler.

        Values which lie inside are the weights. A sampler that knows no simplex proposes others:
        these are normalized, projected, and the weights so found are written to the trial as the
        user attribute `weights_key`.

        Args:
            trial: A trial, or anything with its ``suggest_float`` and ``set_user_attr``.

        Returns:
            Component -> merge weight; the weights sum to 1.

        Raises:
            ConfigError: If a parameter was fixed to a value that is negative or not finite.
        """
        return _trials.suggest(self, trial)

    def weights(self, trial: optuna.trial.FrozenTrial | optuna.trial.Trial) -> Array | None:
        """Read the true merge weights of a trial.

        Args:
            trial: A trial, finished or not.

        Returns:
            Merge weights, (K,): the user attribute if there is one, else the parameters. They
            may lie outside this space if the trial was made for another one. None if the trial
            does not tell the weight of every component, or gives weight to unknown ones.
        """
        return _trials.weights_of(self, trial)

    def enqueue(
        self,
        study: optuna.study.Study,
        weights: PerName,
        *,
        params: Mapping[str, Any] | None = None,
        user_attrs: Mapping[str, Any] | None = None,
        skip_if_exists: bool = False,
    ) -> None:
        """Queue a mixture, for example a baseline, that the study evaluates as it is.

        Example:
            >>> import optuna
            >>> space = MixtureSpace(["web", "code", "math"], prior=[6, 3, 1])
            >>> study = optuna.create_study()
            >>> space.enqueue(study, {"web": 0.5, "code": 0.3, "math": 0.2})
            >>> space.enqueue(study, space.prior, user_attrs={"baseline": "natural"})
            >>> space.suggest(study.ask())
            {'web': 0.5, 'code': 0.3, 'math': 0.2}

        Args:
            study: The study.
            weights: Merge weight of every component: a mapping, or a sequence (K,). They sum to
                1; what rounding them to six decimals breaks is mended.
            params: Values of other parameters of the same trial; the sampler chooses the rest.
            user_attrs: User attributes of the trial.
            skip_if_exists: Queue nothing if the study has a trial of these parameters.

        Raises:
            ConfigError: If a weight is missing, unknown, negative or not finite, or if they do
                not sum to 1.
            ConstraintError: If the mixture lies outside the constraints; the message names those
                it breaks.
        """
        _trials.enqueue(self, study, weights, params, user_attrs, skip_if_exists)

    def create_trial(
        self,
        weights: PerName,
        values: float | Sequence[float] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        distributions: Mapping[str, optuna.distributions.BaseDistribution] | None = None,
        user_attrs: Mapping[str, Any] | None = None,
        constraints: Mapping[str, float] | None = None,
        state: optuna.trial.TrialState | None = None,
    ) -> optuna.trial.FrozenTrial:
        """Make a finished trial of a result that exists already, for `Study.add_trial`.

        A mixture outside the constraints is evidence as well and recorded as it is.

        Example:
            >>> import optuna
            >>> space = MixtureSpace(["web", "code", "math"])
            >>> study = optuna.create_study(direction="maximize")
            >>> study.add_trial(space.create_trial({"web": 0.6, "code": 0.3, "math": 0.1}, 0.41))
            >>> study.best_value
            0.41

        Args:
            weights: Merge weight of every component, as for `enqueue`.
            values: The objective's value, or one value for each objective.
            params: Values of the other parameters.
            distributions: Their distributions, the same that the objective suggests them from.
            user_attrs: User attributes of the trial.
            constraints: Values of Optuna's constraints, at most 0 where they are satisfied.
            state: State of the trial, complete unless given. A failed one has no values.

        Returns:
            The trial.

        Raises:
            ConfigError: If a weight is missing, unknown, negative or not finite, if the weights
                do not sum to 1, if a value is NaN, or a parameter lacks its distribution.
            ValueError: If Optuna refuses the rest, such as a complete trial without values.
        """
        return _trials.create_trial(
            self,
            weights,
            values,
            params,
            distributions,
            user_attrs,
            constraints=constraints,
            state=state,
        )

    # Identity

    @functools.cached_property
    def _json(self) -> str:
        return json.dumps(_identity.describe(self._given), sort_keys=True)

    def fingerprint(self) -> dict[str, Any]:
        """Describe the space by JSON-able values, rounded to 12 digits; equal if spaces are."""
        description: dict[str, Any] = json.loads(self._json)
        return description

    def __eq__(self, other: object) -> bool:
        """Whether both describe the same mixtures, prior and parameters."""
        if not isinstance(other, MixtureSpace):
            return NotImplemented
        return self._json == other._json

    def __hash__(self) -> int:
        """Hash of the fingerprint."""
        return hash(self._json)

    def __repr__(self) -> str:
        """Show components, prior and the constraints that are more than the simplex."""
        parts = [f"{list(self.components)}"]
        parts.append("prior=[" + ", ".join(f"{p:.3g}" for p in self.prior) + "]")
        parts += dict.fromkeys(c.text for c in self._constraints)
        if self.min_weight > 0:
            parts.append(f"min_weight={self.min_weight:g}")
        if self.name is not None:
            parts.append(f"name={self.name!r}")
        return f"MixtureSpace({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments: arrays come back read-only, geometry is found anew."""
        return _rebuild, (self._given,)


def _rebuild(given: Specification) -> MixtureSpace:
    """Make a space of arguments that are those of another one, or narrower."""
    space = object.__new__(MixtureSpace)
    space._take(given, is_checked=True)
    return space
