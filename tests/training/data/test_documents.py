from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from optuna_demix.config import DatasetConfig
from optuna_demix.errors import ConfigError, DemixError
from optuna_demix.training.data import documents, lines, streams, tables
from optuna_demix.training.data.files import data_files
from tests.training.data.samples import (
    DOCUMENTS,
    LINES,
    ROWS,
    ids_of,
    packed,
    read,
    texts_of,
    write_documents,
    write_mds,
    write_megatron,
)

datasets = pytest.importorskip("datasets")

PLAIN = ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.arrow"]
FOLDERS = ["a.saved", "a.splits", "a.mds"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


class TestFormats:
    @pytest.mark.parametrize("name", PLAIN + FOLDERS)
    def test_documents_are_read_as_they_were_written(self, name: str, tmp_path: Path) -> None:
        assert texts_of(write_documents(tmp_path, name)) == DOCUMENTS

    @pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
    @pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow"])
    def test_compression_makes_no_difference(self, name: str, suffix: str, tmp_path: Path) -> None:
        if suffix == "zst":
            pytest.importorskip("backports.zstd")
        assert texts_of(write_documents(tmp_path, f"{name}.{suffix}")) == DOCUMENTS

    @pytest.mark.parametrize("name", [*PLAIN, "a.jsonl.gz", *FOLDERS])
    def test_fields_are_taken_by_name_or_template(self, name: str, tmp_path: Path) -> None:
        file = write_documents(tmp_path, name)
        assert texts_of(file, text_field="title") == [row["title"] for row in ROWS]
        made = texts_of(file, template="# {title} ({number}) {{\n\n{text}")
        assert made == [f"# {r['title']} ({r['number']}) {{\n\n{r['text']}" for r in ROWS]

    @pytest.mark.parametrize(
        "text",
        [
            "\n".join(json.dumps(row, indent=2) for row in ROWS),
            LINES.decode(),
            "\ufeff" + json.dumps(ROWS),
            "  [\n" + " ,\n".join(json.dumps(row) for row in ROWS) + "]  \n",
        ],
        ids=["objects", "lines", "byte order mark", "list"],
    )
    @pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
    def test_json_may_be_a_list_or_objects_one_after_another(
        self, text: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lines, "_CHUNK", chunk)
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        assert texts_of(tmp_path / "a.json") == DOCUMENTS

    def test_later_documents_may_have_other_fields(self, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [
            {"text": "one", "meta": {"a": 1}},
            {"meta": "b", "text": "two", "more": []},
        ]
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert texts_of(tmp_path / "a.jsonl") == ["one", "two"]

    def test_empty_documents_and_nulls_are_left_out(self, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": ["", "one", None]}), tmp_path / "a.parquet")
        (tmp_path / "a.jsonl").write_text('{"text": ""}\n\n{"text": null}\n{"text": "two"}\n')
        (tmp_path / "a.txt").write_text("")
        files = [tmp_path / name for name in ("a.parquet", "a.jsonl", "a.txt")]
        assert texts_of(*files) == ["one", "two"]

    @pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary"])
    def test_every_kind_of_text_column_is_text(self, kind: str, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        column = pa.array(DOCUMENTS)
        typed = column.dictionary_encode() if kind == "dictionary" else column.cast(
            getattr(pa, kind)()
        )  # fmt: skip
        pq.write_table(pa.table({"text": typed}), tmp_path / "a.parquet")
        assert texts_of(tmp_path / "a.parquet") == DOCUMENTS

    def test_columns_of_token_ids_are_taken_as_they_are(self, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [[1, 2, 3], [4], [5, 6]]
        pq.write_table(pa.table({"input_ids": rows, "n": [0, 1, 2]}), tmp_path / "a.parquet")
        write_mds(tmp_path / "old", {"tokens": "bytes"}, [{"tokens": row} for row in rows])
        typed = [{"tokens": np.array(row, "<i4")} for row in rows]
        write_mds(tmp_path / "new", {"tokens": "ndarray:int32:3"}, typed[:1])
        (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"tokens": row}) for row in rows))
        for name in ("a.parquet", "old", "a.jsonl"):
            assert ids_of(tmp_path / name).tolist() == [1, 2, 3, 4, 5, 6], name
        assert ids_of(tmp_path / "new").tolist() == [1, 2, 3]

    @pytest.mark.parametrize("suffix", ["gz", "xz"])
    def test_compressed_token_ids_are_read(self, suffix: str, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.arange(9, dtype=np.uint16))
        for name, fields in (("a.npy", {}), ("b.bin", {"token_dtype": "uint32"})):
            data = np.arange(9, dtype=np.uint32).tobytes()
            if name == "a.npy":
                data = (tmp_path / name).read_bytes()
            file = tmp_path / f"{name}.{suffix}"
            file.write_bytes(packed(data, suffix))
            assert ids_of(file, **fields).tolist() == list(range(9))

    def test_long_documents_are_cut_where_lines_or_words_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(documents, "_LONGEST_PIECE", 10)
        monkeypatch.setattr(lines, "_CHUNK", 7)
        text = "one two\nthree four\nfive sixseveneight é\n"
        (tmp_path / "a.txt").write_text(text)
        (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + '\n{"text": "next"}')
        pieces = read(tmp_path / "a.txt")
        assert "".join(piece for piece, _ in pieces) == text
        assert max(len(piece) for piece, _ in pieces) <= 10
        assert pieces[0] == ("one two\n", False)
        assert [ends for _, ends in pieces] == [False] * (len(pieces) - 1) + [True]
        assert read(tmp_path / "a.jsonl") == [*pieces, ("next", True)]


@pytest.mark.readers
@pytest.mark.parametrize("compression", [None, "zstd:3", "gz"])
def test_what_streaming_writes_is_read(
    compression: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compression is not None and compression.startswith("zstd"):
        pytest.importorskip("backports.zstd")
    # It imports torchvision for its images, whose builds must match that of torch; transformers
    # looks for that too, and remembers what it found.
    pytest.importorskip("transformers.tokenization_utils_base")
    for name in ("", ".transforms", ".transforms.functional", ".datasets"):
        module: Any = ModuleType(f"torchvision{name}")
        module.VisionDataset = module.to_tensor = object
        monkeypatch.setitem(sys.modules, module.__name__, module)
    streaming = pytest.importorskip("streaming")
    columns = {
        "text": "str",
        "number": "int",
        "title": "str",
        "free": "ndarray",
        "typed": "ndarray:uint16",
        "fixed": "ndarray:int32:4",
        "raw": "bytes",
    }
    ids = np.arange(12).reshape(3, 4)
    options = {"columns": columns, "compression": compression, "size_limit": 1000}
    with streaming.MDSWriter(out=str(tmp_path / "a"), **options) as writer:
        for row in ROWS:
            arrays = {
                "free": ids.astype(np.uint32),
                "typed": ids[0].astype(np.uint16),
                "fixed": ids[1].astype(np.int32),
                "raw": ids[2].astype(np.int64).tobytes(),
            }
            writer.write({**row, **arrays})
    assert len(list((tmp_path / "a").iterdir())) > 2
    assert texts_of(tmp_path / "a") == DOCUMENTS
    assert texts_of(tmp_path / "a", template="{number}") == ["0", "1", "2", "3", "4"]
    for name, expected in (("free", ids.ravel()), ("typed", ids[0]), ("fixed", ids[1])):
        assert ids_of(tmp_path / "a", text_field=name).tolist() == [*expected.tolist()] * 5
    assert ids_of(tmp_path / "a", text_field="raw").tolist() == [*ids[2].tolist()] * 5


class TestFiles:
    def found(self, *paths: Path | str, **fields: Any) -> dict[str, str]:
        dataset = DatasetConfig(files=[str(path) for path in paths], **fields)
        files = data_files(dataset, dataset.files, "files")
        return {file.url.rpartition("/")[2]: file.format for file in files}

    def test_a_folder_stands_for_the_data_files_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        for name in ("b.jsonl", "sub/a.parquet", "notes.md", ".hidden.jsonl", "_SUCCESS"):
            (tmp_path / name).write_text("")
        assert self.found(tmp_path) == {"b.jsonl": "jsonl", "a.parquet": "parquet"}

    def test_megatron_is_named_by_either_file_and_read_once(self, tmp_path: Path) -> None:
        file = write_megatron(tmp_path / "a", [[1]])
        for paths in ([file], [file.with_suffix(".idx")], [file, file.with_suffix(".idx")]):
            assert self.found(*paths) == {"a.bin": "megatron"}
        assert self.found(tmp_path) == {"a.bin": "megatron"}

    def test_a_split_of_mds_is_found(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            write_mds(tmp_path / split, {"text": "str"}, [{"text": split}])
        assert texts_of(tmp_path) == ["train"]
        assert texts_of(tmp_path, split="val") == ["val"]

    def test_format_tells_what_a_name_does_not(self, tmp_path: Path) -> None:
        (tmp_path / "part-00000").write_bytes(LINES)
        assert texts_of(tmp_path / "part-00000", format="jsonl") == DOCUMENTS
        with pytest.raises(ConfigError, match="part-00000 is none of the formats jsonl, json"):
            texts_of(tmp_path / "part-00000")

    def test_urls_are_read_as_paths_are(self, tmp_path: Path) -> None:
        import fsspec

        memory = fsspec.filesystem("memory")
        for name in ("a.jsonl", "b.parquet", "c.csv.gz", "d.mds", "e.saved"):
            local = write_documents(tmp_path, name)
            memory.put(str(local), f"/bucket/{name}", recursive=local.is_dir())
            assert texts_of(f"memory://bucket/{name}") == DOCUMENTS, name
        assert texts_of("memory://bucket/*.jsonl") == DOCUMENTS
        write_megatron(tmp_path / "f", [[1, 2], [3]])
        for suffix in (".bin", ".idx"):
            memory.put(str(tmp_path / f"f{suffix}"), f"/bucket/f{suffix}")
        assert ids_of("memory://bucket/f.bin").tolist() == [1, 2, 3]


class TestBadInput:
    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("a.parquet", LINES, "a.parquet: cannot be read as parquet .*magic bytes"),
            ("a.arrow", LINES, "a.arrow: cannot be read as arrow "),
            ("a.json", b'[{"text": "a"}, {"text"', "a.json, document 2: is not JSON, or cut"),
            ("a.json", b'[{"text": "a"}, {]', "a.json, document 2: is not JSON"),
            ("a.json", b'[{"text": "a"}', "a.json, document 2: is not JSON, or cut short"),
            ("a.json", b'{"text": 3}', 'a.json, document 1: has no "text" that is a string'),
            ("a.jsonl", b'{"txt": "a"}', "has no \"text\"; it has 'txt': .* datasets.code.text_f"),
            ("a.csv", b"title\na\n", "a.csv, row 1: has no \"text\"; it has 'title'"),
            ("a.csv", b'text,b\na,"b\n', "a.csv: cannot be read as csv .*EOF inside string"),
            ("a.csv", b"", "a.csv: cannot be read as csv .*No columns"),
            ("a.txt", b"ab\xff", "a.txt: is not UTF-8 .byte 2.; convert or remove it"),
            ("a.jsonl.gz", LINES, "a.jsonl.gz: is cut short or damaged .*; copy it again"),
            ("a.jsonl.gz", packed(LINES, "gz")[:-9], "a.jsonl.gz: is cut short or damaged"),
            ("a.jsonl.xz", packed(LINES, "xz")[:-9], "a.jsonl.xz: is cut short or damaged"),
            ("a.jsonl.bz2", packed(LINES, "bz2")[:-9], "a.jsonl.bz2: is cut short or damaged"),
            ("a.jsonl.bz2", LINES, "a.jsonl.bz2: is damaged .*; copy it again"),
            ("a.mds", LINES, "name the folder that holds its index.json"),
        ],
    )
    def test_file_is_refused_in_one_line(
        self,
        name: str,
        data: bytes,
        message: str,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match=message) as caught:
            texts_of(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert capfd.readouterr().err == ""

    def test_zst_that_is_cut_short_is_refused(self, tmp_path: Path) -> None:
        pytest.importorskip("backports.zstd")
        (tmp_path / "a.txt.zst").write_bytes(packed(LINES, "zst")[:-9])
        with pytest.raises(ConfigError, match="a.txt.zst: is cut short or damaged"):
            texts_of(tmp_path / "a.txt.zst")

    def test_columns_are_listed_where_the_field_is_missing(self, tmp_path: Path) -> None:
        for name in ("a.parquet", "a.arrow", "a.saved", "a.mds"):
            file = write_documents(tmp_path, name)
            with pytest.raises(ConfigError, match='has no "body"; it has .*text'):
                texts_of(file, text_field="body")
            with pytest.raises(ConfigError, match='has no "body"; it has '):
                texts_of(file, template="{title} {body}")

    def test_a_column_of_numbers_is_no_text(self, tmp_path: Path) -> None:
        file = write_documents(tmp_path, "a.parquet")
        with pytest.raises(ConfigError, match="its field 'number' holds int64, not text"):
            texts_of(file, text_field="number")

    def test_a_missing_split_is_named(self, tmp_path: Path) -> None:
        file = write_documents(tmp_path, "a.splits")
        with pytest.raises(ConfigError, match="no split 'dev'; it has 'train', 'test'"):
            texts_of(file, split="dev")

    def test_a_shard_cut_short_is_named(self, tmp_path: Path) -> None:
        folder = write_documents(tmp_path, "a.mds")
        shard = folder / "shard.00000.mds"
        shard.write_bytes(shard.read_bytes()[:-1])
        with pytest.raises(ConfigError, match="shard.00000.mds: has .* bytes, its index says"):
            texts_of(folder)

    def test_an_empty_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="holds no file of a known format"):
            texts_of(tmp_path)

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("s3://bucket/a.jsonl", "datasets.code.files: s3://bucket/a.jsonl: Install s3fs"),
            ("foo://bucket/a.jsonl", "Protocol not known: foo; correct the URL"),
            ("memory://no/such.jsonl", "nothing matches 'memory://no/such.jsonl'"),
            ("memory://no/*.jsonl", "nothing matches"),
        ],
    )
    def test_a_url_that_cannot_be_opened(
        self, url: str, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "s3fs", None)
        with pytest.raises(DemixError, match=message) as caught:
            texts_of(url)
        assert "\n" not in str(caught.value)

    def test_the_package_for_zst_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(name: str) -> Any:
            raise ImportError(name)

        (tmp_path / "a.jsonl.zst").write_bytes(b"")
        monkeypatch.setattr(streams.importlib, "import_module", missing)
        with pytest.raises(DemixError, match="needs the package backports.zstd; pip install"):
            texts_of(tmp_path / "a.jsonl.zst")


