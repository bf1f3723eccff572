"""A study's components: downloaded with what they need, and checked before a worker starts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optuna_demix.config import load_study_config
from optuna_demix.config.space import space_of
from optuna_demix.errors import ComponentError, ConfigError
from optuna_demix.study import build_objective
from optuna_demix.study.components import open_components
from tests.merging.checkpoints.test_adapters import save_adapter
from tests.tiny_study import write_study


def _end_at(eos: int, model: Path) -> None:
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))


def test_the_study_says_where_text_ends(root: Path) -> None:
    _end_at(5, root / "run" / "models" / "math")
    config = load_study_config(root / "study.yaml")
    with pytest.raises(ComponentError, match="'math': .*eos_token_id 5, but 0 in"):
        open_components(config)
    found = []
    for name in ("math", "code"):
        config = load_study_config(write_study(root, merging={"config_of": name}))
        _, fingerprint = build_objective(config, space_of(config), device="cpu")
        found.append(fingerprint["merging"]["generation"])
    assert found == [{"eos_token_id": 5}, {"eos_token_id": 0}]


def test_differences_need_the_base_and_are_in_the_fingerprint(root: Path) -> None:
    def merging(kind: str | None) -> dict[str, Any]:
        config = load_study_config(write_study(root, merging={"delta_dtype": kind}))
        _, fingerprint = build_objective(config, space_of(config), device="cpu")
        return fingerprint["merging"]

    plain = merging(None)
    assert not {"delta_dtype", "base"} & set(plain)
    with pytest.raises(ComponentError, match="base: no directory .*merging.delta_dtype needs"):
        merging("int8")
    models = root / "run" / "models"
    shutil.copytree(models / "code", models / "base")
    one, other = merging("int8"), merging("float8")
    assert (one.pop("delta_dtype"), other.pop("delta_dtype")) == ("int8", "float8")
    assert one == other and one.pop("base") and one == plain


def test_what_differences_cannot_do_is_refused_by_name(root: Path) -> None:
    ties = {"method": "ties", "parameters": {"density": 0.5}, "delta_dtype": "int8"}
    with pytest.raises(ConfigError, match="merging: merge method 'ties' cannot work on .* int8"):
        load_study_config(write_study(root, merging=ties))
    file = write_study(root, proxy="probabilities", merging={"delta_dtype": "int8"})
    with pytest.raises(ConfigError, match="merging.delta_dtype asks for it"):
        load_study_config(file)
    config = load_study_config(write_study(root, proxy="auto", merging={"delta_dtype": "int8"}))
    assert config.resolved_proxy == "merged"


def test_an_unknown_choice_is_refused(root: Path) -> None:
    file = write_study(root, merging={"config_of": "mth"})
    with pytest.raises(ConfigError, match=r"merging.config_of: no component 'mth'; did you mean"):
        load_study_config(file)


@pytest.mark.parametrize("trust", [True, False])
def test_code_is_downloaded_where_it_is_trusted(
    root: Path, monkeypatch: pytest.MonkeyPatch, trust: bool
) -> None:
    asked: list[list[str]] = []

    def download(repository: str, *, allow_patterns: list[str], **_: Any) -> str:
        asked.append(allow_patterns)
        return str(root / "run" / "models" / "prose")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    config = load_study_config(
        write_study(
            root,
            components={"math": {"hub": "some/one", "subfolder": "deep"}},
            scoring={"trust_remote_code": trust},
        )
    )
    (root / "run" / "models" / "prose" / "deep").symlink_to(".")
    open_components(config)
    assert ("deep/*.py" in asked[0]) is trust
    assert "deep/*.tiktoken" in asked[0] and "deep/*.bin" not in asked[0]


def test_an_adapter_is_merged_onto_the_study_s_base(root: Path) -> None:
    import torch

    models = root / "run" / "models"
    pair = {"lora_A": torch.ones(2, 16), "lora_B": torch.ones(16, 2)}
    save_adapter(models / "lora", {"model.layers.0.self_attn.q_proj": pair})
    components = {"prose": {}, "lora": {}}
    config = load_study_config(write_study(root, components=components))
    with pytest.raises(ComponentError, match="base: no directory .*component 'lora' is an adapt"):
        open_components(config)
    shutil.copytree(models / "code", models / "base")
    assert set(open_components(config).names) == {"prose", "lora"}


def test_merging_needs_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from optuna_demix.errors import DemixError\n"
        "from optuna_demix.study.components import require_merging\n"
        "try:\n    require_merging()\nexcept DemixError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "merging needs torch; pip install 'optuna-demix[models]'\n", done.stderr
