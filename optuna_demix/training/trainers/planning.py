"""Lays out the runs of a study for a trainer and writes its plan."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna_demix._progress import Report
from optuna_demix._wording import unknown_name
from optuna_demix.config import StudyConfig, TrainingConfig
from optuna_demix.errors import ConfigError, InputError
from optuna_demix.export import left_out
from optuna_demix.training._checks import check_settings
from optuna_demix.training._files import read_json
from optuna_demix.training._job import Job, Run
from optuna_demix.training._model import scratch_config
from optuna_demix.training._plan import plan_models
from optuna_demix.training.data.vocabulary import Vocabulary
from optuna_demix.training.trainers.folder import write_files
from optuna_demix.training.trainers.places import (
    check_names,
    paths_of,
    sources_for,
    texts_of,
)
from optuna_demix.training.trainers.registry import TRAINERS
from optuna_demix.training.trainers.runs import PlannedRun, PlanOptions, Surroundings, Trainer
from optuna_demix.training.trainers.scripts import script
from optuna_demix.training.trainers.shell import words


def write_plan(
    config: StudyConfig,
    trainer: str,
    options: PlanOptions | None = None,
    *,
    report: Callable[[str], None] = print,
) -> Path:
    """Write what another trainer needs to make the models of a study.

    For each model a configuration, and a shell script that trains, converts to the layout of
    Hugging Face and puts the result where the study expects it; a model that is there is skipped.
    ``launch.sh`` has a line for each, the base first.

    Args:
        config: The study.
        trainer: One of :data:`TRAINERS`.
        options: What is given beside the study.
        report: Called with each line for the user.

    Returns:
        The folder of the plan.

    Raises:
        ConfigError: If the study cannot be trained, or not by this trainer.
        InputError: If the trainer is unknown, data is not where it must be, or a file in the
            folder was changed by hand.
    """
    options = options or PlanOptions()
    if trainer not in TRAINERS:
        raise InputError(f"--for: {unknown_name(trainer, list(TRAINERS), 'trainer')}")
    chosen = TRAINERS[trainer]
    training = config.training
    if training is None:
        raise ConfigError(f"{config.source}: training: is missing; add it to plan models")
    check_settings(config, training)
    check_names(config, options)
    folder = (options.out or config.run_path / "plan" / trainer).absolute()
    found = plan_models(config, training, options.references, None)
    around = _surroundings(config, training, options)
    _check_kind(config, around, chosen)
    files: dict[str, str] = {"finish.py": script("finish.py")}
    planned = []
    for run in found.runs:
        plan = _planned(config, run, chosen, options, folder, report)
        _check_schedule(config, plan, chosen)
        planned.append(plan)
        files |= chosen.write(plan, around)
        files[f"{plan.slug}.sh"] = _run_script(plan, around, chosen, folder)
    if any(plan.start == folder / "start" for plan in planned):
        files["model/config.json"] = json.dumps(around.shape, indent=2, sort_keys=True) + "\n"
        files["start.py"] = script("start.py")
    files["launch.sh"] = _launch(planned, chosen)
    write_files(folder, files, force=options.force)
    for name in found.given:
        report(f"{name}: is given by hub or path; nothing to train")
    for plan in planned:
        report(f"{plan.name}: {plan.steps:,} steps, {_shares(plan)}")
    return folder


def _surroundings(
    config: StudyConfig, training: TrainingConfig, options: PlanOptions
) -> Surroundings:
    vocabulary = Vocabulary.open(config, training)
    at_once = options.gpus * options.micro_batch
    if training.batch_size % at_once:
        raise InputError(
            f"training.batch_size of {config.source}: {training.batch_size} sequences cannot be "
            f"shared by {options.gpus} GPUs in micro-batches of {options.micro_batch}; give "
            "--gpus and --micro-batch whose product divides it"
        )
    shape = _model_config(config, training, vocabulary)
    text = shape.get("text_config") or shape
    dtype = shape.get("dtype") or shape.get("torch_dtype") or text.get("dtype") or "float32"
    return Surroundings(
        shape={**shape, "dtype": dtype},
        dtype=str(dtype),
        tokenizer=vocabulary.path,
        vocabulary=vocabulary.size,
        eos=vocabulary.eos,
        sequence_length=training.sequence_length,
        batch_size=training.batch_size,
        micro_batch=options.micro_batch,
        gpus=options.gpus,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        bf16=training.bf16,
        seed=training.seed,
        save_every=training.save_every,
    )


def _model_config(
    config: StudyConfig, training: TrainingConfig, vocabulary: Vocabulary
) -> Mapping[str, Any]:
    """The ``config.json`` of the base, or of one that is still to be trained."""
    there = read_json(config.base_path / "config.json")
    if there is not None:
        return there
    if training.base is None:
        raise ConfigError(
            f"{config.source}: base: there is no checkpoint in {config.base_path}; give the path "
            "of one, or training.base and training.model to plan for a new one"
        )
    made = scratch_config(Job(config, training, vocabulary, "cpu", Report()))
    content: dict[str, Any] = json.loads(made.to_json_string(use_diff=False))
    content["architectures"] = [_causal_class(made)]
    return content


def _causal_class(config: Any) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return str(found.__name__)


def _check_kind(config: StudyConfig, around: Surroundings, trainer: Trainer) -> None:
    kind = around.shape.get("model_type")
    if trainer.kinds is not None and kind not in trainer.kinds:
        raise ConfigError(
            f"{config.source}: a plan for {trainer.title} starts from models of type "
            f"{', '.join(trainer.kinds)}, not {kind}; plan for hf or torchtitan, which take any"
        )


def _check_schedule(config: StudyConfig, plan: PlannedRun, trainer: Trainer) -> None:
    where = f"{config.source}: {plan.run.section}"
    if plan.run.budget.average is not None:
        raise ConfigError(
            f"{where}.average: other trainers take no mean of snapshots; remove it, or train with "
            "'optuna-demix train'"
        )
    if plan.schedule not in trainer.schedules:
        raise ConfigError(
            f"{where}.schedule: {trainer.title} has none that decays as one minus a square root; "
            "take cosine, or plan for another trainer"
        )


def _planned(
    config: StudyConfig,
    run: Run,
    trainer: Trainer,
    options: PlanOptions,
    folder: Path,
    report: Callable[[str], None],
) -> PlannedRun:
    assert config.training is not None
    tokens = run.steps * config.training.sequence_length * config.training.batch_size
    sizes = {n: float(data.tokens) for n, data in config.datasets.items() if data.tokens}
    texts = {}
    if trainer.data is None:
        texts = {name: texts_of(config, name, options) for name in run.shares}
        places = {name: [str(texts[name].load["path"])] for name in run.shares}
    else:
        places = {name: paths_of(config, name, trainer, options) for name in run.shares}
    sources = sources_for(run, places, sizes, tokens)
    for name, share in left_out(run.shares, sources).items() if trainer.data is None else ():
        report(f"{run.name}: left out, since the share rounds to 0: {name} ({share:.1e})")
    kept = {source.name for source in sources}
    return PlannedRun(
        run=run,
        slug=slug_of(run.name, is_base=run.is_base),
        sources=sources,
        texts={name: found for name, found in texts.items() if name in kept},
        start=folder / "start" if run.is_base else config.base_path.absolute(),
        output=folder / "out" / slug_of(run.name, is_base=run.is_base),
        final=run.path.absolute(),
    )


def slug_of(name: str, *, is_base: bool) -> str:
    """A name for files and modules: letters, digits and underscores, another for each run."""
    if is_base:
        return "base"
    # An escape begins with an underscore, so that no two names become one.
    safe = re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):x}_", name)
    kind = "" if name.startswith("references/") else "component_"
    return safe.replace("references_2f_", "reference_") if not kind else f"{kind}{safe}"


def _shares(plan: PlannedRun) -> str:
    return ", ".join(f"{source.share:.2%} {source.name}" for source in plan.sources)


def _run_script(plan: PlannedRun, around: Surroundings, trainer: Trainer, folder: Path) -> str:
    finish: list[str | int | Path] = ["python", "finish.py", plan.hf, plan.final]
    finish += ["--config", plan.start, "--tokenizer", around.tokenizer, "--dtype", around.dtype]
    lines = [
        "#!/usr/bin/env bash",
        f"# {plan.name}: {plan.steps:,} steps of "
        f"{around.batch_size * around.sequence_length:,} tokens; {_shares(plan)}",
        "set -euo pipefail",
        'cd "$(dirname "$0")"',
        f"if [ -e {words(plan.final / 'config.json')} ]; then",
        f"  echo {words(f'{plan.final}: is there already')}",
        "  exit 0",
        "fi",
        *(f': "${{{name}:?set it to {what}}}"' for name, what in trainer.needs.items()),
        words("mkdir", "-p", plan.output, plan.final.parent),
    ]
    if plan.start == folder / "start":
        make: list[str | int | Path] = [
            "python",
            "start.py",
            "model",
            plan.start,
            "--tokenizer",
            around.tokenizer,
        ]
        lines.append(words(*make, "--seed", around.seed))
    return "\n".join([*lines, *trainer.commands(plan, around), words(*finish)]) + "\n"


def _launch(planned: list[PlannedRun], trainer: Trainer) -> str:
    first = "The base first; " if planned and planned[0].slug == "base" else ""
    then = "the others in any order" if first else "Any order will do"
    lines = [
        "#!/usr/bin/env bash",
        f"# {trainer.title}. {first}{then}, also at once on several hosts that share the folders.",
        "set -euo pipefail",
        'cd "$(dirname "$0")"',
        *(f"bash {plan.slug}.sh" for plan in planned),
    ]
    return "\n".join(lines) + "\n"
