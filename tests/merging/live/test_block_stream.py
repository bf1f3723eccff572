"""Streaming through two buffers, on a stand-in for a device that logs what it is told to do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch

from optuna_demix.merging import Arena, LiveModel
from optuna_demix.merging.live.block_stream import BlockStream

if TYPE_CHECKING:
    from collections.abc import Iterator

Log = list[tuple[Any, ...]]


class _Event:
    def __init__(self, log: Log, name: str) -> None:
        self.log, self.name = log, name

    def record(self, stream: _Stream) -> None:
        self.log.append(("record", self.name, stream.name))

    def synchronize(self) -> None:
        self.log.append(("synchronize", self.name))


class _Stream:
    def __init__(self, log: Log, name: str) -> None:
        self.log, self.name = log, name

    def wait_event(self, event: _Event) -> None:
        self.log.append(("wait", event.name, self.name))

    def wait_stream(self, other: _Stream) -> None:
        self.log.append(("follow", other.name, self.name))


class _Backend:
    """The part of ``torch.cuda`` that is used; work is done at once and logged."""

    def __init__(self) -> None:
        self.log: Log = []
        self._main = _Stream(self.log, "main")
        self._n_events = 0

    def Stream(self, device: torch.device) -> _Stream:  # noqa: N802
        return _Stream(self.log, "copies")

    def Event(self) -> _Event:  # noqa: N802
        self._n_events += 1
        names = ("arrived 0", "arrived 1", "merged 0", "merged 1")
        return _Event(self.log, names[self._n_events - 1])

    def current_stream(self, device: torch.device) -> _Stream:
        return self._main

    @contextmanager
    def stream(self, stream: _Stream) -> Iterator[None]:
        self.log.append(("enter", stream.name))
        yield
        self.log.append(("leave", stream.name))


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> _Backend:
    stand_in = _Backend()
    monkeypatch.setattr(torch, "get_device_module", lambda device: stand_in)
    return stand_in


@pytest.mark.parametrize("n_blocks", [1, 2, 3, 7])
@pytest.mark.parametrize("per_chunk", [1, 2, 10])
def test_all_blocks_pass_in_order(backend: _Backend, n_blocks: int, per_chunk: int) -> None:
    blocks = torch.randn(n_blocks, 3, 64)
    stream = BlockStream(blocks, torch.device("cpu"), chunk_bytes=per_chunk * blocks[0].nbytes)
    for _ in range(2):  # the buffers serve merge after merge
        seen = []
        for which, chunk in stream.chunks():
            assert torch.equal(chunk, blocks[which])
            seen.append(chunk.clone())
        assert torch.equal(torch.cat(seen), blocks)


@pytest.mark.parametrize("per_chunk", [1, 2, 10])
def test_ranges_of_blocks_are_chunks_of_their_own(backend: _Backend, per_chunk: int) -> None:
    blocks = torch.randn(9, 3, 64)
    ranges = [slice(1, 4), slice(6, 7), slice(8, 9)]
    stream = BlockStream(
        blocks, torch.device("cpu"), ranges=ranges, chunk_bytes=per_chunk * blocks[0].nbytes
    )
    for _ in range(2):
        seen = []
        for which, chunk in stream.chunks():
            assert torch.equal(chunk, blocks[which])
            seen += range(which.start, which.stop)
        assert seen == [1, 2, 3, 6, 8]


def test_no_buffer_is_refilled_while_it_is_in_use(backend: _Backend) -> None:
    blocks = torch.randn(5, 2, 64)
    stream = BlockStream(blocks, torch.device("cpu"), chunk_bytes=1)
    log = backend.log
    for which, _ in stream.chunks():
        log.append(("merge", which.start))
    for number in range(5):
        slot = number % 2
        merge = log.index(("merge", number))
        # The copy of this chunk is announced before, and waited for by the merge.
        assert log[merge - 1] == ("wait", f"arrived {slot}", "main")
        assert ("record", f"arrived {slot}", "copies") in log[:merge]
        if number + 2 < 5:
            # The chunk that follows in the same slot: after this merge was recorded, the copy
            # stream waits for it and the CPU waits for the pinned buffer.
            between = log[merge : log.index(("merge", number + 2))]
            recorded = between.index(("record", f"merged {slot}", "main"))
            emptied = between.index(("synchronize", f"arrived {slot}"))
            refill = between.index(("wait", f"merged {slot}", "copies"))
            assert recorded < emptied < refill
    # The next chunk is already on its way when a merge begins.
    assert log.index(("record", "arrived 1", "copies")) < log.index(("merge", 0))


def test_a_streamed_merge_equals_a_resident_one(
    arena: Arena, backend: _Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident, streamed = LiveModel(arena, self_test=False), LiveModel(arena, self_test=False)
    stream = BlockStream(arena.blocks, torch.device("cpu"), chunk_bytes=3 * arena.blocks[0].nbytes)
    monkeypatch.setattr(streamed._shards[0], "blocks", stream)
    for w in ([0.2, 0.3, 0.5], [0.0, 1.0, 0.0]):
        resident.merge(w)
        streamed.merge(w)
        for ours, theirs in zip(
            resident.model.parameters(), streamed.model.parameters(), strict=True
        ):
            assert torch.equal(ours, theirs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", [True, False])
def test_a_cuda_model_equals_the_cpu_one(arena: Arena, resident: bool) -> None:
    cpu, cuda = LiveModel(arena), LiveModel(arena, device="cuda", resident=resident)
    for w in ([0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [1.5, -0.5, 0.0]):
        cpu.merge(w)
        cuda.merge(w)
        for ours, theirs in zip(cpu.model.parameters(), cuda.model.parameters(), strict=True):
            torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-6, atol=1e-7)
