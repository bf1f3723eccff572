"""Scores are lm-eval's own, to the last bit."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from optuna_demix.scoring import Benchmark, HarnessScorer

from tests.scoring.samples import make_model  # isort: skip

pytestmark = pytest.mark.xdist_group("scoring")

EVERYTHING = {
    "prose": ["bits_per_byte", "word_perplexity"],
    "choice": ["acc", "acc_norm", "exact_match", "f1"],
    "letters": ["acc"],
    "cloze": ["perplexity", "acc"],
    "say": ["exact_match,first-letter", "exact_match,whole"],
    "dream": ["length"],
}
LESS_IS_BETTER = {"bits_per_byte", "word_perplexity", "perplexity", "length"}


def benchmarks(names=EVERYTHING):
    return [Benchmark(task, metric) for task in names for metric in EVERYTHING[task]]


def expected(results, wanted):
    found = {}
    for benchmark in wanted:
        row = results[benchmark.task]
        keys = [k for k in row if k.partition(",")[0] == benchmark.measure and "," in k]
        key = benchmark.metric if benchmark.filter else keys[0]
        found[benchmark.name] = -row[key] if benchmark.measure in LESS_IS_BETTER else row[key]
    return found


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("llama", torch.float32),
        ("llama", torch.bfloat16),
        ("neox", torch.float32),
        ("gpt2", torch.float32),
    ],
)
def test_every_kind_of_task(kind, dtype, tasks, tokenizer, oracle):
    model = make_model(kind, dtype=dtype)
    scorer = HarnessScorer(benchmarks(), model, tokenizer, include_path=tasks, batch_size=4)
    scores = scorer.score()
    assert scores == expected(oracle(model, EVERYTHING), benchmarks())
    assert all(math.isfinite(score) for score in scores.values())
    assert len(set(scores.values())) > 6  # the tasks do tell something apart


@pytest.mark.parametrize("shared_prefixes", [False, True])
def test_contexts_as_choices_and_surprise(shared_prefixes, tasks, tokenizer, oracle, model):
    some = [
        Benchmark("blanks", "acc"),
        Benchmark("surprise", "acc_mutual_info"),
        Benchmark("surprise", "acc_bytes"),
        Benchmark("surprise", "brier_score"),
    ]
    scorer = HarnessScorer(
        some,
        model,
        tokenizer,
        include_path=tasks,
        batch_size=4,
        shared_prefixes=shared_prefixes,
    )
    peer = oracle(model, ["blanks", "surprise"])
    wanted = {b.name: peer[b.task][f"{b.metric},none"] for b in some}
    wanted["surprise/brier_score"] *= -1
    exact = not shared_prefixes
    assert scorer.score() == (wanted if exact else pytest.approx(wanted, abs=1e-5))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batch_size_and_length_limit(batch_size, tasks, tokenizer, oracle, model):
    some = benchmarks(["prose", "choice", "cloze"])
    options = {"batch_size": batch_size, "max_length": 19}
    scorer = HarnessScorer(some, model, tokenizer, include_path=tasks, **options)
    assert scorer.score() == expected(oracle(model, ["prose", "choice", "cloze"], **options), some)


def test_the_model_is_given_the_very_same_batches(tasks, tokenizer, oracle, model, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    names = ["prose", "choice", "letters", "cloze"]
    options = {"batch_size": 4, "max_length": 19}
    scorer = HarnessScorer(benchmarks(names), model, tokenizer, include_path=tasks, **options)
    call = HFLM._model_call
    seen = []
    monkeypatch.setattr(HFLM, "_model_call", lambda lm, ids: seen.append(ids) or call(lm, ids))
    oracle(model, names, **options)
    theirs = [ids.tolist() for ids in seen]
    seen.clear()
    logits = scorer._lm._logits_of
    monkeypatch.setattr(scorer._lm, "_logits_of", lambda ids: seen.append(ids) or logits(ids))
    scorer.score()
    assert [ids.tolist() for ids in seen] == theirs
    assert scorer.describe()["forward_passes"] == len(theirs) > 10


def test_a_second_score_prepares_nothing(tasks, tokenizer, model, monkeypatch):
    import lm_eval.utils
    from lm_eval.models.huggingface import HFLM

    scorer = HarnessScorer(benchmarks(), model, tokenizer, include_path=tasks, num_fewshot=1)
    scores = scorer.score()

    def refuse(*_args, **_kwargs):
        raise AssertionError("prepared again")

    monkeypatch.setattr(lm_eval.utils, "apply_template", refuse)
    monkeypatch.setattr(HFLM, "tok_encode", refuse)
    monkeypatch.setattr(HFLM, "tok_batch_encode", refuse)
    assert scorer.score() == scores


def test_templates_are_compiled_once(tasks, tokenizer, model, monkeypatch):
    from lm_eval.utils import env

    from optuna_demix.scoring.harness import templates

    templates._compiled.cache_clear()
    usual, compiled, render = env.from_string, [], env.compile
    monkeypatch.setattr(env, "compile", lambda text: compiled.append(text) or render(text))
    for _ in range(2):
        HarnessScorer(benchmarks(["choice"]), model, tokenizer, include_path=tasks).score()
    assert sorted(compiled) == ["{{choices}}", "{{question}}"]
    assert env.from_string == usual


def test_a_task_that_renders_documents_itself(tasks, tokenizer, oracle):
    """As swde, fda and squad_completion do in their ``process_results``, at every scoring."""
    some = [Benchmark("own", "own"), Benchmark("own", "hit")]
    live = make_model(seed=0)
    scorer = HarnessScorer(some, live, tokenizer, include_path=tasks, batch_size=4)
    for seed in (0, 1, 0):
        live.load_state_dict(make_model(seed=seed).state_dict())
        peer = oracle(live, ["own"])["own"]
        assert peer["own,none"] == 1.0 and 0.0 < peer["hit,none"] < 1.0
        assert scorer.score() == {"own/own": peer["own,none"], "own/hit": peer["hit,none"]}


def test_few_shot(tasks, tokenizer, oracle, model):
    some = benchmarks(["letters", "choice"])
    scorer = HarnessScorer(
        some, model, tokenizer, include_path=tasks, batch_size=4, num_fewshot=2, seed=7
    )
    options = {"num_fewshot": 2, "fewshot_random_seed": 7}
    peer = expected(oracle(model, ["letters", "choice"], **options), some)
    assert scorer.score() == peer
    assert scorer.score() == peer  # the same examples again


@pytest.mark.parametrize("limit", [3, 0.4])
def test_limit(limit, tasks, tokenizer, oracle, model):
    names = ["prose", "choice", "say"]
    scorer = HarnessScorer(
        benchmarks(names), model, tokenizer, include_path=tasks, batch_size=4, limit=limit
    )
    assert scorer.score() == expected(oracle(model, names, limit=limit), benchmarks(names))


@pytest.mark.parametrize("group", ["both", "nested"])
def test_group(group, tasks, tokenizer, oracle, model):
    scorer = HarnessScorer(
        [Benchmark(group, "acc")], model, tokenizer, include_path=tasks, batch_size=4
    )
    peer = oracle(model, [group], stderr=True)[group]
    score = scorer.score()[f"{group}/acc"]
    assert score == peer["acc,none"]
    assert scorer.standard_errors()[f"{group}/acc"] == pytest.approx(peer["acc_stderr,none"])
    items, weights = scorer.items()[f"{group}/acc"], scorer.item_weights()[f"{group}/acc"]
    assert weights @ items == pytest.approx(score)
    assert weights.sum() == pytest.approx(1)


def test_settings_of_one_benchmark(tasks, tokenizer, oracle, model):
    scorer = HarnessScorer(
        [
            Benchmark("letters", "acc", name="plain"),
            Benchmark("letters", "acc", name="shots", num_fewshot=2),
            Benchmark("letters", "acc", name="few", limit=2),
        ],
        model,
        tokenizer,
        include_path=tasks,
        batch_size=64,
    )
    scores = scorer.score()
    # One row of the batch more or less may move the last bits, but none of these accuracies.
    for name, options in (
        ("plain", {}),
        ("shots", {"num_fewshot": 2}),
        ("few", {"limit": 2}),
    ):
        peer = oracle(model, ["letters"], batch_size=64, **options)
        assert scores[name] == peer["letters"]["acc,none"]
    assert {name: len(values) for name, values in scorer.items().items()} == {
        "plain": 5,
        "shots": 5,
        "few": 2,
    }


def test_weights_that_change_in_place(tasks, tokenizer):
    live, other = make_model(seed=0), make_model(seed=1)
    options = {"include_path": tasks, "batch_size": 4}
    fresh = {
        seed: HarnessScorer(benchmarks(), make_model(seed=seed), tokenizer, **options).score()
        for seed in (0, 1)
    }
    assert fresh[0] != fresh[1]
    scorer = HarnessScorer(benchmarks(), live, tokenizer, **options)
    start = {name: value.clone() for name, value in live.state_dict().items()}
    places = [parameter.data_ptr() for parameter in live.parameters()]
    for seed, weights in ((0, start), (1, other.state_dict()), (0, start)):
        live.load_state_dict(weights)
        assert scorer.score() == fresh[seed]
    assert places == [parameter.data_ptr() for parameter in live.parameters()]


def test_few_shot_examples_stay(tasks, tokenizer, model):
    scorer = HarnessScorer(
        benchmarks(["letters"]), model, tokenizer, include_path=tasks, num_fewshot=2
    )
    units = scorer._suite._units.values()
    prompts = [i.args for unit in units for i in unit.task.task.instances]
    digest = scorer.plan_digest()
    scorer.score()
    scorer.score()
    assert [i.args for unit in units for i in unit.task.task.instances] == prompts
    assert len({prompt for prompt, _ in prompts}) == 5
    scorer._digest = None
    assert scorer.plan_digest() == digest


def test_random_generators_are_left_alone(tasks, tokenizer, model):
    import random

    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    wanted = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    HarnessScorer(benchmarks(["dream"]), model, tokenizer, include_path=tasks).score()
    assert (torch.rand(1), np.random.rand(), random.random()) == wanted


def test_items_and_standard_errors(tasks, tokenizer, oracle, model):
    scorer = HarnessScorer(benchmarks(), model, tokenizer, include_path=tasks, batch_size=4)
    with pytest.raises(RuntimeError, match="call score"):
        scorer.items()
    scores, items, weights = scorer.score(), scorer.items(), scorer.item_weights()
    assert set(items) == set(scores) - {"choice/f1"}
    for name in ("prose/bits_per_byte", "choice/acc", "cloze/acc", "dream/length"):
        assert weights[name] @ items[name] == pytest.approx(scores[name])
    assert len(items["prose/bits_per_byte"]) == 13
    errors = scorer.standard_errors()
    peer = oracle(model, ["choice", "cloze"], stderr=True)
    assert errors["choice/acc"] == pytest.approx(peer["choice"]["acc_stderr,none"])
    assert errors["cloze/acc"] == pytest.approx(peer["cloze"]["acc_stderr,none"])
    assert math.isnan(errors["choice/f1"])
    assert errors["prose/bits_per_byte"] > 0


def test_a_broken_model_scores_nan_and_only_then(tasks, tokenizer, model):
    scorer = HarnessScorer(benchmarks(), model, tokenizer, include_path=tasks, batch_size=4)
    before = scorer.score()
    weight = model.model.layers[0].mlp.up_proj.weight.data
    kept = weight[0, 0].clone()
    weight[0, 0] = math.nan
    scores = scorer.score()
    assert set(scores) == set(before)
    assert all(math.isnan(score) for score in scores.values())
    assert scorer.items() == {}
    assert all(math.isnan(error) for error in scorer.standard_errors().values())
    weight[0, 0] = kept
    assert scorer.score() == before


def test_an_infinite_metric_is_nan(tasks, tokenizer, model):
    scorer = HarnessScorer(
        benchmarks(["prose", "cloze"]), model, tokenizer, include_path=tasks, batch_size=4
    )
    model.model.embed_tokens.weight.data *= 3e4  # perplexities beyond floating point
    scores = scorer.score()
    assert math.isfinite(scores["prose/bits_per_byte"])
    assert math.isnan(scores["cloze/perplexity"])
    assert math.isnan(scores["prose/word_perplexity"])


def test_tokenizer_and_training_mode(tasks, tokenizer, model):
    assert tokenizer.pad_token_id is None
    scorer = HarnessScorer(benchmarks(["say"]), model, tokenizer, include_path=tasks)
    assert tokenizer.pad_token_id is None
    scores = scorer.score()
    model.train()
    assert scorer.score() == scores
    assert not model.training


def test_nothing_is_said(tasks, tokenizer, model, capfd, caplog):
    scorer = HarnessScorer(benchmarks(), model, tokenizer, include_path=tasks, num_fewshot=1)
    scorer.score()
    out, err = capfd.readouterr()
    assert out == ""
    assert "it/s" not in err and "lm_eval" not in err
    assert not [record for record in caplog.records if record.name.startswith("lm_eval")]


@pytest.mark.slow
def test_two_models_in_turn_against_fresh_processes(tasks, tokenizer, tmp_path):
    """Each process knows one model only: nothing of the other can have leaked into its scores."""
    names = ["prose", "choice", "letters", "cloze", "say"]
    code = (
        "import json, sys, lm_eval\n"
        "from lm_eval import evaluator\n"
        "from lm_eval.models.huggingface import HFLM\n"
        "from lm_eval.tasks import TaskManager\n"
        "evaluator.add_env_info = evaluator.get_git_commit_hash = lambda *_: None\n"
        "saved, tasks, names = sys.argv[1], sys.argv[2], sys.argv[3].split(',')\n"
        "found = lm_eval.simple_evaluate(\n"
        "    HFLM(pretrained=saved, device='cpu', batch_size=4), tasks=names, num_fewshot=1,\n"
        "    task_manager=TaskManager(include_defaults=False, include_path=tasks),\n"
        "    bootstrap_iters=0, log_samples=False)\n"
        "json.dump(found['results'], open(saved + '/scores.json', 'w'))\n"
    )
    live = make_model(seed=0)
    options = {"include_path": tasks, "batch_size": 4, "num_fewshot": 1}
    scorer = HarnessScorer(benchmarks(names), live, tokenizer, **options)
    mine = []
    for seed in (0, 1):
        model = make_model(seed=seed)
        live.load_state_dict(model.state_dict())
        mine.append(scorer.score())
        model.save_pretrained(tmp_path / str(seed))
        tokenizer.save_pretrained(tmp_path / str(seed))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / str(seed)), str(tasks), ",".join(names)],
            cwd=tasks,
            env={
                **os.environ,
                "HF_DATASETS_CACHE": str(tmp_path / "cache"),
                "DISABLE_MULTIPROC": "1",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for seed in (0, 1)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    theirs = [json.loads((tmp_path / str(seed) / "scores.json").read_text()) for seed in (0, 1)]
    assert mine == [expected(results, benchmarks(names)) for results in theirs]
    assert mine[0] != mine[1]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision(precision, tasks, tokenizer, oracle, model):
    some = benchmarks(["prose", "say"])
    options = {"batch_size": 4, "mixed_precision_dtype": precision}
    scorer = HarnessScorer(some, model, tokenizer, include_path=tasks, **options)
    scores = scorer.score()
    assert scores == expected(oracle(model, ["prose", "say"], **options), some)
    plain = HarnessScorer(some, model, tokenizer, include_path=tasks, batch_size=4)
    assert scores != plain.score()
    assert scorer.plan_digest() != plain.plan_digest()
