"""``CodeEval``: what ``evaluate.load("code_eval")`` gives, with programs run by somebody else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from optuna_demix.scoring.sandbox.programs import PASSED, TIMED_OUT

Runner: TypeAlias = Callable[[list[str], float], list[str]]
"""Runs programs, each with so many seconds; says ``"passed"`` or why not."""


class CodeEval:
    """Shares of programs that pass their tests, as Hugging Face's metric computes them.

    Args:
        run: Runs the programs.
    """

    def __init__(self, run: Runner) -> None:
        self.run = run

    def compute(
        self,
        *,
        predictions: Sequence[Sequence[str]],
        references: Sequence[str],
        k: Sequence[int] = (1, 10, 100),
        num_workers: int = 4,
        timeout: float = 3.0,
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict[str, Any]]]]]:
        """Run every candidate with its test.

        Args:
            predictions: For each problem its candidates.
            references: For each problem the test that goes below a candidate.
            k: Of ``pass@k``; those that a problem has too few candidates for are left out.
            num_workers: Has no effect: the sandbox decides how many run at once.
            timeout: Seconds of a program.

        Returns:
            ``pass@k`` by name, and what came of each candidate, by problem.
        """
        import numpy as np

        del num_workers
        tests = [
            f"{candidate}\n{test}"
            for candidates, test in zip(predictions, references, strict=False)
            for candidate in candidates
        ]
        said = iter(self.run(tests, timeout) if tests else [])
        results = {}
        for problem, (candidates, _) in enumerate(zip(predictions, references, strict=False)):
            results[problem] = [
                (
                    number,
                    {
                        "task_id": problem,
                        "passed": (outcome := next(said)) == PASSED,
                        "result": outcome,
                        "completion_id": number,
                    },
                )
                for number, _ in enumerate(candidates)
            ]
        counts = [
            (len(found), sum(result["result"] == PASSED for _, result in found))
            for found in results.values()
            if found
        ]
        shares = {
            f"pass@{each}": float(np.array([pass_at_k(n, c, each) for n, c in counts]).mean())
            for each in k
            if all(n >= each for n, _ in counts)
        }
        return shares, results


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of ``k`` samples is correct, from ``n``.

    ``1 - C(n - c, k) / C(n, k)`` as a product, so that nothing overflows: Chen et al., Evaluating
    Large Language Models Trained on Code, 2021 (https://arxiv.org/abs/2107.03374), equation 1.
    """
    import numpy as np

    if n - correct < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - correct + 1, n + 1)))


def running_nothing(programs: list[str], seconds: float) -> list[str]:
    """A runner for the import of a task's module, which tries the metric and drops the result."""
    del seconds
    return [TIMED_OUT] * len(programs)
