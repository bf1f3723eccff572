"""Puts a study's bill together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from optuna_demix._progress import Report
from optuna_demix._wording import byte_size, one_line
from optuna_demix.bill.rates import Assumptions, Machine, Precision
from optuna_demix.bill.reading import Model, find_model, shape_of
from optuna_demix.bill.requests import Counted, count_requests
from optuna_demix.bill.result import Bill, Memory
from optuna_demix.bill.runs import TrainingRun, training_bytes
from optuna_demix.bill.trials import trial_cost
from optuna_demix.errors import DemixError

if TYPE_CHECKING:
    from optuna_demix.bill.gpus import Gpu
    from optuna_demix.config import StudyConfig
    from optuna_demix.merging import ComponentSet
    from optuna_demix.merging.footprint import DeviceFootprint

_MODEL_SHARE = 0.9  # of a GPU's memory that a model may take; forward passes need the rest


def estimate_bill(
    config: StudyConfig,
    gpu: Gpu,
    *,
    n_gpus: int = 1,
    n_trials: int = 64,
    references: int = 0,
    count_tasks: bool = True,
    components: ComponentSet | None = None,
    assumed: Assumptions | None = None,
    report: Callable[[str], None] | None = None,
) -> Bill:
    """Estimate what a study costs, from shapes, counts and a few stated rates.

    Args:
        config: The study.
        gpu: On which GPU.
        n_gpus: How many there are.
        n_trials: Trials of the search.
        references: Reference models to train.
        count_tasks: Build the tasks' requests and count them.
        components: Those components that are there.
        assumed: What the GPU reaches of its peaks.
        report: Where progress is shown.

    Raises:
        ConfigError: If the study's training is not as it must be.
    """
    machine = Machine(gpu, assumed or Assumptions())
    runs, given = planned_runs(config, references)
    bill = Bill(
        machine,
        n_gpus,
        n_trials,
        components=tuple(config.components),
        given=tuple(given),
        runs=tuple(runs),
        merges=config.resolved_proxy != "probabilities",
    )
    try:
        model = find_model(config, components)
    except DemixError as error:
        return replace(bill, notes=(f"the model is not known: {one_line(error)}",))
    bill = _with_memory(bill, config, model)
    if not count_tasks:
        return replace(bill, notes=(*bill.notes, "tasks are left out (--no-tasks)"))
    try:
        counted = count_requests(config, model, Report.of(report))
    except DemixError as error:
        return replace(bill, notes=(*bill.notes, f"tasks cannot be counted: {one_line(error)}"))
    return _with_trial(bill, config, model, counted)


def _with_memory(bill: Bill, config: StudyConfig, model: Model) -> Bill:
    """The bill with the model's shape and what it takes."""
    gpu = bill.machine.gpu
    shape = shape_of(model.skeleton.model)
    one = _footprint(config, model)
    n = _gpus_of_worker(config, one.model, gpu)
    notes = []
    state = training_bytes(shape)
    if any(run.tokens for run in bill.runs) and state > gpu.memory:
        notes.append(
            f"training needs {byte_size(state)}, more than one {gpu.name} has; sharding is extra"
        )
    if any(run.tokens and not run.half for run in bill.runs) and gpu.half > gpu.single:
        notes.append(
            f"training is in float32; training.bf16 would be {gpu.half / gpu.single:.2g} times as "
            "fast where arithmetic decides"
        )
    if one.model > n * gpu.memory * _MODEL_SHARE:
        notes.append(
            f"the model takes {byte_size(one.model)} and does not fit into {n} × {gpu.name}; set "
            "scoring.device_map"
        )
    elif n > bill.n_gpus:
        notes.append(f"a worker needs {n} × {gpu.name}, more than there are")
    resident = bill.machine.keeps(one.arena / n, one.model / n)
    return replace(
        bill,
        shape=shape,
        memory=Memory(one.arena, one.model, resident),
        gpus_of_worker=n,
        notes=tuple(notes),
    )


