"""A bill in lines of at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from optuna_demix._text_table import text_table
from optuna_demix._wording import byte_size, counted, duration
from optuna_demix.bill.result import Bill
from optuna_demix.bill.runs import TrainingRun, training_bytes
from optuna_demix.bill.trials import TrialCost

_COLUMNS = 80


def bill_lines(bill: Bill) -> list[str]:
    """The bill as people read it."""
    gpu = bill.machine.gpu.name
    said = [
        "",
        f"What it costs on {bill.n_gpus} × {gpu}, estimated:",
        *_model(bill),
        *_training(bill),
        *_memory(bill),
        *_trial(bill),
        *_search(bill),
        *_total(bill),
        f"  assumed: {_assumed(bill)}",
        *_left_out(bill),
    ]
    return [line for each in said for line in _wrapped(each)]


def _model(bill: Bill) -> Iterator[str]:
    shape = bill.shape
    if shape is not None:
        yield (
            f"  model: {_many(shape.parameters)} parameters, {counted(shape.layers, 'layer')}; a "
            f"token is multiplied with {_many(shape.multiplied)}"
        )


def _training(bill: Bill) -> Iterator[str]:
    """A table with a line for each kind of run that costs the same."""
    groups: dict[tuple[str, int], list[TrainingRun]] = {}
    for run in bill.runs:
        groups.setdefault((run.kind, run.tokens), []).append(run)
    rows = []
    for (kind, tokens), runs in groups.items():
        what = kind if kind == "base" else counted(len(runs), kind)
        if not tokens:
            rows.append([what, "there", "", ""])
            continue
        flops, hours = "?", "?"
        if bill.shape is not None:
            shape, machine = bill.shape, bill.machine
            flops = _power(sum(run.flops(shape) for run in runs))
            hours = _hours(sum(run.seconds(shape, machine) for run in runs))
        rows.append([what, _many(tokens * len(runs)), flops, hours])
    if rows:
        lines = text_table([["training", "tokens", "FLOPs", "GPU-hours"], *rows])
        yield from (f"  {line}" for line in lines)
        if bill.shape is not None and any(run.tokens for run in bill.runs):
            yield (
                f"  training needs {byte_size(training_bytes(bill.shape))}, 16 bytes a "
                "parameter; activations come on top"
            )
    if bill.given:
        yield f"  no training: {counted(len(bill.given), 'component')} given"


def _memory(bill: Bill) -> Iterator[str]:
    memory = bill.memory
    if memory is None:
        return
    n = bill.gpus_of_worker
    where = bill.machine.gpu.name if n == 1 else f"{n} × {bill.machine.gpu.name}"
    yield (
        f"  memory: arena {byte_size(memory.arena)}, a worker's model {byte_size(memory.model)}; "
        + (f"both fit into {where}" if memory.resident else f"{where} streams the arena")
    )


def _trial(bill: Bill) -> Iterator[str]:
    trial = bill.trial
    if bill.once:
        yield (
            f"  once: {counted(len(bill.components), 'component')} scored for token "
            f"probabilities, {_hours(bill.once)} GPU-hours"
        )
    if not bill.merges:
        yield "  a trial: arithmetic with token probabilities, no GPU"
    if trial is None:
        return
    said = f"  a trial: {counted(trial.requests, 'request')}"
    if trial.read:
        said += f", {_many(trial.read)} tokens read"
    if trial.texts:
        said += (
            f", {counted(trial.texts, 'text')} with {_many(trial.prompts)} tokens of prompts and "
            f"at most {_many(trial.written)} written"
        )
    yield f"{said}; {_power(trial.flops)} FLOPs"
    yield f"    {_parts(trial)}: at most {_seconds(trial.seconds)}"


def _parts(trial: TrialCost) -> str:
    parts = {
        "merge": trial.merge,
        "likelihoods": trial.likelihoods,
        "texts": trial.writing,
        "screened texts": trial.screened,
        "the rest": trial.host,
    }
    return ", ".join(f"{name} {_seconds(value)}" for name, value in parts.items() if value)


def _search(bill: Bill) -> Iterator[str]:
    if bill.trials_an_hour is None or bill.search_seconds is None:
        yield "  a trial, the search and all together: not known"
        return
    wall = bill.n_trials * 3600 / bill.trials_an_hour + bill.once / bill.n_gpus
    yield (
        f"  search: {_many(bill.trials_an_hour)} trials an hour; "
        f"{counted(bill.n_trials, 'trial')} in {duration(wall)}, "
        f"{_hours(bill.search_seconds)} GPU-hours"
    )


def _total(bill: Bill) -> Iterator[str]:
    if bill.seconds is not None:
        least = "at least " if bill.uncounted else ""
        wall = duration(bill.seconds / bill.n_gpus)
        yield (
            f"  in all: {least}{_hours(bill.seconds)} GPU-hours, {wall} on {bill.n_gpus} if all "
            "are busy"
        )


def _left_out(bill: Bill) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for name, reason in bill.uncounted.items():
        names.setdefault(reason, []).append(name)
    for reason, found in names.items():
        yield f"  not counted: {', '.join(found)} ({reason})"
    for note in bill.notes:
        yield f"  note: {note}"


def _assumed(bill: Bill) -> str:
    gpu, assumed = bill.machine.gpu, bill.machine.assumed
    return (
        f"{gpu.name} with {gpu.half / 1e12:,.4g} TFLOP/s in 16 bits and {gpu.single / 1e12:,.3g} "
        f"in 32, {gpu.bandwidth / 1e9:,.0f} GB/s, {gpu.memory / 1e9:,.0f} GB, "
        f"{gpu.link / 1e9:,.0f} GB/s from the host ({gpu.source}); of these training reaches "
        f"{assumed.training:.0%}, passes {assumed.forward:.0%}, memory {assumed.bandwidth:.0%}, "
        f"the link {assumed.link:.0%}; {1e3 * assumed.launch:.3g} ms to start a layer "
        f"({1e3 * assumed.graphed:.3g} ms by vLLM); {assumed.host:g} s for a trial and "
        f"{1e3 * assumed.request:g} ms for a request on the host; "
        "FLOPs 2 N a token forward and 6 N in training, N without input embeddings, plus "
        "attention to whole rows; texts as long as allowed"
    )


def _wrapped(line: str) -> list[str]:
    indent = len(line) - len(line.lstrip()) + 2
    return textwrap.wrap(line, _COLUMNS, subsequent_indent=" " * indent, drop_whitespace=True) or [
        ""
    ]


def _many(number: float) -> str:
    """A count: ``1,319``, ``1.20 M``, ``30 B``."""
    for unit in ("", " M", " B", " T"):
        limit = 999_999.5 if not unit else 999.5
        if number < limit or unit == " T":
            break
        number /= 1e6 if not unit else 1e3
    return f"{number:,.0f}" if not unit else f"{number:,.3g}{unit}"


def _power(number: float) -> str:
    """``3.1e+20`` as ``3.1e20``."""
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"


def _seconds(seconds: float) -> str:
    if seconds < 1e-3:
        return "0 s"
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)
