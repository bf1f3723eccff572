"""Train the models of a study: the base, a component a dataset, references at known mixtures.

A model is wholly determined by its *recipe*: what it starts from, its text, data shares, budget
and seed. The recipe is kept beside the weights, so that a finished model is skipped, a changed one
is refused, and a half trained one goes on from its last checkpoint. On one CPU thread count the
same recipe gives the same weights, bit by bit, interrupted or not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib.util
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from optuna_demix._config_space import space_of
from optuna_demix.config import BudgetConfig, StudyConfig, TrainingConfig
from optuna_demix.errors import ConfigError, DemixError

if TYPE_CHECKING:
    from tqdm import tqdm
    from transformers import PreTrainedConfig, PreTrainedModel, Trainer, TrainingArguments


RECORD_FILE = "training.json"
"""File beside the weights which says how they were trained."""

_FORMAT = 1  # of the record and of the token cache
_SHARES_SUM = 1e-6  # how far data shares may miss the sum 1
_LINE_EVERY_S = 30.0  # between two lines of progress where there is no bar
_MARKER = "complete.json"  # written last into a checkpoint
_BATCH_DOCUMENTS = 1024
_BATCH_CHARACTERS = 4_000_000
# What makes up a tokenizer; the last changes no token, but belongs to the model.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)
# Fields of older configurations which transformers still turns into rope parameters.
_LEGACY_FIELDS = (
    "partial_rotary_factor",
    "rope_scaling",
    "rope_theta",
    "rotary_emb_base",
    "rotary_pct",
)

Blocks = npt.NDArray[np.unsignedinteger[Any]]  # (n, sequence_length), memory-mapped
Report = Callable[[str], None]


class TrainingInterrupted(Exception):
    """Training was stopped by a signal; the same command resumes it.

    Attributes:
        signum: The signal.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


@dataclass(frozen=True)
class TrainedModel:
    """A model that is trained.

    Attributes:
        name: ``base``, the component's name, or ``references/<i>``.
        path: Directory of its weights, tokenizer and :data:`RECORD_FILE`.
        data_shares: Share of each dataset in what it was trained on.
        merge_weights: For a sampled reference: the merge weights its data shares come from.
        tokens: Tokens it was trained on.
        steps: Optimizer steps.
        final_loss: Mean training loss of the last tenth of the steps, nats a token.
        seconds: Time the steps took, interruptions left out.
        skipped: Whether it was there already.
    """

    name: str
    path: Path
    data_shares: dict[str, float]
    merge_weights: dict[str, float] | None
    tokens: int
    steps: int
    final_loss: float
    seconds: float
    skipped: bool


