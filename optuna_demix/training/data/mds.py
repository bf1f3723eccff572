"""Samples of MDS shards, as mosaicml-streaming writes them.

The format is that of version 2 of its ``index.json``: a shard holds the number of its samples, the
offset of each, and samples of a size for each column without a fixed one, then the values
(``streaming/base/format/mds``).
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_demix.errors import ConfigError
from optuna_demix.training.data.files import DataFile, file_system
from optuna_demix.training.data.streams import Position, opened

_COMPRESSIONS = {"zstd": "zstd", "gz": "gzip", "bz2": "bz2"}
_SHAPE_TYPES = ("u1", "u2", "u4", "u8")
_VALUE_TYPES = {
    8: "u1",
    9: "i1",
    16: "u2",
    17: "i2",
    32: "u4",
    33: "i4",
    64: "u8",
    65: "i8",
}


def mds_rows(
    file: DataFile, fields: Sequence[str] | None, token_dtype: str, position: Position
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Samples of a folder of shards, each with its place in words.

    Args:
        file: The folder.
        fields: Columns to decode, of those that are there; default: all that hold text or tokens.
        token_dtype: Type of the tokens in columns of plain bytes.
        position: Kept up to date.
    """
    shards = _index(file)["shards"]
    total, number = sum(int(shard["samples"]) for shard in shards), 0
    for shard in shards:
        name, data = _shard(file, shard)
        columns = list(
            zip(
                shard["column_names"],
                shard["column_encodings"],
                shard["column_sizes"],
                strict=True,
            )
        )
        samples = int(shard["samples"])
        offsets = np.frombuffer(data, "<u4", samples + 1, 4)
        for sample in range(samples):
            number += 1
            position.share = number / total
            begin, end = int(offsets[sample]), int(offsets[sample + 1])
            values = _split(data[begin:end], columns)
            place = f"{file}/{name}, sample {sample + 1}"
            yield (
                place,
                {
                    column: _decoded(encoding, values[column], token_dtype)
                    for column, encoding, _ in columns
                    if (column in fields if fields is not None else _is_read(encoding))
                },
            )


def mds_files(file: DataFile) -> list[DataFile]:
    """The index and the shards of a folder, as they lie there."""
    fs, folder = file_system(file.url, file.url)
    names = ["index.json"]
    for shard in _index(file)["shards"]:
        raw = shard["raw_data"]["basename"]
        is_raw = not shard.get("zip_data") or fs.exists(posixpath.join(folder, raw))
        names.append(raw if is_raw else shard["zip_data"]["basename"])
    return [DataFile(posixpath.join(file.url, name), "mds") for name in names]


def _index(file: DataFile) -> Mapping[str, Any]:
    where = f"{file}/index.json"
    try:
        with opened(DataFile(where, "json")) as stream:
            index: Mapping[str, Any] = json.loads(stream.content.read())
        shards = index["shards"]
        if not all(shard["format"] == "mds" and shard["version"] == 2 for shard in shards):
            raise ConfigError(f"{where}: holds shards other than MDS of version 2; convert them")
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}: is no index of MDS shards; copy it again") from None
    return index


def _shard(file: DataFile, shard: Mapping[str, Any]) -> tuple[str, memoryview]:
    """Name and contents of a shard; the raw file where it is there, else the compressed one."""
    fs, folder = file_system(file.url, file.url)
    raw, packed = shard["raw_data"], shard.get("zip_data")
    facts, compression = raw, None
    if packed and not fs.exists(posixpath.join(folder, raw["basename"])):
        algorithm = str(shard["compression"]).split(":")[0]
        compression = _COMPRESSIONS.get(algorithm)
        if compression is None:
            raise ConfigError(
                f"{file}: shards compressed by {algorithm} cannot be read; write them with "
                f"{' or '.join(_COMPRESSIONS)}, or without compression"
            )
        facts = packed
    name = str(facts["basename"])
    with opened(DataFile(posixpath.join(file.url, name), "mds", compression)) as stream:
        data = stream.content.read()
    if len(data) != raw["bytes"] or stream.size != facts["bytes"]:
        raise ConfigError(
            f"{file}/{name}: has {len(data):,} bytes, its index says {raw['bytes']:,}; it is cut "
            "short: copy it again"
        )
    return name, memoryview(data)


def _split(
    sample: memoryview, columns: Sequence[tuple[str, str, int | None]]
) -> dict[str, memoryview]:
    sizes, at = [], 0
    for _, _, size in columns:
        if not size:
            size = int.from_bytes(sample[at : at + 4], "little")
            at += 4
        sizes.append(size)
    values = {}
    for (name, _, _), size in zip(columns, sizes, strict=True):
        values[name] = sample[at : at + size]
        at += size
    return values


def _is_read(encoding: str) -> bool:
    return encoding in ("str", "json", "bytes") or encoding.startswith("ndarray")


def _decoded(encoding: str, value: memoryview, token_dtype: str) -> Any:
    kind, _, details = encoding.partition(":")
    if kind == "str":
        return str(value, "utf-8")
    if kind == "json":
        return json.loads(bytes(value))
    if kind == "int":
        return int.from_bytes(value, "little", signed=True)
    if kind == "bytes":
        return np.frombuffer(value, token_dtype)
    if kind == "ndarray":
        return _array(value, *details.split(":"))
    return f"<{encoding}>" if kind == "pkl" else None


def _array(value: memoryview, dtype: str = "", shape: str = "") -> npt.NDArray[Any]:
    at = 0
    if not dtype:
        dtype, at = _VALUE_TYPES[value[0]], 1
    if not shape:
        axes, width = value[at] >> 2, np.dtype(_SHAPE_TYPES[value[at] % 4]).itemsize
        at += 1 + axes * width
    return np.frombuffer(value[at:], np.dtype(dtype))