class TestHub:
    COMMIT = "0123456789" * 4

    def hub(self, **fields: Any) -> list[str]:
        dataset = DatasetConfig(hub="owner/name", **fields)
        file = tables.hub_file(dataset, "study.yaml: datasets.code")
        pieces = documents.pieces_of(file, dataset, "datasets.code", streams.Position())
        return [str(piece) for piece, _ in pieces]

    @pytest.mark.parametrize("streaming", [True, False])
    def test_a_dataset_of_the_hub_is_read(
        self, streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A folder of that name stands for the repository, as ``load_dataset`` has it."""
        folder = tmp_path / "owner" / "name"
        folder.mkdir(parents=True)
        write_documents(folder, "train.parquet")
        monkeypatch.chdir(tmp_path)
        assert self.hub(revision=self.COMMIT, streaming=streaming) == DOCUMENTS
        with pytest.raises(ConfigError, match="cannot be read as hub .*split"):
            self.hub(revision=self.COMMIT, streaming=streaming, split="dev")

    def test_a_branch_is_pinned_to_its_commit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        asked: list[Any] = []

        def info(self: Any, repository: str, revision: str | None) -> Any:
            asked.append((repository, revision))
            return SimpleNamespace(sha=TestHub.COMMIT)

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
        file = tables.hub_file(DatasetConfig(hub="owner/name", revision="main"), "datasets.code")
        assert file.url == f"hf://datasets/owner/name@{self.COMMIT}"
        assert asked == [("owner/name", "main")]

    def test_without_the_hub_a_commit_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        def down(self: Any, repository: str, revision: str | None) -> Any:
            raise ConnectionError("no route")

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", down)
        with pytest.raises(DemixError, match="code.hub: the hub does not answer .*'revision'"):
            self.hub()
