"""Which proxy scores what in a whole study, and what a search starts from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest

from optuna_demix.attributes import FINGERPRINT_ATTR
from optuna_demix.cli import main
from optuna_demix.config import load_study_config
from optuna_demix.config.space import space_of
from optuna_demix.errors import ConfigError, TaskError
from optuna_demix.study import build_objective, build_probabilities
from optuna_demix.study.proxies import kept_prior_mean
from tests.study.test_probabilities import (  # noqa: F401
    CAPABILITIES,
    _private_dataset_cache,
    original,
    study,
)
from tests.tiny_study import write_study

pytestmark = pytest.mark.xdist_group("scoring")

WITH_GREEDY = {
    **CAPABILITIES,
    "writing": [
        {"task": "tiny_write", "metric": "exact_match"},
        {"task": "tiny_choice", "metric": "exact_match", "name": "greedy"},
    ],
}
W = np.array([0.2, 0.5, 0.3])


def objective_of(file: Path, **options):
    config = load_study_config(file)
    return build_objective(config, space_of(config), device="cpu", **options)


def test_auto_takes_each_benchmark_from_the_proxy_that_ranks_it_best(study: Path) -> None:  # noqa: F811
    write_study(study.parent, capabilities=WITH_GREEDY, proxy="auto")
    objective, fingerprint = objective_of(study)
    scores = objective.score(W)
    mixed, merged = scores.probabilities, scores.merged
    assert "tiny_write/exact_match" not in mixed
    assert scores.benchmarks["tiny_prose/bits_per_byte"] == mixed["tiny_prose/bits_per_byte"]
    assert scores.benchmarks["tiny_choice/acc_norm"] == pytest.approx(
        0.5 * (mixed["tiny_choice/acc_norm"] + merged["tiny_choice/acc_norm"])
    )
    assert scores.benchmarks["tiny_write/exact_match"] == merged["tiny_write/exact_match"]
    assert fingerprint["proxy"]["shares"] == {
        "tiny_prose/bits_per_byte": 1.0,
        "tiny_code/bits_per_byte": 1.0,
        "tiny_choice/acc_norm": 0.5,
    }


def test_merged_scores_are_those_of_a_study_of_merged_proxies(study: Path) -> None:  # noqa: F811
    write_study(study.parent, capabilities=CAPABILITIES, proxy="auto")
    both = objective_of(study)[0].score(W)
    alone = objective_of(study, proxy="merged")[0].score(W)
    assert both.merged == alone.benchmarks
    assert alone.merged == alone.probabilities == {}


def test_a_study_of_written_texts_alone_is_merged(study: Path) -> None:  # noqa: F811
    written = {"writing": [{"task": "tiny_write", "metric": "exact_match"}]}
    write_study(study.parent, capabilities=written, proxy="auto")
    objective, fingerprint = objective_of(study)
    assert objective.probabilities is None and "proxy" not in fingerprint
    assert objective.score(W).benchmarks.keys() == {"tiny_write/exact_match"}
    write_study(study.parent, capabilities=written, proxy="probabilities")
    with pytest.raises(TaskError, match="tiny_write/exact_match"):
        objective_of(study)


def test_a_study_of_smooth_scores_lets_go_of_the_model(study: Path) -> None:  # noqa: F811
    smooth = {"all": [{"task": "tiny_prose", "metric": "bits_per_byte"}]}
    write_study(study.parent, capabilities=smooth, proxy="auto")
    objective, _ = objective_of(study)
    assert objective.model is None and objective.scorer is None
    assert np.isfinite(list(objective.score(W).benchmarks.values())).all()
    both = objective_of(study, merge_always=True)[0].score(W)
    assert both.benchmarks == objective.score(W).benchmarks
    assert both.merged.keys() == both.probabilities.keys()


def test_what_was_kept_scores_without_torch_and_lm_eval(study: Path) -> None:  # noqa: F811
    write_study(study.parent, capabilities=CAPABILITIES, proxy="auto")
    config = load_study_config(study)
    space = space_of(config)
    _, fingerprint = build_objective(config, space, device="cpu")
    points = space.sample(5, np.random.default_rng(0))
    expected = build_probabilities(config, space, device="cpu").scores(points)
    script = f"""
import json, sys
import numpy as np
from optuna_demix.config import load_study_config
from optuna_demix.config.space import space_of
from optuna_demix.study.probabilities import find_probabilities
config = load_study_config({str(study)!r})
space = space_of(config)
facts = json.loads({json.dumps(json.dumps(fingerprint))})
proxy = find_probabilities(
    config, space, facts["proxy"]["probabilities"], facts["components"]
)
points = space.sample(5, np.random.default_rng(0))
assert not {{"torch", "lm_eval", "transformers"}} & set(sys.modules), "it needs them"
print(json.dumps(proxy.scores(points).tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(json.loads(done.stdout), expected, rtol=1e-12)


@pytest.mark.parametrize("damage", ["row missing", "functions cut short"])
def test_what_is_not_whole_is_not_found(study: Path, damage: str) -> None:  # noqa: F811
    write_study(study.parent, capabilities=CAPABILITIES, proxy="auto")
    config = load_study_config(study)
    space = space_of(config)
    _, fingerprint = build_objective(config, space, device="cpu")
    own = optuna.create_study()
    own._storage.set_study_system_attr(own._study_id, FINGERPRINT_ATTR, fingerprint)
    assert kept_prior_mean(config, space, own) is not None
    (folder,) = (study.parent / "run" / "probabilities").iterdir()
    if damage == "row missing":
        next(folder.glob("*.npy")).unlink()
    else:
        file = folder / "functions.npz"
        file.write_bytes(file.read_bytes()[:100])
    assert kept_prior_mean(config, space, own) is None
    # A worker makes it again.
    objective_of(study)
    assert kept_prior_mean(config, space, own) is not None


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"merging": {"method": "karcher"}}, "merging.method"),
        ({"sampler": {"schedule": "demix"}}, "sampler.schedule"),
    ],
)
def test_fields_that_ask_for_merges(study: Path, fields: dict, field: str) -> None:  # noqa: F811
    write_study(study.parent, capabilities=CAPABILITIES, proxy="auto", **fields)
    assert load_study_config(study).resolved_proxy == "merged"
    write_study(study.parent, capabilities=CAPABILITIES, proxy="probabilities", **fields)
    with pytest.raises(ConfigError, match=f"proxy: 'probabilities' merges nothing, but {field}"):
        load_study_config(study)


def test_workers_search_both_proxies_and_recommend_shows_them(
    study: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study(study.parent, capabilities=CAPABILITIES, proxy="auto")
    storage = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(
        storage=storage, study_name="both", directions=["maximize"] * len(CAPABILITIES)
    )
    where = ["--storage", storage, "--study-name", "both", "--device", "cpu", "--no-progress"]
    assert main(["worker", str(study), *where, "--n-trials", "6", "--no-dashboard"]) == 0
    trials = optuna.load_study(storage=storage, study_name="both").trials
    assert len(trials) == 6
    for trial in trials:
        name = "tiny_choice/acc_norm"
        merged, mixed = (trial.user_attrs[f"{kind}:{name}"] for kind in ("merged", "probability"))
        assert trial.user_attrs[f"score:{name}"] == pytest.approx(0.5 * (merged + mixed))
    capsys.readouterr()
    assert main(["recommend", str(study), *where, "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "merged" in shown and "probabilities" in shown
