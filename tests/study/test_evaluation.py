"""What a study file says reaches the scorer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from optuna_demix.config import load_study_config
from optuna_demix.config.space import space_of
from optuna_demix.errors import DemixError
from optuna_demix.scoring import VllmSettings
from optuna_demix.study.evaluation import build_objective, build_scorer, check_benchmarks
from tests.tiny_study import write_study

SETTINGS: dict[str, Any] = {
    "num_fewshot": 2,
    "limit": 0.5,
    "apply_chat_template": True,
    "system_instruction": "be wise",
    "fewshot_as_multiturn": False,
    "gen_kwargs": {"max_gen_toks": 8},
    "metadata": {"max_seq_lengths": [4096]},
    "think_end_token": "</think>",
}


def test_every_setting_reaches_the_scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def scorer(benchmarks: Any, *_: Any, **arguments: Any) -> None:
        seen.update(arguments, benchmarks=benchmarks)

    monkeypatch.setattr("optuna_demix.scoring.HarnessScorer", scorer)
    benchmark = {"task": "t", "metric": "acc", "higher_is_better": False}
    own = {**SETTINGS, "limit": 7, "gen_kwargs": {"until": ["."]}}
    scoring = {"include_path": ["tasks", "more"], "add_bos_token": True, **SETTINGS}
    scoring["generation"] = "hf"
    changes = {"scoring": scoring, "capabilities": {"all": [{**benchmark, **own}]}}
    config = load_study_config(write_study(tmp_path, **changes))
    model: Any = SimpleNamespace(model=None, tokenizer=None)
    build_scorer(config, model, report=lambda line: None)
    assert {name: seen[name] for name in SETTINGS} == SETTINGS
    assert seen["add_bos_token"] is True
    assert seen["generation"] == "hf"
    assert seen["include_path"] == [tmp_path / "tasks", tmp_path / "more"]
    (found,) = seen["benchmarks"]
    assert {name: getattr(found, name) for name in own} == own
    assert found.higher_is_better is False


def test_directions_that_only_code_may_know_are_told_before_models_are_loaded(
    tmp_path: Path,
) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "own.yaml").write_text("task: own\nclass: !function code.Own\n")
    (tasks / "code.py").write_text("class Own: ...\n")
    benchmark = {"task": "own", "metric": "hits"}
    config = load_study_config(write_study(tmp_path, capabilities={"all": [benchmark]}))
    (note,) = check_benchmarks(config)
    assert note.startswith("own/hits: only the code of task 'own'") and "higher_is_better" in note
    told = {**benchmark, "higher_is_better": True}
    assert (
        check_benchmarks(load_study_config(write_study(tmp_path, capabilities={"all": [told]})))
        == []
    )


def test_a_missing_vllm_is_found_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optuna_demix.scoring.vllm_extra.vllm_version", lambda: None)
    config = load_study_config(write_study(tmp_path, scoring={"generation": "vllm"}))
    with pytest.raises(DemixError, match=r"vllm is not installed; pip install"):
        check_benchmarks(config)
    with pytest.raises(DemixError, match=r"vllm is not installed; pip install"):
        build_objective(config, space_of(config))


def test_what_vllm_may_use_reaches_the_scorer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        "optuna_demix.scoring.HarnessScorer", lambda *_, **given: seen.update(given)
    )
    merged: list[Any] = []
    scoring = {"generation": "vllm", "vllm": {"kv_cache_memory_bytes": 2e9, "max_num_seqs": 7}}
    config = load_study_config(write_study(tmp_path, scoring=scoring))
    model: Any = SimpleNamespace(model=None, tokenizer=None, names=("a", "b"), merge=merged.append)
    build_scorer(config, model, report=lambda line: None)
    assert (seen["generation"], seen["vllm"]) == ("vllm", VllmSettings(2 * 10**9, 7))
    assert merged == [[0.5, 0.5]]  # it is tried on a real proxy
