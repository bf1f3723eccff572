"""Write an arena file from a component set, going on where a killed build stopped."""

from __future__ import annotations

import hashlib
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers

from optuna_demix.merging._aside import sync_directory
from optuna_demix.merging._problem import problem, read_problem, write_problem
from optuna_demix.merging.arena.constants import (
    CONSTANTS_FILE,
    check_constants,
    read_constants,
)
from optuna_demix.merging.arena.format import (
    CHECKSUM_BYTES,
    FACT_BYTES,
    ArenaHeader,
    AttachedFile,
    Block,
    Sections,
    blocks_of,
    encode_preamble,
    sections,
)
from optuna_demix.merging.arena.layout import Part
from optuna_demix.merging.arena.room import check_space
from optuna_demix.merging.arena.rows import BlockRows, DeltaRows, TensorRows
from optuna_demix.merging.checkpoints.conversion import Converted
from optuna_demix.merging.checkpoints.state_reader import StateReader
from optuna_demix.merging.checkpoints.tokenizer_files import token_files
from optuna_demix.merging.methods.preparation import Preparation

if TYPE_CHECKING:
    from optuna_demix.merging.checkpoints.components import ComponentSet
    from optuna_demix.merging.checkpoints.fitting import Component

_MODEL_FILES = ("config.json", "generation_config.json")
_CHAT_TEMPLATE = "chat_template.jinja"
_CHUNK_ELEMENTS = 1 << 22


def partial_path(path: Path) -> Path:
    """Return where an arena is written before it is whole."""
    return path.with_name(f"{path.name}.partial")


def read_attachments(components: ComponentSet) -> dict[str, bytes]:
    """Return the small files that a live model needs, from the component that stands for all."""
    checkpoint = components.standard
    files = {name: checkpoint.model_path / name for name in _MODEL_FILES}
    if "auto_map" in checkpoint.config:  # the model's own code
        files |= {file.name: file for file in checkpoint.model_path.glob("*.py")}
    files |= token_files(checkpoint.tokenizer_path)
    files[_CHAT_TEMPLATE] = checkpoint.tokenizer_path / _CHAT_TEMPLATE
    try:
        found = {name: file.read_bytes() for name, file in sorted(files.items()) if file.is_file()}
    except OSError as error:
        raise read_problem(checkpoint.label, error, checkpoint.path) from error
    if components.constants:
        found[CONSTANTS_FILE] = read_constants(components)
    return found