def train_study(
    config: StudyConfig,
    *,
    only: Sequence[str] | None = None,
    references: int = 0,
    reference_mixtures: Sequence[Mapping[str, float]] | None = None,
    retrain: Sequence[str] = (),
    device: str = "auto",
    progress: bool = True,
    report: Report = print,
) -> list[TrainedModel]:
    """Train the base, every component and, on request, reference models of a study.

    A budget of T tokens is ``round(T / (sequence_length * batch_size))`` optimizer steps. Their
    blocks are apportioned to the datasets by largest remainder and shuffled by the seed; a dataset
    which is too small is repeated, in another order each time. Components and references see the
    blocks of a dataset in the same order, so that they differ by nothing but their shares. A base
    without a ``composition`` of its own is trained on the prior's data shares.

    Works under ``torchrun`` and ``accelerate launch`` (data parallel): ``batch_size`` is then the
    batch of all processes together.

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
    training = config.training
    if training is None:
        raise ConfigError(f"{config.source}: training: is missing; add it to train models")
    for package in ("torch", "transformers", "accelerate", "filelock"):
        if importlib.util.find_spec(package) is None:
            raise DemixError(f"training needs {package}; pip install 'optuna-demix[models]'")
    import torch

    _check_settings(config, training)
    _check_device(device, cuda=torch.cuda.is_available())
    if _rank() > 0:
        report, progress = _silent, False
    plan = _plan(config, training, references, reference_mixtures)
    runs = _selected(config, plan, only, retrain)
    try:
        job = _Job(config, training, _Vocabulary.open(config, training), device, report)
        return _train_all(job, runs, frozenset(retrain), progress=progress)
    except OSError as error:
        where = error.filename or config.run_path
        raise ConfigError(
            f"{where}: {error.strerror or _one_line(error)}; check the path and the free space"
        ) from None
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"{config.source}: training.batch_size: {training.batch_size} sequences do not fit "
            "into the device's memory; lower it or start more processes with torchrun"
        ) from None
    except Exception as error:
        if not _is_write_error(error):
            raise
        raise ConfigError(
            f"{config.run_path}: could not be written ({_last_line(error)}); check the free space"
        ) from None


# --- What is to be trained


@dataclass(frozen=True)
class _Run:
    """One model to train.

    Attributes:
        name: ``base``, the component's name, or ``references/<i>``.
        section: Field of the study which gives its budget.
        path: Where it will lie.
        budget: Tokens and learning rate.
        shares: Positive data shares by dataset; they sum to 1.
        steps: Optimizer steps.
        merge_weights: Where the shares come from, for a sampled reference.
    """

    name: str
    section: str
    path: Path
    budget: BudgetConfig
    shares: dict[str, float]
    steps: int
    merge_weights: dict[str, float] | None = None

    @property
    def is_base(self) -> bool:
        return self.section == "training.base"


@dataclass(frozen=True)
class _Plan:
    runs: list[_Run]
    given: list[str]  # components which are not ours to train


@dataclass(frozen=True)
class _Job:
    """What all runs of one call share."""

    config: StudyConfig
    training: TrainingConfig
    vocabulary: _Vocabulary
    device: str
    report: Report

    @property
    def block_tokens(self) -> int:
        return self.training.sequence_length

    def partial(self, run: _Run) -> Path:
        """Where a run keeps its checkpoints until it is done."""
        return self.config.run_path / "models" / ".partial" / run.name


def _check_settings(config: StudyConfig, training: TrainingConfig) -> None:
    source = config.source
    if training.base is not None and training.model is None:
        raise ConfigError(
            f"{source}: training.model: is missing; training.base trains a new model from it"
        )
    for section in ("component", "reference"):
        budget = getattr(training, section)
        if budget is not None and budget.composition is not None:
            raise ConfigError(
                f"{source}: training.{section}.composition: only the base takes one here; "
                "give components.<name>.composition"
            )


def _check_device(device: str, *, cuda: bool) -> None:
    if device not in ("auto", "cpu", "cuda"):
        raise DemixError(
            f"device {device!r} is unknown; give auto, cpu or cuda "
            "(CUDA_VISIBLE_DEVICES chooses the GPU)"
        )
    if device == "cuda" and not cuda:
        raise DemixError("device cuda: torch sees no GPU here; give --device cpu or auto")


def _plan(
    config: StudyConfig,
    training: TrainingConfig,
    references: int,
    mixtures: Sequence[Mapping[str, float]] | None,
) -> _Plan:
    """Lay out every model of the study in the order of training."""
    runs: list[_Run] = []
    given: list[str] = []
    for name, component in config.components.items():
        path = config.component_path(name)
        if component.hub is not None or (
            component.path is not None and path.exists() and _read_record(path) is None
        ):
            given.append(name)
            continue
        field = f"components.{name}.composition"
        runs.append(
            _run(config, name, "training.component", path, config.composition_of(name), field)
        )
    if training.base is not None:
        field = "training.base.composition"
        shares = training.base.composition
        if shares is None:
            space = space_of(config)
            prior = space.data_shares(space.prior)  # (D,)
            shares = dict(zip(space.datasets, prior.tolist(), strict=True))
        base = _run(config, "base", "training.base", config.base_path, shares, field)
        runs.insert(0, base)
    runs += _reference_runs(config, references, mixtures)
    _check_paths(config, runs)
    return _Plan(runs, given)


def _reference_runs(
    config: StudyConfig, count: int, mixtures: Sequence[Mapping[str, float]] | None
) -> list[_Run]:
    assert config.training is not None
    if count < 0:
        raise DemixError(f"references: must not be negative, got {count}")
    if count and mixtures is not None:
        raise DemixError("give either a number of references or their mixtures, not both")
    section = "training.component" if config.training.reference is None else "training.reference"
    folder = config.run_path / "models" / "references"
    if mixtures is not None:
        return [
            _run(config, f"references/{i}", section, folder / str(i), shares, f"reference {i}")
            for i, shares in enumerate(mixtures)
        ]
    if not count:
        return []
    space = space_of(config)
    runs = []
    for i in range(count):
        # One generator each: more references later leave the first ones as they are.
        w = space.sample(1, np.random.default_rng([config.training.seed, i]))[0]  # (K,)
        shares = dict(zip(space.datasets, space.data_shares(w).tolist(), strict=True))
        run = _run(config, f"references/{i}", section, folder / str(i), shares, f"reference {i}")
        weights = dict(zip(space.components, w.tolist(), strict=True))
        runs.append(dataclasses.replace(run, merge_weights=weights))
    return runs


def _run(
    config: StudyConfig,
    name: str,
    section: str,
    path: Path,
    shares: Mapping[str, float],
    field: str,
) -> _Run:
    assert config.training is not None
    budget: BudgetConfig = getattr(config.training, section.removeprefix("training."))
    step_tokens = config.training.sequence_length * config.training.batch_size
    steps = round(budget.tokens / step_tokens)
    if steps < 1:
        raise ConfigError(
            f"{config.source}: {section}.tokens: {budget.tokens:,} tokens are less than one step "
            f"of sequence_length * batch_size = {step_tokens:,}; give more"
        )
    return _Run(name, section, path, budget, _checked_shares(config, shares, field), steps)


def _checked_shares(
    config: StudyConfig, shares: Mapping[str, float], field: str
) -> dict[str, float]:
    """Positive shares in the order of the study, normalised from a sum that is nearly 1."""
    for name, share in shares.items():
        if name not in config.dataset_names:
            raise ConfigError(
                f"{config.source}: {field}: {_unknown(name, config.dataset_names, 'dataset')}"
            )
        if not (math.isfinite(share) and share >= 0.0):
            raise ConfigError(
                f"{config.source}: {field}: the share of {name!r} must be a number from 0 to 1, "
                f"got {share}"
            )
    total = math.fsum(shares.values())
    if abs(total - 1.0) > _SHARES_SUM:
        raise ConfigError(
            f"{config.source}: {field}: the data shares must sum to 1, not to {total:.6g}"
        )
    ordered = {name: float(shares.get(name, 0.0)) / total for name in config.dataset_names}
    # Rounded, so that a recipe does not depend on the last bit of somebody's arithmetic.
    return {name: round(share, 12) for name, share in ordered.items() if share >= 1e-12}


def _check_paths(config: StudyConfig, runs: Sequence[_Run]) -> None:
    owners: dict[Path, str] = {}
    taken = {config.run_path / "models" / folder for folder in (".partial", "references")}
    if config.training is not None and config.training.base is None:
        owners[config.base_path] = "base"
    for run in runs:
        other = owners.setdefault(run.path, run.name)
        if other != run.name or run.path in taken or (run.name == "base" and not run.is_base):
            raise ConfigError(
                f"{config.source}: components.{run.name}: the name or path is taken "
                f"({run.path}); choose another"
            )


def _selected(
    config: StudyConfig, plan: _Plan, only: Sequence[str] | None, retrain: Sequence[str]
) -> list[_Run]:
    known = [run.name for run in plan.runs]
    groups = ["references"] if any(name.startswith("references/") for name in known) else []
    for name in only or ():
        if name in plan.given:
            raise ConfigError(
                f"{config.source}: components.{name}: is given by hub or path; nothing to train"
            )
        if name == "base" and name not in known:
            raise ConfigError(
                f"{config.source}: training.base: is missing; give it and training.model to "
                "train a base"
            )
        if name not in known + groups:
            raise ConfigError(f"{config.source}: {_unknown(name, known + groups, 'model')}")
    chosen = [
        run
        for run in plan.runs
        if only is None or run.name in only or run.name.split("/")[0] in set(groups) & set(only)
    ]
    for name in retrain:
        if name not in [run.name for run in chosen]:
            hint = _unknown(name, [run.name for run in chosen], "model to train")
            raise ConfigError(f"{config.source}: retrain: {hint}")
    return chosen


# --- Text to blocks of tokens


@dataclass(frozen=True)
class _Vocabulary:
    """The study's tokenizer.

    Attributes:
        path: Its directory.
        digest: Digest of its files.
        size: Number of token ids.
        eos: Id that ends a document.
        bos: Id that begins one, if there is one.
        pad: Id of padding, if there is one.
        encode: Texts to token ids, without special tokens.
    """

    path: Path
    digest: str
    size: int
    eos: int
    bos: int | None
    pad: int | None
    encode: Callable[[list[str]], list[list[int]]]

    @classmethod
    def open(cls, config: StudyConfig, training: TrainingConfig) -> _Vocabulary:
        from transformers import AutoTokenizer

        path = config.resolve(training.tokenizer)
        field = f"{config.source}: training.tokenizer"
        if not path.is_dir():
            raise ConfigError(
                f"{field}: {path} is no directory; train a tokenizer first or correct the path"
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(path), local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # tokenizers raise bare Exception on a damaged file
            raise ConfigError(
                f"{field}: {path} holds no usable tokenizer ({_one_line(error)})"
            ) from None
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                f"{field}: {path} has no eos_token, which must separate the documents; set it in "
                "tokenizer_config.json"
            )
        tokenizer.model_max_length = sys.maxsize  # whole documents: no warning of their length
        digest = hashlib.sha256()
        for name in _TOKENIZER_FILES[:-1]:
            if (path / name).is_file():
                digest.update(f"{name}\0{_file_digest(path / name)}\0".encode())

        def encode(texts: list[str]) -> list[list[int]]:
            ids: list[list[int]] = tokenizer(
                texts, add_special_tokens=False, return_attention_mask=False
            )["input_ids"]
            return ids

        return cls(
            path,
            digest.hexdigest(),
            len(tokenizer),
            tokenizer.eos_token_id,
            tokenizer.bos_token_id,
            tokenizer.pad_token_id,
            encode,
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest integers that hold every id."""
        return np.dtype("<u2") if self.size <= 1 << 16 else np.dtype("<u4")


