from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from optuna_demix.config import DatasetConfig
from optuna_demix.errors import ConfigError
from optuna_demix.training.data import digests
from optuna_demix.training.data.corpus import corpus_of
from optuna_demix.training.data.digests import Digests
from optuna_demix.training.data.sample import sample_of
from tests.training.data.samples import (
    DOCUMENTS,
    write_documents,
    write_mds,
    write_megatron,
)
from tests.training.samples import Make

pytest.importorskip("datasets")


class TestDigest:
    def test_it_follows_the_contents_and_what_is_taken_of_them(self, make: Make) -> None:
        def digest(folder: str = "study", **fields: Any) -> str:
            files = {f"datasets.code.{name}": value for name, value in fields.items()}
            return corpus_of(make(folder, files), "code").digest

        first = digest()
        assert digest("elsewhere") == first
        (make().source.parent / "same.jsonl").write_bytes(
            (make().source.parent / "code.jsonl").read_bytes()
        )
        assert digest(files=["same.jsonl"]) == first
        changed = [
            digest(files=["same.jsonl", "code.jsonl"]),
            digest(text_field="body"),
            digest(template="{text}."),
            digest(format="json"),
        ]
        assert len({first, *changed}) == 5

    @pytest.mark.parametrize("name", ["a.saved", "a.mds", "m.bin"])
    def test_every_part_of_a_folder_counts(self, name: str, make: Make) -> None:
        config = make(changes={"datasets.code.files": [name]})
        home = config.source.parent
        if name == "m.bin":
            write_megatron(home / "m", [[1, 2]])
            part = home / "m.idx"
        else:
            part = max(write_documents(home, name).glob("*.*"), key=lambda f: f.stat().st_size)
        first = corpus_of(config, "code").digest
        (part.parent / "cache-1234.arrow").write_bytes(b"what map has left")
        assert corpus_of(config, "code").digest == first
        part.write_bytes(part.read_bytes() + b" ")
        assert corpus_of(config, "code").digest != first

    def test_stores_are_asked_for_their_checksum(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import fsspec

        memory = fsspec.filesystem("memory")
        memory.pipe("/digests/a.jsonl", b'{"text": "a"}')
        config = make(changes={"datasets.code.files": ["memory://digests/a.jsonl"]})
        info, facts = type(memory).info, {"ETag": "one"}
        monkeypatch.setattr(type(memory), "info", lambda *a, **k: {**info(*a, **k), **facts})
        first = corpus_of(config, "code").digest
        memory.pipe("/digests/a.jsonl", b'{"text": "b"}')
        assert corpus_of(config, "code").digest == first
        facts["ETag"] = "two"
        assert corpus_of(config, "code").digest != first

    def test_large_files_are_read_once_until_they_change(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reads: list[Path] = []
        read = digests.file_digest
        monkeypatch.setattr(digests, "_LARGE", 4)
        monkeypatch.setattr(digests, "file_digest", lambda file: reads.append(file) or read(file))
        file, known = tmp_path / "large", Digests(tmp_path / "cache" / "digests.json")
        file.write_bytes(b"12345")
        first = known.of(file)
        assert known.of(file) == first and len(reads) == 2  # written just now: it may still change
        os.utime(file, ns=(10**18, 10**18))
        assert [known.of(file) for _ in range(3)] == [first] * 3 and len(reads) == 3
        file.write_bytes(b"54321")
        assert known.of(file) != first


class TestSample:
    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))

    @pytest.mark.parametrize(
        "name",
        ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow", "a.saved", "a.mds", "a.jsonl.gz"],
    )
    def test_fields_and_text_are_found(self, name: str, tmp_path: Path) -> None:
        write_documents(tmp_path, name)
        sample = sample_of(DatasetConfig(files=[name]), tmp_path)
        assert sample.texts == tuple(DOCUMENTS) and sample.documents == 5
        assert sample.text_field == "text" and sample.share == 1.0
        assert sample.fields["text"] == sample.fields["title"] == "text"
        assert sample.estimated_tokens(lambda texts: [[0] * len(t) for t in texts]) == (
            sum(map(len, DOCUMENTS)) + 5
        )

    @pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.csv", "a.parquet", "a.mds"])
    def test_tokens_are_estimated_from_a_part(self, name: str, tmp_path: Path) -> None:
        import pandas as pd

        rows = [{"body": f"{i} some words of a document " * 9, "id": i} for i in range(1000)]
        if name == "a.mds":
            write_mds(tmp_path / name, {"body": "str", "id": "int"}, rows)
        elif name == "a.jsonl":
            (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
        elif name == "a.json.gz":
            import gzip

            (tmp_path / name).write_bytes(gzip.compress(json.dumps(rows).encode()))
        else:
            frame = pd.DataFrame(rows)
            frame.to_parquet(tmp_path / name) if "parq" in name else frame.to_csv(tmp_path / name)
        sample = sample_of(DatasetConfig(files=[name]), tmp_path, max_documents=80)
        assert sample.text_field == "body" and sample.documents == 80 and 0 < sample.share < 0.2
        made = sample.estimated_tokens(lambda texts: [text.split() for text in texts])  # type: ignore[misc]
        assert made == pytest.approx(1000 * 55, rel=0.1)

    def test_tokens_are_counted_where_they_are(self, tmp_path: Path) -> None:
        write_megatron(tmp_path / "m", [[1, 2], [3]])
        sample = sample_of(DatasetConfig(files=["m"]), tmp_path)
        assert (sample.format, sample.tokens, sample.texts) == ("megatron", 3, ())

    def test_files_of_a_folder_are_sampled_all_over(self, tmp_path: Path) -> None:
        for i in range(50):
            (tmp_path / f"{i:02}.txt").write_text(f"text of {i:02} " * 10)
        sample = sample_of(DatasetConfig(files=["."]), tmp_path, max_documents=20)
        assert sample.files == 50 and "00" in sample.texts[0] and "49" in sample.texts[-1]
        tokens = sample.estimated_tokens(lambda texts: [text.split() for text in texts])  # type: ignore[misc]
        assert tokens == pytest.approx(50 * 31, rel=0.05)

    def test_text_and_ids_are_not_sampled_together(self, tmp_path: Path) -> None:
        write_documents(tmp_path, "a.jsonl")
        write_megatron(tmp_path / "m", [[1, 2], [3]])
        with pytest.raises(ConfigError, match="code.files: holds text and token ids; make two"):
            sample_of(DatasetConfig(files=["."]), tmp_path, where="datasets.code.files")
