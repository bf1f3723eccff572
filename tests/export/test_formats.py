"""Every format is read by the rules of its framework's documentation; `test_readers` has the
frameworks themselves read it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from optuna_demix.errors import ConfigError
from optuna_demix.export import (
    STAGED,
    DataSource,
    Stage,
    export,
    export_stages,
    sources_of,
)

SHARES = {"web": 0.609, "code": 0.313, "math": 0.078}
LENGTHS = {"web": 500.0, "code": 1500.0, "math": 250.0}


@pytest.fixture
def sources() -> list[DataSource]:
    return sources_of(
        SHARES,
        paths="/data/{dataset}",
        example_tokens=LENGTHS,
        tokens={"web": 2e10, "math": 4e8},
        budget=1e10,
    )


def test_megatron_splits_the_file_at_white_space(sources: list[DataSource]) -> None:
    words = export(sources, "megatron", comment="not to be seen").split()
    weights, prefixes = words[::2], words[1::2]
    assert [float(weight) for weight in weights] == list(SHARES.values())
    assert prefixes == ["/data/web", "/data/code", "/data/math"]


def test_nemo_takes_a_flat_list_of_strings(sources: list[DataSource]) -> None:
    paths = yaml.safe_load(export(sources, "nemo"))["paths"]
    assert all(isinstance(item, str) for item in paths)
    assert paths == export(sources, "megatron").split()


def test_olmo_core_is_told_sources_and_repetitions(sources: list[DataSource]) -> None:
    entries = yaml.safe_load(export(sources, "olmo-core", comment="study 'mix'"))["sources"]
    # What SourceMixtureConfig and SourceMixtureList check.
    assert np.allclose(sum(entry["target_ratio"] for entry in entries), 1.0)
    assert all(0 < entry["target_ratio"] <= 1 and entry["paths"] for entry in entries)
    assert [entry["source_name"] for entry in entries] == list(SHARES)
    web, code, math = entries
    assert "max_repetition_ratio" not in web  # less than one epoch
    assert "max_repetition_ratio" not in code  # its size is unknown
    # 7.8 % of 1e10 tokens from 4e8: as many are allowed as are needed, and hardly more.
    assert 0.078e10 <= 4e8 * math["max_repetition_ratio"] < 0.079e10


def test_nanotron_is_told_folders_and_weights(sources: list[DataSource]) -> None:
    dataset = yaml.safe_load(export(sources, "nanotron"))["dataset"]
    assert dataset["dataset_folder"] == ["/data/web", "/data/code", "/data/math"]
    assert dataset["dataset_weights"] == list(SHARES.values())


def test_mosaicml_takes_proportions_of_examples(sources: list[DataSource]) -> None:
    streams = yaml.safe_load(export(sources, "mosaicml"))["streams"]
    assert list(streams) == list(SHARES)
    assert_tokens_as_asked({name: s["proportion"] for name, s in streams.items()})
    # "At most one of proportion, repeat, or choose", and at least one of remote and local.
    assert all(set(stream) == {"remote", "proportion"} for stream in streams.values())


def test_hugging_face_draws_small_shares_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Map-style datasets would be repeated until the smallest share has been seen as a whole."""
    pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    shares = {"web": 0.7, "a/code": 0.29999, "tiny": 1e-5}
    lengths = {"web": 500.0, "a/code": 1500.0, "tiny": 10.0}
    for name in shares:
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        rows = [json.dumps({"from": name, "text": f"document {i}"}) for i in range(40)]
        (folder / "part.jsonl").write_text("\n".join(rows))
    sources = sources_of(
        shares,
        paths=f"{tmp_path}/data/{{dataset}}",
        example_tokens=lengths,
        tokens=dict.fromkeys(shares, 1e6),
        budget=1e7,
    )
    code = export(sources, "huggingface", comment="study 'mix'\nof two lines")
    exported: dict[str, Any] = {}
    exec(compile(code, "mixture.py", "exec"), exported)
    drawn = Counter(example["from"] for example in exported["mixture"]())
    asked = {name: 1e7 * share / lengths[name] for name, share in shares.items()}
    assert drawn.total() == pytest.approx(sum(asked.values()), abs=1)  # the budget
    for name, n in asked.items():  # 14000, 2000 and 10 examples
        assert drawn[name] == pytest.approx(n, abs=4 * n**0.5)
    again = exported["mixture"](n_examples=500, seed=1)
    assert sum(1 for _ in again) == 500


