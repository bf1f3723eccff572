"""How fast a GPU is taken to be: a roofline of arithmetic, memory and what starts kernels."""

from __future__ import annotations

from dataclasses import dataclass, field

from optuna_demix.bill.gpus import Gpu

_RESIDENT = 0.7  # of the memory that is free beside the model: as live models decide it


@dataclass(frozen=True)
class Assumptions:
    """What is taken for granted; every number is printed with the bill.

    Attributes:
        training: Share of the peak FLOP/s that training reaches. 0.38 to 0.43 was reported for
            Llama 3 405B (Llama team 2024, table 4), 0.46 for PaLM (Chowdhery et al. 2022).
        forward: The same of forward passes over many tokens.
        bandwidth: Share of the memory's bandwidth that merges and the writing of texts reach.
        link: Share of the host's link that merges reach where the arena does not fit.
        launch: Seconds that Python takes to start the kernels of one layer. 1.2 ms: PyTorch
            wrote 25.5 tokens/s with a 7 B model of 32 layers on an A100 (gpt-fast, 2023).
        graphed: The same where kernels are started from a captured graph, as vLLM does.
        host: Seconds of a trial beside its model: the sampler and the database.
        request: Seconds of each request beside its model: filters and metrics, where these are
            lm-eval's own.
    """

    training: float = 0.4
    forward: float = 0.4
    bandwidth: float = 0.7
    link: float = 0.7
    launch: float = 1.2e-3
    graphed: float = 0.05e-3
    host: float = 0.2
    request: float = 0.05e-3


@dataclass(frozen=True)
class Precision:
    """Element types.

    Attributes:
        half: Whether arithmetic is in bfloat16 or float16.
        itemsize: Bytes of an element of the model.
    """

    half: bool
    itemsize: int


@dataclass(frozen=True)
class Machine:
    """A GPU under assumptions.

    Attributes:
        gpu: What it could do.
        assumed: What it is taken to do.
    """

    gpu: Gpu
    assumed: Assumptions = field(default_factory=Assumptions)

    def pass_seconds(
        self, flops: float, nbytes: float, layers: int, *, half: bool, graphed: bool = False
    ) -> float:
        """Seconds of forward passes: the slowest of arithmetic, memory and launches.

        Args:
            flops: Their operations.
            nbytes: What they read of weights, keys and values.
            layers: Layers that they run through, those of all passes.
            half: Whether they compute in 16 bits.
            graphed: Whether their kernels are started from a graph.
        """
        return max(
            flops / (self._peak(half) * self.assumed.forward),
            nbytes / (self.gpu.bandwidth * self.assumed.bandwidth),
            layers * (self.assumed.graphed if graphed else self.assumed.launch),
        )

    def training_seconds(self, flops: float, *, half: bool) -> float:
        """Seconds of training on one GPU."""
        return flops / (self._peak(half) * self.assumed.training)

    def keeps(self, arena: float, model: float) -> bool:
        """Whether a copy of an arena fits beside a model, both in bytes."""
        return arena <= _RESIDENT * max(0.0, self.gpu.memory - model)

    def merge_seconds(self, arena: float, model: float, n_gpus: int = 1) -> float:
        """Seconds of a merge: the arena is read and the model written.

        Args:
            arena: Its bytes.
            model: Bytes of the model.
            n_gpus: GPUs that share both, each with its part.
        """
        arena, model = arena / n_gpus, model / n_gpus
        written = (arena + model) / (self.gpu.bandwidth * self.assumed.bandwidth)
        if self.keeps(arena, model):
            return written
        return max(written, arena / (self.gpu.link * self.assumed.link))

    def _peak(self, half: bool) -> float:
        return self.gpu.half if half else self.gpu.single
