"""Tasks whose metrics run code, as HumanEval's and MBPP's do, for any tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: problems.jsonl}}}}
unsafe_code: true
output_type: generate_until
test_split: test
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{test}}}}"
generation_kwargs: {{until: [], max_gen_toks: 6, do_sample: {sampled}, temperature: {heat}}}
repeats: {repeats}
filter_list:
  - name: programs
    filter: [{{function: custom, filter_fn: !function helpers.programs}}]
{metrics}
"""

_PASS_AT_K = """
metric_list:
  - {{metric: !function helpers.pass_at_k, aggregation: mean, higher_is_better: true, k: {k}}}
"""

_EXECUTED = """
metric_list:
  - metric: !function helpers.executed
    aggregation: !function helpers.root_mean_square
    higher_is_better: true
"""

_PROCESSED = """
process_results: !function helpers.processed
metric_list:
  - {metric: right, aggregation: mean, higher_is_better: true}
  - {metric: wrong, aggregation: mean, higher_is_better: false}
"""

_HELPERS = """
import evaluate

metric = evaluate.load("code_eval")
metric.compute(references=["assert add(2, 3) == 5"], predictions=[["add = max"]], k=[1])


def programs(resps, docs):
    # Which candidate a text stands for hangs on all of its letters.
    return [
        [doc["candidates"][sum(map(ord, r)) % len(doc["candidates"])] for r in resp]
        for resp, doc in zip(resps, docs)
    ]


def pass_at_k(references, predictions, k):
    return metric.compute(references=references, predictions=predictions, k=k)[0]


def runs(program):
    try:
        exec(program, {})
    except Exception:
        return False
    return True


def executed(references, predictions):
    ((program, *_),) = predictions
    return runs(program + "\\n" + references[0]) * 0.75


def root_mean_square(values):
    return (sum(value**2 for value in values) / len(values)) ** 0.5


def processed(doc, results):
    doc["spoilt"] = True
    right = runs(results[0][0] + "\\n" + doc["test"])
    return {"right": right, "wrong": 1 - right}
"""

_LOST = "import os\nos._exit(0)"

TASKS = {
    "coded": ("false", 0.0, 1, _PASS_AT_K.format(k=[1])),
    "several": ("true", 1.0, 3, _PASS_AT_K.format(k=[1, 2, 3])),
    "executed": ("false", 0.0, 1, _EXECUTED),
    "processed": ("false", 0.0, 1, _PROCESSED),
}


def problems(*, lost: bool = False) -> list[dict[str, Any]]:
    right, wrong = "def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"
    odd = ["def add(a, b)", "import os\nos.remove('x')", right + "\nprint(add(2, 3))"]
    return [
        {
            "prompt": word,
            "test": f"assert add({number}, 3) == {number + 3}",
            "candidates": ([_LOST] if lost and number % 2 else [right, wrong, *odd[: number % 4]]),
        }
        for number, word in enumerate(["moon", "the river", "old stone", "a bird", "cold", "road"])
    ]


def write_coding_tasks(folder: Path, *, lost: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    rows = "".join(json.dumps(row) + "\n" for row in problems(lost=lost))
    (folder / "problems.jsonl").write_text(rows)
    (folder / "helpers.py").write_text(_HELPERS)
    for name, (sampled, heat, repeats, metrics) in TASKS.items():
        (folder / f"{name}.yaml").write_text(
            _TASK.format(name=name, sampled=sampled, heat=heat, repeats=repeats, metrics=metrics)
        )
    return folder