@dataclass(frozen=True)
class _Corpus:
    """The text of one dataset.

    Attributes:
        name: Name of the dataset.
        files: Its files, in order.
        digest: Digest of their contents.
    """

    name: str
    files: list[Path]
    digest: str


def _corpus(config: StudyConfig, name: str) -> _Corpus:
    files = config.dataset_files(name)
    digest = hashlib.sha256()
    for file in files:
        if file.suffix not in (".jsonl", ".txt"):
            raise ConfigError(
                f"{config.source}: datasets.{name}.files: {file} is neither .jsonl nor .txt; "
                "convert it"
            )
        digest.update(f"{file.suffix}\0{_file_digest(file)}\0".encode())
    return _Corpus(name, files, digest.hexdigest())


def _documents(corpus: _Corpus) -> Iterator[str]:
    """Yield the documents of a dataset that are not empty."""
    for file in corpus.files:
        if file.suffix == ".txt":
            yield _decoded(file.read_bytes(), str(file))
            continue
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _text_of(line, f"{file}, line {number}")


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{place}: is not UTF-8 (byte {error.start}); convert or remove it"
        ) from None


def _text_of(line: bytes, place: str) -> str:
    try:
        document = json.loads(_decoded(line, place))
    except (json.JSONDecodeError, RecursionError):
        raise ConfigError(f'{place}: is not JSON; each line must be {{"text": ...}}') from None
    text = document.get("text") if isinstance(document, dict) else None
    if not isinstance(text, str):
        raise ConfigError(f'{place}: has no "text" that is a string; correct or remove it')
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f'{place}: "text" holds a lone surrogate; correct or remove it'
        ) from None
    return text


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in documents:
        if not text:
            continue
        batch.append(text)
        characters += len(text)
        if len(batch) >= _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _blocks(job: _Job, corpus: _Corpus) -> Blocks:
    """The blocks of a dataset, tokenised once and kept under the digest of text and tokenizer.

    Returns:
        Token ids, (n, sequence_length), memory-mapped; the rest of less than a block is left out.
    """
    from filelock import FileLock

    key = hashlib.sha256(f"{_FORMAT}\0{corpus.digest}\0{job.vocabulary.digest}".encode())
    file = job.config.run_path / "cache" / f"tokens-{key.hexdigest()[:32]}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        with FileLock(f"{file}.lock"):
            if not file.exists():
                job.report(f"{corpus.name}: tokenising {len(corpus.files)} file(s)")
                _write_tokens(file, corpus, job.vocabulary)
    try:
        tokens = np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError:
        raise ConfigError(f"{file}: is damaged; delete it, it is made again") from None
    rows = len(tokens) // job.block_tokens
    if rows == 0:
        raise ConfigError(
            f"{job.config.source}: datasets.{corpus.name}.files: {len(tokens):,} tokens are less "
            f"than one sequence of {job.block_tokens:,}; add text or lower "
            "training.sequence_length"
        )
    blocks: Blocks = tokens[: rows * job.block_tokens].reshape(rows, job.block_tokens)
    return blocks


