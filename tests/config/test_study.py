from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_demix.config import load_study_config, mixture_arguments
from optuna_demix.config.space import space_of
from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.quickstart import STUDY_FILE
from tests.fuzzing import N_INPUTS

MINIMAL: dict[str, Any] = {
    "components": ["web", "code"],
    "capabilities": {"all": [{"task": "arc_easy", "metric": "acc"}]},
}
REPOSITORY = Path(__file__).parents[2]


def write(tmp_path: Path, study: Any) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(study if isinstance(study, str) else yaml.safe_dump(study))
    return file


def test_a_minimal_study_is_filled_with_defaults(tmp_path: Path) -> None:
    config = load_study_config(write(tmp_path, MINIMAL))
    assert config.dataset_names == ["web", "code"]
    assert config.composition_of("code") == {"code": 1.0}
    assert config.component_path("code") == tmp_path / "run" / "models" / "code"
    assert config.capabilities["all"][0].label == "arc_easy/acc"


def test_general_data_goes_into_every_component(tmp_path: Path) -> None:
    study = {**MINIMAL, "general": {"dataset": "web", "share": 0.25}}
    config = load_study_config(write(tmp_path, study))
    assert config.composition_of("code") == {"code": 0.75, "web": 0.25}
    assert config.composition_of("web") == {"web": 1.0}
    shares = space_of(config).data_shares([0.0, 1.0])
    assert shares == pytest.approx([0.25, 0.75])


def test_caps_come_from_tokens_and_epochs(tmp_path: Path) -> None:
    study = {
        **MINIMAL,
        "datasets": {"web": {"tokens": "1_000_000"}, "code": {"tokens": 1e5}},
        "mixture": {"max_epochs": 4, "budget": "1e6"},
    }
    space = space_of(load_study_config(write(tmp_path, study)))
    assert space.max_weights() == pytest.approx([1.0, 0.4])


def test_settings_of_lm_eval_for_all_benchmarks_and_for_one(tmp_path: Path) -> None:
    chat = {"apply_chat_template": "tools", "fewshot_as_multiturn": False}
    own = {"limit": 0.25, "gen_kwargs": {"max_gen_toks": 64}, "think_end_token": "</think>"}
    study = {
        **MINIMAL,
        "scoring": {"limit": 500, "metadata": {"max_seq_lengths": [4096]}, **chat},
        "capabilities": {"all": [{"task": "arc_easy", "metric": "acc", **own}]},
    }
    config = load_study_config(write(tmp_path, study))
    run = config.capabilities["all"][0].settings.over(config.scoring.settings)
    assert vars(run) == {
        **{"num_fewshot": None, "system_instruction": None, "repeats": None},
        **{"metadata": {"max_seq_lengths": [4096]}, **chat, **own},
    }
    assert isinstance(config.scoring.settings.limit, int)  # 500.0 would be another plan


@pytest.mark.parametrize(
    ("given", "paths"),
    [(None, []), ("tasks", ["tasks"]), (["a", "../b"], ["a", "../b"])],
)
def test_include_paths_start_at_the_file(tmp_path: Path, given: Any, paths: list[str]) -> None:
    study = {**MINIMAL, "scoring": {"include_path": given}}
    found = load_study_config(write(tmp_path, study)).include_paths
    assert found == [(tmp_path / path).resolve() for path in paths]


