"""Single entries of an index of tasks are those of the whole index."""

from __future__ import annotations

import random
from pathlib import Path

import lm_eval.tasks
import pytest
from lm_eval.tasks._index import TaskIndex

from optuna_demix.scoring.harness.own_tasks import OwnTasks
from optuna_demix.scoring.harness.quiet import quiet

pytestmark = pytest.mark.xdist_group("scoring")

FILES = {
    "a/plain.yaml": "task: plain\ntag: [some, other]\ndoc_to_text: twice\n",
    "a/quoted.yaml": '"task": \'quoted\'\ntag: "some"\n',
    "a/twice.yaml": "task: twice\ntag:\n  - some\n",
    "b/twice.yaml": "task: twice\ntag: late\n",
    "b/group.yaml": "group: few\ntask: [plain, {task: twice}]\n",
    "b/some.yaml": "group: some\ntask: [plain]\n",
    "b/_base": "include: deep/_bottom\ntag: based\n",
    "b/deep/_bottom": "task: bottom\ntag: deep\n",
    "b/first.yaml": "include: _base\ntask: first\n",
    "b/second.yaml": "include: '_base'  # with a comment\n",
    "b/third.yaml": "include: [../a/plain.yaml, _base]\n",
    "b/fourth.yaml": "include:\n  - _base\ntask: fourth\n",
    "c/class.yaml": "task: classy\nclass: !function code.Task\n",
    "c/not.yaml": "task: [plain\n",
    "c/missing.yaml": "include: nowhere\ntask: missing\n",
    "c/circle.yaml": "include: circle.yaml\ntask: circle\n",
    "c/list.yaml": "- plain\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


def test_entries_are_those_of_the_index(folder):
    index = TaskIndex.build([folder])
    assert sorted(index) == sorted(
        "plain quoted twice few first bottom fourth classy some other based".split()
    )
    own = OwnTasks(folder)
    assert {name: own.entry(name) for name in index} == index
    for name in ("", "plai", "nowhere", "missing", "circle", "code.Task", "pl.in"):
        assert own.entry(name) is None


@pytest.mark.slow
def test_entries_of_lm_evals_own_tasks_are_those_of_its_index():
    root = Path(lm_eval.tasks.__file__).parent
    own = OwnTasks(root)
    with quiet():
        index = TaskIndex.build([root])
        several = [name for name, entry in index.items() if entry.kind.name in ("GROUP", "TAG")]
        draw = random.Random(0).sample
        for name in [*draw(sorted(index), 200), *draw(several, 200)]:
            assert own.entry(name) == index[name]