def _write_tokens(file: Path, corpus: _Corpus, vocabulary: _Vocabulary) -> None:
    aside = file.with_name(f".{file.name}.new")
    length = 0
    try:
        with aside.open("wb") as stream:
            _write_header(stream, length, vocabulary.dtype)
            for batch in _batches(_documents(corpus)):
                for ids in vocabulary.encode(batch):
                    ids.append(vocabulary.eos)
                    stream.write(np.asarray(ids, dtype=vocabulary.dtype).tobytes())
                    length += len(ids)
            if length == 0:
                raise ConfigError(
                    f"dataset {corpus.name!r}: no text in {corpus.files[0]}"
                    + (f" and {len(corpus.files) - 1} more files" if corpus.files[1:] else "")
                    + "; add some"
                )
            stream.seek(0)
            _write_header(stream, length, vocabulary.dtype)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)


def _write_header(stream: Any, length: int, dtype: np.dtype[Any]) -> None:
    # numpy pads the header for a longer first axis: it can be written again in place.
    np.lib.format.write_array_header_1_0(
        stream,
        {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)},
    )


# --- Which block comes when


def _apportion(shares: npt.NDArray[np.float64], total: int) -> npt.NDArray[np.int64]:
    """Split a whole number by shares, by largest remainder: each part is off by less than 1.

    Args:
        shares: Shares that sum to 1, (D,).
        total: What is split.

    Returns:
        Parts that sum to ``total``, (D,).
    """
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    order = np.argsort(counts - exact, kind="stable")  # largest remainder first
    counts[order[: total - int(counts.sum())]] += 1
    return counts


@dataclass(frozen=True, eq=False)
class _Order:
    """The blocks of a run in the order of training.

    Attributes:
        datasets: Which dataset each block is from, (N,).
        rows: Which of its blocks, (N,).
        counts: Blocks of each dataset, (D,).
    """

    datasets: npt.NDArray[np.int16]
    rows: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


def _order(run: _Run, available: Sequence[int], seed: int, batch_size: int) -> _Order:
    """Draw the order of a run.

    Args:
        run: The run; N is its steps times the batch size.
        available: Blocks there are of each of its datasets, (D,).
        seed: Seed of the study's training.
        batch_size: Blocks of a step.
    """
    total = run.steps * batch_size
    counts = _apportion(np.array(list(run.shares.values())), total)
    # A base is followed by components on the same text: they must not begin with the same blocks.
    stage = 0 if run.is_base else 1
    labels = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    datasets = np.random.default_rng([seed, stage]).permutation(labels)
    rows = np.empty(total, dtype=np.int64)
    for i, (name, blocks) in enumerate(zip(run.shares, available, strict=True)):
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        epochs = [
            np.random.default_rng([seed, stage, key, epoch]).permutation(blocks)
            for epoch in range(math.ceil(counts[i] / blocks))
        ]
        if epochs:
            rows[datasets == i] = np.concatenate(epochs)[: counts[i]]
    return _Order(datasets, rows, counts)


class _Rows:
    """A map-style dataset of torch: the blocks of a run, a whole batch at a time."""

    def __init__(self, blocks: Sequence[Blocks], order: _Order) -> None:
        self._blocks = blocks
        self._order = order

    def __len__(self) -> int:
        return len(self._order.rows)

    def __getitem__(self, index: int) -> npt.NDArray[np.int64]:
        block: npt.NDArray[np.int64] = self._blocks[self._order.datasets[index]][
            self._order.rows[index]
        ].astype(np.int64)
        return block

    def __getitems__(self, indices: Sequence[int]) -> npt.NDArray[np.int64]:
        return np.stack([self[index] for index in indices])  # (b, sequence_length)


def _realised(
    run: _Run, order: _Order, available: Sequence[int], block_tokens: int
) -> dict[str, dict[str, float]]:
    """Count what a run is trained on, and make sure that it is what was asked for."""
    counts = np.bincount(order.datasets, minlength=len(run.shares))
    total = int(counts.sum())
    data: dict[str, dict[str, float]] = {}
    for (name, share), count, blocks in zip(
        run.shares.items(), counts.tolist(), available, strict=True
    ):
        if abs(count - share * total) > 1.0:
            raise RuntimeError(f"{run.name}: {count} of {total} blocks of {name}, asked {share}")
        data[name] = {
            "share_asked": share,
            "share": count / total,
            "blocks": count,
            "tokens": count * block_tokens,
            "epochs": count / blocks,
        }
    return data


# --- Recipes and records


def _recipe(
    job: _Job, run: _Run, corpora: Mapping[str, _Corpus], base: str | None
) -> dict[str, Any]:
    """All that decides about a model's weights, flat; ``base`` is left out while unknown."""
    training, budget = job.training, run.budget
    recipe: dict[str, Any] = {
        "tokens": budget.tokens,
        "learning_rate": budget.learning_rate,
        "warmup_ratio": budget.warmup_ratio,
        "final_lr_ratio": budget.final_lr_ratio,
        "sequence_length": training.sequence_length,
        "batch_size": training.batch_size,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "bf16": training.bf16,
        "seed": training.seed,
        "tokenizer": job.vocabulary.digest,
    }
    for name, share in run.shares.items():
        recipe[f"share of {name}"] = share
        recipe[f"text of {name}"] = corpora[name].digest
    if run.is_base:
        recipe["model"] = training.model
    elif base is not None:
        recipe["base"] = base
    return recipe


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say in words what differs between two recipes."""
    changes = []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) == new.get(key) or (key == "base" and key not in new):
            continue
        if key in ("base", "tokenizer") or (
            key.startswith("text of ") and key in old and key in new
        ):
            changes.append(f"the {key} is another")
        elif not key.startswith("text of "):  # added and dropped datasets show in their shares
            changes.append(f"{key} was {_shown(old.get(key))}, is {_shown(new.get(key))}")
    return changes


def _shown(value: Any) -> str:
    text = "none" if value is None else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read_json(file: Path) -> dict[str, Any] | None:
    """The object in a file; None if it is missing or not whole."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _read_record(path: Path) -> dict[str, Any] | None:
    """How the model in a directory was trained; None if it was not made by this module."""
    record = _read_json(path / RECORD_FILE)
    return record if record is not None and record.get("format") == _FORMAT else None


