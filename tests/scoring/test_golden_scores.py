"""Scores stay what they were, or ``SCORING_VERSION`` is raised."""

from __future__ import annotations

import json

import pytest

from optuna_demix.study.fingerprint import SCORING_VERSION
from tests.scoring import golden_scores as golden

pytestmark = pytest.mark.xdist_group("scoring")


def test_the_stored_scores_are_of_this_version():
    stored = golden.read()["versions"]["scoring"]
    assert stored == SCORING_VERSION, f"SCORING_VERSION was raised: run '{golden.COMMAND}'"


def test_scores_are_those_stored(tmp_path):
    stored = golden.read()
    changed = golden.differences(stored["scores"], golden.compute(tmp_path))
    assert not changed, "\n".join([*changed, golden.remedy(stored["versions"])])


def test_the_file_is_not_rewritten_with_other_scores_under_one_version(
    tmp_path, monkeypatch, capsys
):
    stored = golden.read()
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(stored))
    monkeypatch.setattr(golden, "FILE", file)
    monkeypatch.setattr(golden, "code_versions", lambda: stored["versions"])

    def computed(scores):
        monkeypatch.setattr(golden, "compute", lambda folder: scores)
        return golden.main()

    changed = json.loads(json.dumps(stored["scores"]))
    changed["ties"]["prose/bits_per_byte"] *= 1 + 1e-4
    assert computed(changed) == 1
    assert golden.read() == stored
    assert "raise SCORING_VERSION" in capsys.readouterr().err
    assert computed({**stored["scores"], "a new method": {"prose/bits_per_byte": -1.0}}) == 0
    assert "a new method" in golden.read()["scores"]
    raised = {**stored["versions"], "scoring": stored["versions"]["scoring"] + 1}
    monkeypatch.setattr(golden, "code_versions", lambda: raised)
    assert computed(changed) == 0
    assert golden.read() == {"versions": raised, "scores": changed}
