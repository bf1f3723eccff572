"""The models behind the fidelity benchmarks: studies of real text, trained and cached.

Each set of models is a study of its own under the run directory, with the tokens, seed and general
share that make it up, and is trained by ``optuna_demix.training`` like any user's: a finished
model is skipped, a half trained one goes on. All of a setting continue one base.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from _tiers import BASE_SHARES, PRIOR, TIERS, write_tiers
from numpy.typing import NDArray

from optuna_demix import quickstart
from optuna_demix.config import StudyConfig, load_study_config
from optuna_demix.mixture import MixtureSpace, reach
from optuna_demix.training import TrainedModel, train_study

FloatArray = NDArray[np.float64]

WATCHED = "watched"  # capability of what is scored beside the others
DOMAINS = ("general", "prose", "code", "math", "docs")
BASE_SEED, COMPONENT_SEED, PROXY_SEED, FINAL_SEED = 0, 100, 200, 300  # references have 1, 2, ...
SHARE = 0.5  # of general data in every component
_PRIOR = {"general": 0.5, "prose": 0.125, "code": 0.125, "math": 0.125, "docs": 0.125}


@dataclass(frozen=True)
class Datasets:
    """What is mixed.

    Attributes:
        files: The text of each dataset, seen from a study's folder.
        prior: The prior.
        general: Which of them is part of every component.
    """

    files: Mapping[str, str]
    prior: Mapping[str, float]
    general: str

    @property
    def names(self) -> list[str]:
        """Their names."""
        return list(self.files)


FIVE = Datasets(
    {name: f"../../text/data/{name}/train.jsonl" for name in DOMAINS}, _PRIOR, "general"
)
TEN = Datasets(
    {f"{name}-{half}": f"../../text10/{name}-{half}.jsonl" for name in DOMAINS for half in "ab"},
    {f"{name}-{half}": _PRIOR[name] / 2 for name in DOMAINS for half in "ab"},
    "general-a",
)
"""Each of the five cut in two: first and second half of its documents by name."""
EIGHT = Datasets({name: f"../../text8/{name}.jsonl" for name in TIERS}, PRIOR, "general")


def _tasks(domains: Sequence[str], kind: str) -> list[dict[str, str]]:
    metric = {"bpb": "bits_per_byte", "choice": "acc"}[kind]
    return [{"task": f"quickstart_{domain}_{kind}", "metric": metric} for domain in domains]


@dataclass(frozen=True)
class Setting:
    """Datasets, a base and benchmarks.

    Attributes:
        name: Its name, which is its directory.
        datasets: What is mixed.
        base: Shares of the base's data.
        capabilities: Benchmarks of each capability, as a study file has them; ``None`` for the
            quickstart's.
        watched: Benchmarks that are scored beside them and belong to no capability.
        model: What the model has otherwise than the quickstart's.
    """

    name: str
    datasets: Datasets
    base: Mapping[str, float]
    capabilities: Mapping[str, list[dict[str, str]]] | None = None
    watched: Sequence[dict[str, str]] = ()
    model: Mapping[str, int] = field(default_factory=dict)


_BITS = {
    "general": _tasks(["general", "prose", "docs"], "bpb"),
    "code": _tasks(["code"], "bpb"),
    "math": _tasks(["math"], "bpb"),
}
_CHOICE = _tasks(["general", "code", "math"], "choice")

TIERS_SETTING = Setting("tiers", EIGHT, BASE_SHARES, _BITS, _CHOICE)
LARGE_SETTING = Setting(
    "tiers_large",
    EIGHT,
    BASE_SHARES,
    _BITS,
    _CHOICE,
    model={"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6},
)
DOMAINS_SETTING = Setting(
    "domains",
    FIVE,
    {"general": 0.6, "prose": 0.1, "code": 0.1, "math": 0.1, "docs": 0.1},
)


class Workshop:
    """Makes studies and trains their models.

    Args:
        runs: The run directory; the setting has a folder in it.
        setting: What is mixed and scored.
        base: Tokens of the base.
    """

    def __init__(self, runs: Path, setting: Setting, base: int) -> None:
        self.runs, self.root = runs, runs / setting.name
        self.setting = setting
        self._base = base

    def prepare(self) -> None:
        """Write the text, the tokenizer and the tasks, as the quickstart does, and the base."""
        self.root.mkdir(parents=True, exist_ok=True)
        text = self.runs / "text"
        with _one_at_a_time(self.runs / ".text.lock"):
            quickstart.prepare(text, report=lambda line: None)
            write_tiers(text / "data", self.runs / "text8")
        with _one_at_a_time(self.root / ".base.lock"):
            self.train(self.study("base", tokens=self._base, seed=BASE_SEED), only=["base"])

    def study(
        self,
        key: str,
        *,
        tokens: int,
        seed: int,
        share: float = SHARE,
        datasets: Datasets | None = None,
        merging: Mapping[str, Any] | None = None,
        components_of: str | None = None,
        watch: bool = True,
    ) -> StudyConfig:
        """A study on some datasets.

        Args:
            key: Its name, which is its directory.
            tokens: Tokens of each of its components and references.
            seed: Of its training.
            share: Share of general data in every component.
            datasets: What is mixed; default: the setting's datasets.
            merging: How components are merged.
            components_of: Name of the study that has the components; default: this.
            watch: Whether the watched benchmarks are scored.
        """
        datasets = datasets or self.setting.datasets
        models = f"../{components_of}/models" if components_of else "models"
        fields = {
            "datasets": {name: {"files": [file]} for name, file in datasets.files.items()},
            "components": {name: {"path": f"{models}/{name}"} for name in datasets.names},
            "general": {"dataset": datasets.general, "share": share},
            "mixture": {"prior": dict(datasets.prior)},
        }
        return self._written(key, fields, tokens, seed, merging or {}, watch)

    def _written(
        self,
        key: str,
        fields: Mapping[str, Any],
        tokens: int,
        seed: int,
        merging: Mapping[str, Any],
        watch: bool,
    ) -> StudyConfig:
        study = yaml.safe_load(quickstart.STUDY_FILE.read_text(encoding="utf-8"))
        budget = {"tokens": tokens, "learning_rate": 3e-3, "warmup_ratio": 0.05}
        training = study["training"] | {
            "tokenizer": "../../text/tokenizer",
            "model": study["training"]["model"] | dict(self.setting.model),
            "seed": seed,
            "component": budget,
        }
        if key == "base":
            training["base"] |= {"tokens": tokens, "composition": dict(self.setting.base)}
        else:
            del training["base"], training["model"]
        capabilities = dict(self.setting.capabilities or study["capabilities"])
        if watch and self.setting.watched:
            capabilities[WATCHED] = list(self.setting.watched)
        content = {
            "run_dir": ".",
            "base": "../base/models/base",
            **fields,
            "capabilities": capabilities,
            "scoring": study["scoring"] | {"include_path": "../../text/tasks"},
            "training": training,
        }
        if merging:
            content["merging"] = dict(merging)
        folder = self.root / key
        folder.mkdir(parents=True, exist_ok=True)
        cache = self.runs / "cache"  # all studies tokenize the same text
        cache.mkdir(exist_ok=True)
        if not (folder / "cache").exists():
            (folder / "cache").symlink_to(os.path.join("..", "..", "cache"))
        file = folder / "study.yaml"
        _write_if_new(file, yaml.safe_dump(content, sort_keys=False))
        return load_study_config(file)

    def halve(self) -> None:
        """Write the text of the ten datasets."""
        for name in DOMAINS:
            source = self.runs / "text" / "data" / name / "train.jsonl"
            lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
            lines.sort(key=lambda line: str(json.loads(line)["id"]))
            middle = len(lines) // 2
            for half, part in (("a", lines[:middle]), ("b", lines[middle:])):
                file = self.runs / "text10" / f"{name}-{half}.jsonl"
                file.parent.mkdir(exist_ok=True)
                _write_if_new(file, "".join(part))

    def train(
        self,
        study: StudyConfig,
        *,
        only: Sequence[str] | None = None,
        mixtures: Sequence[Mapping[str, float]] | None = None,
    ) -> list[TrainedModel]:
        """Train models of a study; those which are there are skipped, without a word."""
        return train_study(
            study,
            only=only,
            reference_mixtures=mixtures,
            device="cpu",
            progress=False,
            report=_say,
        )

    def components(self, key: str, tokens: int, **options: Any) -> StudyConfig:
        """A study with its components trained."""
        study = self.study(key, tokens=tokens, seed=COMPONENT_SEED, **options)
        with _one_at_a_time(self.root / ".components.lock"):
            self.train(study, only=list(study.components))
        return study

    def references(
        self, key: str, tokens: int, seed: int, shares: FloatArray, **options: Any
    ) -> list[Path]:
        """A reference trained for each row of data shares (n, D); returns their folders."""
        study = self.study(key, tokens=tokens, seed=seed, **options)
        mixtures = [dict(zip(study.dataset_names, row.tolist(), strict=True)) for row in shares]
        self.train(study, only=["references"], mixtures=mixtures)
        return [study.run_path / "models" / "references" / str(i) for i in range(len(shares))]


def sampled_weights(space: MixtureSpace, n: int) -> FloatArray:
    """Merge weights (n, K) of mixtures drawn like a search draws them, one generator each."""
    return np.stack([space.sample(1, np.random.default_rng([11, i]))[0] for i in range(n)])


def nearest_weights(shares: FloatArray, composition: FloatArray) -> tuple[FloatArray, float]:
    """Merge weights (n, K) whose data shares come nearest to shares (n, D).

    Args:
        shares: Data shares (n, D).
        composition: What each component was trained on, (K, D).

    Returns:
        The weights, and the largest total variation between what is asked for and what they give.
    """
    W = np.stack([reach.nearest_weights(row, composition) for row in shares])
    return W, float(0.5 * np.abs(W @ composition - shares).sum(axis=1).max())


@contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    """Other processes of the same run directory wait here."""
    with file.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _write_if_new(file: Path, text: str) -> None:
    """Leave a file alone that says the same: what was made from it is still good."""
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def _say(line: str) -> None:
    if not line.endswith("is there already"):
        print(line, flush=True)