class _Ledger:
    """Which runs are done, and whether what is there is what the study asks for."""

    def __init__(self, job: _Job, retrain: frozenset[str]) -> None:
        self._job = job
        self._retrain = set(retrain)

    def trained(self, run: _Run) -> None:
        """Note that a run which was to be repeated is done."""
        self._retrain.discard(run.name)

    def pending(self, runs: Sequence[_Run], recipes: Mapping[str, dict[str, Any]]) -> list[_Run]:
        """Those of the runs that are not done.

        Raises:
            ConfigError: If one was trained or begun by another recipe, or is not ours.
        """
        stale: dict[str, str] = {}
        todo = []
        for run in runs:
            recipe = recipes[run.name]
            record = _read_record(run.path)
            begun = self._begun(run)
            if record is None and run.path.exists() and any(run.path.iterdir()):
                raise ConfigError(
                    f"{run.path}: is there, but was not made by train (no {RECORD_FILE}); move "
                    f"it away, or take {run.section} for {run.name} out of the study"
                )
            if run.name in self._retrain:
                todo.append(run)
                continue
            if record is not None:
                changes = _changes(record["recipe"], recipe)
                if not changes:
                    changes = _damages(run.path, record)
            else:
                todo.append(run)
                changes = [] if begun is None else _changes(begun, recipe)
            if changes:
                stale[run.name] = ", ".join(changes[:3])
        if stale:
            told = "; ".join(f"{name}: {what}" for name, what in list(stale.items())[:3])
            flags = " ".join(f"--retrain {name}" for name in stale)
            raise ConfigError(
                f"{self._job.config.source}: models were trained by another recipe: {told}"
                + (f"; and {len(stale) - 3} more" if len(stale) > 3 else "")
                + f"; undo the change, or train them again with {flags}"
            )
        return todo

    def _begun(self, run: _Run) -> dict[str, Any] | None:
        """The recipe of a half trained model, if it can be resumed."""
        partial = self._job.partial(run)
        return _read_json(partial / "recipe.json") if _newest_checkpoint(partial) else None


def _damages(path: Path, record: Mapping[str, Any]) -> list[str]:
    for name, facts in record.get("weights", {}).items():
        file = path / name
        if not file.is_file() or file.stat().st_size != facts["bytes"]:
            return [f"{name} is missing or cut short"]
    return []


def _trained_model(run: _Run, record: Mapping[str, Any], *, skipped: bool) -> TrainedModel:
    return TrainedModel(
        name=run.name,
        path=run.path,
        data_shares={name: float(facts["share"]) for name, facts in record["data"].items()},
        merge_weights=record["merge_weights"],
        tokens=int(record["tokens"]),
        steps=int(record["steps"]),
        final_loss=float(record["final_loss"]),
        seconds=float(record["seconds"]),
        skipped=skipped,
    )


def _base_digest(config: StudyConfig) -> str | None:
    """Digest of the base's weights; None while there is no base.

    Raises:
        ConfigError: If the base's directory holds no safetensors weights.
    """
    path = config.base_path
    record = _read_record(path)
    if record is not None:
        return _weights_digest(record["weights"])
    if not (path / "config.json").is_file():
        return None
    weights = _weights_of(path)
    if not weights:
        raise ConfigError(f"{path}: holds no .safetensors weights; convert the base first")
    return _weights_digest(weights)


def _weights_of(path: Path) -> dict[str, dict[str, Any]]:
    return {
        file.name: {"bytes": file.stat().st_size, "sha256": _file_digest(file)}
        for file in sorted(path.glob("*.safetensors"))
    }


def _weights_digest(weights: Mapping[str, Mapping[str, Any]]) -> str:
    return _digest_of({name: facts["sha256"] for name, facts in weights.items()})


# --- All runs


def _train_all(
    job: _Job, runs: list[_Run], retrain: frozenset[str], *, progress: bool
) -> list[TrainedModel]:
    names = sorted({name for run in runs for name in run.shares})
    corpora = {name: _corpus(job.config, name) for name in names}
    ledger = _Ledger(job, retrain)
    base = _base_digest(job.config)

    def recipes(base: str | None) -> dict[str, dict[str, Any]]:
        return {run.name: _recipe(job, run, corpora, base) for run in runs}

    first = [run for run in runs if run.is_base]
    # What starts from a base that is still to be trained is compared without it, and again later.
    base_is_new = bool(ledger.pending(first, recipes(None)))
    todo = ledger.pending(runs, recipes(None if base_is_new else base))
    if base is None and not base_is_new and any(not run.is_base for run in runs):
        _refuse_without_base(job)
    if base_is_new:
        _scratch_config(job)
    for run in runs:
        if run not in todo:
            job.report(f"{run.name}: is there already")
    blocks = {
        name: _blocks(job, corpora[name])
        for name in names
        if any(name in run.shares for run in todo)
    }
    step_tokens = job.block_tokens * job.training.batch_size
    total = sum(run.steps for run in todo) * step_tokens
    results: dict[str, TrainedModel] = {}
    meter = _Progress(total, shown=progress, report=job.report)
    with _quiet_transformers(), _StopRequest() as stop, meter:
        for run in todo:
            if stop.requested:
                raise stop.error(f"before {run.name}")
            recipe = _recipe(job, run, corpora, _base_digest(job.config))
            record = _train(job, run, recipe, blocks, stop, meter)
            results[run.name] = _trained_model(run, record, skipped=False)
            ledger.trained(run)
            if run.is_base:
                ledger.pending(runs, recipes(_base_digest(job.config)))
    for run in runs:
        if run.name not in results:
            record_there = _read_record(run.path)
            assert record_there is not None  # the ledger has read it
            results[run.name] = _trained_model(run, record_there, skipped=True)
    return [results[run.name] for run in runs]


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers' own bars and log level out of the way, and put them back."""
    from transformers.utils import logging as module

    logging: Any = module
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _refuse_without_base(job: _Job) -> None:
    config = job.config
    if job.training.base is not None:
        raise ConfigError(
            f"{config.base_path}: the base is not trained yet; train it first (--only base)"
        )
    field = "base" if config.base else "training.base"
    raise ConfigError(
        f"{config.source}: {field}: there is no base checkpoint in {config.base_path}; give the "
        "path of one, or training.base and training.model to train one"
    )


