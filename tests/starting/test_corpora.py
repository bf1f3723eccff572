"""Datasets of one folder, whatever their formats."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from optuna_demix.errors import ConfigError, InputError
from optuna_demix.starting.corpora import find_datasets, general_of

pytest.importorskip("datasets")
ROWS = "".join(json.dumps({"text": "the cat sat on the mat"}) + "\n" for _ in range(50))


def encode(texts: list[str]) -> list[list[int]]:
    return [[0] * len(text.split()) for text in texts]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five datasets and what is none."""
    folder = tmp_path / "data"
    (folder / "books").mkdir(parents=True)
    (folder / "books" / "one.txt").write_text("a whole book " * 100)
    with gzip.open(folder / "web.v2.jsonl.gz", "wt") as stream:
        stream.write(ROWS)
    (folder / "code.csv").write_text("title,body\n" + "x,return a and b\n" * 40)
    np.save(folder / "ready.npy", np.arange(3000, dtype=np.uint16))
    np.arange(2000, dtype=np.uint16).tofile(folder / "bare.bin")
    for name in ("README.md", ".hidden.jsonl", "bare.idx.txt.md"):
        (folder / name).touch()
    return folder


def test_each_file_and_folder_is_a_dataset(data: Path) -> None:
    found = find_datasets(data, "uint16")
    assert list(found.by_name) == ["bare", "books", "code", "ready", "web.v2"]
    sizes = {name: dataset.size(encode) for name, dataset in found.by_name.items()}
    assert sizes["ready"] == (3000, "tokens, 3 k tokens") and sizes["bare"][0] == 2000
    assert sizes["web.v2"][0] == pytest.approx(50 * 7, rel=0.1)  # with an end for each text
    assert sizes["books"][0] == pytest.approx(301, rel=0.1)
    assert "from all of it" in sizes["code"][1]
    fields = {name: dataset.fields(data.parent) for name, dataset in found.by_name.items()}
    assert fields["code"] == {"files": ["data/code.csv"], "text_field": "body"}
    assert fields["bare"] == {"files": ["data/bare.bin"], "token_dtype": "uint16"}
    assert fields["ready"] == {"files": ["data/ready.npy"]}
    assert [note for note in found.notes if "README.md: its name" in note]


def test_what_cannot_be_read_names_its_dataset(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"--data .*: bare.*: .* give uint16 or uint32"):
        find_datasets(data)
    (data / "bare.bin").unlink()
    (data / "code.csv").unlink()
    (data / "broken.jsonl").write_text('{"text": 1}\n{"text":')
    with pytest.raises(ConfigError, match=r"broken.jsonl"):
        find_datasets(data)


def test_many_files_are_not_taken_for_as_many_datasets(tmp_path: Path) -> None:
    for i in range(65):
        (tmp_path / f"part-{i}.jsonl").write_text(ROWS)
    with pytest.raises(InputError, match="holds 65 files .* a folder of its own"):
        find_datasets(tmp_path)


@pytest.mark.parametrize(
    ("names", "wanted", "general"),
    [
        (["code", "Web"], None, "Web"),
        (["code", "prose"], None, None),
        (["code", "web"], "none", None),
        (["code", "web"], "code", "code"),
    ],
)
def test_the_general_dataset_is_the_one_that_says_so(
    names: list[str], wanted: str | None, general: str | None
) -> None:
    assert general_of(dict.fromkeys(names), wanted) == general
