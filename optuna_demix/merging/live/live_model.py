"""One transformers model whose parameters are overwritten by each merge."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoTokenizer

from optuna_demix._files import sync
from optuna_demix._wording import one_line
from optuna_demix.errors import ComponentError
from optuna_demix.merging._aside import sync_directory
from optuna_demix.merging._dtypes import as_dtype
from optuna_demix.merging._problem import problem, write_problem
from optuna_demix.merging._quiet import quiet_transformers
from optuna_demix.merging.checkpoints.tokenizer_files import vocabulary_file
from optuna_demix.merging.live.building import ModelBuilder
from optuna_demix.merging.live.memory import as_device
from optuna_demix.merging.live.self_test import Pristine, needs_restoring
from optuna_demix.merging.live.shards import make_shards
from optuna_demix.merging.methods.registry import MergeMethod, find_method

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike
    from transformers import PreTrainedTokenizerBase

    from optuna_demix.merging.arena.arena import Arena
    from optuna_demix.merging.live.placement import DeviceMap


class LiveModel:
    """A causal LM that becomes the proxy of any mixture in one pass over the arena.

    All parameters are views of one flat buffer, set up once; `merge` writes into it. No file, no
    new module, no new tensor per proxy, so compiled and captured graphs stay valid. (There is a
    buffer for each device, and a second one where the model keeps some parameters in another
    element type.)

    Example:
        ::

            live = LiveModel(Arena.open("runs/components.arena"))
            live.merge([0.5, 0.3, 0.2])
            logits = live.model(**live.tokenizer("Hello", return_tensors="pt")).logits

    Args:
        arena: The components.
        device: Where the model lives: a device, or as transformers' ``device_map`` the device of
            each module by its name, or ``auto``, ``balanced``, ``balanced_low_0`` or
            ``sequential`` for accelerate's choice among the CUDA devices. Every device merges and
            runs its own modules; nothing is offloaded.
        dtype: Element type of the parameters, by default the arena's; the model may keep some
            of them in float32.
        method: The merge method, the one that the arena was built for.
        trust_remote_code: Let the model run code that came with the components.
        resident: Keep a copy of the arena on the device instead of streaming it through pinned
            buffers at each merge; by default if it fits in 70 % of the free memory. Of several
            devices each reads, and keeps, what it merges.
        compiled: Merge with kernels that torch.compile makes of the same operations, which needs
            a C++ compiler at run time; by default for arenas of 64 MiB and more. Without a
            compiler the eager kernels serve. On a CPU the proxies are the same to the bit.
        self_test: Merge twice and run two short inputs, and compare with a new model. A model
            that keeps state derived from its weights, as RWKV does, is restored before each merge.

    Attributes:
        arena: The components.
        model: The transformers model, in eval mode and without gradients. Every parameter is NaN
            until the first merge.
        dtype: Element type of the parameters, but for those that the model keeps in another one.
        device: Where inputs go, and where all parameters are unless there are several devices.
        devices: All devices.
        method: How components become a proxy.

    Raises:
        ComponentError: If the method is unknown, or the arena was built for another, or the model
            and the arena disagree, or the device map does not fit the model, or the model is
            larger than the free memory, or it fails the self-test.
    """

    def __init__(
        self,
        arena: Arena,
        *,
        device: DeviceMap = "cpu",
        dtype: torch.dtype | str | None = None,
        method: MergeMethod | str = "linear",
        trust_remote_code: bool = False,
        resident: bool | None = None,
        compiled: bool | None = None,
        self_test: bool = True,
    ) -> None:
        self.arena = arena
        self.dtype = arena.dtype if dtype is None else as_dtype(dtype)
        self.method = find_method(method) if isinstance(method, str) else method
        _check_preparation(arena, self.method)
        self._tensors = [slot.name for slot in arena.slots]
        self._trust_remote_code = trust_remote_code
        self._merged = False
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._pristine: Pristine | None = None
        with arena.extracted() as directory:
            builder = ModelBuilder(
                arena, directory, device, self.dtype, trust_remote_code=trust_remote_code
            )
            devices = map(as_device, builder.placement.devices)
            self.devices: tuple[torch.device, ...] = tuple(dict.fromkeys(devices))
            self.device = self.devices[0]
            self.model = builder.build()
            self._shards = make_shards(
                arena, builder.extents, builder.flats, resident=resident, compiled=compiled
            )
            if self_test:
                self._pristine = self._test(builder)
        for flat in builder.flats:
            flat.fill_(torch.nan)  # a proxy that was never merged must not score
        self._merged = False

    def _test(self, builder: ModelBuilder) -> Pristine | None:
        """Return what must be restored before each merge, or None if nothing must."""
        pristine = Pristine(self.model)
        fails = needs_restoring(
            self.model, builder.build, self.merge, pristine, n_components=len(self.names)
        )
        pristine.restore()
        return pristine if fails else None

    @property
    def names(self) -> tuple[str, ...]:
        """Component names, in the order of the merge weights."""
        return self.arena.names

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The components' tokenizer, loaded when first asked for.

        Raises:
            ComponentError: If the components came without one.
        """
        if self._tokenizer is None:
            self._tokenizer = _load_tokenizer(
                self.arena, trust_remote_code=self._trust_remote_code
            )
        return self._tokenizer

    @torch.no_grad()
    def merge(self, w: Sequence[float] | ArrayLike) -> None:
        """Make the model the proxy of a mixture.

        Args:
            w: Merge weights, (K,), finite, in the order of `names`. They are used as they are,
                on the simplex or not. On CUDA devices the work is queued on their current streams.

        Raises:
            ComponentError: If there are not K weights, or one is not finite, or the merge method
                cannot merge with these weights; the model stays as it was.
        """
        weights = _check_weights(w, self.names)
        plan = self.method.plan(weights, self.arena.facts, self._tensors)
        self.restore()
        for shard in self._shards:
            shard.merge(plan)
        self._merged = True

    def restore(self) -> None:
        """Let the model forget what it computed from earlier weights, if it keeps such state.

        `merge` does so; whoever writes parameters otherwise has to call this first.
        """
        if self._pristine is not None:
            self._pristine.restore()

    def save_pretrained(
        self, directory: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Write the current proxy with its tokenizer; the directory appears whole or not at all.

        Args:
            directory: Where to; must not exist or be empty.
            overwrite: Replace what is there.

        Raises:
            ComponentError: If nothing was merged yet, or the directory is in use or cannot be
                written.
        """
        target = Path(directory)
        if not self._merged:
            raise ComponentError("nothing to save: merge a mixture first")
        if not overwrite and target.exists() and (not target.is_dir() or any(target.iterdir())):
            remedy = "choose another directory or pass overwrite=True"
            raise problem("proxy", "is there already", remedy, file=target)
        with _directory_aside(target.resolve()) as aside, quiet_transformers():
            self.model.save_pretrained(aside, state_dict=self._separate_state_dict())
            if self._has_tokenizer():
                self.tokenizer.save_pretrained(aside)

    def _has_tokenizer(self) -> bool:
        with self.arena.extracted() as directory:
            return vocabulary_file(directory) is not None

    def _separate_state_dict(self) -> dict[str, torch.Tensor]:
        """Copy the state dict to the CPU, tied tensors once.

        transformers would copy views of one storage where they are, on a device that is full.
        """
        copies: dict[tuple[int, torch.Size], torch.Tensor] = {}
        state: dict[str, torch.Tensor] = {}
        for name, tensor in self.model.state_dict().items():
            place = (tensor.data_ptr(), tensor.shape)
            if place not in copies:
                copies[place] = tensor.to("cpu", copy=True)
            state[name] = copies[place]
        return state


def _check_preparation(arena: Arena, method: MergeMethod) -> None:
    if arena.preparation != method.preparation:
        what = f"was built for another merge method than {method.name!r} with these parameters"
        raise problem("arena", what, "build it again with this method", file=arena.path)


def _check_weights(w: Any, names: tuple[str, ...]) -> np.ndarray:
    """Return the merge weights as float64, (K,)."""
    try:
        weights = np.array(w, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ComponentError(f"merge weights are not numbers: {one_line(error)}") from error
    if weights.shape != (len(names),):
        wanted = f"one each for {', '.join(names)}"
        raise ComponentError(f"merge weights of shape {weights.shape}; give {wanted}")
    for name, weight in zip(names, weights, strict=True):
        if not np.isfinite(weight):
            raise ComponentError(f"merge weight of component {name!r} is {weight}; give a number")
    return weights


def _load_tokenizer(arena: Arena, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    with arena.extracted() as directory:
        if vocabulary_file(directory) is None:
            what = "the components came without a tokenizer"
            remedy = "copy the tokenizer files into every component and build the arena again"
            raise problem("arena", what, remedy, file=arena.path)
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                directory, trust_remote_code=trust_remote_code
            )
        except Exception as error:  # whatever a tokenizer's own class raises
            what = f"its tokenizer cannot be loaded ({one_line(error)})"
            remedy = "check the tokenizer files of the first component"
            raise problem("arena", what, remedy, file=arena.path) from error
    tokenizer.name_or_path = str(arena.path)
    return tokenizer


@contextmanager
def _directory_aside(target: Path) -> Iterator[Path]:
    """Yield a new directory beside ``target`` that takes its place at the end."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True
        ) as scratch:
            fresh, old = Path(scratch) / "new", Path(scratch) / "old"
            fresh.mkdir()
            yield fresh
            for file in fresh.iterdir():
                sync(file)
            with suppress(FileNotFoundError):
                target.rename(old)
            fresh.rename(target)
            sync_directory(target.parent)
    except OSError as error:
        raise write_problem("proxy", error, target) from error
