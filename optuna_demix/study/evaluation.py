"""The objective of a study: merge, then score."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Literal

from optuna_demix._progress import Report
from optuna_demix.errors import DemixError, NeedsModelError, TaskError
from optuna_demix.study.components import (
    build_arena,
    merge_method,
    open_components,
    require_merging,
)
from optuna_demix.study.device import choose_device
from optuna_demix.study.fingerprint import code_versions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from optuna_demix.config import RacingConfig, StudyConfig
    from optuna_demix.merging import ComponentSet, LiveModel
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.scoring import HarnessScorer, Screening
    from optuna_demix.search.objective import MixtureObjective


def build_objective(
    config: StudyConfig,
    space: MixtureSpace,
    *,
    device: str = "auto",
    proxy: Literal["merged"] | None = None,
    merge_always: bool = False,
    report: Callable[[str], None] | None = None,
) -> tuple[MixtureObjective, dict[str, Any]]:
    """Open the components, build the arena, load the tasks.

    Args:
        config: The study.
        space: Its mixture.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<number>``.
        proxy: Instead of the study's own.
        merge_always: Merge and score also where no benchmark counts it, for comparison.
        report: Called with a line before each long step.

    Returns:
        The objective, and the fingerprint of all that its scores depend on.

    Raises:
        DemixError: If a component, task or setting cannot be used.
    """
    say = Report.of(report)
    require_merging(say)
    require_generation(config)
    chosen = choose_device(device, config.scoring.device_map)
    components = open_components(config, report=say)

    from optuna_demix.config.study import capabilities_of
    from optuna_demix.merging import LiveModel
    from optuna_demix.search.objective import MixtureObjective

    trust = config.scoring.trust_remote_code
    arena = build_arena(config, components, report=say)
    method = merge_method(config)
    scoring = config.scoring
    with say.step(f"model on {chosen}, with its self-test"):
        model = LiveModel(
            arena, device=chosen, dtype=scoring.dtype, method=method, trust_remote_code=trust
        )
    scorer = build_scorer(config, model, screens=True, report=say)
    mixture, shares = None, dict[str, float]()
    if (proxy or config.resolved_proxy) != "merged":
        from optuna_demix.study.probabilities import score_components
        from optuna_demix.study.proxies import shares_of

        partial = config.resolved_proxy == "auto"
        try:
            mixture = score_components(config, space, model, scorer, partial=partial, report=say)
        except NeedsModelError:
            if not partial:
                raise  # else no benchmark is left for token probabilities: all are merged
        else:
            shares = shares_of(config, mixture)
            if not mixture.slow:
                mixture = mixture.without_slow()  # lets go of the model
    merging: dict[str, Any] = {"method": method.name, "dtype": str(arena.dtype)}
    if arena.preparation.deltas is not None:
        merging["delta_dtype"] = arena.preparation.deltas
    merging["generation"] = components.generation
    if method.parameters:
        merging["parameters"] = dict(method.parameters)
    if arena.base_digest is not None:
        merging["base"] = arena.base_digest
    weights = config.capability_weights if config.objective == "composite" else None
    objective = MixtureObjective(
        space,
        model,
        scorer,
        capabilities_of(config),
        weights=weights,
        probabilities=mixture,
        shares=shares,
        merge_always=merge_always,
        racing=_reported(scoring.racing),
        keep=None if scoring.screen is None else scoring.screen.keep,
    )
    fingerprint: dict[str, Any] = {
        "space": space.fingerprint(),
        "capabilities": capabilities_of(config),
        "objective": weights or "capabilities",
        "components": arena.digests,
        "merging": merging,
        "scoring": {"plan": scorer.plan_digest(), "device": _kinds(model)},
        "code": code_versions(),
    }
    if mixture is not None:
        fingerprint["proxy"] = {
            "probabilities": mixture.plan,
            "exponent": mixture.exponent,
            "shares": shares,
        }
    return objective, fingerprint


def require_generation(config: StudyConfig) -> None:
    """Check that what is to write texts is installed, before anything is loaded.

    Raises:
        DemixError: If it is vLLM, and that is missing or of another version.
    """
    if config.scoring.generation == "vllm":
        from optuna_demix.scoring.vllm_extra import require_vllm

        require_vllm()


def _kinds(model: LiveModel) -> str:
    """The kinds of devices that compute scores: which of a kind makes no difference."""
    return "+".join(sorted({device.type for device in model.devices}))


def build_scorer(
    config: StudyConfig,
    model: LiveModel,
    *,
    only: Collection[str] | None = None,
    screens: bool = False,
    report: Callable[[str], None] | None = None,
) -> HarnessScorer:
    """Load a study's tasks and prepare their requests.

    Args:
        config: The study.
        model: What is to be scored.
        only: Benchmarks that are wanted; ``None`` for all.
        screens: Let it leave out the texts of screened benchmarks.
        report: Where progress is shown.

    Raises:
        TaskError: If a task cannot be loaded or scored.
    """
    scoring = config.scoring
    if scoring.shared_prefixes or scoring.generation != "hf":
        model.merge([1 / len(model.names)] * len(model.names))  # all are tried on a real proxy
    return _scorer(
        config,
        model.model,
        model.tokenizer,
        only=only,
        screens=screens,
        shared_prefixes=scoring.shared_prefixes,
        generation=scoring.generation,
        report=report,
    )


def plan_scorer(
    config: StudyConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    only: Collection[str] | None = None,
    report: Callable[[str], None] | None = None,
) -> HarnessScorer:
    """A study's scorer around a model without values, which only tells what it would do.

    Args:
        config: The study.
        model: A model on the ``meta`` device.
        tokenizer: Its tokenizer.
        only: Benchmarks that are wanted; ``None`` for all.
        report: Where progress is shown.

    Raises:
        TaskError: If a task cannot be loaded or scored.
    """
    return _scorer(
        config,
        model,
        tokenizer,
        only=only,
        screens=config.scoring.screen is not None and only is None,
        # Both are tried on the model first.
        shared_prefixes=False,
        generation="hf",
        report=report,
    )


def _scorer(
    config: StudyConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    only: Collection[str] | None,
    screens: bool,
    shared_prefixes: bool,
    generation: Literal["auto", "hf", "vllm"],
    report: Callable[[str], None] | None,
) -> HarnessScorer:
    from optuna_demix.scoring import HarnessScorer

    scoring = config.scoring
    return HarnessScorer(
        [b for b in _benchmarks(config) if only is None or b.name in only],
        model,
        tokenizer,
        include_path=config.include_paths,
        batch_size=scoring.rows,
        max_length=scoring.max_length,
        **vars(scoring.settings),
        add_bos_token=scoring.add_bos_token,
        seed=scoring.seed,
        confirm_run_unsafe_code=scoring.confirm_run_unsafe_code,
        confirm_run_unsafe_code_unsandboxed=scoring.confirm_run_unsafe_code_unsandboxed,
        mixed_precision_dtype=scoring.mixed_precision_dtype,
        shared_prefixes=shared_prefixes,
        generation=generation,
        vllm=scoring.vllm_settings,
        blocks=scoring.racing.blocks if scoring.racing else None,
        screening=_screening(config) if screens else None,
        report=report,
    )


def check_benchmarks(config: StudyConfig, components: ComponentSet | None = None) -> list[str]:
    """Check that tasks and metrics of a study exist, without loading a dataset.

    Args:
        config: The study.
        components: Its components, whose longest input the tasks have to fit.

    Returns:
        A line for each benchmark whose direction only its task's own code may know, once it is
        loaded.

    Raises:
        TaskError: Naming the tasks and metrics that cannot be scored.
        DemixError: If lm-eval is missing, or what the study wants texts to be written by.
    """
    from optuna_demix.scoring import check_tasks, undirected

    require_generation(config)
    benchmarks = _benchmarks(config)
    try:
        problems = check_tasks(
            benchmarks,
            include_path=config.include_paths,
            confirm_run_unsafe_code=config.scoring.confirm_run_unsafe_code
            or config.scoring.confirm_run_unsafe_code_unsandboxed,
            max_length=config.scoring.max_length
            or (None if components is None else components.longest_input),
            screening=_screening(config),
        )
    except ImportError as error:
        raise DemixError(
            f"scoring needs {error.name or 'lm_eval'}; pip install 'optuna-demix[models]'"
        ) from None
    if problems:
        raise TaskError(f"{config.source}: {'; '.join(str(problem) for problem in problems)}")
    return [
        f"{name}: only the code of {where} may know whether a higher score is better; give it "
        "higher_is_better to be sure before models are loaded"
        for name, where in undirected(benchmarks, include_path=config.include_paths).items()
    ]


def _reported(racing: RacingConfig | None) -> Literal["block", "mean"] | None:
    """What a pruner wants to be told after each block."""
    if racing is None:
        return None
    return "block" if racing.pruner == "wilcoxon" else "mean"


def _screening(config: StudyConfig) -> Screening | None:
    """The benchmarks that are screened."""
    from optuna_demix.scoring import Screening

    given = config.scoring.screen
    if given is None:
        return None
    names = None if given.benchmarks == "auto" else tuple(given.benchmarks)
    return Screening(names, given.answers)


def _benchmarks(config: StudyConfig) -> list[Any]:
    from optuna_demix.scoring import Benchmark

    return [
        Benchmark(
            task=benchmark.task,
            metric=benchmark.metric,
            name=benchmark.label,
            higher_is_better=benchmark.higher_is_better,
            **vars(benchmark.settings),
        )
        for benchmarks in config.capabilities.values()
        for benchmark in benchmarks
    ]
