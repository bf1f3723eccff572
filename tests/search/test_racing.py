"""Racing: trials that are dropped, what they keep, and where it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest

from optuna_demix import MixtureObjective, MixtureSpace
from optuna_demix.attributes import (
    BLOCKS_ATTR,
    FAILURE_ATTR,
    ITEMS_PREFIX,
    PARTIAL_PREFIX,
    SCORE_PREFIX,
)
from optuna_demix.config import load_study_config
from optuna_demix.errors import ConfigError
from optuna_demix.study.search import pruner_of
from tests.search.racers import BLOCKS, Runner

from tests.tiny_study import write_study  # isort: skip

SPACE = MixtureSpace(["web", "code"])


def run(
    codes: list[float], pruner: optuna.pruners.BasePruner, **kwargs: object
) -> tuple[optuna.Study, Runner]:
    runner = Runner(**{k: v for k, v in kwargs.items() if k == "broken_at"})
    racing = kwargs.get("racing", "block")
    objective = MixtureObjective(SPACE, runner, runner, {"code": ["humaneval"]}, racing=racing)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for code in codes:
        study.enqueue_trial({"web": 1 - code, "code": code})
    study.optimize(objective, n_trials=len(codes))
    return study, runner


def test_a_losing_trial_is_dropped_and_keeps_what_it_scored() -> None:
    study, runner = run([0.8, 0.2, 0.9], optuna.pruners.WilcoxonPruner())
    winner, loser, better = study.trials
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    n = len(loser.intermediate_values)
    assert 3 <= n < BLOCKS
    assert runner.blocks_run == 2 * BLOCKS + n  # the rest was never computed
    assert loser.user_attrs[ITEMS_PREFIX + "humaneval"] == 5 * n
    blocks = loser.user_attrs[BLOCKS_ATTR]["humaneval"]
    assert len(blocks) == n
    assert loser.user_attrs[PARTIAL_PREFIX + "humaneval"] == pytest.approx(np.mean(blocks))
    assert SCORE_PREFIX + "humaneval" not in loser.user_attrs
    for trial in (winner, better):
        assert list(trial.intermediate_values) == list(range(BLOCKS))
        assert trial.user_attrs[SCORE_PREFIX + "humaneval"] == pytest.approx(trial.value)
        # A block's own value: what WilcoxonPruner pairs, and whose mean is the trial's value.
        assert np.mean(list(trial.intermediate_values.values())) == pytest.approx(trial.value)
        assert not any(key.startswith((PARTIAL_PREFIX, ITEMS_PREFIX)) for key in trial.user_attrs)


def test_running_means_for_other_pruners() -> None:
    study, _ = run([0.5], optuna.pruners.NopPruner(), racing="mean")
    (trial,) = study.trials
    assert trial.intermediate_values[BLOCKS - 1] == pytest.approx(trial.value)
    assert trial.intermediate_values[1] == pytest.approx(
        np.mean(trial.user_attrs[BLOCKS_ATTR]["humaneval"][:2])
    )
    study, _ = run([0.8, 0.7, 0.1], optuna.pruners.MedianPruner(n_startup_trials=2), racing="mean")
    assert study.trials[2].state.name == "PRUNED"


def test_a_proxy_that_breaks_fails_and_stops() -> None:
    study, runner = run([0.5], optuna.pruners.NopPruner(), broken_at=2)
    (trial,) = study.trials
    assert trial.state.name == "FAIL"
    assert trial.user_attrs[FAILURE_ATTR] == "no finite score for humaneval"
    assert runner.blocks_run == 3
    assert SCORE_PREFIX + "humaneval" not in trial.user_attrs


def test_several_objectives_are_refused() -> None:
    capabilities = {"code": ["humaneval"], "prose": ["web"]}
    with pytest.raises(ConfigError, match="racing needs a single objective, not 2: Optuna does"):
        MixtureObjective(SPACE, Runner(), Runner(), capabilities, racing="block")


def scoring(root: Path, **changes: object) -> Path:
    plain = {"include_path": "tasks", "max_length": 32}
    return write_study(root, scoring={**plain, **changes}, objective="composite")


def test_the_study_file_chooses_the_pruner(tmp_path: Path) -> None:
    config = load_study_config(scoring(tmp_path, racing={"blocks": 8, "p_threshold": 0.05}))
    assert isinstance(pruner_of(config), optuna.pruners.WilcoxonPruner)
    config = load_study_config(scoring(tmp_path, racing={"pruner": "median"}))
    assert config.scoring.racing is not None and config.scoring.racing.blocks == 24
    assert isinstance(pruner_of(config), optuna.pruners.MedianPruner)
    config = load_study_config(scoring(tmp_path))
    assert isinstance(pruner_of(config), optuna.pruners.NopPruner)


def test_racing_several_objectives_is_refused_by_the_study_file(tmp_path: Path) -> None:
    file = write_study(tmp_path, scoring={"include_path": "tasks", "racing": {}})
    with pytest.raises(ConfigError, match="scoring.racing: Optuna prunes trials of a single"):
        load_study_config(file)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"racing": {"blocks": 3}}, "scoring.racing.blocks: .*at least 4"),
        ({"racing": {"pruner": "best"}}, "scoring.racing.pruner: .*'wilcoxon', 'median'"),
        ({"max_batch_size": 8}, "scoring: 'max_batch_size' belongs to 'batch_size: auto'"),
        ({"device_map": {"": "disk"}}, "scoring.device_map: modules on the disk cannot be merged"),
        ({"device_map": {"": -1}}, "scoring.device_map: -1 is not a device; give cpu, cuda"),
        ({"device_map": {}}, "scoring.device_map: give at least one module its device"),
        ({"device_map": "spread"}, "scoring.device_map: 'spread' is not a device; give auto, bal"),
        (
            {"device_map": {"": 0, "lm_head": "cpu"}, "mixed_precision_dtype": "bfloat16"},
            "scoring: 'mixed_precision_dtype' needs devices of one kind, but .* cpu and cuda;",
        ),
        ({"dtype": "float8"}, "scoring.dtype: .*'float32', 'bfloat16', 'float16'"),
    ],
)
def test_unusable_settings(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    file = scoring(tmp_path, **changes)
    with pytest.raises(ConfigError, match=said):
        load_study_config(file)


def test_auto_begins_with_the_largest_batch(tmp_path: Path) -> None:
    def rows(**changes: object) -> int:
        return load_study_config(scoring(tmp_path, **changes)).scoring.rows

    assert rows(batch_size="auto", max_batch_size=48) == 48
    assert (rows(batch_size="auto"), rows(batch_size=8), rows()) == (64, 8, 32)


def test_workers_race_with_shared_prefixes(root: Path) -> None:
    from optuna_demix.workers.run import run_worker

    quick = {"include_path": "tasks", "batch_size": 4, "max_length": 32, "shared_prefixes": True}
    file = write_study(
        root,
        objective="composite",
        scoring={**quick, "racing": {"blocks": 4, "p_threshold": 0.5}},
    )
    storage = f"sqlite:///{root}/study.db"
    optuna.create_study(storage=storage, study_name="race", direction="maximize")
    config = load_study_config(file)
    report = run_worker(config, storage=storage, study_name="race", n_trials=6, progress=False)
    assert (report.complete + report.pruned, report.failed) == (6, 0)
    assert report.pruned > 0
    for trial in optuna.load_study(study_name="race", storage=storage).trials:
        whole = trial.state.name == "COMPLETE"
        assert (SCORE_PREFIX + "tiny_math/bits_per_byte" in trial.user_attrs) is whole
        assert (ITEMS_PREFIX + "tiny_math/bits_per_byte" in trial.user_attrs) is not whole
        assert set(trial.user_attrs[BLOCKS_ATTR]) == {
            f"tiny_{name}/bits_per_byte" for name in ("prose", "code", "math")
        }
