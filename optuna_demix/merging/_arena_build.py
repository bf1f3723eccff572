"""Write an arena file from a component set."""

from __future__ import annotations

import hashlib
import shutil
import zlib
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch

from optuna_demix.merging._arena_format import (
    ArenaHeader,
    AttachedFile,
    encode_preamble,
    sections,
)
from optuna_demix.merging._aside import write_aside
from optuna_demix.merging._dtypes import all_finite, dtype_name
from optuna_demix.merging._layout import Layout, Piece
from optuna_demix.merging._problem import problem, read_problem
from optuna_demix.merging._tensor_reader import TensorReader
from optuna_demix.merging._tokenizer_files import TOKENIZER_FILES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from optuna_demix.merging.components import Component, ComponentSet

_MODEL_FILES = ("config.json", "generation_config.json")
_COMPARE_CHUNK = 1 << 24  # bytes


def read_attachments(components: ComponentSet) -> dict[str, bytes]:
    """Return the small files that a live model needs, from the first component."""
    checkpoint = components.components[0].checkpoint
    names = [*_MODEL_FILES, *TOKENIZER_FILES]
    if "auto_map" in checkpoint.config:  # the model's own code
        names += [file.name for file in checkpoint.path.glob("*.py")]
    files = [checkpoint.path / name for name in sorted(names)]
    try:
        return {file.name: file.read_bytes() for file in files if file.is_file()}
    except OSError as error:
        raise read_problem(checkpoint.label, error, checkpoint.path) from error


def plan_header(
    components: ComponentSet,
    digests: dict[str, str],
    layout: Layout,
    dtype: torch.dtype,
    attachments: dict[str, bytes],
) -> ArenaHeader:
    """Return the header of the arena that these components make."""
    files = tuple(
        AttachedFile(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in attachments.items()
    )
    return ArenaHeader(components.names, digests, dtype, layout, files)


def write_arena(
    components: ComponentSet,
    header: ArenaHeader,
    attachments: dict[str, bytes],
    path: Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the file aside and rename it into place. The caller holds the arena's lock.

    Raises:
        ComponentError: If the disk is full, a component changed or holds a non-finite number.
    """
    raw = header.to_json()
    where = sections(header, len(raw))
    _check_space(path, where.end)
    for component in components.components:
        _check_duplicates(component)
    with write_aside(path, "arena", aside=path.with_name(f"{path.name}.partial")) as stream:
        stream.truncate(where.end)
        stream.write(encode_preamble(raw))
        stream.seek(where.files)
        for content in attachments.values():
            stream.write(content)
        stream.seek(where.data)
        checksums = _write_blocks(components, header, stream, progress)
        stream.seek(where.checksums)
        stream.write(checksums.tobytes())


def _check_space(path: Path, needed: int) -> None:
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise read_problem("arena", error, path.parent) from error
    if free < needed:
        what = f"needs {needed:,} bytes, but the disk has {free:,} free"
        raise problem("arena", what, "free space there or choose another path", file=path)


def _check_duplicates(component: Component) -> None:
    """Copies of tied tensors must be equal, or the checkpoint is not tied in truth."""
    with TensorReader(component.checkpoint.label) as reader:
        for canonical, copy in component.duplicates:
            original = component.sources[canonical]
            for start in range(0, original.nbytes, _COMPARE_CHUNK):
                length = min(_COMPARE_CHUNK, original.nbytes - start)
                left, right = bytearray(length), bytearray(length)
                reader.read_into(original, start, memoryview(left))
                reader.read_into(copy, start, memoryview(right))
                if left != right:
                    what = f"config.json ties a tensor to {canonical!r}, but its copy differs"
                    remedy = "set tie_word_embeddings to false in every config.json"
                    raise problem(component.checkpoint.label, what, remedy, file=copy.file)


def _write_blocks(
    components: ComponentSet,
    header: ArenaHeader,
    stream: BinaryIO,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """Write all blocks; return their checksums, u32 (n_blocks, K)."""
    layout, n_components = header.layout, len(header.names)
    checksums = np.zeros((layout.n_blocks, n_components), dtype="<u4")
    stored = torch.zeros(layout.block_size, dtype=components.dtype)
    with ExitStack() as stack:
        readers = [
            stack.enter_context(TensorReader(component.checkpoint.label))
            for component in components.components
        ]
        for block in range(layout.n_blocks):
            pieces = list(layout.pieces(block))
            for k, (component, reader) in enumerate(
                zip(components.components, readers, strict=True)
            ):
                _read_pieces(component, reader, pieces, stored)
                row = stored.to(header.dtype)  # rounds to nearest even
                _check_finite(component, pieces, stored, row)
                content = row.view(torch.uint8).numpy().data
                checksums[block, k] = zlib.crc32(content)
                stream.write(content)
            if progress is not None:
                progress(block + 1, layout.n_blocks)
    return checksums


def _read_pieces(
    component: Component, reader: TensorReader, pieces: list[Piece], row: torch.Tensor
) -> None:
    """Fill one row of a block; what no tensor covers becomes zero."""
    size = row.element_size()
    content = row.view(torch.uint8).numpy()
    content.fill(0)
    target = content.data
    for piece in pieces:
        begin = piece.block_start * size
        reader.read_into(
            component.sources[piece.slot.name],
            piece.tensor_start * size,
            target[begin : begin + piece.length * size],
        )


def _check_finite(
    component: Component, pieces: list[Piece], stored: torch.Tensor, row: torch.Tensor
) -> None:
    if all_finite(row):
        return
    for piece in pieces:
        part = slice(piece.block_start, piece.block_start + piece.length)
        if all_finite(row[part]):
            continue
        name = piece.slot.name
        if all_finite(stored[part]):
            what = f"tensor {name!r} holds numbers too large for {dtype_name(row.dtype)}"
            remedy = "build the arena in bfloat16 or float32"
        else:
            what = f"tensor {name!r} holds NaN or infinity"
            remedy = "leave this component out or train it again"
        file = component.sources[name].file
        raise problem(component.checkpoint.label, what, remedy, file=file)