def _train(
    job: _Job,
    run: _Run,
    recipe: dict[str, Any],
    blocks: Mapping[str, Blocks],
    stop: _StopRequest,
    meter: _Progress,
) -> dict[str, Any]:
    """Train one model, or the rest of it, and put it in its place.

    Returns:
        Its record.
    """
    partial = job.partial(run)
    lock = _exclusive(partial, run) if _rank() == 0 else contextlib.nullcontext()
    with lock:
        arguments = _arguments(job, run, partial)
        if _rank() == 0:
            _open_partial(partial, recipe)
        _wait_for_all(arguments)
        checkpoint = _newest_checkpoint(partial)
        model, dtype = _start_model(job, run)
        available = [len(blocks[name]) for name in run.shares]
        order = _order(run, available, job.training.seed, job.training.batch_size)
        data = _realised(run, order, available, job.block_tokens)
        pilot = _Pilot(job, run, stop, meter, checkpoint)
        rows = _Rows([blocks[name] for name in run.shares], order)
        trainer = _trainer(arguments, model, rows, pilot)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if pilot.stopped:
            raise stop.error(
                f"after step {trainer.state.global_step} of {run.steps} of {run.name}"
            )
        if trainer.state.global_step != run.steps:
            raise RuntimeError(f"{run.name}: {trainer.state.global_step} steps of {run.steps}")
        record = _record(job, run, recipe, data, trainer, pilot)
        if _rank() == 0:
            _put_in_place(job, run, model.to(dtype), record)
            shutil.rmtree(partial, ignore_errors=True)
        _wait_for_all(arguments)
    meter.say(
        f"{run.name}: {run.steps:,} steps, {record['tokens']:,} tokens in "
        f"{record['seconds']:.1f} s ({record['tokens_per_second']:,.0f} tokens/s), "
        f"loss {record['final_loss']:.4f}"
    )
    return record


