"""The arena file: built whole or not at all, once, equal everywhere, and checked when read."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from optuna_demix.errors import ComponentError
from optuna_demix.merging import Arena, ComponentSet, find_method
from optuna_demix.merging.arena.layout import plan_layout
from tests.forking import run_forked

Paths = dict[str, Path]
NORM = "model.norm.weight"


def _row(arena: Arena, k: int) -> torch.Tensor:
    """The flat vector of one component."""
    return arena.blocks[:, k].reshape(-1)


def _leftovers(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_file()}


def _damage(file: Path, position: int) -> None:
    with open(file, "r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)
        stream.seek(position)
        stream.write(bytes([byte[0] ^ 0x10]))


@given(
    sizes=st.lists(st.integers(1, 500), min_size=1, max_size=12),
    block_size=st.sampled_from([64, 128, 256, 1024]),
)
def test_pieces_of_all_blocks_are_all_elements_in_order(sizes: list[int], block_size: int) -> None:
    shapes = {f"t{number:02d}": (size,) for number, size in enumerate(sizes)}
    layout = plan_layout(shapes, n_rows=3, block_size=block_size)
    seen: dict[str, list[int]] = {name: [] for name in shapes}
    for block in range(layout.n_blocks):
        for piece in layout.pieces(block):
            assert 0 <= piece.block_start <= piece.block_start + piece.length <= block_size
            place = block * block_size + piece.block_start
            assert place == piece.slot.offset + piece.tensor_start
            seen[piece.slot.name] += range(piece.tensor_start, piece.tensor_start + piece.length)
    assert seen == {name: list(range(size)) for (name, (size,)) in shapes.items()}
    assert all(slot.offset % 64 == 0 for slot in layout.slots)
    assert layout.n_padded >= layout.n_elements


@pytest.mark.parametrize("n_components", [1, 7, 50, 1000])
def test_blocks_of_all_components_fit_the_cache(n_components: int) -> None:
    layout = plan_layout({"a": (10**8,)}, n_rows=n_components)
    assert 2**12 <= layout.block_size <= 2**18
    assert layout.block_size == 2**12 or layout.block_size * n_components * 4 <= 8 << 20


@pytest.mark.parametrize("block_size", [0, -64, 100])
def test_an_impossible_block_size_is_refused(block_size: int) -> None:
    with pytest.raises(ValueError, match="positive multiple of 64"):
        plan_layout({"a": (10,)}, n_rows=2, block_size=block_size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("block_size", "sharded"), [(64, True), (1024, True), (None, False)])
def test_every_element_is_in_its_place(
    family_of: Callable[..., Any],
    tmp_path: Path,
    dtype: torch.dtype,
    sharded: bool,
    block_size: int | None,
) -> None:
    family = family_of("llama-untied", dtype, sharded)
    arena = Arena.build(ComponentSet.open(family.paths), tmp_path / "a", block_size=block_size)
    assert arena.dtype == dtype
    arena.verify()
    for k, path in enumerate(family.paths.values()):
        stored: dict[str, torch.Tensor] = {}
        for file in path.glob("*.safetensors"):
            stored.update(load_file(file))
        row = _row(arena, k)
        padding = torch.ones(len(row), dtype=torch.bool)
        assert {slot.name for slot in arena.layout.slots} == set(stored)
        for slot in arena.layout.slots:
            part = slice(slot.offset, slot.offset + slot.n_elements)
            assert torch.equal(row[part].view(slot.shape), stored[slot.name])
            padding[part] = False
        assert not row[padding].any()


def test_another_storage_type_rounds_to_nearest_even(paths: Paths, tmp_path: Path) -> None:
    components = ComponentSet.open(paths)
    exact = Arena.build(components, tmp_path / "exact")
    rounded = Arena.build(components, tmp_path / "rounded", dtype="bfloat16")
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(_row(rounded, 1), _row(exact, 1).bfloat16())


def test_an_arena_says_what_it_holds(paths: Paths, tmp_path: Path) -> None:
    components = ComponentSet.open(paths)
    built = Arena.build(components, tmp_path / "runs" / "x.arena", block_size=256)
    shutil.rmtree(paths["web"])  # an arena needs the components no more
    arena = Arena.open(str(tmp_path / "runs" / "x.arena"))
    assert arena.key == built.key
    assert arena.names == ("web", "code", "math")
    assert arena.digests == built.digests and set(arena.digests) == set(paths)
    assert arena.n_parameters == components.n_parameters
    assert arena.nbytes == arena.blocks.numel() * 4
    assert arena.blocks.shape == (arena.layout.n_blocks, 3, 256)
    with arena.extracted() as directory:
        assert json.loads((directory / "config.json").read_text())["model_type"] == "llama"
        assert (directory / "tokenizer.json").is_file()
    assert not directory.exists()


def test_equal_components_make_equal_files(paths: Paths, tmp_path: Path) -> None:
    elsewhere = {
        name: Path(shutil.copytree(path, tmp_path / "elsewhere" / name))
        for name, path in paths.items()
    }
    one = Arena.build(ComponentSet.open(paths), tmp_path / "one")
    two = Arena.build(ComponentSet.open(elsewhere), tmp_path / "two")
    assert one.key == two.key
    assert one.path.read_bytes() == two.path.read_bytes()


def test_an_arena_that_is_there_is_not_built_again(arena: Arena, paths: Paths) -> None:
    built: list[int] = []
    again = Arena.build(
        ComponentSet.open(paths),
        arena.path,
        block_size=256,
        progress=lambda done, total: built.append(done),
    )
    assert not built
    assert again.key == arena.key


def test_progress_counts_blocks(paths: Paths, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    arena = Arena.build(
        ComponentSet.open(paths),
        tmp_path / "a",
        block_size=256,
        progress=lambda done, total: calls.append((done, total)),
    )
    n_blocks = arena.layout.n_blocks
    assert n_blocks > 5
    assert calls == [(done, n_blocks) for done in range(1, n_blocks + 1)]


def _retrain(paths: Paths) -> Paths:
    file = paths["code"] / "model.safetensors"
    state = load_file(file)
    state[NORM] += 1.0
    save_file(state, file)
    return paths


@pytest.mark.parametrize(
    ("change", "options"),
    [
        pytest.param(_retrain, {}, id="weights"),
        pytest.param(lambda paths: dict(reversed(paths.items())), {}, id="order"),
        pytest.param(lambda paths: {**paths, "new": paths["code"]}, {}, id="one more"),
        pytest.param(lambda paths: paths, {"dtype": "float16"}, id="dtype"),
        pytest.param(lambda paths: paths, {"block_size": 512}, id="block size"),
    ],
)
def test_a_stale_arena_is_rebuilt(
    arena: Arena, paths: Paths, change: Callable[[Paths], Paths], options: dict[str, Any]
) -> None:
    before = arena.blocks.clone()
    changed = change(paths)
    rebuilt = Arena.build(ComponentSet.open(changed), arena.path, **{"block_size": 256, **options})
    assert rebuilt.key != arena.key
    assert rebuilt.names == tuple(changed)
    rebuilt.verify()
    assert torch.equal(arena.blocks, before)  # workers that hold the old file keep it


class TestNumbersThatCannotBeAveraged:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_they_are_named_and_nothing_is_left(
        self, paths: Paths, tmp_path: Path, value: float
    ) -> None:
        file = paths["math"] / "model.safetensors"
        state = load_file(file)
        state[NORM][5] = value
        save_file(state, file)
        with pytest.raises(
            ComponentError,
            match=f"component 'math': {file}: tensor '{NORM}' holds NaN or infinity",
        ):
            Arena.build(ComponentSet.open(paths), tmp_path / "a", block_size=256)
        assert _leftovers(tmp_path) == {"a.lock", "a.digests.json"}

    def test_numbers_too_large_for_the_storage_are_named(
        self, paths: Paths, tmp_path: Path
    ) -> None:
        file = paths["math"] / "model.safetensors"
        state = load_file(file)
        state[NORM][5] = 1e6
        save_file(state, file)
        components = ComponentSet.open(paths)
        with pytest.raises(ComponentError, match=f"'{NORM}' holds numbers too large for float16"):
            Arena.build(components, tmp_path / "a", dtype="float16")
        Arena.build(components, tmp_path / "a", dtype="bfloat16").verify()


def test_a_tied_copy_that_differs_is_refused(paths: Paths, tmp_path: Path) -> None:
    for name, path in paths.items():
        state = load_file(path / "model.safetensors")
        copy = state["model.embed_tokens.weight"].clone()
        if name == "math":
            copy[0, 0] += 1.0
        save_file({**state, "lm_head.weight": copy}, path / "model.safetensors")
    with pytest.raises(ComponentError, match="component 'math': .*its copy differs; set tie_word"):
        Arena.build(ComponentSet.open(paths), tmp_path / "a")


def test_a_component_that_shrinks_meanwhile_is_named(paths: Paths, tmp_path: Path) -> None:
    components = ComponentSet.open(paths)
    components.digests(cache=tmp_path / "a.digests.json")

    def shrink(done: int, total: int) -> None:
        os.truncate(paths["code"] / "model.safetensors", 1000)

    with pytest.raises(ComponentError, match="component 'code': .*became shorter"):
        Arena.build(components, tmp_path / "a", block_size=256, progress=shrink)
    assert not (tmp_path / "a").exists()


def test_a_component_that_vanishes_is_named(paths: Paths, tmp_path: Path) -> None:
    components = ComponentSet.open(paths)
    (paths["code"] / "model.safetensors").unlink()
    with pytest.raises(ComponentError, match="component 'code': .*cannot be read"):
        Arena.build(components, tmp_path / "a")


class TestDisk:
    def test_too_little_free_space_is_said_beforehand(
        self, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(ComponentError, match=r"needs [\d,]+ bytes, but .* 1,000 free"):
            Arena.build(ComponentSet.open(paths), tmp_path / "a")

    def test_a_write_that_fails_leaves_nothing(self, paths: Paths, tmp_path: Path) -> None:
        components = ComponentSet.open(paths)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
        try:
            with pytest.raises(ComponentError, match=r"arena: .*cannot be written .*free space"):
                Arena.build(components, tmp_path / "a")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert _leftovers(tmp_path) == {"a.lock", "a.digests.json"}

    def test_a_disk_that_fills_up_leaves_the_old_arena(self, arena: Arena, paths: Paths) -> None:
        def full(done: int, total: int) -> None:
            if done == 3:
                raise OSError(errno.ENOSPC, "No space left on device")

        components = ComponentSet.open(_retrain(paths))
        with pytest.raises(ComponentError, match="No space left on device.*free space there"):
            Arena.build(components, arena.path, block_size=256, progress=full)
        assert Arena.open(arena.path).key == arena.key

    def test_a_path_that_cannot_be_made_is_refused(self, paths: Paths, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ComponentError, match="arena: .*cannot be written"):
            Arena.build(ComponentSet.open(paths), tmp_path / "file" / "a")

    def test_what_is_no_arena_is_never_overwritten(self, paths: Paths, tmp_path: Path) -> None:
        file = tmp_path / "thesis.tex"
        file.write_text("years of work")
        with pytest.raises(ComponentError, match="thesis.tex: there is a file which is not"):
            Arena.build(ComponentSet.open(paths), file)
        assert file.read_text() == "years of work"


class TestDamage:
    def test_a_file_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ComponentError, match="arena: .*nowhere: cannot be read"):
            Arena.open(tmp_path / "nowhere")

    def test_a_file_of_another_kind_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"x" * 1000)
        with pytest.raises(ComponentError, match="x: not an arena"):
            Arena.open(tmp_path / "x")

    @pytest.mark.parametrize("size", [8, 20, 60, 500, 70_000, -1])
    def test_a_truncated_file_is_refused_then_rebuilt(
        self, arena: Arena, paths: Paths, size: int
    ) -> None:
        whole = arena.path.read_bytes()
        os.truncate(arena.path, size if size > 0 else len(whole) - 1)
        with pytest.raises(ComponentError, match="x.arena: (truncated|its header is damaged)"):
            Arena.open(arena.path)
        Arena.build(ComponentSet.open(paths), arena.path, block_size=256)
        assert arena.path.read_bytes() == whole

    def test_a_damaged_header_is_refused_then_rebuilt(self, arena: Arena, paths: Paths) -> None:
        _damage(arena.path, 200)
        with pytest.raises(ComponentError, match="its header is damaged; delete it"):
            Arena.open(arena.path)
        Arena.build(ComponentSet.open(paths), arena.path, block_size=256).verify()

    def test_an_arena_of_another_layout_is_refused_then_rebuilt(
        self, arena: Arena, paths: Paths
    ) -> None:
        _damage(arena.path, 8)
        with pytest.raises(ComponentError, match="written in layout 20, not 4"):
            Arena.open(arena.path)
        Arena.build(ComponentSet.open(paths), arena.path, block_size=256).verify()

    @pytest.mark.parametrize(("block", "k"), [(0, 0), (3, 1), (-1, 2)])
    def test_verify_finds_one_flipped_bit(self, arena: Arena, block: int, k: int) -> None:
        block %= arena.layout.n_blocks
        data = arena.path.stat().st_size - arena.nbytes
        _damage(arena.path, data + (block * 3 + k) * 256 * 4 + 17)
        name = next(iter(arena.layout.pieces(block))).slot.name
        with pytest.raises(
            ComponentError,
            match=f"block {block} of component '{arena.names[k]}' is damaged .*{name}",
        ):
            Arena.open(arena.path).verify()

    def test_verify_finds_a_damaged_attachment(self, arena: Arena) -> None:
        position = arena.path.read_bytes().index(b'"model_type": "llama"')
        _damage(arena.path, position + 3)
        damaged = Arena.open(arena.path)
        with pytest.raises(ComponentError, match="its copy of config.json is damaged"):
            damaged.verify()
        with pytest.raises(ComponentError, match="its copy of config.json is damaged"):
            with damaged.extracted():
                pass

    def test_verify_reports_progress(self, arena: Arena) -> None:
        calls: list[tuple[int, int]] = []
        arena.verify(progress=lambda done, total: calls.append((done, total)))
        assert calls[-1] == (arena.layout.n_blocks, arena.layout.n_blocks)


_BUILD = """
import json, os, sys
from optuna_demix.merging import Arena, ComponentSet, find_method

