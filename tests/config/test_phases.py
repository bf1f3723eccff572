"""Phases and hierarchies in a ``study.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from optuna_demix.config import load_study_config
from optuna_demix.config.space import space_of
from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.mixture import MixtureSpace

HEAD: dict[str, Any] = {
    "capabilities": {"all": [{"task": "piqa", "metric": "acc"}]},
    "datasets": {"web": {"tokens": 8e9}, "code": {"tokens": 1e9}, "math": {"tokens": 4e8}},
    "components": ["web", "code", "math"],
    "general": {"dataset": "web", "share": 0.5},
}
EARLY = {"name": "early", "share": 0.9, "fixed": True, "prior": {"web": 8, "code": 1, "math": 1}}
RUN = {"budget": 1e10, "max_epochs": {"math": 4}}


def space(folder: Path, **fields: Any) -> MixtureSpace:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**HEAD, **fields}, sort_keys=False))
    return space_of(load_study_config(file))


def test_a_late_phase_is_searched_with_the_tokens_of_the_earlier_ones_counted(
    tmp_path: Path,
) -> None:
    late = {"name": "late", "share": 0.1, "upper": {"code": 0.5}}
    late["prior"] = {"web": 1, "code": 1, "math": 2}
    found = space(tmp_path, mixture=RUN, phases=[EARLY, late])
    assert found.components == ("web", "code", "math")
    assert found.prior == pytest.approx([0.25, 0.25, 0.5])
    W = found.sample(200, np.random.default_rng(0))
    run = 0.9 * np.array([0.8, 0.1, 0.1]) + 0.1 * (W @ found.composition)
    assert found.data_shares(W) == pytest.approx(run)
    assert (run[:, 2] <= 0.16 + 1e-9).all() and (W[:, 1] <= 0.5 + 1e-9).all()


def test_an_epoch_cap_of_one_phase_is_of_its_own_tokens(tmp_path: Path) -> None:
    late = {"name": "late", "share": 0.1, "max_epochs": {"math": 1}}
    found = space(tmp_path, mixture={"budget": 1e10}, phases=[EARLY, late], general=None)
    assert found.max_weights()[2] == pytest.approx(0.4)  # 4e8 of 1e9 tokens


def test_phases_with_components_of_their_own_are_searched_together(tmp_path: Path) -> None:
    found = space(
        tmp_path,
        components={
            "web": {},
            "code": {},
            "late_code": {"composition": {"code": 1}},
            "math": {},
        },
        general=None,
        phases=[
            {"name": "early", "share": 0.75, "components": ["web", "code"]},
            {"name": "late", "share": 0.25, "components": ["late_code", "math"]},
        ],
    )
    assert found.components == ("web", "code", "late_code", "math")
    assert found.uniform == pytest.approx([0.375, 0.375, 0.125, 0.125])


def test_a_hierarchy_is_searched_as_one_vector(tmp_path: Path) -> None:
    found = space(
        tmp_path,
        mixture={
            "hierarchy": {
                "text": ["web"],
                "stem": {"sources": ["code", "math"], "upper": 0.3, "source_upper": 0.6},
            }
        },
    )
    W = found.sample(200, np.random.default_rng(0))
    stem = W[:, 1] + W[:, 2]
    assert (stem <= 0.3 + 1e-9).all() and (W[:, 1:] <= 0.6 * stem[:, None] + 1e-9).all()
    assert found.composition[1] == pytest.approx([0.5, 0.5, 0.0])  # the general data is kept


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"phases": [EARLY, {"name": "late", "share": 0.1}], "mixture": {"lower": 0.1}},
            "mixture.lower: the study has phases",
        ),
        (
            {"phases": [{**EARLY, "fixed": False}, {"name": "late", "share": 0.1}]},
            "a merge knows only the mixture of the whole run and not its order",
        ),
        ({"phases": [{**EARLY, "share": 1}]}, "all are fixed"),
        (
            {"phases": [{**EARLY, "prior": None}, {"name": "late", "share": 0.1}]},
            "'early' is fixed; give 'prior'",
        ),
        (
            {"phases": [{**EARLY, "upper": 0.5}, {"name": "late", "share": 0.1}]},
            "so that 'upper' limits nothing",
        ),
        (
            {"phases": [EARLY, {"name": "late", "share": 0.1, "components": ["web", "cod"]}]},
            "did you mean 'code'",
        ),
        (
            {"phases": [EARLY, {"name": "late", "share": 0.1, "components": ["web", "code"]}]},
            "component 'math' is in no phase",
        ),
        (
            {
                "phases": [
                    {"name": "a", "share": 0.5, "components": ["web", "code"]},
                    {"name": "b", "share": 0.5, "components": ["code", "math"]},
                ]
            },
            "component 'code' is in 'a' and 'b'",
        ),
        ({"phases": [EARLY, {"name": "late", "share": 0.2}]}, "sum to 1.1; they must sum to 1"),
        ({"mixture": {"hierarchy": {"a": ["web", "code"]}}}, "no topic has component 'math'"),
        ({"mixture": {"hierarchy": {"a": ["web", "code", "math", "x"]}}}, "'x' is no component"),
        ({"mixture": {"search": "topics"}}, "topics needs topics; give 'hierarchy'"),
    ],
)
def test_mistakes_are_told_with_file_and_field(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        space(tmp_path, **fields)
    assert str(caught.value).startswith(f"{tmp_path / 'study.yaml'}: ")
    assert said in str(caught.value)


def test_a_fixed_phase_that_breaks_a_cap_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConstraintError, match="phases: the fixed phases give 'math' 0.09"):
        space(
            tmp_path,
            mixture={"budget": 1e10, "max_epochs": {"math": 2}},
            phases=[EARLY, {"name": "late", "share": 0.1}],
        )