def test_hugging_face_asks_for_the_number_of_examples_that_it_cannot_know() -> None:
    exported: dict[str, Any] = {}
    exec(export(sources_of(SHARES), "huggingface"), exported)
    assert exported["SOURCES"] == SHARES
    with pytest.raises(TypeError, match="n_examples"):
        exported["mixture"]()


def assert_tokens_as_asked(examples: dict[str, float]) -> None:
    """Examples so drawn, with their lengths, have the data shares."""
    tokens = {name: n * LENGTHS[name] for name, n in examples.items()}
    for name, share in SHARES.items():
        assert tokens[name] / sum(tokens.values()) == pytest.approx(share, abs=1e-4)


def test_json_and_yaml_say_the_same(sources: list[DataSource]) -> None:
    plain = json.loads(export(sources, "json", comment="not to be seen"))
    assert plain == yaml.safe_load(export(sources, "yaml", comment="a\nb"))
    assert {name: d["share"] for name, d in plain["datasets"].items()} == SHARES
    assert plain["datasets"]["math"]["epochs"] == pytest.approx(1.95)
    assert "epochs" not in plain["datasets"]["code"]


def test_odd_names_survive_yaml() -> None:
    shares = {"yes": 0.25, "1.0": 0.25, "a: b": 0.25, "größe #1": 0.25}
    for kind in ("yaml", "olmo-core", "mosaicml", "energon"):
        content = yaml.safe_load(export(sources_of(shares), kind))
        body = content.get("splits", {}).get("train", {}).get("blend") or content.get("sources")
        names = [e.get("source_name", e.get("path")) for e in body] if body else None
        assert (names or list(next(iter(content.values())))) == list(shares)


def test_python_modules_compile_whatever_the_names() -> None:
    shares = {"it's": 0.5, 'a "b" {c} \\ d': 0.5}
    for kind in (
        "huggingface",
        "litdata",
        "torchtitan",
        "torchtitan-grain",
        "olmo-core-composable",
    ):
        text = export(sources_of(shares), kind, comment="one\ntwo")
        compile(text, kind, "exec")
        assert text.startswith("# one\n# two\n")


def test_megatron_bridge_is_told_all_splits(sources: list[DataSource]) -> None:
    splits = json.loads(export(sources, "megatron-bridge", comment="not to be seen"))
    assert splits["train"] == export(sources, "megatron").split()
    assert splits["valid"] is splits["test"] is None


def test_nemotron_is_told_names_paths_and_weights(sources: list[DataSource]) -> None:
    datasets = json.loads(export(sources, "nemotron", comment="not to be seen"))["datasets"]
    assert {d["name"]: d["weight"] for d in datasets} == SHARES
    assert [d["path"] for d in datasets] == ["/data/web", "/data/code", "/data/math"]


def test_energon_draws_samples(sources: list[DataSource]) -> None:
    content = yaml.safe_load(export(sources, "energon"))
    assert (content["__module__"], content["__class__"]) == ("megatron.energon", "MetadatasetV2")
    blend = content["splits"]["train"]["blend"]
    assert_tokens_as_asked(
        {entry["path"].removeprefix("/data/"): entry["weight"] for entry in blend}
    )


@pytest.mark.parametrize("kind", ["energon-epochs", "mosaicml-epochs"])
def test_epochs_stand_instead_of_weights(kind: str, sources: list[DataSource]) -> None:
    known = sources_of(SHARES, tokens=dict.fromkeys(SHARES, 1e9), budget=2e9)
    text = export(known, kind)
    assert all(f": {2 * share:.3f}\n" in text for share in SHARES.values())
    with pytest.raises(ConfigError, match="mixture.budget.*unknown for code$"):
        export(sources, kind)


