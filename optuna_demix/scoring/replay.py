"""``Replay``: lm-eval's scores from log-likelihoods that no single model computed.

Answers are put where a model's would be, so that metrics, filters and groups are lm-eval's own.
Scores that are known functions of the log-likelihoods are also given as such
(:mod:`optuna_demix.scoring.functions`), after they were compared with lm-eval's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.errors import NeedsModelError
from optuna_demix.scoring.functions import Choice, Linear, Part, ScoreFunction
from optuna_demix.scoring.gold import GOLD_METRIC
from optuna_demix.scoring.harness import tasks as lm_eval_tasks
from optuna_demix.scoring.harness.quiet import quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix.scoring.functions import FloatArray
    from optuna_demix.scoring.prepared_task import PreparedTask
    from optuna_demix.scoring.readings import Address
    from optuna_demix.scoring.suite import Suite

_TRIALS = 3  # log-likelihoods drawn to find out what a benchmark reads
_RELATIVE = 1e-9  # by which a sum in another order may differ
_UNLIKELY = -1e6  # of the choices that a probe does not take


class Replay:
    """Scores of given log-likelihoods on the prepared requests of a scorer.

    Made by :meth:`~optuna_demix.scoring.HarnessScorer.replay`.

    Args:
        suite: The tasks.
        addresses: What is read of them, by benchmark.
        signs: 1, or -1 where less is better, by benchmark.

    Raises:
        NeedsModelError: If benchmarks need more of a model than log-likelihoods.
    """

    def __init__(
        self, suite: Suite, addresses: Mapping[str, Address], signs: Mapping[str, int]
    ) -> None:
        self._suite = suite
        self._addresses = dict(addresses)
        self._signs = dict(signs)
        self._asked = suite.asked()
        self._refuse_generation()
        self._refuse_greedy_answers()

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Names of the benchmarks."""
        return tuple(self._addresses)

    def token_counts(self) -> NDArray[np.int64]:
        """Number of scored tokens of each request, (R,)."""
        return self._suite.token_counts()

    def token_log_probabilities(self) -> NDArray[np.float32]:
        """Log-probability that the scorer's model as it is gives each scored token, (T,)."""
        return self._suite.token_log_probabilities()

    def scores(self, log_likelihoods: Sequence[float] | FloatArray) -> dict[str, float]:
        """Scores of log-likelihoods, one for each request, through lm-eval's own code.

        Args:
            log_likelihoods: Of the requests, (R,).

        Returns:
            By benchmark, higher is better; NaN where a metric is not finite.
        """
        self._run(np.asarray(log_likelihoods, dtype=float), np.zeros(len(self._asked), dtype=bool))
        return {name: self._value(name) for name in self._addresses}

    def functions(self, samples: FloatArray) -> dict[str, ScoreFunction]:
        """Scores that are known functions of the log-likelihoods.

        Args:
            samples: Log-likelihoods (n, R) on which a function must give what lm-eval gives: the
                same number for an accuracy, the same up to the order of a sum otherwise.

        Returns:
            By benchmark; those that are not known are left out.
        """
        probe = self._draw(np.random.default_rng(0))
        self._run(probe, np.zeros(len(probe), dtype=bool))
        place = {float(value): number for number, value in enumerate(probe)}
        with quiet():
            functions = {name: self._function(name, place) for name in self._addresses}
        found = {name: known for name, known in functions.items() if known is not None}
        for sample in np.concatenate([[probe], samples]):
            theirs = self.scores(sample)
            for name in list(found):
                ours = float(found[name](sample[None])[0])
                tolerance = _RELATIVE if found[name].smooth else 1e-12
                if not math.isclose(ours, theirs[name], rel_tol=tolerance, abs_tol=1e-12):
                    del found[name]
        return found

    def _run(self, log_likelihoods: FloatArray, greedy: NDArray[np.bool_]) -> None:
        self._suite.replay(
            [
                value if instance.request_type == "loglikelihood_rolling" else (value, flag)
                for instance, value, flag in zip(
                    self._asked, log_likelihoods.tolist(), greedy.tolist(), strict=True
                )
            ]
        )

    def _value(self, name: str) -> float:
        key, metric, filter_name = self._addresses[name]
        value = self._suite.unit(key).value(metric, filter_name)
        return self._signs[name] * value if math.isfinite(value) else math.nan

    def _draw(self, rng: np.random.Generator) -> FloatArray:
        """Distinct log-likelihoods of all requests, (R,)."""
        return rng.permutation(-np.linspace(1.0, 60.0, len(self._asked)))

    def _refuse_generation(self) -> None:
        kinds = {
            name: {
                instance.request_type
                for task in self._suite.unit(key).tasks.values()
                for _, instances in task.documents
                for instance in instances
            }
            for name, (key, metric, _) in self._addresses.items()
            if metric != GOLD_METRIC
        }
        writing = [name for name, found in kinds.items() if "generate_until" in found]
        if writing:
            raise NeedsModelError(
                f"benchmark {writing[0]!r} is scored on text that a model writes, which cannot be "
                "told from probabilities of given text; score merged proxies instead, or use its "
                f"metric {GOLD_METRIC}",
                tuple(writing),
            )

    def _refuse_greedy_answers(self) -> None:
        """Refuse benchmarks whose documents change with what a model finds likeliest."""
        rng = np.random.default_rng(0)
        n = len(self._asked)
        reading: set[str] = set()
        for _ in range(_TRIALS):
            drawn, before = self._draw(rng), dict[str, str]()
            for greedy in (np.zeros(n, bool), np.ones(n, bool), rng.random(n) < 0.5):
                self._run(drawn, greedy)
                for name, (key, metric, filter_name) in self._addresses.items():
                    leaves = self._suite.unit(key).leaves(metric, filter_name)
                    given = str([raw for _, raw in leaves])
                    if before.setdefault(name, given) != given:
                        reading.add(name)
        if reading:
            names = [name for name in self._addresses if name in reading]
            raise NeedsModelError(
                f"benchmark {names[0]!r} reads whether an answer is the one that the model finds "
                "likeliest, which its log-likelihood does not tell; score merged proxies "
                "instead, or use another metric",
                tuple(names),
            )

    def _function(self, name: str, place: Mapping[float, int]) -> ScoreFunction | None:
        """The function that a benchmark seems to be, by the log-likelihoods last given."""
        key, metric, filter_name = self._addresses[name]
        unit = self._suite.unit(key)
        leaves = unit.leaves(metric, filter_name)
        parts: list[Part] = []
        for task, raw in leaves:
            part = _linear(task, metric, raw, place) or _choice(task, metric, raw, self._number)
            if part is None:
                return None
            parts.append(part)
        shares = unit.shares(metric, [len(raw) for _, raw in leaves])
        return ScoreFunction(tuple(parts), tuple(self._signs[name] * share for share in shares))

    @property
    def _number(self) -> Callable[[Any], int]:
        numbers: dict[int, int] = {}
        for number, instance in enumerate(self._asked):
            numbers.setdefault(id(instance), number)
        return lambda instance: numbers[id(instance)]


