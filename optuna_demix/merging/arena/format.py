"""The arena file, byte by byte.

::

    0       magic "DEMIXARN", version u32, zero u32, length of the JSON u64, SHA-256 of the JSON
    64      JSON header: names, digests, preparation, dtype, layout, sizes of the files, key
    align   attached files: config, tokenizer, … of the first component, back to back
    align   facts of every tensor, f64 (T, F)
    align   CRC-32 of every tensor's facts, u32 (T,)
    align   CRC-32 of every row of every block, u32 (n_blocks, R)
    page    data (n_blocks, R, block_size), the components' elements side by side, or (n_blocks,
            bytes of a block), their differences from the base as `deltas` describes them
    page    the same of further parts, of other element types

Blocks and tensors are counted through all parts. R is K, or K + 1 where the merge method or
differences need the base: it is the last row. All numbers are little-endian. Offsets follow from
the sizes and are not stored, no path and no date is stored: equal components give equal bytes on
every host.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from optuna_demix.merging._dtypes import as_dtype, dtype_name
from optuna_demix.merging._problem import problem, read_problem
from optuna_demix.merging.arena.deltas import block_bytes, row_sizes
from optuna_demix.merging.arena.layout import Layout, Part, Slot, align
from optuna_demix.merging.methods.preparation import Preparation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from optuna_demix.errors import ComponentError

MAGIC = b"DEMIXARN"
VERSION = 4  # of the layout; older arenas are rebuilt
_PREAMBLE = struct.Struct("<8sIIQ32s")
_JSON_START = 64
_SECTION_ALIGNMENT = 64
_PAGE = 1 << 16  # the largest page size in common use
_MAX_JSON_BYTES = 1 << 28
CHECKSUM_BYTES = 4
FACT_BYTES = 8
REBUILD = "delete it, or run 'optuna-demix arena clear'; it is built again from the components"


@dataclass(frozen=True)
class AttachedFile:
    """A small file of the first component carried inside the arena."""

    name: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class ArenaHeader:
    """Everything about an arena but its contents.

    ``converted_by`` is the release of transformers whose tables changed what was stored, if any.
    """

    names: tuple[str, ...]
    digests: dict[str, str]
    base_digest: str | None
    preparation: Preparation
    dtype: torch.dtype
    parts: tuple[Part, ...]
    files: tuple[AttachedFile, ...]
    converted_by: str | None

    @property
    def n_rows(self) -> int:
        """R, the components and perhaps the base."""
        return self.preparation.n_rows(len(self.names))

    @property
    def n_facts(self) -> int:
        """F, the facts kept of each tensor."""
        return self.preparation.n_facts(len(self.names))

    def row_sizes(self, part: Part) -> list[int]:
        """Bytes of each row of a block."""
        return row_sizes(part, self.preparation, len(self.names))

    def block_bytes(self, part: Part) -> int:
        """Bytes of a block."""
        return block_bytes(part, self.preparation, len(self.names))

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The T tensors of all parts."""
        return tuple(slot for part in self.parts for slot in part.layout.slots)

    @property
    def n_blocks(self) -> int:
        """Number of blocks of all parts."""
        return sum(part.layout.n_blocks for part in self.parts)

    @property
    def key(self) -> str:
        """SHA-256 that changes with the components, their order, their preparation and layout."""
        return hashlib.sha256(_to_bytes({"version": VERSION, **self._fields()})).hexdigest()

    def _fields(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "digests": self.digests,
            "base_digest": self.base_digest,
            "preparation": self.preparation.fields(),
            "dtype": dtype_name(self.dtype),
            "parts": [
                {
                    "dtype": dtype_name(part.dtype),
                    "block_size": part.layout.block_size,
                    "tensors": [
                        [slot.name, list(slot.shape), slot.offset] for slot in part.layout.slots
                    ],
                }
                for part in self.parts
            ],
            "converted_by": self.converted_by,
            "files": [[file.name, file.nbytes, file.sha256] for file in self.files],
        }

    def to_json(self) -> bytes:
        """Return the JSON of the header."""
        return _to_bytes({"key": self.key, **self._fields()})

    @classmethod
    def from_json(cls, raw: bytes) -> ArenaHeader:
        """Read what `to_json` wrote."""
        fields = json.loads(raw)
        parts = []
        for part in fields["parts"]:
            slots = (Slot(name, tuple(shape), at) for name, shape, at in part["tensors"])
            layout = Layout(tuple(slots), part["block_size"])
            parts.append(Part(as_dtype(part["dtype"]), layout))
        return cls(
            names=tuple(fields["names"]),
            digests=fields["digests"],
            base_digest=fields["base_digest"],
            preparation=Preparation.from_fields(fields["preparation"]),
            dtype=as_dtype(fields["dtype"]),
            parts=tuple(parts),
            files=tuple(AttachedFile(*file) for file in fields["files"]),
            converted_by=fields["converted_by"],
        )


