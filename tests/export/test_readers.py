"""Exports are read back by the training frameworks themselves, from data as they keep it.

`make test-readers` installs those that pip has; the others are skipped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from optuna_demix.export import DataSource, Stage, export, export_stages, sources_of

pytestmark = pytest.mark.readers

SHARES = {"web": 0.6, "code": 0.3, "math": 0.1}
NAMES = list(SHARES)
# Every dataset has 4000 tokens; the run takes 3600 of web, 1800 of code, 600 of math.
TOKENS = dict.fromkeys(SHARES, 4000.0)
BUDGET = 6000.0


def mixture(folder: Path | str, ending: str = "") -> list[DataSource]:
    paths = f"{folder}/{{dataset}}{ending}"
    return sources_of(SHARES, paths=paths, tokens=TOKENS, budget=BUDGET)


def run_in_stages(folder: Path | str, ending: str = "") -> list[Stage]:
    """Half of web early and a quarter late; math late only, twice."""
    paths = f"{folder}/{{dataset}}{ending}"
    early = sources_of({"web": 1.0}, paths=paths, tokens=TOKENS, budget=2000.0)
    late = sources_of({"web": 1 / 9, "math": 8 / 9}, paths=paths, tokens=TOKENS, budget=9000.0)
    return [Stage("early", 2 / 11, early), Stage("late", 9 / 11, late)]


def module_of(text: str) -> dict[str, Any]:
    content: dict[str, Any] = {}
    exec(compile(text, "mixture.py", "exec"), content)
    return content


def assert_drawn(counts: Counter[str], n: int) -> None:
    """n draws with the probabilities of SHARES, within four standard deviations."""
    assert counts.total() == n
    for name, share in SHARES.items():
        assert counts[name] == pytest.approx(n * share, abs=4 * (n * share * (1 - share)) ** 0.5)


def test_megatron_core() -> None:
    utils = pytest.importorskip("megatron.core.datasets.utils", reason="no Megatron core here")
    sources = mixture("/data")
    asked = [f"/data/{name}" for name in SHARES], list(SHARES.values())
    texts = {kind: export(sources, kind) for kind in ("megatron", "nemo", "megatron-bridge")}
    splits = json.loads(texts["megatron-bridge"])
    for blend in (
        texts["megatron"].split(),
        yaml.safe_load(texts["nemo"])["paths"],
        splits["train"],
    ):
        prefixes, weights = utils.get_blend_from_list(blend)
        assert (list(prefixes), weights) == asked
    # Read from the file for each split, whether there is one or not.
    assert all(utils.get_blend_from_list(splits[split]) is None for split in ("valid", "test"))


def test_energon(tmp_path: Path) -> None:
    energon = pytest.importorskip("megatron.energon", reason="no Energon here")
    wds = pytest.importorskip("webdataset")
    for name in SHARES:
        (tmp_path / name).mkdir()
        with wds.ShardWriter(f"{tmp_path}/{name}/data-%d.tar", maxcount=100, verbose=0) as shards:
            for i in range(100):
                shards.write({"__key__": f"{i:06d}", "txt": name.encode()})
        energon.flavors.BaseWebdatasetFactory.prepare_dataset(
            tmp_path / name, ["data-0.tar"], split_parts_ratio=[("train", 1.0)], shuffle_seed=None
        )
        config = {
            "sample_type": {"__module__": "megatron.energon", "__class__": "TextSample"},
            "field_map": {"text": "txt"},
        }
        (tmp_path / name / ".nv-meta" / "dataset.yaml").write_text(yaml.safe_dump(config))

    def drawn(kind: str, **options: Any) -> Iterator[str]:
        file = tmp_path / f"{kind}.yaml"
        file.write_text(export(sources_of(SHARES, tokens=TOKENS, budget=BUDGET), kind))
        dataset = energon.get_train_dataset(
            str(file),
            worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
            batch_size=1,
            shuffle_buffer_size=None,
            max_samples_per_sequence=None,
            **options,
        )
        for batch in energon.get_loader(dataset):
            yield from batch.text

    endless = drawn("energon")
    assert_drawn(Counter(next(endless) for _ in range(1000)), 1000)
    # 0.9, 0.45 and 0.15 epochs of 100 samples, and then it ends.
    assert Counter(drawn("energon-epochs", repeat=False)) == {"web": 90, "code": 45, "math": 15}


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """4000 tokens of each dataset, all different, with their thousands telling the dataset."""
    for index, name in enumerate(SHARES):
        ids = np.arange(4000, dtype=np.uint32) + 10_000 * (index + 1)
        ids.tofile(tmp_path / f"{name}.npy")
    return tmp_path


def _names(ids: Any) -> Counter[str]:
    return Counter(NAMES[int(i) // 10_000 - 1] for i in np.asarray(ids).ravel())


def test_olmo_core_lists_sources(tokens: Path) -> None:
    module = pytest.importorskip("olmo_core.data.source_mixture", reason="no OLMo-core here")
    content = yaml.safe_load(export(mixture(tokens, ".npy"), "olmo-core"))
    listed = module.SourceMixtureList(
        sources=[module.SourceMixtureConfig(**entry) for entry in content["sources"]]
    )
    listed.validate()
    for source in listed.sources:
        source.validate()


def test_olmo_core_composes_sources(tokens: Path) -> None:
    pytest.importorskip("olmo_core.data.composable", reason="no OLMo-core here")
    from olmo_core.data.tokenizer import TokenizerConfig

    tokenizer = TokenizerConfig(vocab_size=100_000, eos_token_id=0, pad_token_id=0)
    code = module_of(export(mixture(tokens, ".npy"), "olmo-core-composable"))
    (mix,) = code["mixes"](tokenizer, 10)
    built = mix.build(tokens / "work")
    drawn = _names([built[i]["input_ids"] for i in range(len(built))])
    assert drawn == {"web": 3600, "code": 1800, "math": 600}


def test_olmo_core_runs_through_the_stages(tokens: Path) -> None:
    pytest.importorskip("olmo_core.data.composable", reason="no OLMo-core here")
    from olmo_core.data.tokenizer import TokenizerConfig

    tokenizer = TokenizerConfig(vocab_size=100_000, eos_token_id=0, pad_token_id=0)
    code = module_of(export_stages(run_in_stages(tokens, ".npy"), "olmo-core-composable"))
    loader = code["data_loader"](tokenizer, 10, 1000, str(tokens / "work"))
    loader.reshuffle(epoch=1)
    batches = [np.asarray(batch["input_ids"]) for batch in loader]
    assert [_names(batch) == {"web": 1000} for batch in batches] == [True] * 2 + [False] * 9
    web = [i for batch in batches for i in batch.ravel().tolist() if i < 20_000]
    assert len(web) == pytest.approx(3000, abs=20)
    assert len(set(web)) == len(web)  # what the early stage has seen is not seen again
    assert _names(batches[2:])["math"] == pytest.approx(8000, abs=20)  # twice


def test_litdata(tmp_path: Path) -> None:
    litdata = pytest.importorskip("litdata", reason="no LitData here")
    import torch
    from litdata.streaming.writer import BinaryWriter

    for index, name in enumerate(SHARES):
        (tmp_path / name).mkdir()
        loader = litdata.TokensLoader(block_size=10)
        writer = BinaryWriter(str(tmp_path / name), chunk_size=20_000, item_loader=loader)
        ids = torch.arange(20_000, dtype=torch.int32) % 4000 + 10_000 * (index + 1)
        writer[0] = ids
        writer.done()
        writer.merge(1)
    dataset = module_of(export(mixture(tmp_path), "litdata"))["mixture"](block_size=10)
    blocks = iter(dataset)
    drawn = _names([next(blocks)[0] for _ in range(1000)])
    assert_drawn(drawn, 1000)


class _Letters:
    """A tokenizer whose tokens are characters."""

    def encode(self, text: str, **options: bool) -> list[int]:
        return [ord(letter) for letter in text]


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Texts of one letter each, web's ten times as long as the others'."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name in SHARES:
        (tmp_path / name).mkdir()
        text = name[0] * (100 if name == "web" else 10)
        (tmp_path / name / "part.jsonl").write_text(f"{json.dumps({'text': text})}\n" * 20)
    return tmp_path


def test_torchtitan(texts: Path) -> None:
    module = pytest.importorskip("torchtitan.hf_datasets.text_datasets", reason="no torchtitan")
    if not hasattr(module, "InterleavedHuggingFaceTextDataLoader"):
        pytest.skip("a torchtitan without the interleaved loader")
    config = module_of(export(mixture(texts), "torchtitan"))["dataloader"](seed=1)
    loader = module.InterleavedHuggingFaceTextDataLoader(
        config, dp_world_size=1, dp_rank=0, tokenizer=_Letters(), seq_len=8, local_batch_size=1
    )
    rows = iter(loader)
    letters = [chr(int(next(rows)[0]["input"][0, 0])) for _ in range(1000)]
    assert_drawn(Counter({n: letters.count(n[0]) for n in NAMES}), 1000)


def test_torchtitan_on_grain(texts: Path) -> None:
    data = pytest.importorskip("torchtitan.components.data", reason="no torchtitan on Grain")
    dataset = module_of(export(mixture(texts), "torchtitan-grain"))["mixture"]()
    loader = data.GrainDataLoader(
        data.GrainDataLoader.Config(dataset=dataset),
        dp_world_size=1,
        dp_rank=0,
        tokenizer=_Letters(),
        max_context_length=8,
        num_tokens_per_batch=8,
    )
    rows = iter(loader)
    letters = [chr(int(_first(next(rows)))) for _ in range(1000)]
    assert_drawn(Counter({n: letters.count(n[0]) for n in NAMES}), 1000)


def _first(batch: Any) -> Any:
    inputs = batch[0] if isinstance(batch, tuple) else batch
    return np.asarray(inputs["input"]).ravel()[0]


def test_mosaicml_streaming(tmp_path: Path) -> None:
    streaming = pytest.importorskip("streaming", reason="no MosaicML Streaming here")
    for name in SHARES:
        with streaming.MDSWriter(out=str(tmp_path / name), columns={"text": "str"}) as out:
            for _ in range(1000):
                out.write({"text": name})

    def chosen(kind: str, **options: Any) -> list[int]:
        content = yaml.safe_load(export(mixture(tmp_path), kind))["streams"]
        streams = [
            streaming.Stream(**{**entry, "local": entry["remote"], "remote": None})
            for entry in content.values()
        ]
        dataset = streaming.StreamingDataset(streams=streams, batch_size=1, **options)
        return [int(stream.choose) for stream in dataset.streams]

    assert chosen("mosaicml", epoch_size=2000) == [1200, 600, 200]
    assert chosen("mosaicml-epochs") == [900, 450, 150]


def test_nanotron() -> None:
    config = pytest.importorskip("nanotron.config.config", reason="no nanotron here")
    dacite = pytest.importorskip("dacite")
    text = export_stages(run_in_stages("/data"), "nanotron", step_tokens=1000)
    stages = [
        dacite.from_dict(config.DatasetStageArgs, entry, dacite.Config(strict=True))
        for entry in yaml.safe_load(text)["data_stages"]
    ]
    assert [(stage.name, stage.start_training_step) for stage in stages] == [
        ("early", 1),
        ("late", 3),
    ]
    datasets = [stage.data.dataset for stage in stages]
    assert isinstance(datasets[1], config.NanosetDatasetsArgs)
    assert datasets[1].dataset_folder == ["/data/web", "/data/math"]
    assert datasets[1].dataset_weights == pytest.approx([1 / 9, 8 / 9], abs=1e-6)