paths, path, die = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3] == "die"
built = []

def progress(done, total):
    built.append(done)
    if die and done == 4:
        os._exit(9)

components = ComponentSet.open(paths)
if not die:
    open("ready", "w").close()  # a pipe: its reader waits for this
Arena.build(components, path, block_size=256, progress=progress).verify()
print(len(built), flush=True)
"""


def _run(paths: Paths, path: Path, behavior: str) -> subprocess.CompletedProcess[str]:
    """Build in another process."""
    named = json.dumps({name: str(place) for name, place in paths.items()})
    return run_forked(
        ["python", "-c", _BUILD, named, str(path), behavior],
        cwd=path.parent,
        environment={**os.environ},
    )


def _build(paths: Paths, path: Path, **options: Any) -> tuple[Arena, list[int]]:
    """Build and verify an arena; return it and the numbers of blocks that were reported."""
    done: list[int] = []
    base = options.pop("base", None)
    options = {"block_size": 256, "progress": lambda count, total: done.append(count), **options}
    arena = Arena.build(ComponentSet.open(paths, base=base), path, **options)
    arena.verify()
    return arena, done


class Stop(KeyboardInterrupt):
    """An interrupt at a chosen block."""


def _interrupted(paths: Paths, path: Path, *, after: int, **options: Any) -> Path:
    """Begin a build that is interrupted; return the file it leaves."""

    def progress(done: int, total: int) -> None:
        if done == after:
            raise Stop

    with pytest.raises(Stop):
        _build(paths, path, progress=progress, **options)
    return path.with_name(f"{path.name}.partial")


class TestResume:
    METHODS = {
        "linear": {},
        "della": {"density": 0.5, "epsilon": 0.1},
        "karcher": {},
    }

    @pytest.mark.parametrize("after", [1, 7, -1])
    @pytest.mark.parametrize("method", METHODS)
    def test_an_interrupted_build_goes_on_to_the_same_file(
        self, paths: Paths, tmp_path: Path, method: str, after: int
    ) -> None:
        options = {"method": find_method(method, self.METHODS[method]), "base": paths["web"]}
        whole, done = _build(paths, tmp_path / "whole", **options)
        after %= len(done) + 1
        _interrupted(paths, tmp_path / "a", after=after, **options)
        resumed, left = _build(paths, tmp_path / "a", **options)
        assert left == [*range(after, len(done) + 1)]
        assert resumed.path.read_bytes() == whole.path.read_bytes()

    def test_a_block_that_did_not_reach_the_disk_is_written_again(
        self, paths: Paths, tmp_path: Path
    ) -> None:
        partial = _interrupted(paths, tmp_path / "a", after=7)
        data = partial.stat().st_size - _build(paths, tmp_path / "whole")[0].nbytes
        _damage(partial, data + 4 * 3 * 256 * 4 + 5)  # as after a power cut
        _, left = _build(paths, tmp_path / "a")
        assert left[0] == 4
        assert (tmp_path / "a").read_bytes() == (tmp_path / "whole").read_bytes()

    def test_facts_that_did_not_reach_the_disk_are_computed_again(
        self, paths: Paths, tmp_path: Path
    ) -> None:
        options = {"method": "karcher"}
        whole, _ = _build(paths, tmp_path / "whole", **options)
        partial = _interrupted(paths, tmp_path / "a", after=9, **options)
        facts = (tmp_path / "whole").read_bytes().index(whole.facts[0].tobytes())
        _damage(partial, facts + 3)
        _, left = _build(paths, tmp_path / "a", **options)
        assert left[0] == 1  # nothing to go on from: the first tensor's facts are gone
        assert (tmp_path / "a").read_bytes() == (tmp_path / "whole").read_bytes()

    def test_what_is_left_of_other_components_is_not_used(
        self, paths: Paths, tmp_path: Path
    ) -> None:
        _interrupted(paths, tmp_path / "a", after=7)
        _, left = _build(_retrain(paths), tmp_path / "a")
        assert left[0] == 1

    def test_what_is_left_of_another_size_is_not_used(self, paths: Paths, tmp_path: Path) -> None:
        partial = _interrupted(paths, tmp_path / "a", after=7)
        os.truncate(partial, partial.stat().st_size - 1)
        assert _build(paths, tmp_path / "a")[1][0] == 1


class TestDifferences:
    def test_an_arena_of_these_components_has_none(self, arena: Arena, paths: Paths) -> None:
        assert arena.differences(ComponentSet.open(paths)) == []

    @pytest.mark.parametrize(
        ("change", "options", "said"),
        [
            (_retrain, {}, "component 'code' has changed"),
            (lambda paths: {"web": paths["web"]}, {}, "it holds web, code, math"),
            (lambda paths: paths, {"dtype": "float16"}, "in float32, not float16"),
            (lambda paths: paths, {"method": "karcher"}, "another merge method than 'karcher'"),
        ],
    )
    def test_what_has_changed_is_said(
        self,
        arena: Arena,
        paths: Paths,
        change: Callable[[Paths], Paths],
        options: dict[str, Any],
        said: str,
    ) -> None:
        (found,) = arena.differences(ComponentSet.open(change(paths)), **options)
        assert said in found

    def test_another_base_is_said(self, paths: Paths, tmp_path: Path) -> None:
        method = find_method("ties", {"density": 0.5})
        arena, _ = _build(paths, tmp_path / "a", base=paths["web"], method=method)
        other = ComponentSet.open(paths, base=paths["code"])
        assert arena.differences(other, method=method) == ["the base has changed"]
        rebuilt = Arena.build(other, tmp_path / "a", method=method, block_size=256)
        assert rebuilt.key != arena.key


class TestClear:
    def test_nothing_is_left_and_open_arenas_live_on(self, arena: Arena, paths: Paths) -> None:
        before = arena.blocks.clone()
        assert Arena.clear(arena.path) > arena.nbytes
        assert _leftovers(arena.path.parent) == {"x.arena.lock"}
        assert torch.equal(arena.blocks, before)
        assert Arena.clear(arena.path) == 0

    def test_what_is_no_arena_stays(self, tmp_path: Path) -> None:
        file = tmp_path / "thesis.tex"
        file.write_text("years of work")
        with pytest.raises(ComponentError, match="thesis.tex: there is a file which is not"):
            Arena.clear(file)
        assert file.read_text() == "years of work"

    def test_a_directory_that_is_not_there_is_not_made(self, tmp_path: Path) -> None:
        assert Arena.clear(tmp_path / "runs" / "a") == 0
        assert not (tmp_path / "runs").exists()


def test_damaged_facts_are_refused_when_opened(paths: Paths, tmp_path: Path) -> None:
    arena, _ = _build(paths, tmp_path / "a", method="karcher")
    facts = arena.path.read_bytes().index(arena.facts[2].tobytes())
    _damage(arena.path, facts + 9)
    name = arena.layout.slots[2].name
    with pytest.raises(ComponentError, match=f"keeps of tensor '{name}' is damaged"):
        Arena.open(arena.path)


def test_verify_names_the_base(paths: Paths, tmp_path: Path) -> None:
    method = find_method("ties", {"density": 0.5})
    arena, _ = _build(paths, tmp_path / "a", base=paths["web"], method=method)
    assert arena.blocks.shape[1] == 4
    _damage(arena.path, arena.path.stat().st_size - 1)
    with pytest.raises(ComponentError, match="of the base is damaged"):
        Arena.open(arena.path).verify()


class TestProcesses:
    def test_a_killed_build_leaves_no_arena_and_the_next_goes_on(
        self, paths: Paths, tmp_path: Path
    ) -> None:
        path = tmp_path / "a"
        assert _run(paths, path, "die").returncode == 9
        assert not path.exists()
        assert (tmp_path / "a.partial").exists()  # it did die in the middle
        arena, done = _build(paths, path)
        assert done == [*range(4, arena.layout.n_blocks + 1)]
        assert _leftovers(tmp_path) == {"a", "a.lock", "a.digests.json"}
        assert path.read_bytes() == _build(paths, tmp_path / "b")[0].path.read_bytes()

    def test_of_two_builders_one_builds(self, paths: Paths, tmp_path: Path) -> None:
        path = tmp_path / "a"
        ready = tmp_path / "ready"
        os.mkfifo(ready)
        built: list[int] = []

        with ThreadPoolExecutor(1) as pool:
            others: list[Future[subprocess.CompletedProcess[str]]] = []

            def progress(done: int, total: int) -> None:
                built.append(done)
                if done == 2:  # the other begins while we hold the lock
                    others.append(pool.submit(_run, paths, path, "live"))
                    ready.read_bytes()

            ours = Arena.build(ComponentSet.open(paths), path, block_size=256, progress=progress)
        other = others[0].result()
        assert other.returncode == 0, other.stderr
        assert len(built) == ours.layout.n_blocks
        assert other.stdout == "0\n"
