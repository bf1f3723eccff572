"""Scores of tasks that run code are lm-eval's own, wherever the code runs."""

from __future__ import annotations

import functools
import logging
import math
import sys
from unittest import mock

import pytest

from optuna_demix.errors import TaskError
from optuna_demix.scoring import Benchmark, HarnessScorer, Screening
from optuna_demix.scoring.harness import confined
from optuna_demix.scoring.sandbox import Sandbox
from optuna_demix.scoring.sandbox import client as client_module

from tests.scoring.generation.samples import talker  # isort: skip
from tests.scoring.sandbox.boxes import need_a_sandbox  # isort: skip
from tests.scoring.sandbox.coding import write_coding_tasks  # isort: skip

pytestmark = pytest.mark.xdist_group("scoring")

UP = {"higher_is_better": True}
BENCHMARKS = [
    Benchmark("coded", "pass@1", **UP),
    Benchmark("several", "pass@1", **UP),
    Benchmark("several", "pass@2", **UP),
    Benchmark("several", "pass@3", **UP),
    Benchmark("executed", "executed"),
    Benchmark("processed", "right"),
]
ALLOWED = {"confirm_run_unsafe_code": True, "batch_size": 4}

PROGRAMS = [
    "x = 1",
    "assert False",
    "def f(",
    "import os\nos.remove('x')",
    "import os\nos.getcwd()",
    "import sys\nsys.exit(0)",
    "input()",
    "print('x' * 10**6)",
    "assert __name__ == 'builtins'",
    "import subprocess\nsubprocess.run(['true'])",
    "import psutil",
    "import tempfile\nopen('here', 'w').write('x')\nassert open('here').read() == 'x'",
    "def deep(n):\n    return n and deep(n - 1)\ndeep(900)",
    "def deep(n):\n    return n and deep(n - 1)\ndeep(1100)",
]


class Reference:
    """``code_eval`` in this process, of lm-eval's own parts."""

    def compute(self, references, predictions, k):
        from lm_eval.tasks.cruxeval import utils

        judge = utils.check_correctness
        programs = [
            [f"{one}\n{test}" for one in each]
            for each, test in zip(predictions, references, strict=True)
        ]
        with mock.patch.object(
            utils, "check_correctness", lambda program, timeout: passes(judge, program)
        ):
            return utils.pass_at_k(references, programs, k), {}


@functools.cache
def passes(judge, program):
    """Whether lm-eval lets a program pass; it starts two processes, so it is asked once."""
    return judge(program, timeout=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    need_a_sandbox()
    return write_coding_tasks(tmp_path_factory.mktemp("coding"))


@pytest.fixture(scope="module", autouse=True)
def _one_sandbox():
    """One for each folder of tasks: to start one takes a quarter of a second."""
    started = functools.cache(Sandbox)
    with mock.patch.object(confined, "Sandbox", lambda folders: started(tuple(folders))):
        yield


@pytest.fixture(autouse=True)
def _modules_anew():
    yield
    for name in [name for name in sys.modules if name.endswith("/helpers")]:
        del sys.modules[name]


def make(folder, tokenizer, benchmarks=BENCHMARKS, *, model=None, **options):
    return HarnessScorer(
        benchmarks, model or talker(), tokenizer, include_path=folder, **{**ALLOWED, **options}
    )


def test_scores_are_simple_evaluates(folder, tokenizer, oracle, monkeypatch):
    import evaluate

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "load", lambda name: Reference())
        names = list(dict.fromkeys(b.task for b in BENCHMARKS))
        results = oracle(talker(), names, include_path=folder, **ALLOWED)
        seeded = oracle(talker(), ["several"], include_path=folder, torch_random_seed=5, **ALLOWED)
    sys.modules.pop(str(folder / "helpers"))
    wanted, other = (
        {b.name: found[b.task][f"{b.metric},programs"] for b in BENCHMARKS}
        for found in (results, {**results, **seeded})  # the others are greedy
    )
    scorer = make(folder, tokenizer)
    assert scorer.score() == wanted
    assert scorer.score(seed=5) == other != wanted
    assert scorer.score() == wanted
    assert 0 < wanted["several/pass@1"] < wanted["several/pass@3"] < 1
    assert len(scorer.items()["several/pass@2"]) == 6