@pytest.mark.parametrize(
    "file", [STUDY_FILE, REPOSITORY / "studies" / "demix_paper" / "study.yaml"], ids=str
)
def test_the_studies_that_come_with_it_are_valid(file: Path) -> None:
    config = load_study_config(file)
    space = space_of(config)
    assert space.contains(space.prior)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"componets": []}, ["componets", "did you mean 'components'"]),
        ({"components": {"web": {"pth": "x"}}}, ["components.web.pth", "'path'"]),
        ({"components": ["web", "web"]}, ["'web'", "twice"]),
        ({"components": {"web": {"path": "a", "hub": "b/c"}}}, ["'path' or 'hub'"]),
        ({"capabilities": {"all": []}}, ["capabilities.all", "no benchmark"]),
        ({"capabilities": {"all": [{"task": "arc_easy"}]}}, ["capabilities.all.0.metric"]),
        ({"general": {"dataset": "wbe"}}, ["general.dataset", "did you mean 'web'"]),
        ({"scoring": {"batch_size": 0}}, ["scoring.batch_size"]),
        ({"scoring": {"limit": 1.5}}, ["scoring.limit", "at least 1", "below 1, got 1.5"]),
        ({"scoring": {"limit": True}}, ["scoring.limit", "got true"]),
        (
            {"scoring": {"apply_chat_template": 1}},
            ["scoring.apply_chat_template", "true or false"],
        ),
        (
            {"scoring": {"gen_kwargs": {"max_gen_toks": 0}}},
            ["scoring: max_gen_toks", ">= 1, not 0"],
        ),
        ({"scoring": {"think_end_token": True}}, ["scoring.think_end_token", "got true"]),
        ({"scoring": {"include_path": [3]}}, ["scoring.include_path"]),
        ({"scoring": {"fewshot_as_multiturn": True}}, ["scoring: fewshot_as_multiturn", "chat"]),
        (
            {
                "scoring": {"apply_chat_template": True},
                "capabilities": {
                    "all": [
                        {
                            "task": "a",
                            "metric": "acc",
                            "apply_chat_template": False,
                            "fewshot_as_multiturn": True,
                        }
                    ]
                },
            },
            ["benchmark 'a/acc': fewshot_as_multiturn", "set apply_chat_template or remove it"],
        ),
        (
            {"capabilities": {"all": [{"task": "a", "metric": "acc", "add_bos_token": True}]}},
            ["capabilities.all.0.add_bos_token"],
        ),
        ({"mixture": {"upper": {"web": 2}}}, ["mixture.upper"]),
        ({"sampler": {"composite": {"alll": 1}}}, ["sampler.composite", "'all'"]),
        ({"objective": "both"}, ["objective"]),
        ({"components": ["base"]}, ["'base'", "change it"]),
        ({"training": {"tokenizer": "t", "model": {"a": {1, 2}}}}, ["training.model"]),
        ({"sampler": {"schedule_sizes": []}}, ["sampler.schedule_sizes", "not empty"]),
        ({"sampler": {"seed": -1}}, ["sampler.seed", "from 0 to 4294967295"]),
        ({"scoring": {"device_map": "gpu:0"}}, ["scoring.device_map", "cuda:<number>"]),
        (
            {"training": {"tokenizer": "t", "seed": -1, "component": {"tokens": 1}}},
            ["training.seed", "from 0 to 4294967295"],
        ),
    ],
)
def test_a_bad_field_is_named_with_its_remedy(
    tmp_path: Path, change: dict[str, Any], named: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study_config(write(tmp_path, {**MINIMAL, **change}))
    message = str(caught.value)
    assert "study.yaml" in message and "\n" not in message
    assert all(word in message for word in named), message


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": 1.0}, "no weight for capability 'b'; give one, 0 to leave it out"),
        ({"a": 1.0, "b": -1.0}, "sampler.composite.b: must be a number of at least 0, got -1.0"),
        (
            {"a": 1.0, "b": float("nan")},
            "sampler.composite.b: must be a finite number of",
        ),
        (
            {"a": float("inf"), "b": 1.0},
            "sampler.composite.a: must be a finite number of",
        ),
        ({"a": 0.0, "b": 0}, "sampler.composite: at least one weight must be positive"),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, "sampler.composite: no capability 'c'"),
        ([1.0, 1.0], "sampler.composite: must be one of 'rank', 'mean', 'pareto' or a mapping"),
    ],
)
def test_weights_of_a_composite_are_refused_when_given(
    tmp_path: Path, weights: Any, said: str
) -> None:
    capabilities = {name: [{"task": f"task_{name}", "metric": "acc"}] for name in "ab"}
    study = {**MINIMAL, "capabilities": capabilities, "sampler": {"composite": weights}}
    with pytest.raises(ConfigError) as caught:
        load_study_config(write(tmp_path, study))
    assert said in str(caught.value)


def test_weights_of_a_composite_are_shares(tmp_path: Path) -> None:
    capabilities = {name: [{"task": f"task_{name}", "metric": "acc"}] for name in "ab"}
    sampler = {"composite": {"b": 3, "a": 1}}
    study = {**MINIMAL, "capabilities": capabilities, "sampler": sampler}
    config = load_study_config(write(tmp_path, study))
    assert config.capability_weights == {"a": 0.25, "b": 0.75}


@pytest.mark.parametrize("field", ["components", "capabilities"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    study = {key: value for key, value in MINIMAL.items() if key != field}
    with pytest.raises(ConfigError, match=f"{field}: is missing"):
        load_study_config(write(tmp_path, study))


@pytest.mark.parametrize("text", ["[1,", "just words", "a: 1\na: 2", "? [x]\n: 1", "!!python/x 1"])
def test_what_is_no_study_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="study.yaml"):
        load_study_config(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.yaml"):
        load_study_config(tmp_path / "nowhere.yaml")


def test_impossible_caps_name_the_file(tmp_path: Path) -> None:
    config = load_study_config(write(tmp_path, {**MINIMAL, "mixture": {"upper": 0.4}}))
    with pytest.raises(ConstraintError, match="study.yaml: mixture:.*upper bound"):
        space_of(config)


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@pytest.mark.fuzz
@settings(max_examples=N_INPUTS, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: values
            for name in ("components", "capabilities", "mixture", "general", "sampler", "training")
        },
    )
)
def test_any_study_gives_a_config_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, study: dict[str, Any]
) -> None:
    file = write(tmp_path_factory.mktemp("fuzz"), {**MINIMAL, **study})
    try:
        mixture_arguments(load_study_config(file))
    except ConfigError as error:
        assert str(file) in str(error) and "\n" not in str(error)


yaml_words = st.sampled_from(
    ["components", "capabilities", ":", "- ", "{", "}", "[", "]", "\n", "  ", "&a", "*a", "!!map",
     "'", '"', "|", ">", "#", "?", "%", "@", "---", "\t", "1e999", ".nan", "\x00", "é", "<<"]
)  # fmt: skip


@pytest.mark.fuzz
@settings(max_examples=N_INPUTS, deadline=None)
@given(st.lists(yaml_words, max_size=30).map("".join).map(str.encode) | st.binary(max_size=60))
def test_any_bytes_give_a_config_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "study.yaml"
    file.write_bytes(content)
    try:
        load_study_config(file)
    except ConfigError as error:
        assert str(file) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("clash", "said"),
    [
        ({"scoring": {"screen": {}, "racing": {}}, "objective": "composite"}, "scoring.racing"),
        ({"scoring": {"screen": {}}, "proxy": "probabilities"}, "proxy: probabilities"),
        ({"scoring": {"screen": {}}, "sampler": {"schedule": "demix"}}, "sampler.schedule: demix"),
    ],
)
def test_what_screening_does_not_go_with(tmp_path: Path, clash: dict[str, Any], said: str) -> None:
    load_study_config(write(tmp_path, {**MINIMAL, "scoring": {"screen": {}}}))
    with pytest.raises(ConfigError, match=f"scoring.screen does not go with {said}; remove"):
        load_study_config(write(tmp_path, {**MINIMAL, **clash}))