@dataclass(frozen=True)
class Sections:
    """Byte offsets in an arena file."""

    files: int
    facts: int
    fact_checksums: int
    checksums: int
    data: tuple[int, ...]  # of each part
    end: int


def sections(header: ArenaHeader, json_length: int) -> Sections:
    """Return where everything lies."""
    files = align(_JSON_START + json_length, _SECTION_ALIGNMENT)
    facts = align(files + sum(file.nbytes for file in header.files), _SECTION_ALIGNMENT)
    n_tensors, n_rows = len(header.slots), header.n_rows
    fact_checksums = align(facts + n_tensors * header.n_facts * FACT_BYTES, _SECTION_ALIGNMENT)
    checksums = align(fact_checksums + n_tensors * CHECKSUM_BYTES, _SECTION_ALIGNMENT)
    data, end = [], checksums + header.n_blocks * n_rows * CHECKSUM_BYTES
    for part in header.parts:
        data.append(align(end, _PAGE))
        end = data[-1] + part.layout.n_blocks * header.block_bytes(part)
    return Sections(files, facts, fact_checksums, checksums, tuple(data), end)


@dataclass(frozen=True)
class Block:
    """One block: its number, its part, its number there, and the byte at which it begins."""

    number: int
    part: Part
    number_in_part: int
    start: int


def blocks_of(header: ArenaHeader, where: Sections) -> Iterator[Block]:
    """Yield all blocks, front to back."""
    number = 0
    for part, start in zip(header.parts, where.data, strict=True):
        size = header.block_bytes(part)
        for i in range(part.layout.n_blocks):
            yield Block(number, part, i, start + i * size)
            number += 1


def encode_preamble(raw: bytes) -> bytes:
    """Return the first bytes of the file, up to and including the JSON ``raw``."""
    preamble = _PREAMBLE.pack(MAGIC, VERSION, 0, len(raw), hashlib.sha256(raw).digest())
    return preamble.ljust(_JSON_START, b"\0") + raw


def read_preamble(path: Path) -> tuple[ArenaHeader, Sections]:
    """Read and check the header of an arena file.

    Raises:
        ComponentError: If the file is missing, no arena, of another version or damaged.
    """
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            start = stream.read(_PREAMBLE.size)
            if not start.startswith(MAGIC):
                remedy = "name a file made by Arena.build"
                raise problem("arena", "not an arena", remedy, file=path)
            if len(start) < _PREAMBLE.size:
                raise _truncated(path, size)
            _, version, _, length, sha256 = _PREAMBLE.unpack(start)
            if version != VERSION:
                what = f"written in layout {version}, not {VERSION}"
                raise problem("arena", what, REBUILD, file=path)
            if length > min(size, _MAX_JSON_BYTES):
                raise _truncated(path, size)
            stream.seek(_JSON_START)
            raw = stream.read(length)
    except OSError as error:
        raise read_problem("arena", error, path) from error
    if hashlib.sha256(raw).digest() != sha256:
        raise problem("arena", "its header is damaged", REBUILD, file=path)
    header = ArenaHeader.from_json(raw)
    where = sections(header, length)
    if size != where.end:
        raise _truncated(path, size, where.end)
    return header, where


def _truncated(path: Path, size: int, expected: int | None = None) -> ComponentError:
    of = f" of {expected}" if expected is not None else ""
    return problem("arena", f"truncated: {size}{of} bytes", REBUILD, file=path)


def _to_bytes(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