def test_programs_pass_as_they_do_in_lm_eval(folder):
    from lm_eval.tasks.cruxeval.utils import check_correctness

    box = Sandbox([])
    asked = {"predictions": [PROGRAMS], "references": ["pass"], "k": [1], "timeout": 20.0}
    _, found = box.call("", "", "code_eval", kwargs=asked)
    ours = [result["passed"] for _, result in found["0"]]
    assert ours == [check_correctness(f"{each}\npass", timeout=20) for each in PROGRAMS]
    assert sum(ours) == 5


def test_without_a_sandbox_the_worker_runs_it(folder, tokenizer):
    some = [Benchmark("executed", "executed"), Benchmark("processed", "right")]
    boxed = make(folder, tokenizer, some)
    wanted = boxed.score()
    import evaluate

    usual, evaluate.load = evaluate.load, lambda name: Reference()
    try:
        sys.modules.pop(str(folder / "helpers"), None)
        free = make(folder, tokenizer, some, confirm_run_unsafe_code_unsandboxed=True)
        assert free.score() == wanted
    finally:
        evaluate.load = usual
    assert free.plan_digest() != boxed.plan_digest()


def test_only_the_sandbox_runs_programs(folder, tokenizer):
    make(folder, tokenizer, BENCHMARKS[:1])
    helpers = sys.modules[str(folder / "helpers")]
    with pytest.raises(RuntimeError, match="run by the sandbox alone"):
        helpers.pass_at_k(["assert True"], [["x = 1"]], [1])


def test_documents_that_get_no_answer(tmp_path, tokenizer, caplog):
    need_a_sandbox()
    folder = write_coding_tasks(tmp_path / "lost", lost=True)
    some = [
        Benchmark("executed", "executed"),
        Benchmark("processed", "right"),
        Benchmark("processed", "wrong"),
    ]
    scorer = make(folder, tokenizer, some)
    with caplog.at_level(logging.WARNING, "optuna_demix"):
        scores = scorer.score()
    said = [r.getMessage() for r in caplog.records if "no answer" in r.getMessage()]
    assert [line.split(": ")[0] for line in said] == ["task 'executed'", "task 'processed'"]
    assert "6 documents got no answer from their metric and count as 0; one: it was" in said[0]
    assert 0 <= scores["executed/executed"] < 1 and 0 <= scores["processed/right"] < 1
    assert math.isnan(scores["processed/wrong"])  # of which there is no worst


def test_more_answers_than_the_task_asks_for(folder, tokenizer, oracle):
    hot = {"do_sample": True, "temperature": 1.0}
    several = Benchmark("several", "pass@3", **UP)
    repeated = [
        Benchmark("coded", f"pass@{k}", repeats=3, gen_kwargs=hot, **UP) for k in (1, 2, 3)
    ]
    scores = make(folder, tokenizer, repeated).score(seed=3)
    assert list(scores.values()) == sorted(set(scores.values()))
    assert scores["coded/pass@3"] == make(folder, tokenizer, [several]).score(seed=3)[several.name]
    few = make(folder, tokenizer, repeated[:1])
    more = make(folder, tokenizer, [repeated[0]], repeats=9)
    assert few.plan_digest() == more.plan_digest()  # its own number goes over the common one
    other = [Benchmark("coded", "pass@1", gen_kwargs=hot, **UP)]
    assert make(folder, tokenizer, other, repeats=4).plan_digest() != few.plan_digest()


