from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from optuna_demix.cli._main import main
from optuna_demix.errors import ConfigError, InputError
from optuna_demix.training.trainers import TRAINERS, write_plan
from optuna_demix.training.trainers.planning import slug_of
from tests.training.samples import WORDS, Make
from tests.training.trainers.samples import (
    READS_TEXT,
    READS_TOKENS,
    in_format,
    plan,
    write_tokens,
)

pytest.importorskip("torch")
pytest.importorskip("transformers")

SLUGS = ["base", "component_web", "component_code", "component_math", "reference_0"]
ENDS = {
    "torchtitan": ".py",
    "megatron": ".args",
    "megatron-bridge": ".py",
    "olmo-core": ".py",
    "nanotron": ".yaml",
    "llm-foundry": ".yaml",
    "hf": ".json",
}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_run_has_a_configuration_and_a_line(trainer: str, make: Make) -> None:
    config = make()
    folder = plan(config, trainer, references=1)
    assert folder == config.run_path / "plan" / trainer
    lines = (folder / "launch.sh").read_text().splitlines()
    assert lines[-5:] == [f"bash {slug}.sh" for slug in SLUGS]
    for slug, name in zip(SLUGS, ["base", *WORDS, "references/0"], strict=True):
        script = (folder / f"{slug}.sh").read_text()
        start = folder / "start" if slug == "base" else config.base_path
        assert str(start) in script  # where it starts from
        assert str(config.run_path / "models" / name) in script  # where its result shall lie
        assert (folder / f"{slug}{ENDS[trainer]}").stat().st_size
        subprocess.run(["bash", "-n", str(folder / f"{slug}.sh")], check=True)
        if ENDS[trainer] == ".py":
            file = folder / f"{slug}.py"
            compile(file.read_text(), str(file), "exec")
    assert json.loads((folder / "model" / "config.json").read_text())["vocab_size"] == 15


@pytest.mark.parametrize("trainer", READS_TOKENS)
def test_tokenized_data_must_be_given(trainer: str, make: Make) -> None:
    config = make()
    with pytest.raises(InputError, match="give --data web=PATH, or --paths"):
        plan(config, trainer, paths=None)
    assert not config.run_path.exists()  # nothing half written
    plan(config, trainer, paths=None, data={name: f"/data/{name}" for name in WORDS})


@pytest.mark.parametrize("trainer", READS_TOKENS)
def test_the_study_s_files_are_taken_where_they_are_of_the_format(
    trainer: str, make: Make
) -> None:
    home = make().source.parent
    for name in WORDS:
        write_tokens(home, trainer, name, 64)
    folder = plan(make(changes=in_format(trainer)), trainer, paths=None)
    written = "".join(
        file.read_text() for file in folder.iterdir() if file.name.startswith("component_code.")
    )
    assert str(home / "code") in written
    assert str(home / "web") in written  # the general data
    assert str(home / "math") not in written


def test_files_of_one_dataset_share_its_part_by_size(make: Make) -> None:
    home = make().source.parent
    changes = in_format("megatron")
    for name in WORDS:
        write_tokens(home, "megatron", name, 100)
    write_tokens(home, "megatron", "more", 300)
    changes["datasets.code.files"] = ["code.bin", "more.bin"]
    folder = plan(make(changes=changes), "megatron", paths=None)
    words = (folder / "component_code.blend").read_text().split()
    blend = {Path(path).name: float(w) for w, path in zip(words[::2], words[1::2], strict=True)}
    assert blend == {"web": 0.25, "code": 0.1875, "more": 0.5625}


def test_arrays_with_a_header_are_no_raw_tokens(make: Make) -> None:
    """OLMo-core would read the header as tokens."""
    import numpy as np

    home = make().source.parent
    for name in WORDS:
        np.save(home / f"{name}.npy", np.arange(64, dtype="<u2"))
    with pytest.raises(InputError, match=r"raw tokens, \.npy without a header"):
        plan(make(changes=in_format("olmo-core")), "olmo-core", paths=None)


@pytest.mark.parametrize("trainer", READS_TEXT)
def test_texts_are_streamed_by_their_builder(trainer: str, make: Make) -> None:
    home = make().source.parent
    (home / "web.txt").write_text("a document\nof two lines")
    changes: dict[str, Any] = {
        "datasets.web.files": ["web.txt"],
        "datasets.code.template": "{title}: {body}",
    }
    folder = plan(make(changes=changes), trainer)
    code = (folder / f"component_code{ENDS[trainer]}").read_text()
    assert "sample_by" in code
    assert str(home / "web.txt") in code
    assert "{title}: {body}" in code
    with pytest.raises(InputError, match="texts of one format"):
        plan(make(changes={"datasets.web.files": ["web.txt", "web.jsonl"]}), trainer)


def test_budgets_become_settings(make: Make) -> None:
    folder = plan(make(), "hf", gpus=2, micro_batch=2)
    content = json.loads((folder / "component_math.json").read_text())
    arguments = content["arguments"]
    assert {name: source["share"] for name, source in content["sources"].items()} == {
        "web": 0.25,
        "math": 0.75,
    }
    assert (arguments["max_steps"], arguments["warmup_steps"]) == (9, 1)
    assert arguments["learning_rate"] == 0.001
    assert arguments["lr_scheduler_kwargs"] == {"min_lr_rate": 0.2}
    assert arguments["per_device_train_batch_size"] == 2
    assert arguments["gradient_accumulation_steps"] == 1
    assert arguments["save_steps"] == 3


