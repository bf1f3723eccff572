"""``TrainingRun``: what one model costs to train."""

from __future__ import annotations

from dataclasses import dataclass

from optuna_demix.bill.rates import Machine
from optuna_demix.bill.shape import ModelShape

_STATE_BYTES = 16  # float32 weights, gradients and both moments of AdamW
_PASSES = 3  # the launches of a step: forwards, backwards and the optimizer's


@dataclass(frozen=True)
class TrainingRun:
    """A model that is to be trained.

    Attributes:
        kind: ``base``, ``component`` or ``reference``.
        name: Its name.
        steps: Optimizer steps.
        batch: Sequences of a step.
        length: Tokens of a sequence.
        half: Whether it is trained in bfloat16.
        done: Whether it is there already, and costs nothing.
    """

    kind: str
    name: str
    steps: int
    batch: int
    length: int
    half: bool
    done: bool = False

    @property
    def tokens(self) -> int:
        """Tokens that are left to train on, repetitions counted."""
        return 0 if self.done else self.steps * self.batch * self.length

    def flops(self, shape: ModelShape) -> float:
        """Its floating-point operations."""
        return shape.training_flops(self.tokens, self.length)

    def seconds(self, shape: ModelShape, machine: Machine) -> float:
        """Seconds on one GPU, with a batch that fits: arithmetic, or launches if these are more.

        Several GPUs take as many GPU-seconds together, or more.
        """
        if self.done:
            return 0.0
        launches = self.steps * _PASSES * shape.layers * machine.assumed.launch
        return max(launches, machine.training_seconds(self.flops(shape), half=self.half))


def training_bytes(shape: ModelShape) -> int:
    """Memory of a run without its activations: weights, gradients and the optimizer's state."""
    return _STATE_BYTES * shape.parameters
