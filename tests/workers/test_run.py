"""The main job through the commands a user types, on real files, models and databases."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optuna_demix.attributes import FAILURE_ATTR, FINGERPRINT_ATTR, WORKER_ATTR
from optuna_demix.cli import main
from optuna_demix.config import load_study_config
from optuna_demix.config.space import space_of
from optuna_demix.search.objective import MixtureObjective, Scores
from optuna_demix.study.evaluation import build_objective
from optuna_demix.workers.run import run_worker
from tests.storage.servers import PostgreSQL
from tests.tiny_study import COMPONENTS, command, write_study

pytestmark = pytest.mark.xdist_group("worker")


def create(root: Path, url: str = "sqlite:///mix.db") -> str:
    """Make the study; returns its URL as a process in ``root`` reads it."""
    absolute = url.replace("sqlite:///", f"sqlite:///{root}/")
    optuna.create_study(storage=absolute, study_name="mix", directions=["maximize"] * 2)
    return url


def words(url: str, *extra: str) -> list[str]:
    return ["worker", "study.yaml", "--storage", url, "--study-name", "mix", *extra]


def work(root: Path, *extra: str, url: str = "sqlite:///mix.db") -> subprocess.CompletedProcess:
    """Work in processes of their own."""
    return command("optuna-demix", *words(url, *extra), cwd=root)


@pytest.fixture
def here(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Work in this process, which has all packages loaded; status and what was said."""
    monkeypatch.chdir(root)

    def run(*extra: str, url: str = "sqlite:///mix.db") -> tuple[int, str]:
        capsys.readouterr()
        status = main(words(url, *extra))
        return status, capsys.readouterr().err

    return run


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., Future[subprocess.CompletedProcess]]]:
    """Start a worker in a process of its own."""
    with ThreadPoolExecutor() as running:
        yield lambda *extra: running.submit(work, root, "--no-progress", *extra)


def wait_for(root: Path, number: int, worker: Future[subprocess.CompletedProcess]) -> int:
    """Wait until a trial is complete; returns the process id of its worker."""
    study = load(root)
    while not worker.done():
        trials = study.get_trials(deepcopy=False)
        if len(trials) > number and trials[number].state == TrialState.COMPLETE:
            return int(trials[number].user_attrs[WORKER_ATTR].split()[-1])
        time.sleep(0.02)
    raise AssertionError(worker.result().stderr)


def load(root: Path, url: str | None = None) -> optuna.Study:
    url = url or f"sqlite:///{root / 'mix.db'}"
    return optuna.load_study(study_name="mix", storage=url)


def assert_searched(study: optuna.Study, n_trials: int) -> None:
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    assert len(complete) == n_trials
    for trial in complete:
        weights = np.array([trial.params[name] for name in COMPONENTS])
        assert abs(weights.sum() - 1) < 1e-12 and np.all(weights >= 0)
        scores = [trial.user_attrs[f"score:tiny_{n}/bits_per_byte"] for n in ("code", "math")]
        assert trial.values[1] == pytest.approx(np.mean(scores), abs=1e-12)
        assert trial.values[0] < 0  # bits per byte, negated
    assert len({tuple(t.params.values()) for t in complete}) == n_trials
    assert study.metric_names == ["language", "reasoning"]
    assert study.get_trials(states=(TrialState.RUNNING,)) == []


NAMED = "--storage sqlite:///mix.db --study-name mix"


def noting(scored: list[object]) -> Callable[..., Scores]:
    score = MixtureObjective.score

    def noted(self: MixtureObjective, weights: object) -> Scores:
        scored.append(weights)
        return score(self, weights)  # type: ignore[arg-type]

    return noted


