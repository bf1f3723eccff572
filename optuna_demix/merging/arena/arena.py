"""The components as one flat file, mapped into memory and shared by all workers of a host."""

from __future__ import annotations

import hashlib
import math
import mmap
import tempfile
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock

from optuna_demix.errors import ComponentError
from optuna_demix.merging._dtypes import as_dtype, dtype_name
from optuna_demix.merging._problem import problem, read_problem, write_problem
from optuna_demix.merging.arena.build import (
    converted_by,
    partial_path,
    plan_header,
    read_attachments,
    write_arena,
)
from optuna_demix.merging.arena.format import (
    FACT_BYTES,
    MAGIC,
    REBUILD,
    ArenaHeader,
    Sections,
    blocks_of,
    read_preamble,
)
from optuna_demix.merging.arena.layout import Layout, Part, Slot, plan_parts
from optuna_demix.merging.methods.preparation import Preparation
from optuna_demix.merging.methods.registry import MergeMethod, find_method

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from optuna_demix.merging.checkpoints.components import ComponentSet


class Arena:
    """K components side by side in one file, block by block, so that a merge is one read.

    The file is mapped read-only: all processes of a host share one copy in memory. It carries the
    config and tokenizer of the first component and needs the components' directories no more.

    Example:
        ::

            arena = Arena.build(ComponentSet.open(paths), "runs/components.arena")
            arena.verify()

    Attributes:
        path: The file.
        key: Hash of the contents' digests and layout; equal on all hosts for equal components.
        names: Component names, in the order of the merge weights.
        digests: SHA-256 of each component's tensors and config, by name.
        base_digest: The same of the base, where the arena holds it.
        preparation: What was done to the components for the merge method.
        dtype: Element type as stored, of all tensors but those that models keep in another one.
        parts: The tensors by element type, largest part first, each a flat vector in blocks.
        part_blocks: All elements of each part, (n_blocks, R, block_size), read-only. R is K, or
            K + 1 with the base as the last row. With differences, bytes for `delta_blocks`.
        facts: What the merge method needs of each tensor, (T, F), float64; F may be 0.
    """

    def __init__(self, path: Path, header: ArenaHeader, where: Sections) -> None:
        """Map a checked file; use `build` or `open` instead."""
        self.path = path
        self.key = header.key
        self.names = header.names
        self.digests = {name: header.digests[name] for name in header.names}
        self.base_digest = header.base_digest
        self.preparation: Preparation = header.preparation
        self.dtype = header.dtype
        self.parts: tuple[Part, ...] = header.parts
        self._header = header
        self._where = where
        self._map = _map_file(path, where.end)
        self.part_blocks = tuple(
            self._blocks(part, start) for part, start in zip(self.parts, where.data, strict=True)
        )
        self.facts = self._read_facts()

    def _blocks(self, part: Part, start: int) -> torch.Tensor:
        n_blocks, dtype = part.layout.n_blocks, part.dtype
        shape: tuple[int, ...] = (n_blocks, self._header.n_rows, part.layout.block_size)
        if self.preparation.deltas is not None:
            shape, dtype = (n_blocks, self._header.block_bytes(part)), torch.uint8
        with warnings.catch_warnings():
            # torch warns that the map is read-only, which is what is wanted: nobody writes to it.
            warnings.filterwarnings("ignore", message=".*not writable.*")
            flat = torch.frombuffer(self._map, dtype=dtype, offset=start, count=math.prod(shape))
        return flat.view(shape)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Arena:
        """Open an arena that has been built.

        Raises:
            ComponentError: If the file is missing, no arena, truncated or damaged in its header.
        """
        file = Path(path)
        return cls(file, *read_preamble(file))

    @classmethod
    def build(
        cls,
        components: ComponentSet,
        path: str | os.PathLike[str],
        *,
        method: MergeMethod | str = "linear",
        dtype: torch.dtype | str | None = None,
        block_size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Arena:
        """Return the arena of these components, building the file unless it is there already.

        Any number of processes may call this at once: one builds, the others wait and share. The
        file appears whole or not at all. A stale, truncated or outdated arena is replaced. A
        build that was killed is gone on with.

        Args:
            components: What to put in, opened with ``base=`` if the merge method needs the base.
            path: The file to make. ``PATH.lock``, ``PATH.digests.json`` and, while it is being
                built, ``PATH.partial`` lie beside it.
            method: The merge method to prepare the components for.
            dtype: Storage type, by default the components' own.
            block_size: Elements a block, a multiple of 64; by default what suits the cache.
            progress: Called with (blocks done, blocks in all) after each block.

        Raises:
            ComponentError: If a component holds NaN or infinity, or cannot be read, or the disk
                is full, or something else than an arena is at ``path``.
        """
        file = Path(path)
        chosen = find_method(method) if isinstance(method, str) else method
        preparation = chosen.preparation
        if preparation.base and components.base is None:
            how = "" if preparation.deltas is None else f" with components {preparation.kept}"
            raise ComponentError(
                f"merge method {chosen.name!r}{how} needs the base model that the components were "
                "trained from; name its directory as 'base'"
            )
        storage = components.dtype if dtype is None else as_dtype(dtype)
        parts = plan_parts(
            components.tensors,
            storage,
            n_rows=preparation.n_rows(len(components.names)),
            block_size=block_size,
        )
        attachments = read_attachments(components)
        with _locked(file):
            _refuse_foreign_file(file)
            cache = _digest_cache(file)
            digests = components.digests(cache=cache)
            base = components.base_digest(cache=cache) if preparation.base else None
            header = plan_header(
                components, digests, base, preparation, parts, storage, attachments
            )
            if _key_of(file) != header.key:
                write_arena(components, header, attachments, file, progress)
            partial_path(file).unlink(missing_ok=True)  # of components that are no more
            return cls.open(file)

    def differences(
        self,
        components: ComponentSet,
        *,
        method: MergeMethod | str = "linear",
        dtype: torch.dtype | str | None = None,
    ) -> list[str]:
        """Return in words what `build` would replace this arena for; empty if it is up to date.

        Args:
            components: As for `build`.
            method: As for `build`.
            dtype: As for `build`.

        Raises:
            ComponentError: If a component cannot be read.
        """
        chosen = find_method(method) if isinstance(method, str) else method
        cache = _digest_cache(self.path)
        digests = components.digests(cache=cache)
        found = []
        if self.names != components.names:
            found.append(f"it holds {', '.join(self.names)}")
        found += [
            f"component {name!r} has changed"
            for name, digest in self.digests.items()
            if digests.get(name, digest) != digest
        ]
        kept, wanted = self.preparation.kept, chosen.preparation.kept
        if kept != wanted:
            found.append(f"it holds the components {kept}, not {wanted}")
        elif self.preparation != chosen.preparation:
            found.append(f"it was built for another merge method than {chosen.name!r}")
        elif self.preparation.base and self.base_digest != components.base_digest(cache=cache):
            found.append("the base has changed")
        if self._header.converted_by != converted_by(components):
            found.append("another release of transformers converted the components")
        storage = components.dtype if dtype is None else as_dtype(dtype)
        if self.dtype != storage:
            found.append(f"it is stored in {dtype_name(self.dtype)}, not {dtype_name(storage)}")
        return found

    @staticmethod
    def clear(path: str | os.PathLike[str]) -> int:
        """Remove an arena and what lies beside it; workers that have it open keep it.

        The empty ``PATH.lock`` stays: another process may be waiting for it.

        Args:
            path: The file; it need not be there.

        Returns:
            How many bytes of disk that frees.

        Raises:
            ComponentError: If there is something else than an arena, or it cannot be removed.
        """
        file = Path(path)
        if not file.parent.is_dir():
            return 0
        with _locked(file):
            _refuse_foreign_file(file)
            freed = 0
            try:
                for leftover in (file, partial_path(file), _digest_cache(file)):
                    if leftover.is_file():
                        freed += leftover.stat().st_blocks * 512
                        leftover.unlink()
            except OSError as error:
                raise write_problem("arena", error, file) from error
        return freed

    @property
    def layout(self) -> Layout:
        """The layout of the first part; most arenas have no other."""
        return self.parts[0].layout

    @property
    def blocks(self) -> torch.Tensor:
        """The blocks of the first part."""
        return self.part_blocks[0]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The T tensors of all parts."""
        return self._header.slots

    @property
    def n_blocks(self) -> int:
        """Number of blocks of all parts."""
        return self._header.n_blocks

    @property
    def n_parameters(self) -> int:
        """Number of elements of one component, padding left out."""
        return sum(slot.n_elements for slot in self.slots)

    @property
    def nbytes(self) -> int:
        """Size of all blocks in bytes: what one merge reads."""
        return sum(blocks.nbytes for blocks in self.part_blocks)

    def verify(self, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Read everything and compare with the checksums taken at build time.

        Raises:
            ComponentError: Naming the first damaged block, its component and its tensors, or the
                damaged file.
        """
        view = memoryview(self._map)
        for name, content in self._attached(view):
            _check_attached(self.path, self._header, name, content)
        self._verify_blocks(view, progress)

    def _read_facts(self) -> np.ndarray:
        """Return the facts of all tensors, (T, F), checked: they are few and steer all merges."""
        where, n_tensors, n_facts = self._where, len(self.slots), self._header.n_facts
        view = memoryview(self._map)
        content = view[where.facts : where.facts + n_tensors * n_facts * FACT_BYTES]
        facts = np.frombuffer(content, dtype="<f8").reshape(n_tensors, n_facts)
        expected = np.frombuffer(
            view[where.fact_checksums : where.checksums], dtype="<u4", count=n_tensors
        )
        if n_facts:
            for row, checksum, slot in zip(facts, expected, self.slots, strict=True):
                if zlib.crc32(row.tobytes()) != checksum:
                    what = f"what it keeps of tensor {slot.name!r} is damaged"
                    raise problem("arena", what, REBUILD, file=self.path)
        return facts

    @contextmanager
    def extracted(self) -> Iterator[Path]:
        """Unpack config and tokenizer files into a directory that lasts as long as the context.

        Raises:
            ComponentError: If one of them is damaged.
        """
        with tempfile.TemporaryDirectory(prefix="optuna-demix-") as name:
            directory = Path(name)
            for file, content in self._attached(memoryview(self._map)):
                _check_attached(self.path, self._header, file, content)
                (directory / file).write_bytes(content)
            yield directory

    def _verify_blocks(
        self, view: memoryview, progress: Callable[[int, int], None] | None
    ) -> None:
        n_blocks, n_rows = self.n_blocks, self._header.n_rows
        owners = [*(f"component {name!r}" for name in self.names), "the base"]
        expected = np.frombuffer(
            view, dtype="<u4", count=n_blocks * n_rows, offset=self._where.checksums
        )
        for block in blocks_of(self._header, self._where):
            begin = block.start
            for k, size in enumerate(self._header.row_sizes(block.part)):
                if zlib.crc32(view[begin : begin + size]) != expected[block.number * n_rows + k]:
                    pieces = block.part.layout.pieces(block.number_in_part)
                    tensors = ", ".join(piece.slot.name for piece in pieces)
                    what = f"block {block.number} of {owners[k]} is damaged ({tensors})"
                    raise problem("arena", what, REBUILD, file=self.path)
                begin += size
            if progress is not None:
                progress(block.number + 1, n_blocks)

    def _attached(self, view: memoryview) -> Iterator[tuple[str, memoryview]]:
        position = self._where.files
        for file in self._header.files:
            yield file.name, view[position : position + file.nbytes]
            position += file.nbytes


def _map_file(path: Path, size: int) -> mmap.mmap:
    try:
        with open(path, "rb") as stream:
            return mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        what = f"cannot be mapped into memory ({error})"
        raise problem("arena", what, REBUILD, file=path) from error


def _check_attached(path: Path, header: ArenaHeader, name: str, content: memoryview) -> None:
    expected = next(file.sha256 for file in header.files if file.name == name)
    if hashlib.sha256(content).hexdigest() != expected:
        raise problem("arena", f"its copy of {name} is damaged", REBUILD, file=path)


def _digest_cache(file: Path) -> Path:
    return file.with_name(f"{file.name}.digests.json")


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the arena's lock; a process that dies lets go of it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.with_name(f"{file.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise write_problem("arena", error, file) from error
    try:
        yield
    finally:
        lock.release()


def _refuse_foreign_file(file: Path) -> None:
    """Never overwrite what was not an arena."""
    try:
        with open(file, "rb") as stream:
            start = stream.read(len(MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise read_problem("arena", error, file) from error
    if start and not MAGIC.startswith(start):
        what = "there is a file which is not an arena"
        raise problem("arena", what, "choose another path or remove that file", file=file)


def _key_of(file: Path) -> str | None:
    """Return the key of a usable arena, or None."""
    try:
        header, _ = read_preamble(file)
    except ComponentError:
        return None
    return header.key
