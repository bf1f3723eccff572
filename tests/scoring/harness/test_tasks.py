"""Finding tasks, and what is said when something is wrong with them."""

from __future__ import annotations

import copy
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from optuna_demix.errors import TaskError
from optuna_demix.scoring import Benchmark, HarnessScorer, check_tasks, undirected

from tests.scoring.samples import make_model, write_tasks  # isort: skip

pytestmark = pytest.mark.xdist_group("scoring")


@pytest.fixture
def folder(tmp_path):
    return write_tasks(tmp_path / "tasks")


@pytest.fixture
def no_own_tasks(monkeypatch):
    """lm-eval's index takes seconds to read: stand in for it where its content does not matter."""
    from optuna_demix.scoring.harness import catalog

    monkeypatch.setattr(catalog, "_own_index", dict)


def problem_of(benchmark, folder, **options):
    """The one line, which the check and the scorer agree on."""
    (found,) = check_tasks([benchmark], include_path=folder, **options)
    with pytest.raises(TaskError) as raised:
        HarnessScorer([benchmark], None, None, include_path=folder, **options)
    assert str(raised.value) == str(found)
    assert "\n" not in str(found)
    return str(found)


def test_nothing_heavy_before_it_is_needed():
    code = (
        "import sys, optuna_demix.scoring\n"
        "from optuna_demix.scoring.harness import TaskSpec\n"
        "print([m for m in ('lm_eval', 'torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("inner", ["", ".forward", ".harness"])
def test_every_name_that_is_handed_on_is_there(inner):
    package = importlib.import_module(f"optuna_demix.scoring{inner}")
    assert all(hasattr(package, name) for name in package.__all__)


def test_good_benchmarks_have_no_problems(tasks):
    every = [
        Benchmark("prose", "bits_per_byte"),
        Benchmark("choice", "acc_norm"),
        Benchmark("say", "exact_match,whole"),
        Benchmark("say", "exact_match, first-letter", name="first"),
        Benchmark("both", "acc"),
        Benchmark("nested", "acc"),
        Benchmark("dream", "length"),
    ]
    assert check_tasks(every, include_path=tasks) == []
    assert check_tasks(every, include_path=[str(tasks)]) == []


def test_lm_evals_own_tasks_are_found_and_near_names_offered(tasks):
    good = [
        Benchmark("arc_easy", "acc_norm"),
        Benchmark("gsm8k", "exact_match,strict-match"),
        Benchmark("mmlu", "acc"),
        Benchmark("choice", "acc"),
    ]
    assert check_tasks(good, include_path=tasks) == []
    (unknown,) = check_tasks([Benchmark("arc_esy", "acc")], include_path=tasks)
    assert str(unknown).startswith("task 'arc_esy' does not exist; looked in ")
    assert str(tasks) in str(unknown) and "'arc_easy'" in str(unknown)
    (tag,) = check_tasks([Benchmark("ai2_arc", "acc")])
    assert "is a tag" in str(tag) and "arc_challenge, arc_easy" in str(tag)
    (filters,) = check_tasks([Benchmark("gsm8k", "exact_match")])
    assert "'exact_match,strict-match' or 'exact_match,flexible-extract'" in str(filters)
    (unsafe,) = check_tasks([Benchmark("humaneval", "pass@1", higher_is_better=True)])
    assert "unsafe" in str(unsafe) and "confirm_run_unsafe_code" in str(unsafe)
    allowed = Benchmark("humaneval", "pass@1", higher_is_better=True)
    assert check_tasks([allowed], confirm_run_unsafe_code=True) == []


@pytest.mark.usefixtures("no_own_tasks")
def test_unknown_task_and_folder(tasks, tmp_path):
    said = problem_of(Benchmark("chioce", "acc"), tasks)
    assert said == (
        f"task 'chioce' does not exist; looked in {tasks.resolve()}, lm-eval's own tasks; "
        "did you mean 'choice'?"
    )
    with pytest.raises(TaskError, match="include_path .*nowhere is not a directory"):
        check_tasks([Benchmark("choice", "acc")], include_path=tmp_path / "nowhere")


def test_unknown_metric_and_filter(tasks):
    said = problem_of(Benchmark("prose", "acc"), tasks)
    assert said.endswith("has no metric 'acc', only bits_per_byte, word_perplexity")
    assert str(tasks / "prose.yaml") in said
    assert "only acc" in problem_of(Benchmark("both", "acc_norm"), tasks)
    said = problem_of(Benchmark("say", "exact_match"), tasks)
    assert "several filters; write 'exact_match,first-letter' or 'exact_match,whole'" in said
    assert "no filter 'best'" in problem_of(Benchmark("say", "exact_match,best"), tasks)


def test_a_metric_that_only_code_could_name(tasks, tokenizer, model):
    invented = Benchmark("dream", "breadth", higher_is_better=True)
    assert check_tasks([invented], include_path=tasks) == []
    scorer = HarnessScorer([invented], model, tokenizer, include_path=tasks)
    with pytest.raises(TaskError, match="gives no metric 'breadth', only length"):
        scorer.score()
    said = problem_of(Benchmark("dream", "breadth"), tasks)  # before a model is needed
    assert "give benchmark 'dream/breadth' higher_is_better" in said


def test_directions_that_no_file_tells(folder):
    path = folder / "dream.yaml"
    path.write_text(path.read_text().replace(", higher_is_better: false}", "}"))
    some = [
        Benchmark("choice", "acc"),
        Benchmark("dream", "length"),
        Benchmark("dream", "length", name="told", higher_is_better=False),
        Benchmark("own", "hit"),  # its class says it, once it is loaded
        Benchmark("nested", "acc"),
    ]
    assert undirected(some, include_path=folder) == {
        "dream/length": f"task 'dream' ({path})",
        "own/hit": f"task 'own' ({folder / 'own.yaml'})",
    }
    (said,) = check_tasks(some, include_path=folder)
    assert str(said).startswith(f"task 'dream' ({path}): does not say whether a higher 'length'")


def test_several_folders_of_tasks(folder, tmp_path, tokenizer, model):
    other = tmp_path / "other"
    other.mkdir()
    (other / "letters2.yaml").write_text(
        (folder / "letters.yaml").read_text().replace("task: letters", "task: letters2")
    )
    shutil.copytree(folder / "data", other / "data")
    some = [Benchmark("letters", "acc"), Benchmark("letters2", "acc")]
    scorer = HarnessScorer(some, model, tokenizer, include_path=[folder, other], batch_size=64)
    scores = scorer.score()
    assert scores["letters/acc"] == scores["letters2/acc"]


def test_direction(folder, tokenizer, model):
    path = folder / "dream.yaml"
    path.write_text(path.read_text().replace(", higher_is_better: false}", "}"))
    options = {"include_path": folder}
    with pytest.raises(TaskError, match="does not say whether a higher 'length' is better"):
        HarnessScorer([Benchmark("dream", "length")], model, tokenizer, **options)
    scores = [
        HarnessScorer(
            [Benchmark("dream", "length", higher_is_better=up)], model, tokenizer, **options
        ).score()["dream/length"]
        for up in (True, False)
    ]
    assert scores[0] > 0 and scores[0] == -scores[1]


def test_a_file_that_is_not_yaml(folder):
    (folder / "choice.yaml").write_text("task: choice\nmetric_list: [{metric: acc\n")
    said = problem_of(Benchmark("choice", "acc"), folder)
    assert said.startswith(f"{folder / 'choice.yaml'}: task 'choice' cannot be read: line ")


def test_a_file_whose_include_is_missing(folder):
    (folder / "choice.yaml").write_text("task: choice\ninclude: base.yaml\n")
    said = problem_of(Benchmark("choice", "acc"), folder)
    assert "choice.yaml" in said and "base.yaml" in said


def test_missing_data(folder):
    (folder / "data" / "letters.jsonl").unlink()
    for name in ("letters", "both", "nested"):
        said = problem_of(Benchmark(name, "acc"), folder)
        assert said.startswith(str(folder / "letters.yaml"))
        assert f"data file {folder / 'data' / 'letters.jsonl'} does not exist" in said


@pytest.mark.usefixtures("no_own_tasks")
def test_a_group_with_a_missing_member_or_no_metric(folder):
    (folder / "both.yaml").write_text("group: both\ntask: [choice, nothing]\n")
    assert "names task 'nothing'" in problem_of(Benchmark("both", "acc"), folder)
    (folder / "both.yaml").write_text("group: both\ntask: [choice, letters]\n")
    said = problem_of(Benchmark("both", "acc"), folder)
    assert "is a group without aggregate_metric_list; name its tasks (choice, letters)" in said


def test_unsafe_tasks_need_a_word(folder, tokenizer, model):
    path = folder / "say.yaml"
    path.write_text(path.read_text() + "unsafe_code: true\n")
    unsafe = Benchmark("say", "exact_match,whole")
    assert "set confirm_run_unsafe_code to true" in problem_of(unsafe, folder)
    scorer = HarnessScorer(
        [unsafe], model, tokenizer, include_path=folder, confirm_run_unsafe_code=True
    )
    assert set(scorer.score()) == {unsafe.name}


def test_broken_templates_name_the_file(folder, tokenizer, model):
    path = folder / "cloze.yaml"
    path.write_text(path.read_text().replace("{{prompt}}", "{{promt}}"))
    with pytest.raises(TaskError, match=r"cloze\.yaml: task 'cloze' .*promt"):
        HarnessScorer([Benchmark("cloze", "acc")], model, tokenizer, include_path=folder)


def test_broken_data_names_the_file(folder, tokenizer, model):
    (folder / "data" / "cloze.jsonl").write_text('{"prompt": "a"\n')
    with pytest.raises(TaskError, match=r"cloze\.yaml: task 'cloze' cannot be loaded: ") as said:
        HarnessScorer([Benchmark("cloze", "acc")], model, tokenizer, include_path=folder)
    assert "\n" not in str(said.value)


def test_too_many_shots(tasks, tokenizer, model):
    greedy = Benchmark("letters", "acc", num_fewshot=50)
    with pytest.raises(TaskError, match=r"letters\.yaml: task 'letters': its requests cannot be"):
        HarnessScorer([greedy], model, tokenizer, include_path=tasks)


def test_requests_that_do_not_fit(folder, tokenizer, model):
    def build(*names, **options):
        metrics = {"say": "exact_match,whole"}
        wanted = [Benchmark(name, metrics.get(name, "acc")) for name in names]
        HarnessScorer(wanted, model, tokenizer, include_path=folder, **options)

    with pytest.raises(TaskError, match=r"task 'choice', document \d+: an answer of \d+ tokens"):
        build("choice", max_length=2)
    with pytest.raises(TaskError, match="task 'say': generates up to 8 tokens"):
        build("say", max_length=8)
    path = folder / "cloze.yaml"
    path.write_text(path.read_text().replace("{{' ' + answer}}", ""))
    with pytest.raises(TaskError, match="task 'cloze', document 0: an answer is the empty text"):
        build("cloze")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": "auto"}, "batch_size must be a whole number >= 1, not 'auto'"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"max_length": -1}, "max_length must be"),
        ({"limit": 0}, "scorer: limit must be"),
        ({"limit": 2.5}, "scorer: limit must be"),
        ({"num_fewshot": -1}, "scorer: num_fewshot must be"),
    ],
)
def test_unusable_settings(options, said, tasks):
    with pytest.raises(TaskError, match=said):
        HarnessScorer([Benchmark("choice", "acc")], None, None, include_path=tasks, **options)


