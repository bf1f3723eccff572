"""A plan's digest covers what moves a score, on every host alike, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optuna_demix.scoring import Benchmark, HarnessScorer
from optuna_demix.scoring.digest import digest
from optuna_demix.scoring.source import reachable_source

from tests.scoring.samples import write_tasks  # isort: skip

pytestmark = pytest.mark.xdist_group("scoring")

HELPED = '''
import re
from collections import Counter

ARTICLES = re.compile("the|a")
"""What is left out."""

def cut(text):
    return ARTICLES.sub("", text)

def shortened(by):
    def length(doc, results):
        return {"length": len(cut(results[0])) - by}
    return length

class Base:
    factor = 1

class Scaled(Base):
    def __call__(self, x):
        return self.factor * len(cut(x))

length = shortened(by=2)

def unused(x):
    return Counter(x)
'''


@pytest.fixture
def folder(tmp_path):
    folder = write_tasks(tmp_path / "tasks")
    (folder / "helpers.py").write_text((folder / "helpers.py").read_text() + HELPED)
    return folder


@pytest.fixture
def plan(folder, tokenizer, model):
    def digested(benchmark, where=folder):
        return HarnessScorer(
            [benchmark], model, tokenizer, include_path=where, limit=2
        ).plan_digest()

    return digested


def changed(folder, old, new, *, name="helpers.py"):
    """A copy of the tasks with one text replaced by another."""
    copy = folder.with_name(f"{folder.name}-{len(list(folder.parent.iterdir()))}")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new))
    return copy


def test_code_that_a_metric_reaches(folder, plan):
    wanted = Benchmark("dream", "length")
    first = plan(wanted)
    assert first == plan(wanted, changed(folder, "return Counter(x)", "return x"))
    for old, new in (
        ('sub("", text)', 'sub("o", text)'),  # a helper
        ('"the|a"', '"the|an"'),  # what the helper reads
        ("shortened(by=2)", "shortened(by=3)"),  # what made the function
    ):
        assert plan(wanted, changed(folder, old, new)) != first


def test_code_of_a_tasks_own_class(folder, plan):
    wanted = Benchmark("own", "hit")
    first = plan(wanted)
    other = changed(folder, "target in results[0]}", "target not in results[0]}")
    assert plan(wanted, other) != first


def test_a_module_beside_it_is_followed_and_others_are_not(tmp_path, monkeypatch):
    (tmp_path / "beside_here.py").write_text(
        "import far_here\ndef helper(x):\n    return x + LIMIT + far_here.FAR\n\nLIMIT = 3\n"
    )
    (tmp_path / "far_here.py").write_text("import beside_here\nFAR = 9\n")
    (tmp_path / "entry_here.py").write_text(
        "import json\nimport beside_here\nfrom beside_here import helper as h\n"
        "def metric(x):\n    return json.dumps(h(x))\n"
        "def other(x):\n    return beside_here.helper(x)\n"
        "shout = lambda x: h(x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import entry_here

    text = "\n".join(reachable_source(entry_here.metric))
    assert "return json.dumps" in text and "LIMIT = 3" in text and "JSONEncoder" not in text
    assert "FAR = 9" in text
    assert "LIMIT = 3" in "\n".join(reachable_source(entry_here.other))
    assert "LIMIT = 3" in "\n".join(reachable_source(entry_here.shout))
    assert str(tmp_path) not in text


def test_classes_with_their_bases(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "helpers", raising=False)
    import helpers

    text = "\n".join(reachable_source(helpers.Scaled))
    assert "factor = 1" in text and "ARTICLES = " in text and "unused" not in text
    monkeypatch.delitem(sys.modules, "helpers")


def test_what_moves_no_score(folder, plan):
    """Places, names for people and how documents come about, where the documents are the same."""
    wanted = Benchmark("letters", "acc")
    first = plan(wanted)
    moved = changed(folder, "data/letters.jsonl", "data/elsewhere.jsonl", name="letters.yaml")
    shutil.move(moved / "data" / "letters.jsonl", moved / "data" / "elsewhere.jsonl")
    assert plan(wanted, moved) == first
    described = (
        "task: letters\ntag: [some]\ntask_alias: Letters\nprocess_docs: !function helpers.cut"
    )
    same = changed(folder, "task: letters", described, name="letters.yaml")
    text = (same / "helpers.py").read_text()
    (same / "helpers.py").write_text(f"{text}\ndef cut(docs):\n    return docs\n")
    assert plan(wanted, same) == first
    spoken = changed(
        folder, "task: letters", "task: letters\ndescription: Say", name="letters.yaml"
    )
    assert plan(wanted, spoken) != first


def test_how_texts_are_generated(folder, plan, model):
    texts, choices = Benchmark("say", "exact_match,whole"), Benchmark("letters", "acc")
    first = plan(texts), plan(choices)
    model.generation_config.repetition_penalty = 1.3
    other = plan(texts), plan(choices)
    assert other[0] != first[0] and other[1] == first[1]
    model.generation_config.repetition_penalty = None
    model.generation_config.eos_token_id = 5
    assert plan(texts) not in (first[0], other[0])


def test_long_arrays_count_whole():
    import numpy as np

    a, b = np.zeros(5000), np.zeros(5000)
    b[2500] = 1
    assert digest(a) != digest(b)


SHUFFLED = """
task: shuffled
dataset_path: json
dataset_kwargs: {data_files: {train: data/choice_train.jsonl, test: data/choice.jsonl}}
output_type: multiple_choice
training_split: train
test_split: test
process_docs: !function shuffling.process
doc_to_text: "{{question}}"
doc_to_target: gold
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
SHUFFLING = """
import random

def process(docs):
    def one(doc):
        right, choices = doc["choices"][doc["gold"]], list(doc["choices"])
        random.shuffle(choices)
        return {**doc, "choices": choices, "gold": choices.index(right)}
    return docs.map(one).shuffle()
"""
CODE = """
import json, os, random, sys
from optuna_demix.scoring import Benchmark, HarnessScorer
from tests.scoring.samples import WORDS, make_model
from tests.tiny_models import byte_tokenizer
tasks, spoil = sys.argv[1:]
if spoil == "yes":  # another run has been here before, under another seed
    from optuna_demix.scoring.harness import Catalog
    from pathlib import Path
    random.seed(99)
    Catalog([Path(tasks)]).load("shuffled")
scorer = HarnessScorer(
    [Benchmark("shuffled", "acc"), Benchmark("dream", "length")],
    make_model(), byte_tokenizer([" ".join(WORDS)] * 3),
    include_path=tasks, batch_size=4, num_fewshot=2,
)
documents = [i.doc["choices"] for i in scorer._suite.asked() if "choices" in i.doc]
print(json.dumps([documents, scorer.plan_digest(), scorer.score()]))
"""


@pytest.mark.slow
def test_documents_that_are_shuffled_are_the_same_everywhere(tmp_path, tokenizer, oracle, model):
    """As GPQA's are: ``datasets`` keeps what a function once drew, under whatever seed."""
    folder = write_tasks(tmp_path / "shuffled")
    (folder / "shuffled.yaml").write_text(SHUFFLED)
    (folder / "shuffling.py").write_text(SHUFFLING)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, str(folder), spoil],
            env={
                **environment,
                "PYTHONHASHSEED": seed,
                "HF_DATASETS_CACHE": str(tmp_path / f"cache {seed}"),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, spoil in (("1", "no"), ("2", "yes"))
    ]
    first, second = (json.loads(host.communicate()[0]) for host in hosts)
    assert first == second
    assert first[0] != sorted(first[0])
    peer = oracle(model, ["shuffled", "dream"], include_path=folder, num_fewshot=2)
    assert first[2]["shuffled/acc"] == peer["shuffled"]["acc,none"]
    assert first[2]["dream/length"] == -peer["dream"]["length,first"]