def plan_header(
    components: ComponentSet,
    digests: dict[str, str],
    base_digest: str | None,
    preparation: Preparation,
    parts: tuple[Part, ...],
    dtype: torch.dtype,
    attachments: dict[str, bytes],
) -> ArenaHeader:
    """Return the header of the arena that these components make."""
    files = tuple(
        AttachedFile(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in attachments.items()
    )
    return ArenaHeader(
        components.names,
        digests,
        base_digest,
        preparation,
        dtype,
        parts,
        files,
        converted_by(components),
    )


def converted_by(components: ComponentSet) -> str | None:
    """Return the release of transformers that converts some of the components, if it must."""
    models = [*components.components, *([components.base] if components.base else [])]
    converts = any(isinstance(s, Converted) for model in models for s in model.sources.values())
    return transformers.__version__ if converts else None


def write_arena(
    components: ComponentSet,
    header: ArenaHeader,
    attachments: dict[str, bytes],
    path: Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the file aside and rename it into place. The caller holds the arena's lock.

    Every block is followed by its checksums, so that what a killed build has written can be
    trusted block by block: the next build of the same arena begins after the last good one.

    Raises:
        ComponentError: If the disk is full, a component changed or holds a non-finite number.
    """
    raw = header.to_json()
    where = sections(header, len(raw))
    start = encode_preamble(raw)
    models = [*components.components]
    if header.preparation.base:
        assert components.base is not None
        models.append(components.base)
    _check_space(path, where.end)
    for model in models:
        _check_duplicates(model)
    check_constants(components, models)
    with _partial_file(path, start, where) as file:
        file.write(where.files, b"".join(attachments.values()))
        first = file.n_whole_blocks(header)
        with ExitStack() as stack:
            sources = [stack.enter_context(StateReader(model)) for model in models]
            _write_blocks(sources, header, where, file, first, progress)


class _File:
    """The file in the making, written and read at given places."""

    def __init__(self, descriptor: int, where: Sections) -> None:
        self._descriptor = descriptor
        self._where = where

    def write(self, position: int, content: bytes | memoryview) -> None:
        """Write all of ``content``; a disk that fills up raises OSError."""
        view = memoryview(content)
        while len(view):
            count = os.pwrite(self._descriptor, view, position)
            view, position = view[count:], position + count

    def read(self, position: int, length: int) -> bytes:
        """Read ``length`` bytes; the file has its full size from the start."""
        return os.pread(self._descriptor, length, position)

    def write_facts(self, tensor: int, facts: np.ndarray) -> None:
        """Keep the facts of a tensor, with their checksum."""
        content = facts.astype("<f8").tobytes()
        self.write(self._where.facts + tensor * len(content), content)
        self.write(self._where.fact_checksums + tensor * CHECKSUM_BYTES, _checksum(content))

    def write_block(self, block: Block, rows: Sequence[np.ndarray]) -> None:
        """Write the rows of a block, R arrays of bytes, then their checksums."""
        position = block.start
        for row in rows:
            self.write(position, row.data)
            position += len(row)
        sums = b"".join(_checksum(row.data) for row in rows)
        self.write(self._where.checksums + block.number * len(sums), sums)

    def n_whole_blocks(self, header: ArenaHeader) -> int:
        """Return how many blocks from the first on are there, with the facts of their tensors."""
        whole = 0
        for block in blocks_of(header, self._where):
            if not self._is_whole(block, header.row_sizes(block.part)):
                break
            whole += 1
        tensor = begin = 0
        for part in header.parts:
            done = (whole - begin) * part.layout.block_size
            for slot in part.layout.slots:
                if slot.offset < done and not self._has_facts(tensor, header.n_facts):
                    return begin + slot.offset // part.layout.block_size
                tensor += 1
            begin += part.layout.n_blocks
        return whole

    def _is_whole(self, block: Block, sizes: Sequence[int]) -> bool:
        width = len(sizes) * CHECKSUM_BYTES
        sums = self.read(self._where.checksums + block.number * width, width)
        if not any(sums):
            return False  # not written yet: no need to read the rows
        starts = accumulate(sizes, initial=block.start)
        return sums == b"".join(
            _checksum(self.read(start, size)) for start, size in zip(starts, sizes, strict=False)
        )

    def _has_facts(self, tensor: int, n_facts: int) -> bool:
        width = n_facts * FACT_BYTES
        if not width:
            return True
        content = self.read(self._where.facts + tensor * width, width)
        kept = self.read(self._where.fact_checksums + tensor * CHECKSUM_BYTES, CHECKSUM_BYTES)
        return kept == _checksum(content)


def _checksum(content: bytes | memoryview) -> bytes:
    return zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little")


@contextmanager
def _partial_file(path: Path, start: bytes, where: Sections) -> Iterator[_File]:
    """Open the file aside, kept if it begins alike; sync and rename it at the end.

    It stays after a kill or an interrupt, for the next build, and goes after an error.
    """
    aside = partial_path(path)
    try:
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise write_problem("arena", error, path) from error
    try:
        try:
            file = _File(descriptor, where)
            if os.fstat(descriptor).st_size != where.end or file.read(0, len(start)) != start:
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, where.end)
                file.write(0, start)
            yield file
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(aside, path)
        sync_directory(path.parent)
    except Exception as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise write_problem("arena", error, path) from error
        raise


def _check_space(path: Path, needed: int) -> None:
    there = 0
    with suppress(OSError):
        there = partial_path(path).stat().st_blocks * 512  # what is there need not be written
    check_space(path.parent, path, needed, there=there)


def _check_duplicates(component: Component) -> None:
    """Copies of tied tensors must be equal, or the checkpoint is not tied in truth."""
    with StateReader(component) as reader:
        for canonical, copy in component.duplicates:
            original = component.sources[canonical]
            total = math.prod(copy.shape)
            for start in range(0, total, _CHUNK_ELEMENTS):
                count = min(_CHUNK_ELEMENTS, total - start)
                left = reader.elements(original, start, count)
                if not torch.equal(left, reader.elements(copy, start, count).to(left.dtype)):
                    what = f"config.json ties a tensor to {canonical!r}, but its copy differs"
                    remedy = "set tie_word_embeddings to false in every config.json"
                    raise problem(component.checkpoint.label, what, remedy, file=copy.file)


def _write_blocks(
    sources: list[StateReader],
    header: ArenaHeader,
    where: Sections,
    file: _File,
    first: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the blocks from ``first`` on."""
    filler: BlockRows | DeltaRows | TensorRows
    if header.preparation.deltas is not None:
        filler = DeltaRows(sources, header.preparation.deltas)
    elif header.preparation.by_tensor:
        filler = TensorRows(sources, header, file.write_facts)
    else:
        filler = BlockRows(sources)
    if progress is not None and first:
        progress(first, header.n_blocks)
    for block in islice(blocks_of(header, where), first, None):
        file.write_block(block, filler.rows(block))
        if progress is not None:
            progress(block.number + 1, header.n_blocks)
