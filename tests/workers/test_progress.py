"""What a worker says of a trial that is running."""

from __future__ import annotations

from collections.abc import Callable

from optuna_demix._progress import Report
from optuna_demix.workers.run import watch_texts


class Scorer:
    """Hands on whoever wants to be told."""

    def watch(self, watcher: Callable[[int, int], None]) -> None:
        self.tell = watcher


def test_tokens_stand_beside_the_trials_until_the_next_one_begins() -> None:
    lines: list[str] = []
    scorer = Scorer()
    with Report(lines.append).step("mix", unit="trial", total=9, announced=False) as step:
        watch_texts(scorer, step)  # type: ignore[arg-type]
        step.note("2 pruned", about="trials")
        scorer.tell(12_300, 41_000)
        assert "0 of 9 trials, 2 pruned, 12,300 of 41,000 tokens" in step.state()
        scorer.tell(0, 41_000)
        assert "tokens" not in step.state()