def _linear(
    task: PreparedTask, metric: str, raw: Sequence[Any], place: Mapping[float, int]
) -> Linear | None:
    """A mean of log-likelihoods, found again in what the documents gave."""
    _, aggregation = lm_eval_tasks.aggregation(task.task, metric)
    if aggregation in ("bits_per_byte", "weighted_perplexity"):
        pairs = [value for value in raw if isinstance(value, tuple) and len(value) == 2]
        likelihoods, sizes = [pair[0] for pair in pairs], [float(pair[1]) for pair in pairs]
        factor = -1 / sum(sizes) if sum(sizes) else math.nan
    elif aggregation == "perplexity":
        likelihoods, factor = list(raw), -1 / len(raw)
    else:
        return None
    if len(likelihoods) != len(raw) or not all(value in place for value in likelihoods):
        return None
    if aggregation == "bits_per_byte":
        factor /= math.log(2)
    return Linear(
        np.array([place[value] for value in likelihoods], dtype=np.intp),
        np.full(len(raw), factor),
        exponential=aggregation != "bits_per_byte",
    )


def _choice(
    task: PreparedTask, metric: str, raw: Sequence[Any], number: Callable[[Any], int]
) -> Choice | None:
    """An accuracy of multiple choice; lm-eval itself is asked which choices are right."""
    lengths: dict[str, Callable[[str], float]] = {
        "acc": lambda choice: 1.0,
        "acc_norm": lambda choice: float(len(choice)),
        "acc_bytes": lambda choice: float(len(choice.encode("utf-8"))),
    }
    _, aggregation = lm_eval_tasks.aggregation(task.task, metric)
    known = task.task.OUTPUT_TYPE == "multiple_choice" and aggregation == "mean"
    if not known or metric not in lengths or lm_eval_tasks.has_own_metrics(task.task):
        return None
    if len(raw) != len(task.documents):
        return None
    choices = [task.task.doc_to_choice(document) for document, _ in task.documents]
    shape = (len(choices), max(map(len, choices)))
    requests = np.zeros(shape, dtype=np.intp)
    divisors = np.full(shape, np.nan)
    right = np.zeros(shape, dtype=bool)
    for row, ((document, instances), names) in enumerate(
        zip(task.documents, choices, strict=True)
    ):
        for column, name in enumerate(names):
            requests[row, column] = number(instances[column])
            divisors[row, column] = lengths[metric](name)
            answers = [(_UNLIKELY, False)] * len(instances)
            answers[column] = (0.0, False)
            right[row, column] = task.task.process_results(document, answers)[metric] > 0
    return Choice(requests, divisors, right)
