"""Every format is read back as its framework reads it: by the framework itself where it is there,
else by the rules of its documentation."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from optuna_demix.errors import ConfigError
from optuna_demix.export import FORMATS, DataSource, export, sources_of

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


def test_megatron_core_reads_the_blend(sources: list[DataSource]) -> None:
    utils = pytest.importorskip("megatron.core.datasets.utils", reason="no Megatron core here")
    prefixes, weights = utils.get_blend_from_list(export(sources, "megatron").split())
    assert prefixes == ("/data/web", "/data/code", "/data/math") or prefixes == [
        "/data/web", "/data/code", "/data/math",
    ]  # fmt: skip
    assert weights == list(SHARES.values())
    assert utils.get_blend_from_list(yaml.safe_load(export(sources, "nemo"))["paths"]) == (
        prefixes,
        weights,
    )


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


def test_olmo_core_builds_the_list(sources: list[DataSource]) -> None:
    module = pytest.importorskip("olmo_core.data.source_mixture", reason="no OLMo-core here")
    content = yaml.safe_load(export(sources, "olmo-core"))
    mixture = module.SourceMixtureList(
        sources=[module.SourceMixtureConfig(**entry) for entry in content["sources"]]
    )
    mixture.validate()
    for source in mixture.sources:
        source.validate()


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
    for kind in set(FORMATS) - {"megatron", "nemo", "json", "huggingface", "nanotron"}:
        content = yaml.safe_load(export(sources_of(shares), kind))
        (body,) = content.values()
        names = list(body) if isinstance(body, dict) else [e["source_name"] for e in body]
        assert names == list(shares)


def test_a_path_with_a_space_cannot_be_told_to_megatron() -> None:
    with pytest.raises(ConfigError, match="white space"):
        export(sources_of({"web": 1.0}, paths="/my data/{dataset}"), "megatron")


def test_an_unknown_format_lists_the_known(sources: list[DataSource]) -> None:
    with pytest.raises(ConfigError, match="'axolotl' is unknown.*megatron"):
        export(sources, "axolotl")
