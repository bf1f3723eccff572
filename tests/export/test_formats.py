"""Every format is read back as its framework reads it: by the framework itself where it is there,
else by the rules of its documentation."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import yaml

from optuna_demix.errors import ConfigError
from optuna_demix.export import FORMATS, Source, export, sources_of

SHARES = {"web": 0.609, "code": 0.313, "math": 0.078}
LENGTHS = {"web": 500.0, "code": 1500.0, "math": 250.0}


@pytest.fixture
def sources() -> list[Source]:
    return sources_of(
        SHARES,
        paths="/data/{dataset}",
        example_tokens=LENGTHS,
        tokens={"web": 2e10, "math": 4e8},
        budget=1e10,
    )


def test_megatron_splits_the_file_at_white_space(sources: list[Source]) -> None:
    words = export(sources, "megatron", comment="not to be seen").split()
    weights, prefixes = words[::2], words[1::2]
    assert [float(weight) for weight in weights] == list(SHARES.values())
    assert prefixes == ["/data/web", "/data/code", "/data/math"]


def test_megatron_core_reads_the_blend(sources: list[Source]) -> None:
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


def test_nemo_takes_a_flat_list_of_strings(sources: list[Source]) -> None:
    paths = yaml.safe_load(export(sources, "nemo"))["paths"]
    assert all(isinstance(item, str) for item in paths)
    assert paths == export(sources, "megatron").split()


def test_olmo_core_is_told_sources_and_repetitions(sources: list[Source]) -> None:
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


def test_olmo_core_builds_the_list(sources: list[Source]) -> None:
    module = pytest.importorskip("olmo_core.data.source_mixture", reason="no OLMo-core here")
    content = yaml.safe_load(export(sources, "olmo-core"))
    mixture = module.SourceMixtureList(
        sources=[module.SourceMixtureConfig(**entry) for entry in content["sources"]]
    )
    mixture.validate()
    for source in mixture.sources:
        source.validate()


def test_nanotron_is_told_folders_and_weights(sources: list[Source]) -> None:
    dataset = yaml.safe_load(export(sources, "nanotron"))["dataset"]
    assert dataset["dataset_folder"] == ["/data/web", "/data/code", "/data/math"]
    assert dataset["dataset_weights"] == list(SHARES.values())


def test_mosaicml_takes_proportions_of_examples(sources: list[Source]) -> None:
    streams = yaml.safe_load(export(sources, "mosaicml"))["streams"]
    assert list(streams) == list(SHARES)
    assert_tokens_as_asked({name: s["proportion"] for name, s in streams.items()})
    # "At most one of proportion, repeat, or choose", and at least one of remote and local.
    assert all(set(stream) == {"remote", "proportion"} for stream in streams.values())


def test_hugging_face_interleaves_the_tokens_asked_for(sources: list[Source]) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    arguments = yaml.safe_load(export(sources, "huggingface"))
    names = [path.rpartition("/")[2] for path in arguments.pop("datasets")]

    def endless(name: str) -> Any:
        while True:
            yield {"from": name}

    made = [
        datasets.IterableDataset.from_generator(endless, gen_kwargs={"name": name})
        for name in names
    ]
    drawn = datasets.interleave_datasets(made, seed=0, **arguments)
    counts = Counter(example["from"] for example in islice(drawn, 20_000))
    assert_tokens_as_asked({name: counts[name] for name in names}, tolerance=0.02)


def assert_tokens_as_asked(examples: dict[str, float], *, tolerance: float = 1e-4) -> None:
    """Examples so drawn, with their lengths, have the data shares."""
    tokens = {name: n * LENGTHS[name] for name, n in examples.items()}
    for name, share in SHARES.items():
        assert tokens[name] / sum(tokens.values()) == pytest.approx(share, abs=tolerance)


def test_json_and_yaml_say_the_same(sources: list[Source]) -> None:
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


def test_an_unknown_format_lists_the_known(sources: list[Source]) -> None:
    with pytest.raises(ConfigError, match="'axolotl' is unknown.*megatron"):
        export(sources, "axolotl")