@pytest.mark.parametrize(
    "fields",
    [
        {"task": "", "metric": "acc"},
        {"task": "x", "metric": " "},
        {"task": "x", "metric": ",none"},
        {"task": "x", "metric": "acc", "num_fewshot": -1},
        {"task": "x", "metric": "acc", "num_fewshot": True},
        {"task": "x", "metric": "acc", "limit": 0},
        {"task": "x", "metric": "acc", "limit": float("nan")},
    ],
)
def test_unusable_benchmarks(fields):
    with pytest.raises(TaskError):
        Benchmark(**fields)


def test_benchmarks_need_different_names(tasks):
    twice = [Benchmark("choice", "acc"), Benchmark("choice", "acc", num_fewshot=1)]
    with pytest.raises(TaskError, match="'choice/acc' is there twice"):
        check_tasks(twice, include_path=tasks)
    with pytest.raises(TaskError, match="no benchmark"):
        check_tasks([], include_path=tasks)


def test_shots_against_the_tasks_own_word(folder, tokenizer, model):
    path = folder / "letters.yaml"
    path.write_text(path.read_text() + "num_fewshot: 0\n")
    said = problem_of(Benchmark("letters", "acc", num_fewshot=2), folder)
    assert "fixes it to 0" in said
    # As a default of all tasks, lm-eval passes over it, and so does the scorer.
    scorer = HarnessScorer(
        [Benchmark("letters", "acc")], model, tokenizer, include_path=folder, num_fewshot=2
    )
    assert scorer.describe()["benchmarks"][0]["tasks"][0]["num_fewshot"] == 0


