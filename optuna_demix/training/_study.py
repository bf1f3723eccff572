"""The public way to train the models of a study."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence

from optuna_demix._progress import Report
from optuna_demix._wording import last_line, one_line
from optuna_demix.config import StudyConfig
from optuna_demix.errors import ConfigError, DemixError
from optuna_demix.training._all_models import train_all
from optuna_demix.training._checks import check_device, check_settings, settings_of
from optuna_demix.training._files import is_write_error
from optuna_demix.training._job import Job
from optuna_demix.training._ledger import to_retrain
from optuna_demix.training._plan import plan_models, selected_runs
from optuna_demix.training._processes import rank
from optuna_demix.training._results import TrainedModel
from optuna_demix.training.data.vocabulary import Vocabulary


def train_study(
    config: StudyConfig,
    *,
    only: Sequence[str] | None = None,
    references: int = 0,
    reference_mixtures: Sequence[Mapping[str, float]] | None = None,
    retrain: Sequence[str] = (),
    device: str = "auto",
    progress: bool = True,
    report: Callable[[str], None] = print,
) -> list[TrainedModel]:
    """Train the base, every component and, on request, reference models of a study.

    A budget of T tokens is ``round(T / (sequence_length * batch_size))`` optimizer steps. Their
    blocks are apportioned to the datasets by largest remainder and shuffled by the seed; a dataset
    that is too small is repeated, in another order each time. Components and references see the
    blocks of a dataset in the same order, so that they differ only by their shares. A base
    without a ``composition`` is trained on the prior's data shares.

    Works under ``torchrun`` and ``accelerate launch`` (data parallel): ``batch_size`` is then the
    batch of all processes together.

    Any number of calls, on any hosts that share the run's folder, share the models: each takes
    those that nobody trains, the base first, goes on with those of killed processes, and returns
    when all are there.

    Args:
        config: The study.
        only: Names of the models to train: ``base``, components, ``references/<i>``, or
            ``references`` for all of these. Default: all.
        references: Number of reference models at sampled mixtures. The first n of them are the
            same for every number.
        reference_mixtures: Data shares, ``{dataset: share}``, of the references, instead.
        retrain: Names of models to train again although they are there.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: Show a bar on stderr where that is a terminal; else lines through ``report``.
        report: Called with each line for the user.

    Returns:
        The models in the order they were trained, those skipped included.

    Raises:
        ConfigError: If the study, its text, its tokenizer or its base cannot be used, or a model
            was trained with another recipe and is not in ``retrain``.
        TrainingInterrupted: If SIGINT or SIGTERM came; a checkpoint was saved before.
    """
    training = settings_of(config)
    for package in ("torch", "transformers", "accelerate", "datasets", "filelock"):
        if importlib.util.find_spec(package) is None:
            raise DemixError(f"training needs {package}; pip install 'optuna-demix[models]'")
    import torch

    check_settings(config, training)
    check_device(device, cuda=torch.cuda.is_available())
    plan = plan_models(config, training, references, reference_mixtures)
    runs = selected_runs(config, plan, only, retrain)
    try:
        say = Report(report, bars=progress) if rank() == 0 else Report()
        job = Job(config, training, Vocabulary.open(config, training), device, say)
        return train_all(job, runs, to_retrain(runs, retrain))
    except OSError as error:
        where = error.filename or config.run_path
        raise ConfigError(
            f"{where}: {error.strerror or one_line(error)}; check the path and the free space"
        ) from None
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"{config.source}: training.batch_size: {training.batch_size} sequences do not fit "
            "into the device's memory; lower it, start more processes with torchrun, or set "
            "gradient_checkpointing or sharding"
        ) from None
    except Exception as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise ConfigError(
                f"{config.source}: training.compile: torch.compile fails here "
                f"({last_line(error)}); set it to false"
            ) from None
        if not is_write_error(error):
            raise
        raise ConfigError(
            f"{config.run_path}: could not be written ({last_line(error)}); check the free space"
        ) from None
