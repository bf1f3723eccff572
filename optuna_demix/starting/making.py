"""From what the user wants and what lies there to a draft, and from it to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optuna_demix._files import write_new
from optuna_demix._wording import counted, unknown_name
from optuna_demix.config.loading import read_study_config
from optuna_demix.errors import ConstraintError, DemixError, InputError
from optuna_demix.starting.benchmarks import Benchmarks
from optuna_demix.starting.checkpoints import Checkpoints, find_checkpoints, open_set
from optuna_demix.starting.corpora import Datasets, find_datasets, general_of
from optuna_demix.starting.draft import Draft, Entry
from optuna_demix.starting.folders import relative
from optuna_demix.starting.sizes import EPOCHS, compact, in_words
from optuna_demix.starting.text import study_text
from optuna_demix.starting.training import Tokenizer, start_of, training_of

if TYPE_CHECKING:
    from optuna_demix.config import StudyConfig


@dataclass(frozen=True)
class Wishes:
    """What the user has said; all else is found or guessed.

    Attributes:
        components: Folder with a checkpoint in each subfolder.
        data: Folder with a subfolder or file for each dataset.
        base: Directory of the base.
        tokenizer: Directory of the tokenizer of a base from nothing.
        parameters: Size of that base.
        include_path: Folders of local lm-eval tasks.
        budget: Tokens of the planned run.
        max_epochs: How often it may repeat a dataset.
        tokens: Tokens of datasets, by name, instead of an estimate.
        token_dtype: Type of token ids in files that do not say it.
        component_tokens: Tokens of each component's training.
        base_tokens: Tokens of the training of a base from nothing.
        general: The general dataset, or ``none``.
        run_unsafe_code: Whether tasks may run code which the model writes.
    """

    components: Path | None = None
    data: Path | None = None
    base: Path | None = None
    tokenizer: Path | None = None
    parameters: int | None = None
    include_path: Sequence[Path] = ()
    budget: int | None = None
    max_epochs: float = EPOCHS
    tokens: Mapping[str, int] = field(default_factory=dict)
    token_dtype: Literal["uint16", "uint32"] | None = None
    component_tokens: int | None = None
    base_tokens: int | None = None
    general: str | None = None
    run_unsafe_code: bool = False


@dataclass(frozen=True)
class Found:
    """What lies there.

    Attributes:
        checkpoints: Components that exist, if there is a folder of them.
        datasets: Corpora, if there is a folder of them.
    """

    checkpoints: Checkpoints | None
    datasets: Datasets | None

    @property
    def notes(self) -> list[str]:
        """Lines for the user."""
        parts = [part.notes for part in (self.checkpoints, self.datasets) if part is not None]
        return [note for notes in parts for note in notes]


def inspect(wishes: Wishes) -> Found:
    """Look into the folders.

    Raises:
        DemixError: If one cannot be used, or torch or another package is missing.
    """
    from optuna_demix.study.components import require_merging

    require_merging()  # the packages of training and scoring come with those of merging
    checkpoints = None
    if wishes.components is not None:
        checkpoints = find_checkpoints(wishes.components, wishes.base)
    datasets = None if wishes.data is None else find_datasets(wishes.data, wishes.token_dtype)
    if checkpoints is not None and datasets is not None:
        datasets = _of_components(datasets, checkpoints)
    return Found(checkpoints, datasets)


def make_draft(wishes: Wishes, found: Found, benchmarks: Benchmarks, file: Path) -> Draft:
    """Put a study together.

    Args:
        wishes: What the user has said.
        found: What lies in the folders.
        benchmarks: What it is scored on.
        file: Its file, from whose folder its paths start.

    Raises:
        DemixError: If something is missing or does not fit.
    """
    folder, notes = file.parent, [*found.notes, *benchmarks.notes]
    if benchmarks.unsafe and not wishes.run_unsafe_code:
        raise InputError(
            f"--tasks: {benchmarks.unsafe[0]!r} runs code that the model writes, in a sandbox; "
            "give --confirm-run-unsafe-code if you mean it, or leave the task out"
        )
    config_of, start = None, None
    if found.checkpoints is not None:
        names: list[str] = list(found.checkpoints.components)
        components, config_of = open_set(found.checkpoints)
        notes.append(
            f"{counted(len(names), 'component')} of {in_words(components.n_parameters)} "
            "parameters that fit together"
        )
        base = found.checkpoints.base
        paths = {
            name: Entry({"path": relative(path, folder)})
            for name, path in found.checkpoints.components.items()
        }
        tokenizer = Tokenizer.of(components.standard.tokenizer_path) if found.datasets else None
    else:
        assert found.datasets is not None
        names = list(found.datasets.by_name)
        if len(names) < 2:
            raise InputError(
                f"--data {wishes.data}: holds one dataset, and a mixture needs two at least; put "
                "a folder or file for each into it"
            )
        paths = {name: Entry({}) for name in names}
        start = start_of(wishes.base, wishes.tokenizer, wishes.parameters)
        base, tokenizer = wishes.base, start.tokenizer
    datasets, sizes = _datasets(wishes, found.datasets, tokenizer, names, folder)
    general = None
    if start is not None or wishes.general is not None:
        general = general_of(dict.fromkeys(names), wishes.general)
    training: dict[str, Entry] = {}
    if start is not None:
        training, said = training_of(
            start, sizes, general, wishes.component_tokens, wishes.base_tokens, folder
        )
        notes += said
        if general is None and wishes.general is None:
            notes.append(
                "components are trained on their own data alone; with --general NAME half of it "
                "is that dataset, and proxies are nearer to real runs"
            )
    scoring = {}
    if wishes.include_path:
        found_tasks = [relative(path, folder) for path in wishes.include_path]
        scoring["include_path"] = Entry(found_tasks, "tasks of your own")
    if benchmarks.unsafe:
        scoring["confirm_run_unsafe_code"] = Entry(True, f"for {', '.join(benchmarks.unsafe)}")
    mixture, said = _mixture(wishes, sizes, names)
    return Draft(
        # Studies beside each other must not take each other's models for their own.
        run_dir="run" if file.stem == "study" else f"run-{file.stem}",
        base=None if base is None else relative(base, folder),
        datasets=datasets,
        components=paths,
        general=general,
        mixture=mixture,
        capabilities=benchmarks.by_capability,
        scoring=scoring,
        config_of=config_of,
        training=training,
        notes=[*notes, *said],
    )


def _of_components(datasets: Datasets, checkpoints: Checkpoints) -> Datasets:
    """The datasets that components were trained on: those of their names."""
    kept = {n: d for n, d in datasets.by_name.items() if n in checkpoints.components}
    if not kept:
        known = ", ".join(checkpoints.components)
        raise InputError(
            f"--data: no dataset is named as a component ({known}); rename the folders, or leave "
            "--data out and give sizes with --tokens"
        )
    notes = [f"left out dataset {n}: no component has its name" for n in datasets.by_name
             if n not in kept]  # fmt: skip
    return Datasets(kept, [*datasets.notes, *notes])


def _datasets(
    wishes: Wishes,
    found: Datasets | None,
    tokenizer: Tokenizer | None,
    names: Sequence[str],
    folder: Path,
) -> tuple[dict[str, Entry], dict[str, int]]:
    """Fields of the datasets, and their tokens where these are known."""
    for name in wishes.tokens:
        if name not in names:
            raise InputError(f"--tokens: {unknown_name(name, names, 'dataset')}")
    entries: dict[str, Entry] = {}
    sizes: dict[str, int] = {}
    for name in names:
        fields: dict[str, Any] = {}
        note = ""
        if found is not None and name in found.by_name and tokenizer is not None:
            fields = found.by_name[name].fields(folder)
            size, note = found.by_name[name].size(tokenizer.encode)
            if size is not None:
                sizes[name] = size
        if name in wishes.tokens:
            sizes[name], note = wishes.tokens[name], ""
        if name in sizes:
            fields["tokens"] = compact(sizes[name])
        entries[name] = Entry(fields, note)
    return (entries if any(entry.value for entry in entries.values()) else {}), sizes


def _mixture(
    wishes: Wishes, sizes: Mapping[str, int], names: Sequence[str]
) -> tuple[dict[str, Entry], list[str]]:
    """The limits that follow from tokens and budget, and what has to be said about them."""
    if wishes.budget is None:
        return {}, ["no --budget: shares have no caps, however small a dataset is"]
    budget = Entry(compact(wishes.budget), "tokens of the planned run")
    if not sizes:
        return {"budget": budget}, [
            "no dataset's size is known: shares have no caps; give --tokens NAME=N or --data"
        ]
    epochs = wishes.max_epochs
    caps = {name: epochs * size / wishes.budget for name, size in sizes.items()}
    bound = [f"{name} {cap:.3g}" for name, cap in caps.items() if cap < 1]
    note = f"caps data shares: {', '.join(bound)}" if bound else "no share is capped by it"
    unknown = [name for name in names if name not in sizes]
    said = [f"no --tokens of {', '.join(unknown)}: their shares have no caps"] if unknown else []
    if not unknown and sum(caps.values()) < 1:
        raise ConstraintError(
            f"--budget {in_words(wishes.budget)}: the data have {in_words(sum(sizes.values()))} "
            f"tokens, too few for it with {epochs:g} epochs; lower it or raise --max-epochs"
        )
    value = dict.fromkeys(sizes, epochs) if unknown else epochs
    return {"budget": budget, "max_epochs": Entry(value, note)}, said


def write_study(draft: Draft, file: Path) -> StudyConfig:
    """Check a draft as ``optuna-demix check`` does, and write it where there is no file yet.

    Returns:
        The study, as it is read from the file.

    Raises:
        DemixError: If the study would be refused, or the file cannot be written or is there.
    """
    text = study_text(draft, name=file.name)
    config = read_study_config(text, file)
    _check(config)
    try:
        write_new(file, text)
    except FileExistsError:
        raise exists(file) from None
    except OSError as error:
        raise DemixError(
            f"{file}: cannot be written ({error.strerror}); check the path and the space"
        ) from None
    return config


def exists(file: Path) -> InputError:
    """The error for a file that is there already."""
    return InputError(f"{file}: exists already, and init overwrites nothing; give another name")


def _check(config: StudyConfig) -> None:
    """Refuse what a worker or ``train`` would refuse, before anything is loaded."""
    from optuna_demix.config.space import space_of
    from optuna_demix.study.components import check_components
    from optuna_demix.study.evaluation import check_benchmarks
    from optuna_demix.study.search import sampler_of

    try:
        sampler_of(config, space_of(config))
    except ConstraintError as error:
        remedy = "lower --budget or raise --max-epochs"
        if config.general is not None:
            remedy += ", or train components on their own data alone with --general none"
        raise ConstraintError(f"{error}; {remedy}") from None
    check_benchmarks(config, check_components(config))
