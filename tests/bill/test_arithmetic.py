"""What a bill costs grows with what is asked for, and costs add up."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_demix.bill import (
    GPUS,
    Bill,
    Machine,
    ModelShape,
    Precision,
    TrainingRun,
    TrialCost,
    find_gpu,
)
from optuna_demix.bill.trials import trial_cost
from optuna_demix.errors import InputError
from optuna_demix.scoring.workload import Text, Workload

SHAPE = ModelShape(1_000_000_000, 900_000_000, 24, 2048, 512)
HALF = Precision(half=True, itemsize=2)
H100 = Machine(GPUS["H100"])

sizes = st.integers(1, 10_000)
machines = st.sampled_from([Machine(gpu) for gpu in GPUS.values()])
texts = st.builds(Text, sizes, sizes, st.booleans())
works = st.builds(
    Workload,
    st.just({"loglikelihood": 10}),
    st.lists(st.tuples(st.integers(1, 64), sizes), max_size=4).map(tuple),
    st.lists(texts, max_size=5).map(tuple),
)
shapes = st.builds(
    lambda n, layers, heads: ModelShape(n + 1000, n, layers, 64 * heads, 64),
    st.integers(10**3, 10**12),
    st.integers(1, 200),
    st.integers(1, 200),
)
runs = st.builds(
    TrainingRun,
    st.just("component"),
    st.just("web"),
    steps=st.integers(1, 10**6),
    batch=st.integers(1, 2048),
    length=st.integers(1, 8192),
    half=st.booleans(),
)


def cost(work: Workload, shape: ModelShape = SHAPE, machine: Machine = H100) -> TrialCost:
    return trial_cost(work, shape, machine, HALF, merge=0.0, rows=4)


@given(works, st.builds(Text, sizes, sizes), shapes, machines)
@settings(max_examples=60, deadline=None)
def test_a_trial_costs_more_with_more_work_and_a_larger_model(
    work: Workload, text: Text, shape: ModelShape, machine: Machine
) -> None:
    before = cost(work, shape, machine)
    more = dataclasses.replace(work, texts=(*work.texts, text))
    longer = dataclasses.replace(work, passes=tuple((b, n + 1) for b, n in work.passes))
    larger = dataclasses.replace(shape, multiplied=2 * shape.multiplied, layers=shape.layers + 1)
    slack = 1 - 1e-9
    assert cost(more, shape, machine).seconds >= slack * before.seconds
    assert cost(more, shape, machine).flops > before.flops
    assert cost(longer, shape, machine).seconds >= slack * before.seconds
    assert cost(work, larger, machine).seconds >= slack * before.seconds
    assert cost(work, larger, machine).flops >= before.flops


@given(works, works)
@settings(max_examples=40, deadline=None)
def test_work_adds_up(one: Workload, other: Workload) -> None:
    both = Workload({"loglikelihood": 20}, one.passes + other.passes, one.texts + other.texts)
    a, b, ab = cost(one), cost(other), cost(both)
    for name in ("requests", "read", "texts", "prompts", "written"):
        assert getattr(ab, name) == getattr(a, name) + getattr(b, name)
    assert math.isclose(ab.flops, a.flops + b.flops, abs_tol=1.0)
    assert math.isclose(ab.likelihoods, a.likelihoods + b.likelihoods, abs_tol=1e-9)


@given(st.lists(runs, min_size=1, max_size=4), shapes, machines)
@settings(max_examples=60, deadline=None)
def test_training_adds_up_over_runs_and_grows_with_tokens_and_parameters(
    several: list[TrainingRun], shape: ModelShape, machine: Machine
) -> None:
    bill = Bill(machine, 1, 64, ("web",), shape=shape, runs=tuple(several))
    each = [dataclasses.replace(bill, runs=(run,)).training_seconds for run in several]
    assert bill.training_seconds is not None
    assert math.isclose(bill.training_seconds, math.fsum(s for s in each if s is not None))
    run = several[0]
    longer = dataclasses.replace(run, steps=run.steps + 1)
    larger = dataclasses.replace(shape, multiplied=shape.multiplied + 1)
    assert longer.tokens - run.tokens == run.batch * run.length
    assert longer.seconds(shape, machine) > run.seconds(shape, machine)
    assert run.flops(larger) > run.flops(shape)
    assert dataclasses.replace(run, done=True).seconds(shape, machine) == 0.0


@given(st.integers(1, 30), st.floats(1e6, 1e12), machines)
def test_a_merge_costs_more_with_each_component(k: int, model: float, machine: Machine) -> None:
    few, more = (machine.merge_seconds(n * model, model) for n in (k, k + 1))
    assert more > few
    assert machine.merge_seconds(k * model, model, 2) <= few


def test_an_arena_that_does_not_fit_is_read_over_the_link() -> None:
    kept = H100.merge_seconds(30e9, 10e9)
    streamed = H100.merge_seconds(60e9, 10e9)  # 0.7 · (80 - 10) GB is less
    assert kept == pytest.approx(40e9 / (0.7 * 3350e9))
    assert streamed == pytest.approx(60e9 / (0.7 * 64e9))


def test_the_slowest_of_three_decides_a_pass() -> None:
    by = {"flops": 1e15, "nbytes": 1e6, "layers": 24}
    assert H100.pass_seconds(**by, half=True) == pytest.approx(1e15 / (0.4 * 989e12))
    assert H100.pass_seconds(**by, half=False) == pytest.approx(1e15 / (0.4 * 67e12))
    read = {**by, "flops": 0.0, "nbytes": 1e12}
    assert H100.pass_seconds(**read, half=True) == pytest.approx(1e12 / (0.7 * 3350e9))
    start = {**by, "flops": 0.0, "nbytes": 0.0}
    assert H100.pass_seconds(**start, half=True) == pytest.approx(24 * 1.2e-3)
    assert H100.pass_seconds(**start, half=True, graphed=True) < 24 * 1e-4


def test_each_step_of_writing_reads_weights_and_what_stands_in_the_rows() -> None:
    work = Workload({"generate_until": 8}, (), (Text(100, 50),) * 8)
    slow = Machine(dataclasses.replace(GPUS["H100"], bandwidth=1e9))  # memory decides
    found = trial_cost(work, SHAPE, slow, HALF, merge=0.0, rows=4)
    weights = 2 * SHAPE.multiplied
    stands = 8 * 50 * (100 + 25) * 2 * 24 * 512 * 2  # keys and values, layers, width, bytes
    # Two rounds of four rows: two readings of prompts, 100 steps.
    assert found.writing == pytest.approx((102 * weights + stands) / 0.7e9)


def test_only_the_best_share_of_a_screened_search_writes() -> None:
    work = Workload({"generate_until": 8}, (), (Text(100, 1000, screened=True),) * 8)
    bill = Bill(H100, 8, 64, ("web",), shape=SHAPE, trial=cost(work))
    assert bill.trial is not None and bill.trial.writing == 0.0
    kept = dataclasses.replace(bill, keep=0.25)
    # 8 at first and a quarter of the 56 others.
    expected = 64 * bill.trial.cheap_seconds + (8 + 14) * bill.trial.screened
    assert kept.search_seconds == pytest.approx(expected)
    assert bill.search_seconds == pytest.approx(64 * bill.trial.seconds)
    assert bill.trials_an_hour == pytest.approx(8 * 3600 / bill.trial.seconds)


def test_workers_over_several_gpus_are_fewer_and_pay_for_all_of_theirs() -> None:
    trial = cost(Workload({"loglikelihood": 1}, ((32, 1000),)))
    one = Bill(H100, 8, 10, ("web",), shape=SHAPE, trial=trial)
    four = dataclasses.replace(one, gpus_of_worker=4)
    assert one.trials_an_hour == pytest.approx(4 * four.trials_an_hour)  # type: ignore[operator]
    assert four.search_seconds == pytest.approx(4 * one.search_seconds)  # type: ignore[operator]


def test_gpus_are_found_by_name_or_by_their_numbers() -> None:
    assert find_gpu("h100").half == 989e12
    assert find_gpu("A100 40GB") is GPUS["A100-40GB"]
    own = find_gpu("312,2039,80")
    assert (own.half, own.bandwidth, own.memory) == (312e12, 2039e9, 80e9)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("H1000", "did you mean 'H100'"),
        ("quantum", "known: A100"),
        ("1,2", "three positive numbers"),
        ("1,2,nan", "three positive numbers"),
        ("0,1,2", "three positive numbers"),
    ],
)
def test_a_gpu_that_is_none_is_refused(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_gpu(name)