def test_a_late_decay_is_written(make: Make) -> None:
    changes = {"training.component.schedule": "wsd", "training.component.decay_ratio": 0.33}
    scheduler = yaml.safe_load(
        (plan(make(changes=changes), "nanotron") / "component_web.yaml").read_text()
    )["optimizer"]["learning_rate_scheduler"]
    assert scheduler["lr_decay_style"] == "1-sqrt"
    assert (scheduler["lr_decay_starting_step"], scheduler["lr_decay_steps"]) == (6, 3)
    arguments = (plan(make(changes=changes), "megatron") / "component_web.args").read_text()
    assert "--lr-decay-style WSD\n" in arguments
    assert "--lr-wsd-decay-iters 3\n" in arguments


def test_an_edited_file_is_kept(make: Make) -> None:
    config = make()
    folder = plan(config, "hf", references=1)
    plan(config, "hf", references=1)  # the same again
    edited = folder / "component_web.json"
    edited.write_text("mine")
    with pytest.raises(InputError, match=r"component_web.json: is not as a plan wrote it"):
        plan(config, "hf")
    assert (folder / "reference_0.json").exists()  # nothing was touched
    plan(config, "hf", force=True)
    assert edited.read_text() != "mine"
    assert not (folder / "reference_0.json").exists()  # no longer planned


def test_another_s_file_is_kept(make: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.py").write_text("mine")
    with pytest.raises(InputError, match="train.py: is not as a plan wrote it"):
        plan(make(), "hf", out=tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["train.py"]


def test_names_of_files_are_plain_and_differ() -> None:
    names = ["a b", "a_b", "a-b", "a_20_b", "größe", "references/1", "base"]
    slugs = [slug_of(name, is_base=False) for name in names] + [slug_of("base", is_base=True)]
    assert len(set(slugs)) == len(slugs)
    assert all(slug.isidentifier() and slug.isascii() for slug in slugs)


@pytest.mark.parametrize(
    ("trainer", "changes", "options", "message"),
    [
        ("tichtan", {}, {}, "--for: no trainer 'tichtan'; did you mean 'torchtitan'"),
        ("hf", {"training": None}, {}, "training: is missing"),
        ("hf", {"training.base": None}, {}, "base: there is no checkpoint in"),
        ("hf", {}, {"data": {"wbe": "x"}}, "--data: no dataset 'wbe'; did you mean 'web'"),
        ("hf", {}, {"paths": "/data"}, "write .dataset. where"),
        ("hf", {}, {"gpus": 3}, "4 sequences cannot be shared by 3 GPUs in micro-batches of 1"),
        ("hf", {"datasets.web.files": []}, {}, "files of .*study.yaml names no text"),
        ("hf", {"training.component.tokens": 3}, {}, "3 tokens are less than one step"),
        ("nanotron", {"training.model.model_type": "qwen3"}, {}, "models of type llama, not qwe"),
        ("megatron", {"training.model.attention_bias": True}, {}, "biases of attention"),
        (
            "olmo-core",
            {"training.component.schedule": "wsd"},
            {},
            "component.schedule: OLMo-core has none",
        ),
        (
            "hf",
            {
                "training.component.schedule": "wsd",
                "training.component.decay_ratio": 0.5,
                "training.component.average": 2,
            },
            {},
            "component.average: other trainers take no mean",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(
    trainer: str, changes: dict[str, Any], options: dict[str, Any], message: str, make: Make
) -> None:
    config = make(changes=changes)
    with pytest.raises((ConfigError, InputError)) as caught:
        plan(config, trainer, **options)
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)
    assert not config.run_path.exists()


def test_components_that_are_given_are_left_out(make: Make, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    components = {"web": {"path": str(tmp_path / "there")}, "code": {}}
    lines: list[str] = []
    folder = write_plan(make(changes={"components": components}), "hf", report=lines.append)
    assert "web: is given by hub or path; nothing to train" in lines
    assert not (folder / "component_web.sh").exists()


def test_the_command_says_what_comes_next(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    config = make()
    assert main(["plan", str(config.source), "--for", "hf"]) == 0
    said = capsys.readouterr()
    assert "code: 9 steps, 25.00% web, 75.00% code" in said.out
    assert f"bash {config.run_path}/plan/hf/launch.sh" in said.err
    assert "check" in said.err
    assert main(["plan", str(config.source), "--for", "megatron", "--data", "web"]) == 2
    assert "--data 'web' is not NAME=PATH" in capsys.readouterr().err


def test_an_existing_base_needs_no_start(make: Make) -> None:
    config = make()
    folder = plan(config, "hf")
    shutil.copytree(folder / "model", config.base_path)  # a config.json is all that is read
    config = make(changes={"training.base": None, "training.model": None})
    folder = plan(config, "hf")
    assert not (folder / "start.py").exists()
    assert not (folder / "base.sh").exists()
    content = json.loads((folder / "component_web.json").read_text())
    assert content["start"] == str(config.base_path)
