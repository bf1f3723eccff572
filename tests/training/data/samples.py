"""The same documents in every format that people keep them in."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_demix.config import DatasetConfig
from optuna_demix.training.data.documents import pieces_of
from optuna_demix.training.data.files import data_files
from optuna_demix.training.data.streams import Position

DOCUMENTS = ["NA", 'two, lines\nand "quotes"', "ünï — 文字", "1234", "a" * 40]
ROWS = [{"text": text, "title": f"title {i}", "number": i} for i, text in enumerate(DOCUMENTS)]
LINES = "\n".join(json.dumps(row) for row in ROWS).encode() + b"\n"


def write_documents(folder: Path, name: str) -> Path:
    """Write the documents as a file or folder of that name."""
    import pyarrow as pa

    file = folder / name
    stem, _, suffix = name.rpartition(".")
    if suffix in ("gz", "bz2", "xz", "zst"):
        plain = write_documents(folder, stem).read_bytes()
        (folder / stem).unlink()
        file.write_bytes(packed(plain, suffix))
    elif suffix == "jsonl":
        file.write_bytes(LINES)
    elif suffix == "json":
        file.write_text(json.dumps(ROWS, indent=1))
    elif suffix in ("csv", "tsv"):
        import pandas as pd

        pd.DataFrame(ROWS).to_csv(file, index=False, sep="\t" if suffix == "tsv" else ",")
    elif suffix == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(ROWS), file, row_group_size=2)
    elif suffix == "arrow":
        table = pa.Table.from_pylist(ROWS)
        with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
    elif suffix == "saved":
        import datasets

        datasets.Dataset.from_list(ROWS).save_to_disk(str(file))
    elif suffix == "splits":
        import datasets

        split = datasets.Dataset.from_list(ROWS)
        datasets.DatasetDict({"train": split, "test": split.select([1])}).save_to_disk(str(file))
    elif suffix == "mds":
        write_mds(file, {"text": "str", "title": "str", "number": "int"}, ROWS)
    else:
        raise AssertionError(name)
    return file


def packed(data: bytes, suffix: str) -> bytes:
    """Compress as the suffix says; .zst in two frames, as parallel compressors do."""
    if suffix == "zst":
        from backports import zstd

        half = len(data) // 2
        return zstd.compress(data[:half]) + zstd.compress(data[half:])
    return {"gz": partial(gzip.compress, mtime=0), "bz2": bz2.compress, "xz": lzma.compress}[
        suffix
    ](data)


def write_mds(folder: Path, encodings: dict[str, str], rows: list[dict[str, Any]]) -> None:
    """One shard, as streaming's MDSWriter lays it out."""
    folder.mkdir(parents=True)
    samples = []
    for row in rows:
        sizes, values = b"", b""
        for name, encoding in encodings.items():
            value = _encoded(row[name], encoding)
            if encoding != "int":
                sizes += len(value).to_bytes(4, "little")
            values += value
        samples.append(sizes + values)
    head = {
        "column_encodings": list(encodings.values()),
        "column_names": list(encodings),
        "column_sizes": [8 if encoding == "int" else None for encoding in encodings.values()],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "samples": len(rows),
        "size_limit": 1 << 26,
        "version": 2,
        "zip_data": None,
    }
    text = json.dumps(head, sort_keys=True).encode()
    first = 4 + 4 * (len(rows) + 1) + len(text)
    offsets = first + np.cumsum([0, *map(len, samples)])
    data = np.uint32(len(rows)).tobytes() + offsets.astype("<u4").tobytes() + text
    data += b"".join(samples)
    (folder / "shard.00000.mds").write_bytes(data)
    raw = {"basename": "shard.00000.mds", "bytes": len(data), "hashes": {}}
    index = {"version": 2, "shards": [{**head, "raw_data": raw}]}
    (folder / "index.json").write_text(json.dumps(index))


def _encoded(value: Any, encoding: str) -> bytes:
    if encoding == "str":
        return str(value).encode()
    if encoding == "int":
        return np.int64(value).tobytes()
    return bytes(np.asarray(value).tobytes())


def write_megatron(prefix: Path, documents: list[list[int]], dtype: str = "uint16") -> Path:
    """Write .bin and .idx as Megatron's preprocess_data.py does."""
    code = {"uint16": 8, "int32": 4}[dtype]
    lengths = np.array([len(ids) for ids in documents], "<i4")
    pointers = np.concatenate([[0], np.cumsum(lengths)[:-1]]) * np.dtype(dtype).itemsize
    index = b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + bytes([code])
    index += len(documents).to_bytes(8, "little") + (len(documents) + 1).to_bytes(8, "little")
    index += lengths.tobytes() + pointers.astype("<i8").tobytes()
    index += np.arange(len(documents) + 1, dtype="<i8").tobytes()
    prefix.with_name(prefix.name + ".idx").write_bytes(index)
    file = prefix.with_name(prefix.name + ".bin")
    file.write_bytes(np.concatenate(documents).astype(dtype).tobytes())
    return file


def texts_of(*files: str | Path, **fields: Any) -> list[str]:
    """The documents that are read from files."""
    return [piece for piece, _ in read(*files, **fields) if isinstance(piece, str)]


def ids_of(*files: str | Path, **fields: Any) -> npt.NDArray[Any]:
    """The token ids that are read from files, one after another."""
    pieces = [piece for piece, _ in read(*files, **fields)]
    assert not any(isinstance(piece, str) for piece in pieces)
    return np.concatenate(pieces)


def read(*files: str | Path, **fields: Any) -> list[tuple[Any, bool]]:
    dataset = DatasetConfig(files=[str(file) for file in files], **fields)
    found = data_files(dataset, dataset.files, "study.yaml: datasets.code.files")
    return [
        piece
        for file in found
        for piece in pieces_of(file, dataset, "study.yaml: datasets.code", Position())
    ]
