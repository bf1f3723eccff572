"""The paper's setting: its published numbers, its caps, and benchmarks that exist."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from optuna_demix import MixtureSpace
from optuna_demix.config import StudyConfig, load_study_config, mixture_arguments
from optuna_demix.study.search import sampler_of

STUDY = Path(__file__).parents[2] / "studies" / "demix_paper" / "study.yaml"

# Tokens of each dataset as the paper's code has them.
TOKENS = {
    "general_target": 1278,
    "math_very_high": 284,
    "math_high": 69,
    "math_medium": 100,
    "code_very_high": 51,
    "code_high": 141,
    "code_medium": 633,
}
ROUNDING = 1e-6  # of the caps in the file


@pytest.fixture(scope="module")
def config() -> StudyConfig:
    return load_study_config(STUDY)


@pytest.fixture(scope="module")
def space(config: StudyConfig) -> MixtureSpace:
    return MixtureSpace(**mixture_arguments(config))


def published_prior() -> np.ndarray:
    tokens = np.array(list(TOKENS.values()), dtype=float)
    return tokens / tokens.sum()


def test_the_prior_is_the_published_one(space: MixtureSpace) -> None:
    assert space.components == tuple(TOKENS)
    np.testing.assert_allclose(space.prior, published_prior(), rtol=0, atol=1e-12)


def test_caps_are_four_times_the_prior_share_and_never_above(space: MixtureSpace) -> None:
    caps = np.minimum(4 * published_prior(), 1.0)
    np.testing.assert_allclose(space.upper, caps, rtol=0, atol=ROUNDING)
    assert np.all(space.upper <= caps)


def test_samples_keep_the_caps(space: MixtureSpace) -> None:
    w = space.sample(1000, np.random.default_rng(0))  # (1000, 7)
    caps = np.minimum(4 * published_prior(), 1.0)
    assert w.shape == (1000, 7)
    assert np.all(w >= 0)
    assert np.all(w <= caps)
    np.testing.assert_allclose(w.sum(axis=1), 1.0, rtol=0, atol=1e-9)
    # The caps bind: draws that nothing keeps inside would exceed them.
    free = MixtureSpace(list(TOKENS), prior=TOKENS).sample(1000, np.random.default_rng(0))
    assert np.any(free > caps)


def test_the_published_mixture_is_allowed(space: MixtureSpace) -> None:
    # Final mixture of 224 proxies (paper, table 11), in the order of the components.
    published = np.array([0.218, 0.403, 0.002, 0.063, 0.044, 0.176, 0.094])
    assert space.contains(published)
    assert not space.contains(np.roll(published, 1))  # in another order it breaks a cap


def test_half_of_every_component_is_general(config: StudyConfig, space: MixtureSpace) -> None:
    others = 0.5 * np.eye(7)
    others[:, 0] = 0.5
    others[0] = np.eye(7)[0]
    np.testing.assert_array_equal(space.composition, others)
    assert config.general is not None
    assert config.general.dataset == "general_target"


def test_components_are_seven_folders_of_one_pinned_release(config: StudyConfig) -> None:
    folders = []
    for name, component in config.components.items():
        assert (component.hub, component.hub_type) == ("lucius1022/DeMix_Corpora", "dataset")
        assert component.revision is not None and len(component.revision) == 40
        assert component.subfolder is not None
        assert component.subfolder.endswith(f"_{name}/checkpoint-7500")
        folders.append((component.revision, component.subfolder))
    assert len({revision for revision, _ in folders}) == 1
    assert len({folder for _, folder in folders}) == 7


def test_benchmarks_and_schedule_are_the_paper_s(config: StudyConfig, space: MixtureSpace) -> None:
    sizes = {name: len(benchmarks) for name, benchmarks in config.capabilities.items()}
    assert sizes == {"general": 5, "code": 2, "math": 2}
    assert config.sampler.schedule == "demix"
    assert config.sampler.schedule_sizes == (128, 64, 32)
    assert config.merging.dtype == "bfloat16"
    sampler_of(config, space)  # takes every option


def run_check(study: Path) -> subprocess.CompletedProcess[str]:
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "optuna_demix", "check", study],
        env=os.environ | offline,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_check_finds_the_benchmarks_without_a_network() -> None:
    pytest.importorskip("lm_eval")
    done = run_check(STUDY)
    assert done.returncode == 0, done.stderr
    assert "9 benchmarks found" in done.stdout


@pytest.mark.slow
def test_check_refuses_generated_code_unless_confirmed(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    text = STUDY.read_text("utf-8")
    careful = text.replace("confirm_run_unsafe_code: true", "confirm_run_unsafe_code: false")
    assert careful != text
    study = tmp_path / "study.yaml"
    study.write_text(careful, "utf-8")
    done = run_check(study)
    assert done.returncode == 2
    assert "humaneval" in done.stderr
    assert "confirm_run_unsafe_code" in done.stderr
    assert "Traceback" not in done.stderr
