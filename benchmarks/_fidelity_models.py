"""The models behind ``proxy_fidelity.py``: studies of the quickstart's text, trained and cached.

Each set of models is a study of its own under the run directory, with the tokens, seed and general
share that make it up, and is trained by ``optuna_demix.training`` like any user's: a finished
model is skipped, a half trained one goes on. All continue one base.
"""

from __future__ import annotations

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
from optuna_demix.mixture import MixtureSpace
from optuna_demix.training import TrainedModel, train_study

FloatArray = NDArray[np.float64]

DOMAINS = ("general", "prose", "code", "math", "docs")
BASE_SEED, COMPONENT_SEED, PROXY_SEED = 0, 100, 200  # references have 1, 2, ...
_QUICKSTART = Path(__file__).resolve().parent.parent / "studies" / "quickstart"
_PRIOR = {"general": 0.5, "prose": 0.125, "code": 0.125, "math": 0.125, "docs": 0.125}
_BASE_SHARES = {"general": 0.6, "prose": 0.1, "code": 0.1, "math": 0.1, "docs": 0.1}


@dataclass(frozen=True)
class Sizes:
    """How large the experiment is.

    Attributes:
        base: Tokens of the base.
        reference: Tokens of a reference.
        n_references: Number of mixtures.
        seeds: Training seeds of the references.
        component: Tokens of a component, for each budget.
        chosen: The budget that every comparison outside Table 2 uses.
        proxy: Tokens of a trained proxy, for each budget.
        long: Tokens of components trained beyond the references.
    """

    base: int = 1_600_000
    reference: int = 240_000
    n_references: int = 48
    seeds: tuple[int, ...] = (1, 2)
    component: tuple[int, ...] = (9_600, 48_000, 144_000, 240_000)
    chosen: int = 144_000
    proxy: tuple[int, ...] = (9_600, 19_200, 38_400, 57_600)
    long: tuple[int, ...] = (480_000, 960_000)


QUICK = Sizes(
    base=400_000,
    reference=64_000,
    n_references=12,
    component=(16_000, 64_000),
    chosen=64_000,
    proxy=(8_000, 16_000),
    long=(),
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
        share: float = 0.5,
        learning_rate: float = 3e-3,
    ) -> StudyConfig:
        """A study on the five domains.

        Args:
            key: Its name, which is its directory.
            tokens: Tokens of each of its components and references.
            seed: Of its training.
            share: Share of general data in every component.
            learning_rate: Peak of the cosine schedule.
        """
        fields = {
            "datasets": {
                name: {"files": [f"../text/data/{name}/train.jsonl"]} for name in DOMAINS
            },
            "components": list(DOMAINS),
            "general": {"dataset": "general", "share": share},
            "mixture": {"prior": _PRIOR},
            "capabilities": _capabilities(),
        }
        return self._written(key, fields, tokens, seed, learning_rate)

    def _written(
        self, key: str, fields: Mapping[str, Any], tokens: int, seed: int, learning_rate: float
    ) -> StudyConfig:
        quickstart = yaml.safe_load((_QUICKSTART / "study.yaml").read_text(encoding="utf-8"))
        training = quickstart["training"] | {
            "tokenizer": "../text/tokenizer",
            "seed": seed,
            "component": {"tokens": tokens, "learning_rate": learning_rate, "warmup_ratio": 0.05},
        }
        if key == "base":
            training["base"] |= {"tokens": tokens, "composition": _BASE_SHARES}
        else:
            del training["base"], training["model"]
        content = {
            "run_dir": ".",
            "base": "../base/models/base",
            **fields,
            "scoring": quickstart["scoring"] | {"include_path": "../text/tasks"},
            "training": training,
        }
        folder = self.root / key
        folder.mkdir(parents=True, exist_ok=True)
        cache = self.root / "cache"  # all studies tokenise the same text
        cache.mkdir(exist_ok=True)
        if not (folder / "cache").exists():
            (folder / "cache").symlink_to(os.path.join("..", "cache"))
        file = folder / "study.yaml"
        text = yaml.safe_dump(content, sort_keys=False)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
        return load_study_config(file)

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

    def references(self, key: str, tokens: int, seed: int, shares: FloatArray) -> StudyConfig:
        """A study with a reference trained for each row of data shares (n, D)."""
        study = self.study(key, tokens=tokens, seed=seed)
        mixtures = [dict(zip(study.dataset_names, row.tolist(), strict=True)) for row in shares]
        self.train(study, only=["references"], mixtures=mixtures)
        return study


def sampled_shares(space: MixtureSpace, n: int) -> FloatArray:
    """Data shares (n, D) of mixtures drawn like a search draws them, one generator each."""
    draws = [space.sample(1, np.random.default_rng([11, i]))[0] for i in range(n)]
    return space.data_shares(np.stack(draws))


def _capabilities() -> dict[str, Any]:
    quickstart = yaml.safe_load((_QUICKSTART / "study.yaml").read_text(encoding="utf-8"))
    capabilities: dict[str, Any] = quickstart["capabilities"]
    return capabilities


def _say(line: str) -> None:
    if not line.endswith("is there already"):
        print(line, flush=True)
