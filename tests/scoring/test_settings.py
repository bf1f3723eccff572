"""Scores under each of lm-eval's settings of a run are lm-eval's own, to the last bit."""

from __future__ import annotations

import pytest

from optuna_demix.errors import TaskError
from optuna_demix.scoring import Benchmark, HarnessScorer, TaskSettings
from optuna_demix.scoring.settings import resolve

from tests.scoring.conftest import chat_tokenizer  # isort: skip
from tests.scoring.samples import make_model  # isort: skip

pytestmark = pytest.mark.xdist_group("scoring")

CHAT = (
    "{% for m in messages %}<{{ m['role'][0] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
OTHER = CHAT.replace("<a>", "=")
BENCHMARKS = (
    Benchmark("letters", "acc"),
    Benchmark("cloze", "perplexity"),
    Benchmark("blanks", "acc"),
    Benchmark("dream", "length"),
)
COMMON = {"num_fewshot": 1, "batch_size": 4, "limit": 5}
NAMES = [b.task for b in BENCHMARKS]
LESS_IS_BETTER = {"cloze", "dream"}


@pytest.fixture
def roomy(model):
    model.config.max_position_embeddings = 160  # for prompts of several turns
    return model


@pytest.fixture(scope="module")
def chatty():
    return chat_tokenizer(CHAT)


@pytest.fixture(scope="module")
def plain(tasks, chatty):
    model = make_model()
    model.config.max_position_embeddings = 160
    return HarnessScorer(BENCHMARKS, model, chatty, include_path=tasks, **COMMON)


def expected(results, benchmarks=BENCHMARKS):
    found = {}
    for b in benchmarks:
        (value,) = (
            value
            for key, value in results[b.task].items()
            if key.startswith(b.measure + ",") and (not b.filter or key == b.metric)
        )
        found[b.name] = -value if b.task in LESS_IS_BETTER else value
    return found


@pytest.mark.parametrize(
    ("settings", "of_model"),
    [
        ({"apply_chat_template": True, "system_instruction": "be wise"}, {}),
        ({"apply_chat_template": True, "fewshot_as_multiturn": False}, {}),
        (
            {
                "system_instruction": "be wise",
                "gen_kwargs": {"do_sample": True, "temperature": 0.5},
            },
            {},
        ),
        ({"gen_kwargs": {"max_gen_toks": 3, "until": ["o"]}}, {"add_bos_token": True}),
        ({}, {"think_end_token": "e"}),
        ({}, {"think_end_token": 149}),
    ],
    ids=str,
)
def test_each_setting(settings, of_model, tasks, chatty, oracle, roomy, plain):
    scorer = HarnessScorer(
        BENCHMARKS, roomy, chatty, include_path=tasks, **COMMON, **settings, **of_model
    )
    scores = scorer.score()
    peer = oracle(roomy, NAMES, saved_tokenizer=chatty, of_model=of_model, **COMMON, **settings)
    assert scores == expected(peer)
    assert scorer.score() == scores
    assert scores != plain.score()
    assert scorer.plan_digest() != plain.plan_digest()


def test_a_bos_token_that_a_tokenizer_adds_by_itself_or_not(tasks, oracle, roomy):
    tokenizer = chat_tokenizer(CHAT)
    tokenizer.add_bos_token = True
    scores = {}
    for wanted in (None, False, True):
        scorer = HarnessScorer(
            BENCHMARKS[1:2], roomy, tokenizer, include_path=tasks, add_bos_token=wanted, **COMMON
        )
        scores[wanted] = scorer.score()
        given = {} if wanted is None else {"add_bos_token": wanted}
        peer = oracle(roomy, ["cloze"], saved_tokenizer=tokenizer, of_model=given, **COMMON)
        assert scores[wanted] == expected(peer, BENCHMARKS[1:2])
    assert scores[None] == scores[True] != scores[False]


def test_few_shot_examples_as_turns_or_in_one_message(tasks, chatty, roomy):
    def prompts(**settings):
        scorer = HarnessScorer(
            BENCHMARKS[:1], roomy, chatty, include_path=tasks, num_fewshot=2, **settings
        )
        return [instance.args[0] for instance in scorer._suite.asked()]

    turns = prompts(apply_chat_template=True)
    assert all(prompt.count("<u>") == 3 and prompt.count("<a>") == 3 for prompt in turns)
    one = prompts(apply_chat_template=True, fewshot_as_multiturn=False)
    assert all(prompt.count("<u>") == 1 and prompt.count("<a>") == 1 for prompt in one)


def test_a_chat_template_by_its_name(tasks, oracle, roomy):
    tokenizer = chat_tokenizer({"default": CHAT, "other": OTHER})
    some = BENCHMARKS[1:2]
    scores, digests = {}, set()
    for template in (True, "default", "other"):
        scorer = HarnessScorer(
            some, roomy, tokenizer, include_path=tasks, batch_size=4, apply_chat_template=template
        )
        scores[template] = scorer.score()
        digests.add(scorer.plan_digest())
        named = {} if template is True else {"chat_template_args": {"chat_template": template}}
        peer = oracle(
            roomy, ["cloze"], saved_tokenizer=tokenizer, of_model=named, apply_chat_template=True
        )
        assert scores[template] == expected(peer, some)
    assert scores[True] == scores["default"] != scores["other"]
    assert len(digests) == 2  # a name that makes no difference is none


MADE = """
task: made
custom_dataset: !function made.documents
output_type: loglikelihood
test_split: test
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: perplexity, aggregation: perplexity, higher_is_better: false}]
metadata: {version: 1.0, length: 2}
"""
MADE_PY = """
import datasets

def documents(length, tokenizer=None, **kwargs):
    rows = [{"prompt": "moon " * (length + i), "answer": "river"} for i in range(3)]
    return {"test": datasets.Dataset.from_list(rows)}
"""


def test_metadata_that_a_task_makes_its_data_from(tmp_path, tokenizer, oracle, model):
    (tmp_path / "made.yaml").write_text(MADE)
    (tmp_path / "made.py").write_text(MADE_PY)
    some = [Benchmark("made", "perplexity")]
    options = {"include_path": tmp_path, "batch_size": 4}

    def scored(benchmarks=some, **settings):
        scorer = HarnessScorer(benchmarks, model, tokenizer, **options, **settings)
        return scorer.score()["made/perplexity"], scorer.plan_digest()

    found = {length: scored(metadata={"length": length}) for length in (2, 5)}
    for length, (score, _) in found.items():
        peer = oracle(model, ["made"], include_path=tmp_path, metadata={"length": length})
        assert score == -peer["made"]["perplexity,none"]
    assert found[2] == scored() and found[2][1] != found[5][1]
    own = [Benchmark("made", "perplexity", metadata={"length": 5})]
    assert scored(own, metadata={"length": 3, "tokenizer": "/here"}) == found[5]
    assert scored(own, metadata={"tokenizer": "/there"}) == found[5]


def test_a_benchmark_for_itself(tasks, chatty, oracle, roomy):
    """Two benchmarks of one task under two settings are two tasks."""
    common = {"gen_kwargs": {"max_gen_toks": 5, "do_sample": False}, "think_end_token": "e"}
    own = {
        "plain": {},
        "short": {"gen_kwargs": {"max_gen_toks": 2}},
        "chat": {"apply_chat_template": True, "system_instruction": "be wise"},
        "thought": {"think_end_token": "o"},
        "whole": {"think_end_token": ""},
    }
    scorer = HarnessScorer(
        [Benchmark("dream", "length", name=name, **given) for name, given in own.items()],
        roomy,
        chatty,
        include_path=tasks,
        batch_size=64,
        **common,
    )
    scores = scorer.score()
    for name, given in own.items():
        settings = {**common, **given}
        settings["gen_kwargs"] = {**common["gen_kwargs"], **given.get("gen_kwargs", {})}
        token = settings.pop("think_end_token") or None
        peer = oracle(
            roomy,
            ["dream"],
            batch_size=64,
            saved_tokenizer=chatty,
            of_model={"think_end_token": token},
            **settings,
        )
        assert scores[name] == -peer["dream"]["length,first"]
    assert len(set(scores.values())) > 3
    described = scorer.describe()["settings"]
    assert described["short"]["gen_kwargs"] == {"max_gen_toks": 2, "do_sample": False}
    assert "think_end_token" not in described["whole"]


def test_settings_that_change_nothing_change_no_digest(tasks, chatty, roomy):
    def plan(**settings):
        return HarnessScorer(
            BENCHMARKS[:2], roomy, chatty, include_path=tasks, **settings
        ).plan_digest()

    plain = plan()
    assert plain == plan(apply_chat_template=False, fewshot_as_multiturn=False)
    assert plain == plan(system_instruction="", gen_kwargs={}, metadata={}, add_bos_token=False)
    assert plain == plan(gen_kwargs={"max_gen_toks": 3}, think_end_token="e")  # no text is asked


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"apply_chat_template": True}, "apply_chat_template: the tokenizer has no chat template"),
        ({"apply_chat_template": ""}, "scorer: apply_chat_template must be true, false or the"),
        ({"fewshot_as_multiturn": True}, "scorer: fewshot_as_multiturn makes turns of a chat"),
        ({"system_instruction": 3}, "scorer: system_instruction must be text"),
        ({"gen_kwargs": {"max_gen_toks": 0}}, "scorer: max_gen_toks must be a whole number >= 1"),
        ({"gen_kwargs": "do_sample=true"}, "scorer: gen_kwargs must be a mapping"),
        ({"gen_kwargs": {"max_gen_toks": 48}}, "lower max_gen_toks in gen_kwargs"),
        ({"metadata": [4096]}, "scorer: metadata must be a mapping"),
        ({"think_end_token": True}, "scorer: think_end_token must be the text or the id"),
    ],
)
def test_unusable_settings_are_named(settings, said, tasks, tokenizer, model):
    with pytest.raises(TaskError, match=said):
        HarnessScorer([BENCHMARKS[3]], model, tokenizer, include_path=tasks, **settings)