def test_an_encoder_decoder_is_refused(tasks, tokenizer):
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(
        T5Config(vocab_size=320, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )
    with pytest.raises(TaskError, match="'t5' is not a causal language model"):
        HarnessScorer([Benchmark("choice", "acc")], model, tokenizer, include_path=tasks)


def test_local_tasks_need_no_network(folder, tokenizer, model, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    # datasets would swallow an error of its download counter: watch the request itself too.
    import datasets.load

    monkeypatch.setattr(datasets.load, "get_session", refuse)
    before = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    scorer = HarnessScorer([Benchmark("both", "acc")], model, tokenizer, include_path=folder)
    assert 0 <= scorer.score()["both/acc"] <= 1
    assert before == datasets.config.HF_UPDATE_DOWNLOAD_COUNTS


def test_the_users_files_are_only_read(folder, tokenizer, model):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    every = [Benchmark("nested", "acc"), Benchmark("prose", "bits_per_byte")]
    HarnessScorer(every, model, tokenizer, include_path=folder).score()
    after = {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert after == before


def test_plan_digest(folder, tmp_path, tokenizer, model):
    wanted = [Benchmark("prose", "bits_per_byte"), Benchmark("letters", "acc")]
    wanted.append(Benchmark("dream", "length"))

    def plan(where: Path = folder, benchmarks=wanted, of=model, **options):
        return HarnessScorer(
            benchmarks, of, tokenizer, include_path=where, **options
        ).plan_digest()

    first = plan()
    copied = shutil.copytree(folder, tmp_path / "elsewhere" / "deep")
    assert plan(copied) == first
    assert plan(of=make_model(seed=9)) == first  # weights are no part of the plan
    import torch

    others = [
        plan(batch_size=3),
        plan(max_length=20),
        plan(limit=4),
        plan(num_fewshot=1),
        plan(num_fewshot=1, seed=1),
        plan(benchmarks=wanted[:2]),
        plan(of=make_model(dtype=torch.bfloat16)),
    ]
    rows = (copied / "data" / "letters.jsonl").read_text().splitlines()
    flipped = json.loads(rows[0])
    flipped["gold"] = (flipped["gold"] + 1) % 4
    (copied / "data" / "letters.jsonl").write_text("\n".join([json.dumps(flipped), *rows[1:]]))
    others.append(plan(copied))  # prompts unchanged, the right answer is another one
    helpers = copied / "helpers.py"
    helpers.write_text(helpers.read_text().replace("len(results[0])", "len(results[0]) + 1"))
    others.append(plan(copied))
    assert len({first, *others}) == len(others) + 1


def test_description_is_json(tasks, tokenizer, model):
    wanted = [Benchmark("both", "acc", num_fewshot=1), Benchmark("say", "exact_match,whole")]
    scorer = HarnessScorer(wanted, model, tokenizer, include_path=tasks, limit=3)
    described = json.loads(json.dumps(scorer.describe()))
    assert described["plan_digest"] == scorer.plan_digest()
    assert described["requests"] == {"loglikelihood": 24, "generate_until": 3}
    assert [task["task"] for task in described["benchmarks"][0]["tasks"]] == ["choice", "letters"]
    assert described["benchmarks"][1]["filter"] == "whole"


@pytest.mark.slow
def test_two_processes_with_a_cold_cache(folder, tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from optuna_demix.scoring.harness import Catalog\n"
        "catalog = Catalog([Path(sys.argv[1])])\n"
        "print('ready', flush=True)\n"
        "input()\n"
        "loaded = [catalog.load(name)[0] for name in ('choice', 'prose', 'letters')]\n"
        "print([len(t.eval_docs) for tasks in loaded for t in tasks.values()])\n"
    )
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    outputs = []
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        outputs.append(worker.communicate()[0].strip())
        assert worker.returncode == 0
    assert outputs == ["[13, 13, 5]"] * 3


@pytest.mark.parametrize("name", ["choice", "prose", "say"])
def test_a_token_without_embedding_is_named(folder, tokenizer, model, name):
    text = next(iter(folder.glob(f"data/{name}.jsonl"))).read_text()
    (folder / "data" / f"{name}.jsonl").write_text(text.replace("moon", "<pad>"))
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens(["<pad>"])
    metrics = {"say": "exact_match,whole", "prose": "bits_per_byte"}
    wanted = [Benchmark(name, metrics.get(name, "acc"))]
    with pytest.raises(TaskError, match="token '<pad>' is id 320, but the model has 320 embed"):
        HarnessScorer(wanted, model, larger, include_path=folder).plan_digest()
