"""``optuna-demix check``: what it says of a file that cannot be searched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from optuna_demix.cli import main
from optuna_demix.errors import DemixError
from tests.tiny_study import write_study, write_task

STUDY: dict[str, Any] = {
    "components": ["web", "code", "math"],
    "datasets": {"web": {"tokens": 10**9}, "code": {"tokens": 10**9}, "math": {"tokens": 10**7}},
    "capabilities": {"all": [{"task": "piqa", "metric": "acc"}]},
}


@pytest.mark.parametrize(
    ("mixture", "named"),
    [
        ({"upper": 0.3}, ["upper bound"]),
        ({"min_weight": 0.05, "upper": {"code": 0.02}}, ["min_weight", "'code'", "0.02"]),
        ({"budget": 10**9, "max_epochs": 1, "min_weight": 0.05}, ["min_weight", "'math'", "0.01"]),
        ({"budget": 10**9, "max_epochs": 1, "lower": {"math": 0.5}}, ["'math'"]),
        ({"lower": {"mth": 0.5}}, ["did you mean 'math'"]),
    ],
    ids=[
        "no mixture",
        "a bound below the minimum",
        "a cap below the minimum",
        "a cap below a bound",
        "a wrong name",
    ],
)
def test_what_excludes_all_mixtures_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mixture: dict[str, Any], named: list[str]
) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**STUDY, "mixture": mixture}))
    assert main(["check", str(tmp_path / "study.yaml"), "--no-tasks"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert "study.yaml: mixture: " in shown.err
    assert all(word in shown.err for word in named), shown.err


@pytest.mark.parametrize(
    ("sampler", "named"),
    [
        ({"schedule": "demix", "schedule_sizes": [0]}, "sampler.schedule_sizes.0"),
        ({"exploration": -1}, "sampler.exploration"),
        ({"kl": float("inf")}, "sampler.kl"),
    ],
)
def test_a_wrong_option_of_the_sampler_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sampler: dict[str, Any], named: str
) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**STUDY, "sampler": sampler}))
    assert main(["check", str(tmp_path / "study.yaml"), "--no-tasks"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and named in shown.err


def _config_of_math(**fields: Any) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        file = root / "run" / "models" / "math" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


def _study(**fields: Any) -> Callable[[Path], None]:
    return lambda root: (write_study(root, **fields), None)[1]


def _truncate(root: Path) -> None:
    file = root / "run" / "models" / "math" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def _forget_tokenizers(root: Path) -> None:
    for file in root.glob("run/models/*/tokenizer.json"):
        file.unlink()


def _directionless(root: Path) -> None:
    write_task(root / "tasks", "own", "a text")
    file = root / "tasks" / "own.yaml"
    task = yaml.safe_load(file.read_text())
    (root / "tasks" / "own.py").write_text("def score(doc, results):\n    return {'mine': 1.0}\n")
    del task["metric_list"]
    text = yaml.safe_dump(task) + "process_results: !function own.score\n"
    file.write_text(text)
    write_study(root, capabilities={"all": [{"task": "tiny_own", "metric": "mine"}]})


def _talkative(root: Path) -> None:
    file = root / "tasks" / "prose.yaml"
    task = yaml.safe_load(file.read_text())
    task |= {"output_type": "generate_until", "metric_list": [{"metric": "exact_match"}]}
    file.write_text(yaml.safe_dump({**task, "generation_kwargs": {"max_gen_toks": 32}}))
    write_study(root, capabilities={"all": [{"task": "tiny_prose", "metric": "exact_match"}]})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_truncate, ["component 'math'", "model.safetensors: truncated"]),
        (_config_of_math(rms_norm_eps=0.5), ["component 'math'", "'rms_norm_eps' is 0.5"]),
        (_forget_tokenizers, ["component 'prose'", "no tokenizer"]),
        (
            _study(components={"prose": {}, "far": {"path": "nowhere"}}),
            ["components.far: no directory", "nowhere"],
        ),
        (
            _study(merging={"method": "task_arithmetic"}),
            ["base: no directory", "'task_arithmetic'"],
        ),
        (_directionless, ["task 'tiny_own'", "give benchmark 'tiny_own/mine' higher_is_better"]),
        (_talkative, ["task 'tiny_prose'", "32 tokens", "max_length 32"]),
    ],
    ids=[
        "truncated weights",
        "another model",
        "no tokenizer",
        "no component",
        "no base",
        "no direction",
        "no room for a prompt",
    ],
)
def test_what_a_worker_would_refuse_is_one_line(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
    named: list[str],
) -> None:
    change(root)
    assert main(["check", str(root / "study.yaml")]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert all(word in shown.err for word in named), shown.err


def test_what_a_worker_would_take_passes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(root / "study.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "the components fit together, 7,728 parameters each" in shown
    # 7,872 elements with their padding, in one block of three components in float32.
    assert "arena: 94.5 kB on disk" in shown
    assert "each worker: 31.5 kB for the model and, on a GPU, 94.5 kB" in shown
    assert "189 kB of buffers" in shown


@pytest.mark.parametrize(
    ("device_map", "said"),
    [
        (
            {"": 0, "model.layers.0.mlp": "cpu"},
            [
                "each worker over its devices (",
                "cuda:0: 31.5 kB for the model, 94.5 kB for its part of the arena or 189 kB of b",
                "cpu: 31.5 kB for the model\n",
            ],
        ),
        ("auto", ["over 2 equal devices (", "over 4 equal devices (", "cuda:1: 31.5 kB for the"]),
    ],
)
def test_memory_is_told_for_each_device_of_a_map(
    root: Path, capsys: pytest.CaptureFixture[str], device_map: Any, said: list[str]
) -> None:
    _study(scoring={"include_path": "tasks", "device_map": device_map})(root)
    assert main(["check", str(root / "study.yaml"), "--no-tasks"]) == 0
    shown = capsys.readouterr().out
    assert all(words in shown for words in said), shown


def test_a_map_that_does_not_fit_the_model_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _study(scoring={"include_path": "tasks", "device_map": {"": 0, "model.layer.1": 1}})(root)
    assert main(["check", str(root / "study.yaml"), "--no-tasks"]) == 2
    assert "device_map: no module 'model.layer.1'; did you mean" in capsys.readouterr().err


def test_a_file_can_be_checked_where_nothing_merges(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise DemixError("merging needs torch")

    monkeypatch.setattr("optuna_demix.study.components.require_merging", missing)
    assert main(["check", str(root / "study.yaml"), "--no-tasks"]) == 0
    assert "components not checked: merging needs torch" in capsys.readouterr().out


def test_a_disk_without_room_for_the_arena_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert main(["check", str(root / "study.yaml"), "--no-tasks"]) == 2
    shown = capsys.readouterr()
    assert "components.arena: needs " in shown.err and "disk has 1,000 free" in shown.err


def test_components_that_are_to_be_trained_need_not_be_there(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / "run" / "models" / "math")
    assert main(["check", str(root / "study.yaml"), "--no-tasks"]) == 2
    assert "components.math: no directory" in capsys.readouterr().err
    training = {"tokenizer": "tokenizer", "component": {"tokens": 100, "learning_rate": 0.1}}
    write_study(root, training=training)
    assert main(["check", str(root / "study.yaml"), "--no-tasks"]) == 0
    assert "(not there yet)" in capsys.readouterr().out
