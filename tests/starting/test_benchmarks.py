"""Capabilities and metrics that follow from the names of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from optuna_demix.errors import InputError, TaskError
from optuna_demix.starting.benchmarks import Chosen, capability_of, choose_benchmarks
from tests.tiny_study import write_task

pytest.importorskip("lm_eval")


def _task(folder: Path, name: str, **fields: Any) -> None:
    """A task that differs from a tiny one in some fields."""
    write_task(folder, name, "a text ")
    file = folder / f"{name}.yaml"
    task = {**yaml.safe_load(file.read_text()), "task": name, **fields}
    file.write_text(yaml.safe_dump({k: v for k, v in task.items() if v is not None}))


@pytest.mark.parametrize(
    ("task", "tags", "capability"),
    [
        ("arc_easy", ["ai2_arc"], "general"),
        ("hellaswag", [], "general"),
        ("piqa", [], "general"),
        ("social_iqa", [], "general"),
        ("winogrande", [], "general"),
        ("humaneval_plus", [], "code"),
        ("mbpp", [], "code"),
        ("gsm8k", ["math_word_problems"], "math"),
        ("minerva_math500", [], "math"),
        ("asdiv", [], "math"),
        ("aime24", [], "math"),
        ("word_problems", ["math_word_problems"], "math"),
        ("mmlu_pro", [], "general"),
        ("niah_single_1", ["longcxt"], "long_context"),
        ("belebele_deu_Latn", [], "multilingual"),
        ("my_code", [], "code"),
        ("aftermath", [], "general"),
    ],
)
def test_a_task_measures_what_its_name_says(task: str, tags: list[str], capability: str) -> None:
    assert capability_of(task, tags) == capability


def test_all_tasks_of_a_folder_are_taken(tmp_path: Path) -> None:
    for name in ("my_prose", "my_code", "my_sums"):
        _task(tmp_path, name)
    found = choose_benchmarks(["arithmetic=my_sums", "my_prose", "my_code"], [tmp_path])
    assert found.by_capability == {
        "general": [Chosen("my_prose", "bits_per_byte")],
        "code": [Chosen("my_code", "bits_per_byte")],
        "arithmetic": [Chosen("my_sums", "bits_per_byte")],
    }
    every = choose_benchmarks([], [tmp_path]).by_capability
    assert [each.task for each in every["general"]] == ["my_prose", "my_sums"]


def test_the_metric_is_the_one_that_says_most(tmp_path: Path) -> None:
    strict = {"function": "regex", "regex_pattern": "x"}
    filters = [{"name": name, "filter": [strict]} for name in ("flexible-extract", "strict-match")]
    texts = {"output_type": "generate_until"}
    _task(
        tmp_path, "choice", output_type="multiple_choice", doc_to_choice=["a", "b"],
        metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}],
    )  # fmt: skip
    _task(tmp_path, "texts", metric_list=[{"metric": "exact_match"}], filter_list=filters, **texts)
    found = choose_benchmarks(["choice", "texts", "choice/acc"], [tmp_path])
    assert found.by_capability["general"] == [
        Chosen("choice", "acc_norm"),
        Chosen("texts", "exact_match,strict-match"),
        Chosen("choice", "acc"),
    ]


def test_a_function_that_returns_another_metric_is_known(tmp_path: Path) -> None:
    """As HumanEval, whose configuration names ``pass_at_k`` and whose function ``pass@1``."""
    (tmp_path / "own.py").write_text("def pass_at_k(references, predictions): return {}\n")
    _task(tmp_path, "programs", output_type="generate_until", metric_list=None, unsafe_code=True)
    file = tmp_path / "programs.yaml"
    listed = "metric_list:\n- metric: !function own.pass_at_k\n  higher_is_better: true\n"
    file.write_text(file.read_text() + listed)
    found = choose_benchmarks(["programs"], [tmp_path])
    assert found.unsafe == ("programs",)
    (chosen,) = found.by_capability["code"]
    assert (chosen.metric, chosen.higher_is_better) == ("pass@1", True)


def test_a_tag_stands_for_its_tasks(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _task(tmp_path, name, tag="mine")
    found = choose_benchmarks(["mine", "one"], [tmp_path])
    of_mine = [Chosen(name, "bits_per_byte", None, "of mine") for name in ("one", "two")]
    assert found.by_capability["general"] == of_mine
    assert found.notes == ["mine stands for one, two"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("=my_prose", "write TASK, TASK/METRIC or CAPABILITY=TASK"),
        ("math=", "write TASK, TASK/METRIC or CAPABILITY=TASK"),
        ("own", "none of its metrics .* name one, as own/METRIC"),
    ],
)
def test_what_cannot_be_a_benchmark_is_refused(tmp_path: Path, wanted: str, said: str) -> None:
    _task(tmp_path, "my_prose")
    (tmp_path / "score.py").write_text("def strange(items): return 0\n")
    _task(tmp_path, "own", metric_list=None)
    file = tmp_path / "own.yaml"
    file.write_text(file.read_text() + "metric_list:\n- metric: !function score.strange\n")
    with pytest.raises((InputError, TaskError), match=said):
        choose_benchmarks([wanted], [tmp_path])


def test_a_folder_without_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="--include-path .*: holds no lm-eval task"):
        choose_benchmarks([], [tmp_path])
    with pytest.raises(TaskError, match="is not a directory"):
        choose_benchmarks([], [tmp_path / "nowhere"])