def test_two_workers_search_and_recommend(
    root: Path,
    start: Callable[..., Future[subprocess.CompletedProcess]],
    here: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    create(root)
    for worker in [start("--n-trials", "9") for _ in range(2)]:
        assert worker.result().returncode == 0, worker.result().stderr
    assert_searched(load(root), 9)
    status, said = here("--n-trials", "9")
    assert status == 0 and "0 trials completed" in said

    scored: list[object] = []
    monkeypatch.setattr(MixtureObjective, "score", noting(scored))
    arguments = ["--storage", "sqlite:///mix.db", "--study-name", "mix"]
    verify = ["--verify", "--json", "out/summary.json"]
    assert main(["recommend", "study.yaml", *arguments, *verify]) == 0
    shown = capsys.readouterr()
    assert len(scored) < 4  # the prior is uniform, and may be the best trial
    summary = json.loads((root / "out" / "summary.json").read_text())
    assert list(summary["mixtures"]) == ["prior", "uniform", "best_trial", "recommended"]
    for mixture in summary["mixtures"].values():
        assert math.isclose(sum(mixture["merge_weights"].values()), 1.0, abs_tol=1e-12)
        assert math.isclose(sum(mixture["data_shares"].values()), 1.0, abs_tol=1e-12)
        assert set(mixture["capabilities"]) == {"language", "reasoning"}
        assert mixture["measured"]
    # A measured best trial scores as it did in the search: merging and scoring are repeatable.
    best = load(root).trials[summary["best_trial"]]
    measured = summary["mixtures"]["best_trial"]["capabilities"]
    assert list(measured.values()) == pytest.approx(best.values, rel=1e-6)
    assert "prior = uniform" in shown.out and "data share" in shown.out
    assert shown.err.endswith(f"next: optuna-demix export study.yaml {NAMED} --format json\n")


def test_workers_share_postgresql(root: Path, postgresql: PostgreSQL) -> None:
    """Here they are started by one command, in fresh processes."""
    url = create(root, postgresql.new_database())
    ran = work(root, "--n-trials", "8", "--n-workers", "2", url=url)
    assert ran.returncode == 0, ran.stderr
    assert_searched(load(root, url), 8)


def test_sigterm_finishes_the_trial_and_stops(
    root: Path, start: Callable[..., Future[subprocess.CompletedProcess]]
) -> None:
    create(root)
    worker = start()
    os.kill(wait_for(root, 1, worker), signal.SIGTERM)
    ended = worker.result()
    assert ended.returncode == 128 + signal.SIGTERM and "asked to stop" in ended.stderr
    states = {trial.state for trial in load(root).trials}
    assert states == {TrialState.COMPLETE}


def test_a_killed_worker_loses_nothing(
    root: Path,
    start: Callable[..., Future[subprocess.CompletedProcess]],
    here: Callable[..., tuple[int, str]],
) -> None:
    create(root)
    worker = start()
    os.kill(wait_for(root, 2, worker), signal.SIGKILL)
    assert worker.result().returncode == 128 + signal.SIGKILL
    before = load(root)
    running = before.get_trials(states=(TrialState.RUNNING,))
    finished = [t.number for t in before.trials if t.state == TrialState.COMPLETE]
    n_trials = len(finished) + len(running) + 2
    status, said = here("--n-trials", str(n_trials))
    assert status == 0, said
    after = load(root)
    assert_searched(after, n_trials)
    for trial in running:
        assert after.trials[trial.number].user_attrs[FAILURE_ATTR] == "its worker died"
    assert all(after.trials[number].state == TrialState.COMPLETE for number in finished)


def test_a_nan_score_fails_its_trial_only(root: Path) -> None:
    url = create(root)
    config = load_study_config(root / "study.yaml")
    objective, _ = build_objective(config, space_of(config), device="cpu")
    score, first = objective.scorer.score, iter([True])

    def score_with_nan() -> dict[str, float]:
        scores = score()
        if next(first, False):
            scores["tiny_code/bits_per_byte"] = math.nan
        return scores

    objective.scorer.score = score_with_nan  # type: ignore[method-assign]
    study = optuna.load_study(study_name="mix", storage=url.replace("///", f"///{root}/"))
    study.optimize(objective, n_trials=3)
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert "tiny_code/bits_per_byte" in study.trials[0].user_attrs[FAILURE_ATTR]


def test_a_study_of_other_components_is_refused(
    root: Path, here: Callable[..., tuple[int, str]]
) -> None:
    create(root)
    assert here("--n-trials", "1")[0] == 0
    shutil.rmtree(root / "run" / "models" / "math")
    shutil.copytree(root / "run" / "models" / "code", root / "run" / "models" / "math")
    status, said = here("--n-trials", "2")
    assert status == 2 and "components.math" in said
    assert len(load(root).trials) == 1


def break_shard(root: Path) -> None:
    weights = root / "run" / "models" / "math" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def break_tokenizer(root: Path) -> None:
    file = root / "run" / "models" / "math" / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    a, b = list(vocabulary)[5:7]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (break_shard, ["math", "model.safetensors"]),
        (break_tokenizer, ["math", "tokenizer"]),
        pytest.param(
            lambda root: shutil.rmtree(root / "run" / "models" / "math"),
            ["math", "train"],
            marks=pytest.mark.slow,
        ),
        (lambda root: (root / "tasks" / "math.yaml").unlink(), ["tiny_math"]),
        (lambda root: write_study(root, componets=["a"]), ["componets", "components"]),
        (
            lambda root: write_study(root, mixture={"upper": 0.2}),
            ["study.yaml", "mixture", "upper bound"],
        ),
        (lambda root: write_study(root, objective="composite"), ["2 directions", "1 objective"]),
    ],
    ids=["shard", "tokenizer", "component", "task", "field", "caps", "directions"],
)
def test_bad_input_is_one_line_and_writes_nothing(
    root: Path,
    damage: object,
    named: list[str],
    here: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    # lm-eval's index takes seconds to read, and near names are no matter here.
    monkeypatch.setattr("optuna_demix.scoring.harness.catalog._own_index", dict)
    # Two workers say it once as well; tried where it costs least.
    n_workers = "2" if request.node.callspec.id == "component" else "1"
    create(root)
    damage(root)  # type: ignore[operator]
    status, said = here("--n-trials", "2", "--n-workers", n_workers, "--no-progress")
    errors = [line for line in said.splitlines() if "error:" in line]
    assert status == 2, said
    assert len(errors) == 1 and "Traceback" not in said
    assert all(word in errors[0] for word in named), errors[0]
    study = load(root)
    assert study.trials == [] and FINGERPRINT_ATTR not in study.user_attrs
    assert study.metric_names is None


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("sqlite:///nowhere.db", ["no file nowhere.db", "create-study"]),
        ("postgresql://me:geheim@127.0.0.1:9/mix", ["cannot be used", "me:***@127.0.0.1"]),
        ("nonsense", ["not a database URL"]),
        ("oracle7://host/mix", ["driver"]),
    ],
)
def test_a_storage_out_of_reach_is_said(
    root: Path, url: str, named: list[str], here: Callable[..., tuple[int, str]]
) -> None:
    status, said = here(url=url)
    assert status == 2
    assert all(word in said for word in named), said
    assert "geheim" not in said
    assert not (root / "nowhere.db").exists()


def test_an_unknown_study_lists_the_known_ones(
    root: Path, here: Callable[..., tuple[int, str]]
) -> None:
    create(root)
    status, said = here("--study-name", "mixx")
    assert status == 2 and "it holds 'mix'" in said


def test_failures_in_a_row_stop_the_worker_and_not_the_study(
    root: Path, here: Callable[..., tuple[int, str]]
) -> None:
    url = create(root).replace("///", f"///{root}/")
    config = load_study_config(root / "study.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "optuna_demix.search.objective.MixtureObjective.score",
            Mock(side_effect=RuntimeError("out of memory\nat 0x1")),
        )
        report = run_worker(config, storage=url, study_name="mix", progress=False)
    assert not report.healthy and report.failed == 3
    trials = load(root).trials
    assert [t.user_attrs[FAILURE_ATTR] for t in trials] == ["RuntimeError: out of memory"] * 3
    assert here("--n-trials", "1")[0] == 0
