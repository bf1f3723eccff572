"""``TrialCost``: what one trial costs, part by part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optuna_demix.bill.rates import Machine, Precision
from optuna_demix.bill.shape import ModelShape
from optuna_demix.scoring.workload import Text, Workload


@dataclass(frozen=True)
class TrialCost:
    """One trial that merges and scores, at most: all texts as long as allowed, nothing pruned.

    Attributes:
        requests: Requests to lm-eval's model.
        read: Tokens that log-likelihoods are computed from, padding counted.
        texts: Texts.
        prompts: Tokens of their prompts.
        written: Tokens that are written, at most.
        flops: Floating-point operations of all forward passes.
        merge: Seconds of the merge.
        likelihoods: Seconds of the forward passes.
        writing: Seconds of the texts that every trial writes.
        screened: Seconds of those that only promising trials write.
        host: Seconds of everything else.
    """

    requests: int
    read: int
    texts: int
    prompts: int
    written: int
    flops: float
    merge: float
    likelihoods: float
    writing: float
    screened: float
    host: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.cheap_seconds + self.screened

    @property
    def cheap_seconds(self) -> float:
        """Without the screened texts."""
        return self.merge + self.likelihoods + self.writing + self.host


def trial_cost(
    work: Workload,
    shape: ModelShape,
    machine: Machine,
    precision: Precision,
    *,
    merge: float,
    rows: int,
    graphed: bool = False,
) -> TrialCost:
    """Add up what a trial costs.

    Args:
        work: What the model is given.
        shape: The model.
        machine: What computes.
        precision: In which element types.
        merge: Seconds of a merge.
        rows: Texts that are written at the same time.
        graphed: Whether they are written from a captured graph.
    """
    plain = [text for text in work.texts if not text.screened]
    held_back = [text for text in work.texts if text.screened]
    return TrialCost(
        requests=work.n_requests,
        read=work.read,
        texts=len(work.texts),
        prompts=sum(text.prompt for text in work.texts),
        written=sum(text.most for text in work.texts),
        flops=_flops(work, shape),
        merge=merge,
        likelihoods=likelihood_seconds(work, shape, machine, precision),
        writing=writing_seconds(plain, shape, machine, precision, rows=rows, graphed=graphed),
        screened=writing_seconds(held_back, shape, machine, precision, rows=rows, graphed=graphed),
        host=machine.assumed.host + work.n_requests * machine.assumed.request,
    )


def likelihood_seconds(
    work: Workload, shape: ModelShape, machine: Machine, precision: Precision
) -> float:
    """Seconds of the forward passes that compute log-likelihoods."""
    weights = shape.multiplied * precision.itemsize
    return math.fsum(
        machine.pass_seconds(
            shape.forward_flops(rows * tokens, tokens),
            weights,
            shape.layers,
            half=precision.half,
        )
        for rows, tokens in work.passes
    )


def writing_seconds(
    texts: Sequence[Text],
    shape: ModelShape,
    machine: Machine,
    precision: Precision,
    *,
    rows: int,
    graphed: bool,
) -> float:
    """Seconds of texts that are as long as allowed, in rows that are filled up again.

    Each prompt is read once. A step of all rows reads the weights, and of each row the keys and
    values of what stands in it.
    """
    if not texts:
        return 0.0
    weights = shape.multiplied * precision.itemsize
    n_readings = math.ceil(len(texts) / rows)
    reading = machine.pass_seconds(
        math.fsum(_reading_flops(text, shape) for text in texts),
        n_readings * weights,
        n_readings * shape.layers,
        half=precision.half,
    )
    n_steps = max(
        math.ceil(sum(text.most for text in texts) / rows), max(text.most for text in texts)
    )
    behind = math.fsum(text.most * (text.prompt + text.most / 2) for text in texts)
    writing = machine.pass_seconds(
        math.fsum(_writing_flops(text, shape) for text in texts),
        n_steps * weights + shape.cache_bytes(behind, precision.itemsize),
        n_steps * shape.layers,
        half=precision.half,
        graphed=graphed,
    )
    return reading + writing


def _flops(work: Workload, shape: ModelShape) -> float:
    of_passes = (shape.forward_flops(rows * tokens, tokens) for rows, tokens in work.passes)
    of_texts = (_reading_flops(t, shape) + _writing_flops(t, shape) for t in work.texts)
    return math.fsum([*of_passes, *of_texts])


def _reading_flops(text: Text, shape: ModelShape) -> float:
    return shape.forward_flops(text.prompt, text.prompt)


def _writing_flops(text: Text, shape: ModelShape) -> float:
    return shape.forward_flops(text.most, text.prompt + text.most / 2)
