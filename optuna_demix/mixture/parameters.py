"""`ParameterSpace`: merge weights as parameters of Optuna's trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna_demix.attributes import WEIGHTS_KEY
from optuna_demix.mixture import trials as _trials
from optuna_demix.mixture._arguments import PerName
from optuna_demix.mixture.geometry.simplex import Array
from optuna_demix.mixture.region import Region

if TYPE_CHECKING:
    import optuna


class ParameterSpace(Region):
    """A region whose weights are parameters of trials, one float parameter a component.

    Attributes:
        lower: Least merge weights as given, (K,).
        upper: Largest merge weights as given, (K,).
        name: Prefix ``"<name>/"`` of the parameters, or None.
        param_names: Names of the Optuna parameters, in the order of the components, K.
    """

    lower: Array
    upper: Array
    name: str | None
    param_names: tuple[str, ...]

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
