"""The bill of a study: what it counts, and what it says that it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from optuna_demix.bill import Bill, estimate_bill, find_gpu
from optuna_demix.bill.words import bill_lines
from optuna_demix.cli import main
from optuna_demix.config import load_study_config
from tests.tiny_models import LLAMA
from tests.tiny_study import make_tokenizer, write_study

pytest.importorskip("torch")

TRAINING: dict[str, Any] = {
    "tokenizer": "tokenizer",
    "model": {**LLAMA, "model_type": "llama"},
    "sequence_length": 8,
    "batch_size": 4,
    "base": {"tokens": 3200, "learning_rate": 0.1},
    "component": {"tokens": 320, "learning_rate": 0.1},
}


def write_texts(root: Path, **fields: Any) -> None:
    """A task with four texts beside those of the study."""
    task = yaml.safe_load((root / "tasks" / "prose.yaml").read_text())
    task |= {"task": "tiny_texts", "output_type": "generate_until", "doc_to_text": "{{page}}"}
    task |= {"generation_kwargs": {"max_gen_toks": 5}, "metric_list": [{"metric": "exact_match"}]}
    task |= {"doc_to_target": "x", **fields}
    (root / "tasks" / "texts.yaml").write_text(yaml.safe_dump(task))


def bill_of(root: Path, **options: Any) -> Bill:
    from optuna_demix.study.components import check_components

    config = load_study_config(root / "study.yaml")
    return estimate_bill(config, find_gpu("H100"), components=check_components(config), **options)


def text_of(bill: Bill) -> str:
    lines = bill_lines(bill)
    assert max(map(len, lines)) <= 80
    return " ".join(" ".join(lines).split())


def test_what_is_counted_is_what_a_worker_gives_its_model(root: Path) -> None:
    from optuna_demix.config.space import space_of
    from optuna_demix.study.evaluation import build_objective

    config = load_study_config(root / "study.yaml")
    objective, _ = build_objective(config, space_of(config), device="cpu")
    real = objective.scorer.workload()  # type: ignore[union-attr]
    trial = bill_of(root).trial
    assert trial is not None
    assert (trial.requests, trial.read) == (real.n_requests, real.read) == (12, 380)


def test_texts_are_counted_with_prompts_limits_and_repeats(root: Path) -> None:
    write_texts(root)
    sampled = {"gen_kwargs": {"do_sample": True, "temperature": 1.0, "max_gen_toks": 7}}
    task = {"task": "tiny_texts", "metric": "exact_match"}
    write_study(root, capabilities={"all": [task]})
    plain = bill_of(root).trial
    assert plain is not None and (plain.texts, plain.written) == (4, 20)
    assert plain.prompts == 4 * (32 - 5)  # cut on the left to leave room
    assert plain.read == plain.likelihoods == 0 < plain.writing

    write_texts(root, repeats=3, filter_list=[_keeps_all()])
    write_study(root, capabilities={"all": [{**task, "limit": 2, **sampled}]})
    drawn = bill_of(root).trial
    assert drawn is not None and (drawn.texts, drawn.written) == (6, 42)


def _keeps_all() -> dict[str, Any]:
    functions = [{"function": "take_first_k", "k": 3}, {"function": "majority_vote"}]
    return {"name": "all", "filter": [*functions, {"function": "take_first"}]}


def test_screened_texts_are_paid_for_by_the_best_share(root: Path) -> None:
    write_texts(root)
    task = {"task": "tiny_texts", "metric": "exact_match"}
    scoring = {"include_path": "tasks", "max_length": 32, "screen": {"keep": 0.5}}
    write_study(root, capabilities={"all": [task]}, scoring=scoring)
    bill = bill_of(root, n_trials=64)
    assert bill.trial is not None and bill.keep == 0.5
    assert bill.trial.writing == 0.0 < bill.trial.screened
    assert bill.trial.read > 0  # the right answers, which every trial is scored on
    assert "screened texts" in text_of(bill)


@pytest.mark.parametrize(
    ("proxy", "merges", "scored_once"),
    [("merged", True, False), ("auto", False, True), ("probabilities", False, True)],
)
def test_token_probabilities_are_paid_for_once(
    root: Path, proxy: str, merges: bool, scored_once: bool
) -> None:
    write_study(root, proxy=proxy)
    bill = bill_of(root)
    assert (bill.merges, bill.once > 0) == (merges, scored_once)
    assert (bill.trial is not None) == merges
    assert ("no GPU" in text_of(bill)) != merges


def test_models_to_train_are_paid_for_unless_they_are_there(root: Path) -> None:
    make_tokenizer().save_pretrained(root / "tokenizer")
    shutil.rmtree(root / "run" / "models" / "math")
    write_study(root, training=TRAINING)
    bill = bill_of(root, references=2)
    assert [(run.kind, run.name, run.tokens) for run in bill.runs] == [
        ("base", "base", 3200),
        ("component", "prose", 0),
        ("component", "code", 0),
        ("component", "math", 320),
        ("reference", "references/0", 320),
        ("reference", "references/1", 320),
    ]
    assert bill.shape is not None and bill.shape.parameters == 7728
    assert bill.runs[0].flops(bill.shape) == 3 * 3200 * (2 * 7728 + 4 * 16 * 8)
    said = text_of(bill)
    assert "training is in float32; training.bf16 would be 15 times as fast" in said
    assert "2 components there" in said
    assert "1 component 320" in said and "2 references 640" in said

    models = root / "run" / "models"
    shutil.copytree(models / "prose", models / "base")
    less = bill_of(root)
    assert less.runs[0].tokens == 0
    assert less.training_seconds is not None and bill.training_seconds is not None
    assert less.training_seconds < bill.training_seconds


def test_components_that_are_given_need_no_training(root: Path) -> None:
    make_tokenizer().save_pretrained(root / "tokenizer")
    models = root / "run" / "models"
    paths = {name: {"path": str(models / name)} for name in ("prose", "code")}
    write_study(root, training=TRAINING, components={**paths, "late": {}})
    bill = bill_of(root)
    assert [run.name for run in bill.runs] == ["base", "late"]
    assert set(bill.given) == {"prose", "code"}
    assert "2 components given" in text_of(bill)


def test_a_model_that_is_not_trained_yet_is_read_from_the_study(root: Path) -> None:
    there = bill_of(root)
    make_tokenizer().save_pretrained(root / "tokenizer")
    shutil.rmtree(root / "run" / "models")
    write_study(root, training=TRAINING)
    to_come = bill_of(root)
    assert (to_come.shape, to_come.memory) == (there.shape, there.memory)
    assert to_come.trial == there.trial


@pytest.mark.parametrize("where", ["base", "cache"])
def test_a_model_may_lie_in_the_base_or_in_the_hubs_cache(
    root: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    there = bill_of(root)
    (root / "run" / "models" / "prose").rename(root / "found")
    if where == "base":
        shutil.rmtree(root / "run" / "models")
        training = {**TRAINING, "tokenizer": "found", "base": None, "model": None}
        write_study(root, base="found", training=training)
    else:
        found = str(root / "found" / "config.json")
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: found)
        write_study(root, components={name: {"hub": f"nobody/{name}"} for name in "abc"})
    bill = bill_of(root)
    assert (bill.shape, bill.memory, bill.trial) == (there.shape, there.memory, there.trial)


def test_benchmarks_without_data_are_named_and_the_others_counted(root: Path) -> None:
    fields = {"dataset_path": "nobody/nothing", "dataset_kwargs": {}}
    task = yaml.safe_load((root / "tasks" / "code.yaml").read_text())
    (root / "tasks" / "code.yaml").write_text(yaml.safe_dump({**task, **fields}))
    bill = bill_of(root)
    assert bill.uncounted == {"tiny_code/bits_per_byte": "no data on this host"}
    assert bill.trial is not None and bill.trial.requests == 8
    assert "at least" in text_of(bill)
    assert "not counted: tiny_code/bits_per_byte (no data on this host)" in text_of(bill)


def test_what_is_nowhere_on_this_host_is_not_guessed(root: Path) -> None:
    write_study(root, components={name: {"hub": f"nobody/{name}"} for name in ("web", "code")})
    bill = bill_of(root)
    assert bill.shape is bill.memory is bill.trial is bill.seconds is None
    assert "not known" in text_of(bill) and "note: the model is not known" in text_of(bill)
    assert json.loads(bill.to_json())["gpu_hours"] is None


def test_a_model_too_large_for_the_gpu_is_told(root: Path) -> None:
    config = load_study_config(root / "study.yaml")
    from optuna_demix.study.components import check_components

    components = check_components(config)
    tiny = find_gpu("1,1,0.00003")
    said = text_of(estimate_bill(config, tiny, components=components))
    assert "31.5 kB and does not fit into 1 × 1,1,0.00003; set scoring.device_map" in said
    write_study(root, scoring={"include_path": "tasks", "device_map": "auto"})
    config = load_study_config(root / "study.yaml")
    spread = estimate_bill(config, tiny, n_gpus=4, components=components)
    assert (spread.gpus_of_worker, spread.n_workers) == (2, 2)


def test_check_prints_the_bill(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = str(root / "study.yaml")
    assert main(["check", study, "--gpu", "a100", "--gpus", "8", "--no-tasks"]) == 0
    shown = capsys.readouterr().out
    assert "What it costs on 8 × A100, estimated:" in shown
    assert "note: tasks are left out" in " ".join(shown.split())
    assert main(["check", study, "--bill", "--json", "-"]) == 0
    bill = json.loads(capsys.readouterr().out)
    assert bill["trial"]["requests"] == 12 and bill["model"]["parameters"] == 7728
    assert main(["check", study, "--no-tasks"]) == 0
    assert "What it costs" not in capsys.readouterr().out


def test_a_wrong_gpu_is_refused_in_one_line(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(root / "study.yaml"), "--gpu", "H10"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert "--gpu: no GPU 'H10'; did you mean 'H100'?" in shown.err
