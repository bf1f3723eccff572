"""Reading a ``study.yaml``: what is YAML, and what a message says."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core._pydantic_core import list_all_errors

from optuna_demix.config import StudyConfig, load_study_config
from optuna_demix.config._base import StrictModel
from optuna_demix.config._messages import _bare, _choices, _is_container, explain
from optuna_demix.errors import ConfigError

BENCHMARK = {"task": "arc_easy", "metric": "acc"}
FULL: dict[str, Any] = {
    "components": {"web": {}, "code": {}},
    "datasets": {"web": {}, "code": {}},
    "general": {"dataset": "web"},
    "mixture": {
        "groups": [{"name": "all", "members": ["web"]}],
        "constraints": [{"coefficients": {"web": 1}, "upper": 1}],
    },
    "phases": [
        {"name": "early", "share": 0.9, "fixed": True, "prior": {"web": 1, "code": 0}},
        {"name": "late", "share": 0.1, "hierarchy": {"all": {"sources": ["web", "code"]}}},
    ],
    "capabilities": {"all": [BENCHMARK]},
    "objective": "composite",
    "scoring": {"racing": {}, "generation": "vllm", "vllm": {}},
    "merging": {},
    "sampler": {},
    "dashboard": {},
    "training": {
        "tokenizer": "t",
        "base": {"tokens": 9, "learning_rate": 1e-3},
        "component": {"tokens": 9, "learning_rate": 1e-3},
        "reference": {"tokens": 9, "learning_rate": 1e-3},
    },
}
SCREENED: dict[str, Any] = {**FULL, "scoring": {"screen": {}}}
"""Studies that hold each model once at least."""


def load(folder: Path, study: Any) -> StudyConfig:
    file = folder / "study.yaml"
    file.write_text(study if isinstance(study, str) else yaml.safe_dump(study, sort_keys=False))
    return load_study_config(file)


def complaint(study: Any) -> str | None:
    """What is said of a study; ``None`` if it is a valid one."""
    try:
        StudyConfig.model_validate(study)
    except ValidationError as error:
        return explain(error, StudyConfig)
    return None


def refusal(folder: Path, study: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, study)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'study.yaml'}: ") and "\n" not in message
    return message.removeprefix(f"{folder / 'study.yaml'}: ")


class TestYaml:
    HEAD = "capabilities: {all: [{task: piqa, metric: acc}]}\n"

    def test_a_merge_key_takes_the_fields_of_another_mapping(self, tmp_path: Path) -> None:
        config = load(
            tmp_path,
            self.HEAD + "components: [web, code]\n"
            "training:\n"
            "  tokenizer: t\n"
            "  component: &run {tokens: 100, learning_rate: 1.0e-3}\n"
            "  reference: {<<: *run, tokens: 200}\n",
        )
        training = config.training
        assert training is not None and training.reference is not None
        assert training.reference.tokens == 200  # its own field counts, not the merged one
        assert training.reference.learning_rate == 1e-3
        assert training.component.tokens == 100

    def test_merged_mappings_may_be_merged_themselves(self, tmp_path: Path) -> None:
        config = load(
            tmp_path,
            self.HEAD + "components:\n"
            "  a: &a {hub: me/a, revision: r}\n"
            "  b: &b {<<: *a, subfolder: b}\n"
            "  c: {<<: [*b, *a], revision: s}\n",
        )
        given = {name: (c.hub, c.subfolder, c.revision) for name, c in config.components.items()}
        assert given == {
            "a": ("me/a", None, "r"),
            "b": ("me/a", "b", "r"),
            "c": ("me/a", "b", "s"),
        }

    @pytest.mark.parametrize(
        ("text", "field"),
        [
            ("run_dir: a\nrun_dir: b\n", "run_dir"),
            ("sampler: {seed: 1, seed: 1}\n", "seed"),
            ("datasets: &d {a: {}}\nmixture: {prior: {<<: *d, a: 1, a: 2}}\n", "a"),
            ("datasets: &d {a: {}}\nmixture: {prior: {<<: *d, <<: *d}}\n", "<<"),
        ],
        ids=["at the top", "further in", "beside a merge key", "the merge key itself"],
    )
    def test_a_field_given_twice_is_refused(self, tmp_path: Path, text: str, field: str) -> None:
        assert f"field {field!r} is there twice" in refusal(tmp_path, self.HEAD + text)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("a: [1,\nb: }", "line 2, column 4: "),
            ("a:\n\tb: 1", "line 2, column 1: "),
            ("a: *b", "line 1, column 4: found undefined alias 'b'"),
            ("<<: 1", "line 1, column 5: expected a mapping"),
            ("a: 2020-13-45", "month must be in 1..12"),
        ],
    )
    def test_a_mistake_is_shown_by_line_and_column(
        self, tmp_path: Path, text: str, said: str
    ) -> None:
        message = refusal(tmp_path, text)
        assert "is not valid YAML: " in message and said in message and "<unicode" not in message


# Every field of every model -------------------------------------------------------------------

PYDANTIC = sorted(
    {
        part.strip(" ,.'`()").lower()
        for kind in list_all_errors()
        for part in kind["message_template_python"].replace("}", "{").split("{")[::2]
        if len(part.strip(" ,.'`()").split()) >= 2
    }
)
"""What pydantic writes, without the values that it fills in."""

REMEDIES = ("must be", "must hold", "did you mean", "known:", "there are none", "add it", "give ",
            "use one of", "change ", "set ", "remove ")  # fmt: skip

WRONG: tuple[Any, ...] = (
    None,
    True,
    3,
    -1,
    0,
    2.5,
    10**30,
    float("inf"),
    float("-inf"),
    float("nan"),
    "text",
    "",
    "\u2028\x85",
    [],
    [1],
    [None, "x"],
    [{}],
    {},
    {"x": 1},
    {"x": {}},
    {1: 1},
    {"web": float("nan")},
    {"web": -1},
    {"web": "x"},
    {"web": True},
    {"web": {"web": float("inf")}},
    datetime.date(2020, 1, 2),
)


def fields(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of each field of each model in a study, those with defaults included."""

    def walk(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
        if isinstance(value, BaseModel):
            for name in type(value).model_fields:
                yield (*path, name)
                yield from walk(getattr(value, name), (*path, name))
        elif isinstance(value, dict):
            for name, inner in value.items():
                yield from walk(inner, (*path, name))
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                yield from walk(inner, (*path, index))

    yield from walk(StudyConfig.model_validate(data), path)


def changed(data: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of a study with one field changed."""
    if not path:
        return value
    first, *rest = path
    if isinstance(data, list):
        return [changed(x, tuple(rest), value) if i == first else x for i, x in enumerate(data)]
    return {**data, first: changed(data.get(first, {}), tuple(rest), value)}


ALL_FIELDS = sorted({*fields(FULL), *fields(SCREENED)}, key=str)


def in_full(path: tuple[str | int, ...], value: Any) -> Any:
    """A study that holds a field, with another value of it."""
    return changed(SCREENED if "screen" in path else FULL, path, value)


def models(kind: type[BaseModel]) -> set[type[BaseModel]]:
    """Every kind of section."""
    found: set[type[BaseModel]] = set()
    for inner in kind.__subclasses__():
        found |= {inner} | models(inner)
    return found


def test_the_study_above_holds_every_field_there_is() -> None:
    known = {(kind, name) for kind in models(StrictModel) for name in kind.model_fields}
    names = {path[-1] for path in ALL_FIELDS}
    assert len(known) > 60
    assert {name for _, name in known} == names


@pytest.mark.parametrize("path", ALL_FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_a_wrong_value_is_refused_in_our_words(path: tuple[str | int, ...]) -> None:
    n_refused = 0
    for value in WRONG:
        message = complaint(in_full(path, value))
        if message is None:
            continue
        n_refused += 1
        assert not [words for words in PYDANTIC if words in message.lower()], (value, message)
        assert "[" not in message.split(" must ")[0], (value, message)  # no dict[str,…]
        # A missing dataset is seen where it is asked for: "general.dataset: no dataset …".
        assert str(path[-1]).removesuffix("s") in message, (value, message)
        assert "\n" not in message
        assert any(words in message for words in REMEDIES), (value, message)
    assert n_refused > 3  # each field refuses something


def test_numbers_that_are_not_finite_are_refused_everywhere() -> None:
    for path in ALL_FIELDS:
        for number in (float("inf"), float("-inf"), float("nan")):
            for value in (number, {"web": number}, {"web": {"web": number}}, [number]):
                assert complaint(in_full(path, value)) is not None, (path, value)


def test_yaml_numbers_may_be_written_as_people_write_them(tmp_path: Path) -> None:
    study = changed(FULL, ("training", "component"), {"tokens": "5e9", "learning_rate": "1e-4"})
    training = load(tmp_path, study).training
    assert training is not None
    assert (training.component.tokens, training.component.learning_rate) == (5 * 10**9, 1e-4)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("training.seed", -1,
         "training.seed: must be a whole number from 0 to 4294967295, got -1"),
        ("mixture.upper", 2, "mixture.upper: must be a number from 0 to 1 or a mapping of names "
         "to numbers, got 2"),
        ("mixture.upper", {"web": 2},
         "mixture.upper.web: must be a number from 0 to 1, got 2"),
        ("mixture.max_epochs", {"web": 0},
         "mixture.max_epochs.web: must be a number above 0, got 0"),
        ("scoring.racing.p_threshold", 1,
         "scoring.racing.p_threshold: must be a number above 0 and below 1, got 1"),
        ("scoring.screen.keep", 0,
         "scoring.screen.keep: must be a number above 0 and of at most 1, got 0"),
        ("scoring.screen.benchmarks", ["arc_easi/acc"],
         "scoring.screen.benchmarks: no benchmark 'arc_easi/acc'"),
        ("scoring.batch_size", "all", "scoring.batch_size: must be a whole number of at least 1 "
         "or 'auto', got \"all\""),
        ("scoring.vllm.max_num_seqs", 0,
         "scoring.vllm.max_num_seqs: must be a whole number of at least 1, got 0"),
        ("scoring.generation", "hf", "scoring: 'vllm' belongs to 'generation: vllm'; remove one "),
        ("scoring.mixed_precision_dtype", "bfloat16", "scoring: vLLM runs without autocast; set "),
        ("scoring.limit", True, "scoring.limit: must be a whole number of at least 1 or a number "
         "above 0 and below 1, got true"),
        ("training.component.learning_rate", float("inf"),
         "training.component.learning_rate: must be a finite number above 0, got .inf"),
        ("sampler.schedule", "paper",
         "sampler.schedule: must be one of 'continuous', 'demix', got \"paper\""),
        ("sampler", None, "sampler: must be a mapping of fields (surrogate, schedule, "),
        ("capabilities", {}, "capabilities: must be a mapping of names to lists that is not "
         "empty, got {}"),
        ("capabilities", {3: [BENCHMARK]},
         "capabilities.3: a name must be text, got 3; put it in quotes"),
        ("run_dir", 3, "run_dir: must be text, got 3; put it in quotes"),
        ("dashboard.push", "maybe", "dashboard.push: must be true or false, got \"maybe\""),
        ("merging.parameters", {"density": "half"},
         "merging.parameters.density: must be a number or a whole number or true or false, "
         "got \"half\""),
    ],
)  # fmt: skip
def test_a_message_says_what_belongs_there(
    tmp_path: Path, path: str, value: Any, said: str
) -> None:
    assert refusal(tmp_path, in_full(tuple(path.split(".")), value)).startswith(said)


def test_many_faults_are_counted(tmp_path: Path) -> None:
    study = {**FULL, **dict.fromkeys(("a_", "b_", "c_", "d_", "e_"), 1)}
    assert refusal(tmp_path, study).endswith("; and 2 more")


def test_a_fault_in_a_union_is_followed_into_its_one_container() -> None:
    """With two containers in one union nobody could tell which of them was meant."""
    for kind in models(StrictModel):
        for name, field in kind.model_fields.items():
            kinds = [_bare(choice) for choice in _choices(field.annotation)]
            assert sum(map(_is_container, kinds)) <= 1, (kind, name)