def test_seeds_of_trials(folder, tokenizer):
    greedy = make(folder, tokenizer, BENCHMARKS[:1])
    assert greedy.seed_of(3) is None
    first, second = (make(folder, tokenizer, BENCHMARKS[1:4]) for _ in range(2))
    assert first.seed_of(3) == second.seed_of(3) != first.seed_of(4)
    assert make(folder, tokenizer, BENCHMARKS[1:2], seed=1).seed_of(3) != first.seed_of(3)
    scores = first.score(seed=first.seed_of(3))
    assert first.score(seed=first.seed_of(4)) != scores
    assert second.score(seed=second.seed_of(3)) == scores


def test_code_that_is_written_after_its_screening(folder, tokenizer):
    plain = make(folder, tokenizer, BENCHMARKS[:4])
    answers = dict.fromkeys((b.name for b in BENCHMARKS[:4]), "test")
    scorer = make(folder, tokenizer, BENCHMARKS[:4], screening=Screening(answers=answers))
    found = scorer.score_cheaply(seed=5)
    assert not found.scores and set(found.cheap) == set(answers)
    assert all(map(math.isfinite, found.cheap.values()))
    wanted = plain.score(seed=5)
    assert scorer.score_screened() == wanted == scorer.score(seed=5)
    assert scorer.items().keys() == plain.items().keys()


@pytest.mark.parametrize(
    ("benchmark", "said"),
    [
        (
            Benchmark("coded", "pass@1", repeats=4, **UP),
            "repeats is 4, but its texts are greedy and all the same; set do_sample",
        ),
        (
            Benchmark("several", "pass@9", **UP),
            "pass@9 needs as many answers to each question, but there are 3; set repeats to 9",
        ),
        (
            Benchmark("coded", "pass@2", **UP),
            "pass@2 needs as many answers to each question, but there is 1; set repeats to 2",
        ),
    ],
)
def test_answers_repeated_for_nothing(folder, tokenizer, benchmark, said):
    with pytest.raises(TaskError, match=said) as error:
        make(folder, tokenizer, [benchmark])
    assert f"{benchmark.task}.yaml" in str(error.value)


def test_filters_that_take_the_first(tasks, tokenizer, model):
    hot = {"do_sample": True, "temperature": 1.0}
    first = Benchmark("say", "exact_match,whole", repeats=2, gen_kwargs=hot)
    with pytest.raises(TaskError, match="its filters take the first answer only; remove repeats"):
        HarnessScorer([first], model, tokenizer, include_path=tasks)
    none = Benchmark("choice", "acc", repeats=2)
    with pytest.raises(TaskError, match="repeats is about generated texts, but"):
        HarnessScorer([none], model, tokenizer, include_path=tasks)
    with pytest.raises(TaskError, match="repeats must be a whole number >= 1, not 0"):
        Benchmark("say", "exact_match", repeats=0)


def test_a_machine_without_a_sandbox_says_so_before_the_first_trial(
    tmp_path, tokenizer, monkeypatch
):
    folder = write_coding_tasks(tmp_path / "coding")
    monkeypatch.setattr(client_module.sys, "executable", "/bin/false")
    with pytest.raises(
        TaskError, match=r"this machine cannot confine .*_unsandboxed to true"
    ) as e:
        make(folder, tokenizer, BENCHMARKS[:1])
    assert str(e.value).startswith("task 'coded' (") and "\n" not in str(e.value)


def test_a_task_of_its_own_class_cannot_be_confined(tasks, tmp_path, tokenizer, model):
    import shutil

    copied = shutil.copytree(tasks, tmp_path / "tasks")
    own = copied / "own.yaml"
    own.write_text(own.read_text() + "unsafe_code: true\n")
    with pytest.raises(TaskError, match="own.yaml.*made by a class of its own.*_unsandboxed"):
        HarnessScorer([Benchmark("own", "hit")], model, tokenizer, include_path=copied, **ALLOWED)
