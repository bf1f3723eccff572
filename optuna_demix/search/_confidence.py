"""How far a recommendation goes, in words that agree with its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix._wording import counted

if TYPE_CHECKING:
    from optuna_demix.search._result import Recommendation

RANKS_POORLY = 0.3
"""Out-of-fold rank correlation up to which predictions hardly rank mixtures."""

_ALIKE = 1e-9  # difference of two merits that is rounding
_LISTED = 6  # objectives whose noise is told one by one


def rank_correlation(accuracy: Iterable[float]) -> float:
    """Mean out-of-fold rank correlation of the benchmarks; NaN where none is known."""
    known = [rho for rho in accuracy if np.isfinite(rho)]
    return float(np.mean(known)) if known else float("nan")


def rank_mixtures(accuracy: Iterable[float]) -> bool:
    """Whether predictions of such rank correlations are known to rank mixtures."""
    return rank_correlation(accuracy) > RANKS_POORLY


def has_enough(found: Recommendation) -> bool:
    """Whether the study has the trials that it takes to tell whether it has converged."""
    return found.n_trials - found.n_warm >= found.least_trials


def ranks(found: Recommendation) -> bool:
    """Whether predictions are known to rank mixtures."""
    return rank_mixtures(found.accuracy.values())


def can_tell(found: Recommendation) -> bool:
    """Whether it can be told what further trials would add."""
    return has_enough(found) and ranks(found)


def best_trial_is_better(found: Recommendation) -> bool:
    """Whether the best trial's own prediction, or measurement, beats the recommended mixture."""
    best, recommended = found.mixtures["best_trial"], found.mixtures["recommended"]
    if abs(best.composite - recommended.composite) > _ALIKE:
        return best.composite > recommended.composite
    return best.merit > recommended.merit + _ALIKE


def outlook(found: Recommendation) -> str:
    """What further trials are expected to add."""
    gain = (
        f"{_told_apart(found.expected_gain, 1.0)} times the noise of one trial"
        if np.isfinite(found.expected_gain)
        else "more than the noise of one trial"
    )
    added = f"further trials are expected to add {gain}, which is {_noise(found)}"
    if not has_enough(found):
        return (
            f"not converged: it takes {counted(found.least_trials, 'trial')} to tell, and there "
            f"are {found.n_trials - found.n_warm}; {added}"
        )
    if not ranks(found):
        return (
            f"not converged: {_ranking(found)}, so that nothing tells what further trials would "
            f"add; the noise of one trial is {_noise(found)}"
        )
    return f"{'converged' if found.converged else 'not converged'}: {added}"


def warnings(found: Recommendation) -> Iterator[str]:
    """Reasons not to trust the recommended mixture."""
    trials = counted(found.n_trials, "trial")
    if not found.tells_apart:
        yield (
            f"from {trials} the surrogate predicts the same for every mixture, so that the "
            f"recommended one is arbitrary; {_more(found)}"
        )
    elif 2 * found.n_trials < found.least_trials:
        yield f"{trials} are too few to learn from; {_more(found)}"
    if found.tells_apart and not ranks(found):
        yield f"{_ranking(found)}: the recommended mixture may be no better than others"
    if best_trial_is_better(found):
        best, recommended = found.mixtures["best_trial"], found.mixtures["recommended"]
        by = "measured" if best.measured else "predicted"
        yield (
            f"the best trial ({found.best_trial}) is itself {by} to be better than the "
            f"recommended mixture{_compared(found, best.capabilities, recommended.capabilities)}"
        )


def _more(found: Recommendation) -> str:
    least = found.least_trials
    if found.n_trials - found.n_warm < least:
        return f"let the study have at least {least}"
    return "run more, or compare the scores of its trials"


def _ranking(found: Recommendation) -> str:
    rho = rank_correlation(found.accuracy.values())
    if not np.isfinite(rho):
        return "it is not known how well predictions rank mixtures"
    return f"predictions hardly rank mixtures (out-of-fold rank correlation {rho:.2f})"


def _compared(found: Recommendation, best: dict[str, float], other: dict[str, float]) -> str:
    """Both numbers, where they can be told apart: both may beat all random mixtures."""
    if len(best) == 1:
        ((name, value),) = best.items()
        a, b = value, other[name]
    else:
        name = "composite"
        a, b = (found.mixtures[key].composite for key in ("best_trial", "recommended"))
    if abs(a - b) <= _ALIKE:
        return ""
    return f": {name} {_told_apart(a, b)} against {_told_apart(b, a)}"


def _noise(found: Recommendation) -> str:
    """The noise of one trial in the units of each objective."""
    noise = found.noise
    if len(noise) > _LISTED:
        low, high = min(noise.values()), max(noise.values())
        return f"{low:.3g} to {high:.3g} in the objectives"
    return ", ".join(f"{value:.3g} in {name}" for name, value in noise.items())


def _told_apart(a: float, b: float) -> str:
    """The first of two numbers in as few digits as tell it from the second, three at least."""
    for digits in range(3, 18):
        text = f"{a:.{digits}g}"
        if a == b or text != f"{b:.{digits}g}":
            break
    return text