def _record(
    job: _Job,
    run: _Run,
    recipe: dict[str, Any],
    data: dict[str, dict[str, float]],
    trainer: Trainer,
    pilot: _Pilot,
) -> dict[str, Any]:
    import torch
    import transformers

    tokens = run.steps * job.block_tokens * job.training.batch_size
    seconds = pilot.seconds
    return {
        "format": _FORMAT,
        "name": run.name,
        "recipe": recipe,
        "digest": _digest_of(recipe),
        "data": data,
        "merge_weights": run.merge_weights,
        "steps": run.steps,
        "tokens": tokens,
        "seed": job.training.seed,
        "final_loss": _final_loss(trainer.state.log_history, run.steps),
        "seconds": seconds,
        "tokens_per_second": tokens / max(seconds, 1e-9),
        "device": str(trainer.args.device),
        "processes": trainer.args.world_size,
        "versions": {
            "numpy": np.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _final_loss(history: Sequence[Mapping[str, Any]], steps: int) -> float:
    """Mean loss over the last tenth of the steps, from means over the steps between two logs."""
    last, total, weight = 0, 0.0, 0
    for entry in history:
        if "loss" not in entry:
            continue
        span = entry["step"] - last
        last = entry["step"]
        if last > 0.9 * steps:
            total += span * entry["loss"]
            weight += span
    return total / weight


# --- The model and its Trainer


def _scratch_config(job: _Job) -> PreTrainedConfig:
    """Configuration of the base from ``training.model``, checked by building it without memory."""
    import torch
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    field = f"{job.config.source}: training.model"
    given = dict(job.training.model or {})
    kind = given.pop("model_type", None)
    if not isinstance(kind, str):
        raise ConfigError(f"{field}: model_type is missing; give one, such as llama")
    if kind not in CONFIG_MAPPING:
        raise ConfigError(f"{field}: {_unknown(kind, list(CONFIG_MAPPING), 'model_type', 0)}")
    config_class = CONFIG_MAPPING[kind]
    fields = {f.name for f in dataclasses.fields(config_class)}
    fields |= set(config_class.attribute_map) | set(_LEGACY_FIELDS)
    for name in given:
        if name not in fields:
            raise ConfigError(f"{field}: {_unknown(name, sorted(fields), f'field of {kind}', 0)}")
    vocabulary = job.vocabulary
    filled = {
        "vocab_size": vocabulary.size,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
    }
    try:
        config = AutoConfig.for_model(kind, **{**filled, **given})
        with torch.device("meta"):
            _causal_models().from_config(config)
    except Exception as error:  # each architecture has its own way to complain
        raise ConfigError(f"{field}: {_last_line(error)}") from None
    _check_fit(job, config, field)
    return config


def _check_fit(job: _Job, config: PreTrainedConfig, field: str) -> None:
    text = config.get_text_config()
    if text.vocab_size < job.vocabulary.size:
        raise ConfigError(
            f"{field}: vocab_size {text.vocab_size:,} is less than the {job.vocabulary.size:,} "
            f"tokens of {job.vocabulary.path}"
        )
    positions = getattr(text, "max_position_embeddings", None)
    if isinstance(positions, int) and positions < job.block_tokens:
        raise ConfigError(
            f"{job.config.source}: training.sequence_length: {job.block_tokens} is more than the "
            f"model's max_position_embeddings, {positions}; lower it"
        )


def _start_model(job: _Job, run: _Run) -> tuple[PreTrainedModel, Any]:
    """The model a run starts from, in float32, and the dtype in which it will be kept."""
    import torch
    from transformers import set_seed

    set_seed(job.training.seed)
    if run.is_base:
        return _causal_models().from_config(_scratch_config(job)), torch.float32
    path = job.config.base_path
    try:
        model = _causal_models().from_pretrained(
            str(path),
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:  # a damaged file, another architecture, a missing tensor
        raise ConfigError(f"{path}: cannot be loaded as the base ({_last_line(error)})") from None
    _check_fit(job, model.config, str(path))
    dtype = model.dtype
    return model.float(), dtype


def _causal_models() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM


def _arguments(job: _Job, run: _Run, partial: Path) -> TrainingArguments:
    from transformers import TrainingArguments

    training, budget = job.training, run.budget
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if training.batch_size % processes:
        raise ConfigError(
            f"{job.config.source}: training.batch_size: {training.batch_size} cannot be shared "
            f"by {processes} processes; give a multiple"
        )
    try:
        arguments = TrainingArguments(
            output_dir=str(partial),
            max_steps=run.steps,
            per_device_train_batch_size=training.batch_size // processes,
            learning_rate=budget.learning_rate,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": budget.final_lr_ratio},
            warmup_steps=math.ceil(budget.warmup_ratio * run.steps),
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            bf16=training.bf16,
            seed=training.seed,
            use_cpu=job.device == "cpu",
            train_sampling_strategy="sequential",  # the order is ours
            remove_unused_columns=False,
            dataloader_pin_memory=job.device != "cpu",
            ddp_find_unused_parameters=False,
            # The pilot says when to log and to save.
            logging_strategy="no",
            save_strategy="no",
            save_total_limit=2,  # the last may be cut short by a crash
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_nan_inf_filter=False,
            log_level="error",
        )
        if arguments.device.type == "cpu":
            arguments.dataloader_pin_memory = False
    except ValueError as error:
        raise ConfigError(
            f"{job.config.source}: training: this device cannot run it ({_last_line(error)})"
        ) from None
    if arguments.n_gpu > 1:
        launch = f"torchrun --nproc-per-node {arguments.n_gpu}"
        job.report(f"{run.name}: one GPU of {arguments.n_gpu} is used; {launch} uses all")
        arguments._n_gpu = 1  # else Trainer splits each batch among threads
    return arguments


def _trainer(arguments: TrainingArguments, model: Any, rows: _Rows, pilot: _Pilot) -> Trainer:
    import torch
    from transformers import PrinterCallback, Trainer, TrainerCallback

    class Hooks(TrainerCallback):
        """Tells the pilot what Trainer does."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            pilot.begin(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            pilot.step(state.global_step, control)

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if "loss" in kwargs["logs"]:
                pilot.log(state.global_step, kwargs["logs"]["loss"])

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            _wait_for_all(arguments)
            if _rank() == 0:
                pilot.saved(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    class LeanTrainer(Trainer):
        """Trainer without the count of operations, which walks over the model at every step."""

        def floating_point_ops(self, inputs: Any) -> int:
            return 0

    def collate(batch: npt.NDArray[np.int64]) -> dict[str, torch.Tensor]:
        tokens = torch.from_numpy(batch)  # (b, sequence_length)
        return {"input_ids": tokens, "labels": tokens}  # the model shifts them

    trainer = LeanTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,  # has all that DataLoader asks for
        data_collator=collate,  # type: ignore[arg-type]
        callbacks=[Hooks()],
    )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise DemixError(
            "sharded training (FSDP, DeepSpeed) is not supported; launch plain data parallelism "
            "with torchrun"
        )
    trainer.remove_callback(PrinterCallback)
    # All blocks are full: the mean over a batch is the mean over its tokens, nothing to count.
    trainer.model_accepts_loss_kwargs = False
    return trainer


class _Pilot:
    """Decides after each step whether to log, to save and to stop."""

    def __init__(
        self, job: _Job, run: _Run, stop: _StopRequest, meter: _Progress, checkpoint: Path | None
    ) -> None:
        self._job = job
        self._run = run
        self._stop = stop
        self._meter = meter
        self._log_every = max(1, min(50, run.steps // 20))
        marker = None if checkpoint is None else _read_json(checkpoint / _MARKER)
        self._seconds_before = 0.0 if marker is None else float(marker["seconds"])
        self._began = time.monotonic()
        self._group = _signal_group()
        self.stopped = False

    @property
    def seconds(self) -> float:
        """Time of training so far."""
        return self._seconds_before + time.monotonic() - self._began

    def begin(self, step: int) -> None:
        """Training begins after ``step``, 0 if it is not resumed."""
        self._began = time.monotonic()
        step_tokens = self._job.block_tokens * self._job.training.batch_size
        self._meter.begin(self._run.name, self._run.steps, step_tokens, step)

    def step(self, step: int, control: Any) -> None:
        """A step is done."""
        self._meter.advance()
        last = step >= self._run.steps
        stop = self._agreed(self._stop.requested) and not last
        save = not last and (stop or step % self._job.training.save_every == 0)
        control.should_save = save
        control.should_log = last or save or step % self._log_every == 0
        if stop:
            self.stopped = True
            control.should_training_stop = True

    def log(self, step: int, loss: float) -> None:
        """Take the mean loss since the last log.

        Raises:
            ConfigError: If it is not finite.
        """
        if not math.isfinite(loss):
            raise ConfigError(
                f"{self._job.config.source}: {self._run.section}.learning_rate: the loss of "
                f"{self._run.name} became {loss} at step {step}; lower it"
            )
        self._meter.loss(loss)

    def saved(self, checkpoint: Path) -> None:
        """Mark a checkpoint whole, once it is safe on the disk."""
        _sync(checkpoint)
        sizes = {file.name: file.stat().st_size for file in checkpoint.iterdir()}
        _write_json(checkpoint / _MARKER, {"seconds": self.seconds, "files": sizes})

    def _agreed(self, requested: bool) -> bool:
        """Whether any process was asked to stop: all must do it after the same step."""
        if self._group is None:
            return requested
        import torch

        flag = torch.tensor([int(requested)])
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group=self._group)
        return bool(flag.item())


def _signal_group() -> Any:
    """A process group on the CPU, which does not wait for the GPU; None for a single process."""
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return None
    return torch.distributed.new_group(backend="gloo")


def _wait_for_all(arguments: TrainingArguments) -> None:
    if arguments.distributed_state is not None:
        arguments.distributed_state.wait_for_everyone()


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


# --- On the disk


@contextlib.contextmanager
def _exclusive(partial: Path, run: _Run) -> Iterator[None]:
    """Hold the right to train a model; a killed process loses it."""
    from filelock import FileLock, Timeout

    file = partial.with_name(f"{partial.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DemixError(
            f"{run.name} is being trained by another process (it holds {file}); wait for it, or "
            "train others with --only"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _open_partial(partial: Path, recipe: dict[str, Any]) -> None:
    """Make the directory of a run's checkpoints; drop those which cannot be resumed."""
    whole = _newest_checkpoint(partial)
    if whole is not None and _read_json(partial / "recipe.json") == recipe:
        for checkpoint in _checkpoints(partial):
            if checkpoint != whole:
                shutil.rmtree(checkpoint)
        return
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_json(partial / "recipe.json", recipe)


def _checkpoints(partial: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    found = [p for p in partial.glob("checkpoint-*") if p.name[len("checkpoint-") :].isdigit()]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True)


def _newest_checkpoint(partial: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    for checkpoint in _checkpoints(partial):
        marker = _read_json(checkpoint / _MARKER)
        if marker is not None and all(
            (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size
            for name, size in marker["files"].items()
        ):
            return checkpoint
    return None


def _put_in_place(job: _Job, run: _Run, model: PreTrainedModel, record: dict[str, Any]) -> None:
    """Write model, tokenizer and record aside, then move them to the run's path at once."""
    aside = run.path.with_name(f".{run.path.name}.new")
    old = run.path.with_name(f".{run.path.name}.old")
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        model.config.use_cache = True  # Trainer has turned it off
        model.save_pretrained(str(aside))
        for name in _TOKENIZER_FILES:
            if (job.vocabulary.path / name).is_file():
                shutil.copyfile(job.vocabulary.path / name, aside / name)
        record["weights"] = _weights_of(aside)
        _write_json(aside / RECORD_FILE, record)
        _sync(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if run.path.exists():
        run.path.rename(old)
    aside.rename(run.path)
    _sync_file(run.path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _is_write_error(error: Exception) -> bool:
    """Whether a library failed to write, which each reports in its own way."""
    text = str(error)
    if type(error).__name__ == "SafetensorError":
        return "I/O error" in text
    # What torch.save says of a full disk.
    return isinstance(error, RuntimeError) and (
        "inline_container" in text or "iostream error" in text
    )


def _write_json(file: Path, value: Any) -> None:
    aside = file.with_name(f".{file.name}.new")
    with aside.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(aside, file)


def _sync(directory: Path) -> None:
    for file in directory.iterdir():
        if file.is_file():
            _sync_file(file)
    _sync_file(directory)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


# --- Signals and progress


class _StopRequest:
    """Notes a first SIGINT or SIGTERM; a second one acts as if this were not here."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        return self._signum is not None

    def __enter__(self) -> _StopRequest:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        self._restore()
        return False

    def error(self, where: str) -> TrainingInterrupted:
        """What to raise after a stop, which may have been asked of another process."""
        signum = signal.SIGTERM if self._signum is None else self._signum
        name = signal.Signals(signum).name
        return TrainingInterrupted(
            f"training was stopped by {name} {where}; the same command resumes it", signum
        )

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()


class _Progress:
    """One bar of tokens over all models, or lines where no bar can be shown."""

    def __init__(self, total: int, *, shown: bool, report: Report) -> None:
        self._total = total
        self._report = report
        self._shown = shown and total > 0 and sys.stderr.isatty()
        self._bar: tqdm[Any] | None = None
        self._name = ""
        self._step, self._steps, self._step_tokens = 0, 0, 0
        self._line_at = 0.0

    def __enter__(self) -> _Progress:
        if self._shown:
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total, unit="tok", unit_scale=True, file=sys.stderr, smoothing=0.05
            )
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        if self._bar is not None:
            self._bar.close()
        return False

    def begin(self, name: str, steps: int, step_tokens: int, done: int) -> None:
        """A model begins, or goes on after ``done`` steps."""
        self._name, self._steps, self._step_tokens = name, steps, step_tokens
        self._step = done
        self._line_at = time.monotonic() + _LINE_EVERY_S
        if self._bar is not None:
            self._bar.set_description(name)
            if done:
                self._bar.initial += done * step_tokens  # not counted in the rate
                self._bar.update(done * step_tokens)
        again = f", resuming after step {done:,}" if done else ""
        self.say(f"{name}: training {steps * step_tokens:,} tokens in {steps:,} steps{again}")

    def advance(self) -> None:
        """A step is done."""
        self._step += 1
        if self._bar is not None:
            self._bar.update(self._step_tokens)

    def loss(self, value: float) -> None:
        """Show the loss of the last steps."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {value:.3f}")
        elif time.monotonic() >= self._line_at and self._step < self._steps:
            self._line_at = time.monotonic() + _LINE_EVERY_S
            self.say(f"{self._name}: step {self._step:,} of {self._steps:,}, loss {value:.4f}")

    def say(self, line: str) -> None:
        """Report a line without breaking the bar."""
        if self._bar is None:
            self._report(line)
            return
        with type(self._bar).external_write_mode(file=sys.stderr):
            self._report(line)


def _silent(line: str) -> None:
    """Report nothing: another process speaks."""


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _last_line(error: BaseException) -> str:
    """The cause of an error: validation puts it into the last line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _unknown(name: str, known: Sequence[str], kind: str, listed: int = 20) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    if close:
        return f"no {kind} {name!r}; did you mean {close[0]!r}?"
    return f"no {kind} {name!r}" + (f"; known: {', '.join(known[:listed])}" if listed else "")