def test_settings_that_a_tokenizer_does_not_have(tasks, model):
    def refuse(said, tokenizer, **settings):
        with pytest.raises(TaskError, match=said):
            HarnessScorer([BENCHMARKS[0]], model, tokenizer, include_path=tasks, **settings)

    one, two = chat_tokenizer(CHAT), chat_tokenizer({"rag": CHAT, "tools": OTHER})
    refuse(
        "one template, and none called 'tools'; set it to true", one, apply_chat_template="tools"
    )
    refuse("did you mean 'tools'", two, apply_chat_template="tool")
    refuse("no default template; name one of rag, tools", two, apply_chat_template=True)
    one.bos_token = None
    refuse("add_bos_token: the tokenizer has no BOS token", one, add_bos_token=True)


def test_turns_of_a_chat_that_one_benchmark_has():
    common, chat = (
        TaskSettings(fewshot_as_multiturn=True),
        Benchmark("a", "acc", apply_chat_template=True),
    )
    runs = resolve(common, {"a": chat, "b": Benchmark("b", "acc")}, where="scoring")
    assert runs["a"].fewshot_as_multiturn is True and runs["b"].fewshot_as_multiturn is None
    with pytest.raises(TaskError, match="benchmark 'b': fewshot_as_multiturn"):
        resolve(chat, {"b": Benchmark("b", "acc", apply_chat_template=False,
                                      fewshot_as_multiturn=True)}, where="scoring")  # fmt: skip


def test_generation_of_a_task_that_generates_nothing(tasks, tokenizer, model):
    with pytest.raises(TaskError, match="'letters/acc': gen_kwargs is about generated texts"):
        HarnessScorer(
            [Benchmark("letters", "acc", gen_kwargs={"max_gen_toks": 3})],
            model,
            tokenizer,
            include_path=tasks,
        )