def test_torchtitan_keeps_names_apart() -> None:
    with pytest.raises(ConfigError, match="'Web' and 'web' as one name"):
        export(sources_of({"Web": 0.5, "web": 0.5}), "torchtitan")


@pytest.fixture
def stages() -> list[Stage]:
    sizes = {"web": 2e10, "math": 1e9}
    early = sources_of({"web": 0.9, "math": 0.1}, tokens=sizes, budget=9e9)
    late = sources_of({"web": 0.2, "math": 0.8}, tokens=sizes, budget=1e9)
    return [Stage("early", 0.9, early), Stage("late", 0.1, late)]


def test_a_run_is_written_stage_by_stage(stages: list[Stage]) -> None:
    plain = json.loads(export_stages(stages, "json", step_tokens=4e6))["phases"]
    assert plain == yaml.safe_load(export_stages(stages, "yaml", step_tokens=4e6))["phases"]
    assert [phase["name"] for phase in plain] == ["early", "late"]
    assert [(p["start_token"], p["tokens"], p["start_step"]) for p in plain] == [
        (0, 9 * 10**9, 1),
        (9 * 10**9, 10**9, 2251),
    ]
    assert plain[1]["datasets"]["math"]["epochs"] == pytest.approx(0.8)
    assert "start_step" not in json.loads(export_stages(stages, "json"))["phases"][0]


def test_nanotron_starts_stages_at_steps(stages: list[Stage]) -> None:
    found = yaml.safe_load(export_stages(stages, "nanotron", step_tokens=4e6))["data_stages"]
    assert [stage["start_training_step"] for stage in found] == [1, 2251]
    assert found[1]["data"]["dataset"] == {
        "dataset_folder": ["web", "math"],
        "dataset_weights": [0.2, 0.8],
    }


@pytest.mark.parametrize(
    ("budget", "step_tokens", "named"),
    [
        (1e9, None, "tokens of a step"),
        (1e9, 0.0, "positive"),
        (1e9, 3e9, "'early' has 1e\\+09 tokens, less than a training step"),
        (None, 4e6, "set mixture.budget"),
    ],
)
def test_steps_that_make_no_sense(
    budget: float | None, step_tokens: float | None, named: str
) -> None:
    stage = Stage("early", 1.0, sources_of({"web": 1.0}, budget=budget))
    with pytest.raises(ConfigError, match=named):
        export_stages([stage], "nanotron", step_tokens=step_tokens)


def test_olmo_core_splits_what_the_run_does_not_see_as_a_whole(stages: list[Stage]) -> None:
    text = export_stages(stages, "olmo-core-composable")
    found: dict[str, Any] = {}
    exec(text[text.index("STAGES") : text.index("def mixes")], found)
    (early, early_sources), (late, late_sources) = found["STAGES"].values()
    assert (early, late) == (9 * 10**9, 10**9)
    # Path, share, limit of repetitions, part of what is left: 8.1e9 of 8.3e9 tokens of web.
    assert early_sources["web"] == ("web", 0.9, 1.0, pytest.approx(8.1 / 8.3))
    assert late_sources["web"] == ("web", 0.2, 1.0, 1.0)
    # 0.9 and 0.8 epochs of math are more than there is: each stage draws from all of it.
    assert early_sources["math"][2:] == late_sources["math"][2:] == (1.0, 1.0)


def test_readers_without_stages_are_refused(stages: list[Stage]) -> None:
    assert set(STAGED) == {"json", "yaml", "nanotron", "olmo-core-composable"}
    with pytest.raises(ConfigError, match="'megatron' has no stages.*nanotron"):
        export_stages(stages, "megatron")


def test_a_path_with_a_space_cannot_be_told_to_megatron() -> None:
    with pytest.raises(ConfigError, match="white space"):
        export(sources_of({"web": 1.0}, paths="/my data/{dataset}"), "megatron")


def test_an_unknown_format_lists_the_known(sources: list[DataSource]) -> None:
    with pytest.raises(ConfigError, match="'axolotl' is unknown.*megatron"):
        export(sources, "axolotl")
