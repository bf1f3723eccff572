from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optuna_demix.config import DatasetConfig
from optuna_demix.errors import ConfigError
from optuna_demix.training.data import blocks as blocks_module
from optuna_demix.training.data.blocks import Blocks
from optuna_demix.training.data.files import data_files
from optuna_demix.training.data.shards import Shard, shard_of
from tests.training.data.samples import write_megatron

WHERE = "study.yaml: datasets.code"


def shard(path: Path, **fields: Any) -> Shard:
    dataset = DatasetConfig(files=[str(path)], **fields)
    (file,) = data_files(dataset, dataset.files, f"{WHERE}.files")
    return shard_of(file, dataset, WHERE)


class TestShards:
    @pytest.mark.parametrize("dtype", ["uint16", "int32"])
    def test_megatron_is_mapped_where_it_lies(self, dtype: str, tmp_path: Path) -> None:
        file = write_megatron(tmp_path / "a", [[1, 2, 3], [4], [40_000]], dtype)
        ids = shard(file).mapped()
        assert isinstance(ids, np.memmap) and ids.dtype == dtype
        assert ids.tolist() == [1, 2, 3, 4, 40_000]

    @pytest.mark.readers
    @pytest.mark.parametrize("dtype", [np.uint16, np.int32])
    def test_what_megatron_core_writes_is_read(self, dtype: Any, tmp_path: Path) -> None:
        indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
        import torch

        builder = indexed.IndexedDatasetBuilder(str(tmp_path / "a.bin"), dtype=dtype)
        documents = [[1, 2, 3], [4], list(range(60_000, 60_010))]
        for ids in documents:
            builder.add_document(torch.tensor(ids), [len(ids)])
        builder.finalize(str(tmp_path / "a.idx"))
        peer = indexed.IndexedDataset(str(tmp_path / "a"))
        expected = np.concatenate([peer[i] for i in range(len(peer))])
        ids = shard(tmp_path / "a.idx").mapped()
        assert ids.dtype == expected.dtype and ids.tolist() == expected.tolist()

    @pytest.mark.parametrize("dtype", ["uint16", "uint32", "int64"])
    @pytest.mark.parametrize("version", [(1, 0), (2, 0)])
    def test_numpy_says_its_type_itself(
        self, dtype: str, version: tuple[int, int], tmp_path: Path
    ) -> None:
        with (tmp_path / "a.npy").open("wb") as out:
            np.lib.format.write_array(out, np.arange(6, dtype=dtype).reshape(2, 3), version)
        found = shard(tmp_path / "a.npy")
        assert np.dtype(found.dtype) == dtype and found.mapped().tolist() == list(range(6))

    def test_files_without_a_header_need_their_type(self, tmp_path: Path) -> None:
        for name in ("a.npy", "a.bin", "a.ds"):
            (tmp_path / name).write_bytes(np.arange(6, dtype="<u4").tobytes())
            assert shard(tmp_path / name, token_dtype="uint32").mapped().tolist() == [*range(6)]
            with pytest.raises(ConfigError, match="datasets.code.token_dtype: .* give uint16 or"):
                shard(tmp_path / name)

    @pytest.mark.parametrize(
        ("name", "cut", "fields", "message"),
        [
            ("m.bin", 1, {}, "m.bin: has 9 bytes, its index says 10; .* copy both again"),
            ("m.idx", 60, {}, "m.idx: is cut short"),
            ("m.idx", 80, {}, "m.idx: is cut short"),
            ("a.npy", 1, {}, "a.npy: is cut short: .* bytes, its header says"),
            ("a.npy", 60, {}, "a.npy: has a damaged header"),
            ("a.ds", 1, {"token_dtype": "uint16"}, "a.ds: 11 bytes are no whole number"),
        ],
    )
    def test_what_is_cut_short_is_refused(
        self, name: str, cut: int, fields: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        write_megatron(tmp_path / "m", [[1, 2, 3], [4, 5]])
        np.save(tmp_path / "a.npy", np.arange(6, dtype=np.uint16))
        (tmp_path / "a.ds").write_bytes(bytes(12))
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[:-cut])
        with pytest.raises(ConfigError, match=message) as caught:
            shard(file, **fields)
        assert "\n" not in str(caught.value)

    def test_what_holds_no_ids_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.arange(6.0))
        with pytest.raises(ConfigError, match="a.npy: holds float64, not token ids"):
            shard(tmp_path / "a.npy")
        file = write_megatron(tmp_path / "m", [[1]])
        index = file.with_suffix(".idx")
        index.write_bytes(b"MMIDIDX\0\1" + index.read_bytes()[9:])
        with pytest.raises(ConfigError, match="m.idx: is no index of Megatron's version 1"):
            shard(file)
        index.unlink()
        with pytest.raises(ConfigError, match="m.idx: is missing; Megatron's shards are"):
            shard(file, format="megatron")


class TestBlocks:
    @pytest.fixture
    def shards(self, tmp_path: Path) -> list[Shard]:
        ids, start = [], 0
        for i, (length, dtype) in enumerate([(5, "u2"), (1, "u4"), (0, "u2"), (9, "i4")]):
            np.save(tmp_path / f"{i}.npy", np.arange(start, start + length, dtype=dtype))
            ids.append(shard(tmp_path / f"{i}.npy"))
            start += length
        return ids

    @pytest.mark.parametrize("length", [1, 2, 4, 7, 15])
    def test_blocks_run_through_all_files(self, length: int, shards: list[Shard]) -> None:
        blocks = Blocks(shards, length)
        whole = np.arange(15 // length * length).reshape(-1, length)
        assert len(blocks) == len(whole) and blocks.tokens == 15
        assert [blocks[i].tolist() for i in range(len(blocks))] == whole.tolist()
        with pytest.raises(IndexError):
            blocks[len(blocks)]

    def test_places_are_pickled_and_no_ids(self, shards: list[Shard]) -> None:
        blocks = Blocks(shards, 4)
        assert len(blocks[1]) == 4
        again = pickle.loads(pickle.dumps(blocks))
        assert not again._open and again[1].tolist() == [4, 5, 6, 7]

    def test_few_files_are_open_at_once(
        self, shards: list[Shard], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(blocks_module, "_MOST_OPEN", 1)
        blocks = Blocks(shards, 3)
        assert [blocks[i][0] for i in (4, 0, 2, 1, 4)] == [12, 0, 6, 3, 12]
        assert len(blocks._open) == 1