def _with_trial(bill: Bill, config: StudyConfig, model: Model, counted: Counted) -> Bill:
    """The bill with what trials cost, and with what is done once before them."""
    bill = replace(bill, uncounted=counted.missing)
    shape, memory, work = bill.shape, bill.memory, counted.work
    if work is None or shape is None or memory is None:
        return bill
    scoring, machine = config.scoring, bill.machine
    precision = _precision(config, model)
    merge = machine.merge_seconds(memory.arena, memory.model, bill.gpus_of_worker)
    by_vllm, vllm = scoring.generation == "vllm", scoring.vllm_settings
    trial = trial_cost(
        work,
        shape,
        machine,
        precision,
        merge=merge,
        rows=vllm.max_num_seqs if by_vllm else scoring.rows,
        graphed=by_vllm and not vllm.enforce_eager,
    )
    once = 0.0
    if config.resolved_proxy != "merged" and work.passes:
        once = len(config.components) * (merge + trial.likelihoods) * bill.gpus_of_worker
    merges = config.resolved_proxy == "merged" or not counted.smooth
    notes = list(bill.notes)
    if not precision.half and machine.gpu.half > machine.gpu.single:
        notes.append(
            f"scoring is in float32; scoring.dtype bfloat16 would be "
            f"{machine.gpu.half / machine.gpu.single:.2g} times as fast where arithmetic decides"
        )
    if scoring.shared_prefixes:
        notes.append("what shared_prefixes saves is not counted")
    if scoring.racing is not None:
        notes.append("what racing saves by dropping trials early is not counted")
    return replace(
        bill,
        trial=trial if merges else None,
        merges=merges,
        once=once,
        keep=1.0 if scoring.screen is None else scoring.screen.keep,
        notes=tuple(notes),
    )


def planned_runs(config: StudyConfig, references: int = 0) -> tuple[list[TrainingRun], list[str]]:
    """The models that ``optuna-demix train`` would make, and components that need no training.

    Args:
        config: The study.
        references: Number of reference models.

    Raises:
        ConfigError: If the study's training is not as it must be.
    """
    training = config.training
    if training is None:
        return [], list(config.components)
    from optuna_demix.training._checks import check_settings
    from optuna_demix.training._plan import plan_models

    check_settings(config, training)
    plan = plan_models(config, training, references, None)
    kinds = {"training.base": "base", "training.component": "component"}
    runs = [
        TrainingRun(
            "reference" if run.name.startswith("references/") else kinds[run.section],
            run.name,
            steps=run.steps,
            batch=training.batch_size,
            length=training.sequence_length,
            half=training.bf16,
            done=(run.path / "config.json").is_file(),
        )
        for run in plan.runs
    ]
    return runs, plan.given


def _footprint(config: StudyConfig, model: Model) -> DeviceFootprint:
    """Memory of a worker on one device; its arena is all of it."""
    from optuna_demix.merging._dtypes import as_dtype
    from optuna_demix.merging.checkpoints.components import tensor_specs
    from optuna_demix.merging.footprint import plan_footprint
    from optuna_demix.study.components import merge_method

    dtype = as_dtype(config.merging.dtype or model.dtype)
    footprint = plan_footprint(
        tensor_specs(model.skeleton),
        len(config.components),
        method=merge_method(config),
        dtype=dtype,
        model_dtype=as_dtype(config.scoring.dtype or dtype),
    )
    return footprint.devices[0]


def _precision(config: StudyConfig, model: Model) -> Precision:
    from optuna_demix.merging._dtypes import as_dtype

    dtype = as_dtype(config.scoring.dtype or config.merging.dtype or model.dtype)
    half = dtype.itemsize == 2 or config.scoring.mixed_precision_dtype is not None
    return Precision(half, dtype.itemsize)


def _gpus_of_worker(config: StudyConfig, model: int, gpu: Gpu) -> int:
    from optuna_demix.merging.device_map import is_spread, n_cuda_devices

    device_map = config.scoring.device_map
    if isinstance(device_map, dict):
        return max(1, n_cuda_devices(device_map))
    if is_spread(device_map):
        return max(1, math.ceil(model / (_MODEL_SHARE * gpu.memory)))
    return 1
