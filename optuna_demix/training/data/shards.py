"""Flat token ids as training frameworks keep them: Megatron, NumPy, and files without a header."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from optuna_demix.config import DatasetConfig
from optuna_demix.errors import ConfigError
from optuna_demix.training.data.files import DataFile
from optuna_demix.training.data.streams import Position, Stream, opened

# Of megatron/core/datasets/indexed_dataset.py: b"MMIDIDX\0\0", version, code of the type, number
# of sequences and of documents; then lengths (int32), pointers (int64) and document indices.
_MEGATRON = struct.Struct("<9sQBQQ")
_MEGATRON_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_NUMPY = b"\x93NUMPY"
_CHUNK = 1 << 22  # bytes


@dataclass(frozen=True)
class Shard:
    """Where the token ids of a file lie in it.

    Attributes:
        file: The file.
        dtype: Their type.
        offset: Byte at which they begin.
        length: Their number.
    """

    file: DataFile
    dtype: str
    offset: int
    length: int

    def mapped(self) -> npt.NDArray[Any]:
        """The ids, (length,), in place."""
        if not self.length:
            return np.zeros(0, self.dtype)
        return np.memmap(
            self.file.url, self.dtype, mode="r", offset=self.offset, shape=(self.length,)
        )


def shard_of(file: DataFile, dataset: DatasetConfig, where: str) -> Shard:
    """Read what a file of token ids says of itself.

    Args:
        file: The file, of a format in :data:`~optuna_demix.training.data.files.TOKENIZED`.
        dataset: What the study says of it.
        where: The dataset's place in the study, for messages.

    Raises:
        ConfigError: If it is cut short, or the type of its ids is not known.
    """
    if file.format == "megatron":
        return _megatron(file)
    with opened(file) as stream:
        magic = stream.content.read(len(_NUMPY))
        if magic == _NUMPY:
            return _numpy(file, stream)
        if dataset.token_dtype is None:
            raise ConfigError(
                f"{where}.token_dtype: {file} does not say of which type its token ids are; "
                "give uint16 or uint32"
            )
        size = stream.size
        if file.compression is not None:
            size = len(magic) + sum(map(len, iter(lambda: stream.content.read(_CHUNK), b"")))
    dtype = np.dtype(dataset.token_dtype).newbyteorder("<")
    if size % dtype.itemsize:
        raise ConfigError(
            f"{file}: {size:,} bytes are no whole number of {dataset.token_dtype} ids; it is cut "
            "short, or token_dtype is wrong"
        )
    return Shard(file, dtype.str, 0, size // dtype.itemsize)


def _numpy(file: DataFile, stream: Stream) -> Shard:
    content: BinaryIO = stream.content
    try:
        version = content.read(2)
        width = 2 if version[0] == 1 else 4
        length = int.from_bytes(content.read(width), "little")
        offset = len(_NUMPY) + 2 + width + length
        shape, _, dtype = _numpy_header(version[0], width, length, content)
    except (ValueError, EOFError, IndexError):
        raise ConfigError(f"{file}: has a damaged header; copy it again") from None
    if dtype.kind not in "iu":
        raise ConfigError(f"{file}: holds {dtype}, not token ids")
    count = int(np.prod(shape, dtype=np.int64))
    if file.compression is None and stream.size < offset + count * dtype.itemsize:
        raise ConfigError(
            f"{file}: is cut short: {stream.size:,} bytes, its header says "
            f"{offset + count * dtype.itemsize:,}; copy it again"
        )
    return Shard(file, dtype.str, offset, count)


def _numpy_header(version: int, width: int, length: int, content: BinaryIO) -> Any:
    import io

    header = io.BytesIO(length.to_bytes(width, "little") + content.read(length))
    if version == 1:
        return np.lib.format.read_array_header_1_0(header)
    return np.lib.format.read_array_header_2_0(header)


def _megatron(file: DataFile) -> Shard:
    if file.compression is not None:
        raise ConfigError(f"{file}: Megatron's shards are read as they are; unpack it")
    index = DataFile(file.url[:-4] + ".idx", "megatron")
    try:
        with opened(index) as stream:
            head = stream.content.read(_MEGATRON.size)
            magic, version, code, sequences, _ = _MEGATRON.unpack(head)
            if magic != b"MMIDIDX\0\0" or version != 1 or code not in _MEGATRON_TYPES:
                raise ConfigError(
                    f"{index}: is no index of Megatron's version 1 with integer ids; make it "
                    "again with preprocess_data.py"
                )
            length = _sum_of_lengths(stream.content, sequences)
    except FileNotFoundError:
        raise ConfigError(
            f"{index}: is missing; Megatron's shards are .bin and .idx, copy both"
        ) from None
    except (struct.error, EOFError):
        raise ConfigError(f"{index}: is cut short; copy it again") from None
    dtype = np.dtype(_MEGATRON_TYPES[code])
    with opened(file) as stream:
        if stream.size != length * dtype.itemsize:
            raise ConfigError(
                f"{file}: has {stream.size:,} bytes, its index says {length * dtype.itemsize:,}; "
                "one of them is cut short: copy both again"
            )
    return Shard(file, dtype.str, 0, length)


def _sum_of_lengths(content: BinaryIO, sequences: int) -> int:
    total, left = 0, sequences * 4
    while left:
        chunk = content.read(min(left, _CHUNK))
        if not chunk or len(chunk) % 4:
            raise EOFError
        total += int(np.frombuffer(chunk, "<i4").sum(dtype=np.int64))
        left -= len(chunk)
    return total


def token_chunks(shard: Shard, position: Position) -> Iterator[npt.NDArray[Any]]:
    """The ids of a shard that cannot be mapped, as it is read: compressed, or elsewhere."""
    dtype = np.dtype(shard.dtype)
    with opened(shard.file) as stream:
        stream.content.read(shard.offset)
        left = shard.length * dtype.itemsize
        while left:
            chunk = _read_exactly(stream.content, min(left, _CHUNK))
            position.share = stream.share
            if len(chunk) < min(left, _CHUNK):
                raise ConfigError(f"{shard.file}: is cut short; copy it again")
            left -= len(chunk)
            yield np.frombuffer(chunk, dtype)


def _read_exactly(content: BinaryIO, size: int) -> bytes:
    parts = []
    while size and (part := content.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
