"""The models behind ``proxy_fidelity.py``: studies of the quickstart's text, trained and cached.

Each set of models is a study of its own under the run directory, with the tokens, seed and general
share that make it up, and is trained by ``optuna_demix.training`` like any user's: a finished
model is skipped, a half trained one goes on. All continue one base.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from optuna_demix.config import StudyConfig, load_study_config
from optuna_demix.fidelity import references
from optuna_demix.mixture import MixtureSpace
from optuna_demix.training import TrainedModel, train_study

FloatArray = NDArray[np.float64]

DOMAINS = ("general", "prose", "code", "math", "docs")
BASE_SEED, COMPONENT_SEED, PROXY_SEED, FINAL_SEED = 0, 100, 200, 300  # references have 1, 2, ...
SHARE = 0.5  # of general data in every component
_QUICKSTART = Path(__file__).resolve().parent.parent / "studies" / "quickstart"
_PRIOR = {"general": 0.5, "prose": 0.125, "code": 0.125, "math": 0.125, "docs": 0.125}
_BASE_SHARES = {"general": 0.6, "prose": 0.1, "code": 0.1, "math": 0.1, "docs": 0.1}


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


FIVE = Datasets({name: f"../text/data/{name}/train.jsonl" for name in DOMAINS}, _PRIOR, "general")
TEN = Datasets(
    {f"{name}-{half}": f"../text10/{name}-{half}.jsonl" for name in DOMAINS for half in "ab"},
    {f"{name}-{half}": _PRIOR[name] / 2 for name in DOMAINS for half in "ab"},
    "general-a",
)
"""Each of the five cut in two: first and second half of its documents by name."""


@dataclass(frozen=True)
class Sizes:
    """How large the experiment is. Budgets are the paper's, 50 B of it being one reference here.

    Attributes:
        base: Tokens of the base.
        reference: Tokens of a reference.
        n_references: Number of mixtures.
        seeds: Training seeds of the references.
        component: Tokens of a component, for each budget.
        chosen: The budget that every comparison outside Table 2 uses.
        proxy: Tokens of a trained proxy, for each budget.
        shares: Shares of general data that are compared.
        long: Tokens of components trained beyond the references.
        n_ten: Number of references of the ten datasets.
        final_seeds: Searches and trainings of each final mixture.
        n_merged: Merged proxies of a search.
        searched: Number and tokens of the trained proxies of a search; as many tokens in all as
            the components have.
    """

    base: int = 1_600_000
    reference: int = 240_000
    n_references: int = 48
    seeds: tuple[int, ...] = (1, 2)
    component: tuple[int, ...] = (9_600, 48_000, 144_000, 240_000)
    chosen: int = 144_000
    proxy: tuple[int, ...] = (9_600, 19_200, 38_400, 57_600)
    shares: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    long: tuple[int, ...] = (480_000, 960_000)
    n_ten: int = 32
    final_seeds: tuple[int, ...] = (0, 1, 2)
    n_merged: int = 112
    searched: tuple[tuple[int, int], ...] = ((75, 9_600), (19, 38_400))


QUICK = Sizes(
    base=400_000,
    reference=64_000,
    n_references=12,
    component=(16_000, 64_000),
    chosen=64_000,
    proxy=(8_000, 16_000),
    shares=(0.0, 0.5),
    long=(),
    n_ten=0,
    final_seeds=(0,),
    n_merged=28,
    searched=((8, 40_000),),
)


class Workshop:
    """Makes studies and trains their models.

    Args:
        root: The run directory.
        sizes: How large the experiment is.
    """

    def __init__(self, root: Path, sizes: Sizes) -> None:
        self.root = root
        self.sizes = sizes

    def prepare(self) -> None:
        """Write the text, the tokenizer and the tasks, as the quickstart does, and the base."""
        command = [sys.executable, str(_QUICKSTART / "prepare.py"), "--run-dir"]
        subprocess.run([*command, str(self.root / "text")], check=True, stdout=subprocess.DEVNULL)
        self.train(self.study("base", tokens=self.sizes.base, seed=BASE_SEED), only=["base"])

    def study(
        self,
        key: str,
        *,
        tokens: int,
        seed: int,
        share: float = SHARE,
        datasets: Datasets = FIVE,
        merging: Mapping[str, Any] | None = None,
        components_of: str | None = None,
    ) -> StudyConfig:
        """A study on some datasets.

        Args:
            key: Its name, which is its directory.
            tokens: Tokens of each of its components and references.
            seed: Of its training.
            share: Share of general data in every component.
            datasets: What is mixed.
            merging: How components are merged.
            components_of: Name of the study that has the components; default: this.
        """
        models = f"../{components_of}/models" if components_of else "models"
        fields = {
            "datasets": {name: {"files": [file]} for name, file in datasets.files.items()},
            "components": {name: {"path": f"{models}/{name}"} for name in datasets.names},
            "general": {"dataset": datasets.general, "share": share},
            "mixture": {"prior": dict(datasets.prior)},
        }
        return self._written(key, fields, tokens, seed, merging or {})

    def _written(
        self,
        key: str,
        fields: Mapping[str, Any],
        tokens: int,
        seed: int,
        merging: Mapping[str, Any],
    ) -> StudyConfig:
        quickstart = yaml.safe_load((_QUICKSTART / "study.yaml").read_text(encoding="utf-8"))
        budget = {"tokens": tokens, "learning_rate": 3e-3, "warmup_ratio": 0.05}
        training = quickstart["training"] | {
            "tokenizer": "../text/tokenizer",
            "seed": seed,
            "component": budget,
        }
        if key == "base":
            training["base"] |= {"tokens": tokens, "composition": _BASE_SHARES}
        else:
            del training["base"], training["model"]
        content = {
            "run_dir": ".",
            "base": "../base/models/base",
            **fields,
            "capabilities": quickstart["capabilities"],
            "scoring": quickstart["scoring"] | {"include_path": "../text/tasks"},
            "training": training,
        }
        if merging:
            content["merging"] = dict(merging)
        folder = self.root / key
        folder.mkdir(parents=True, exist_ok=True)
        cache = self.root / "cache"  # all studies tokenize the same text
        cache.mkdir(exist_ok=True)
        if not (folder / "cache").exists():
            (folder / "cache").symlink_to(os.path.join("..", "cache"))
        file = folder / "study.yaml"
        _write_if_new(file, yaml.safe_dump(content, sort_keys=False))
        return load_study_config(file)

    def halve(self) -> None:
        """Write the text of the ten datasets."""
        for name in DOMAINS:
            source = self.root / "text" / "data" / name / "train.jsonl"
            lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
            lines.sort(key=lambda line: str(json.loads(line)["id"]))
            middle = len(lines) // 2
            for half, part in (("a", lines[:middle]), ("b", lines[middle:])):
                file = self.root / "text10" / f"{name}-{half}.jsonl"
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
    W = np.stack([references.nearest_weights(row, composition) for row in shares])
    return W, float(0.5 * np.abs(W @ composition - shares).sum(axis=1).max())


def _write_if_new(file: Path, text: str) -> None:
    """Leave a file alone that says the same: what was made from it is still good."""
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def _say(line: str) -> None:
    if not line.endswith("is there already"):
        print(line, flush=True)
