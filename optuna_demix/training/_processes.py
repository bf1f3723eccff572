"""The processes that train a model together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainingArguments


def signal_group() -> Any:
    """A process group on the CPU, which does not wait for the GPU; None for a single process."""
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return None
    return torch.distributed.new_group(backend="gloo")


def agreed(value: Any, group: Any) -> Any:
    """What the process of rank 0 says, of a :func:`signal_group`."""
    if group is None:
        return value
    import torch

    said = [value]
    torch.distributed.broadcast_object_list(said, src=0, group=group)
    return said[0]


def greatest(value: int, group: Any) -> int:
    """The greatest of the processes' values, of a :func:`signal_group`."""
    if group is None:
        return value
    import torch

    held = torch.tensor([value])
    torch.distributed.all_reduce(held, torch.distributed.ReduceOp.MAX, group=group)
    return int(held.item())


def wait_for_all(arguments: TrainingArguments) -> None:
    """Wait until every process has come here."""
    if arguments.distributed_state is not None:
        arguments.distributed_state.wait_for_everyone()


def rank() -> int:
    """Number of this process, 0 for a single one."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """Number of processes that train a model together."""
    return int(os.environ.get("WORLD_SIZE", "1"))
