"""Which proxy scores which benchmark of a study, and what a search knows beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna_demix.attributes import FINGERPRINT_ATTR
from optuna_demix.study.probabilities import ProbabilityProxy, find_probabilities

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix.config import StudyConfig
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.engines import Probabilities

_OF_ACCURACY = 0.5  # of both proxies the mean ranks accuracies best (benchmarks/README.md)


def shares_of(config: StudyConfig, mixture: ProbabilityProxy) -> dict[str, float]:
    """How much of each benchmark's score is the probability mixture's; the rest is merged.

    With ``proxy: auto``, scores that are smooth in the probabilities are theirs alone, all others
    that they give are the means of both proxies.
    """
    if config.resolved_proxy == "probabilities":
        return dict.fromkeys(mixture.benchmarks, 1.0)
    known = mixture.functions
    return {
        name: 1.0 if name in known and known[name].smooth else _OF_ACCURACY
        for name in mixture.benchmarks
    }


def prior_mean_of(mixture: Probabilities | None) -> ProbabilityProxy | None:
    """What the surrogate starts from; ``None`` where the mixture scores nothing at once."""
    if not isinstance(mixture, ProbabilityProxy) or not mixture.functions:
        return None
    return mixture.without_slow()


def kept_prior_mean(
    config: StudyConfig, space: MixtureSpace, study: Study
) -> ProbabilityProxy | None:
    """The prior mean of a study that workers have begun, from what they kept.

    ``None`` where the study has no probability mixture, or its files are not on this host.
    """
    fingerprint = study.user_attrs.get(FINGERPRINT_ATTR)
    if config.resolved_proxy == "merged" or not isinstance(fingerprint, Mapping):
        return None
    proxy: Any = fingerprint.get("proxy")
    digests: Any = fingerprint.get("components")
    if not isinstance(proxy, Mapping) or not isinstance(digests, Mapping):
        return None
    return prior_mean_of(
        find_probabilities(config, space, str(proxy.get("probabilities")), digests)
    )
