"""``optuna-demix init``: from folders to a recommendation, with no line edited by hand."""

from __future__ import annotations

import io
import os
import random
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.cli import main as optuna_main

from optuna_demix.cli import main
from optuna_demix.config import load_study_config
from optuna_demix.errors import DemixError
from tests.tiny_study import COMPONENTS, TEXTS, make_tokenizer, save_model, write_task

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints, data and tasks; copy them, do not change them."""
    home = tmp_path_factory.mktemp("made") / "my home"
    tokenizer = make_tokenizer()
    for seed, name in enumerate(("base", *COMPONENTS)):
        save_model(home / "models" / name, tokenizer, seed=seed)
    (home / "tasks").mkdir()
    for name, text in TEXTS.items():
        write_task(home / "tasks", name, text)
        _write_parquet(home / "data" / name, text.split())
    tokenizer.save_pretrained(home / "tokenizer")
    return home


def _write_parquet(folder: Path, words: list[str]) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rng = random.Random(folder.name)
    folder.mkdir(parents=True)
    for part in range(2):
        texts = [" ".join(rng.choices(words, k=40)) for _ in range(40)]
        table = pa.table({"id": list(range(40)), "content": texts})
        pq.write_table(table, folder / f"part-{part}.parquet")


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, in which the commands are typed."""
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    folder = Path(shutil.copytree(made, tmp_path / made.name))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a command in this process, which has all packages loaded; returns what it says."""
    # Optuna would log all that the whole process does.
    monkeypatch.setattr("optuna.cli._set_verbosity", lambda arguments: None)

    def run(*words: str) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", list(words))  # which Optuna reads
        status = optuna_main() if words[0] == "optuna" else main(words[1:])
        shown = capsys.readouterr()
        assert status == 0, shown.err
        return shown.out + shown.err

    return run


def follow(run: Callable[..., str], shown: str) -> list[str]:
    """Type the commands that were shown, and those that the last one shows, to the end."""
    typed: list[str] = []
    while lines := re.findall(r"^(?:next: | {6})(.*)$", shown, re.MULTILINE):
        for line in lines:
            words = shlex.split(line.replace("--n-trials 64", "--n-trials 4"))
            shown = run(*words)
            typed.append(words[1])
        if "recommend" in typed:
            assert "Recommended mixture of" in shown
            return typed
    return typed


def test_checkpoints_lead_to_a_recommendation(run: Callable[..., str]) -> None:
    options = ["--components", "models", "--include-path", "tasks", "--yes"]
    sizes = ["--budget", "1B", "--tokens", "prose=100M", "code=1B", "math=2e9"]
    shown = run("optuna-demix", "init", *options, *sizes)
    assert main(["check", "study.yaml"]) == 0
    config = load_study_config("study.yaml")
    assert config.base == "models/base" and list(config.components) == sorted(COMPONENTS)
    assert config.datasets["prose"].tokens == 10**8 and config.mixture.max_epochs == 4
    assert list(config.capabilities) == ["general", "code", "math"]
    assert follow(run, shown) == ["create-study", "worker", "recommend"]


def test_parquet_leads_to_a_recommendation(home: Path, run: Callable[..., str]) -> None:
    where = ["--data", "data", "--base", "models/base", "--include-path", "tasks"]
    options = ["--budget", "5k", "--general", "prose", "--component-tokens", "2k", "--yes"]
    shown = run("optuna-demix", "init", "mine.yaml", *where, *options)
    config = load_study_config("mine.yaml")
    assert config.run_dir == "run-mine"  # not that of another study beside it
    assert config.datasets["code"].files == ["data/code"]
    assert config.datasets["code"].text_field == "content"
    assert config.training is not None and config.training.base is None
    assert config.training.component.tokens == 2000 and config.training.sequence_length == 32
    typed = follow(run, shown)
    assert typed == ["train", "create-study", "worker", "recommend"]
    # What the sample has said of the size is near to what was tokenized.
    tokens = _trained_tokens(home)
    for name, dataset in config.datasets.items():
        assert dataset.tokens == pytest.approx(tokens[name], rel=0.1)


def _trained_tokens(home: Path) -> dict[str, int]:
    """Tokens of each dataset: all of its text, an end of text after each document."""
    import pyarrow.parquet as pq

    tokenizer: Any = make_tokenizer()
    return {
        name: sum(
            len(tokenizer(text)["input_ids"]) + 1
            for file in sorted((home / "data" / name).iterdir())
            for text in pq.read_table(file)["content"].to_pylist()
        )
        for name in COMPONENTS
    }


def test_a_base_from_nothing_is_trained_first(run: Callable[..., str]) -> None:
    where = ["--data", "data", "--tokenizer", "tokenizer", "--include-path", "tasks"]
    sizes = ["--parameters", "8k", "--base-tokens", "9k"]
    run("optuna-demix", "init", *where, *sizes, "--yes")
    training = load_study_config("study.yaml").training
    assert training is not None and training.model is not None and training.base is not None
    assert training.model["max_position_embeddings"] == training.sequence_length == 128
    assert training.base.tokens == 9000
    assert main(["check", "study.yaml"]) == 0
    run("optuna-demix", "train", "study.yaml", "--only", "base", "--device", "cpu")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], ["there is no terminal", "--components or --data", "--tasks or --include-path"]),
        (["--yes"], ["init: give --components or --data and --tasks"]),
        (["--data", "data", "--yes"], ["--base (or --tokenizer and --parameters)", "--tasks"]),
        (["--data", "data", "--tokenizer", "x", "--tasks", "a"], ["give --parameters"]),
        (["--components", "nowhere", "--tasks", "a"], ["--components nowhere: no such folder"]),
        (["--components", "tasks", "--tasks", "a"], ["--components tasks: holds no components"]),
        (["--data", "empty", "--base", "models/base", "--tasks", "a"], ["holds no data"]),
        (
            ["--components", "models", "--include-path", "tasks", "--budget", "1T",
             "--tokens", "prose=1B", "code=1B", "math=1B"],
            ["--budget 1 T: the data have 3 B tokens, too few", "--max-epochs"],
        ),
        (
            ["--components", "models", "--include-path", "tasks", "--tokens", "pose=1B"],
            ["--tokens: no dataset 'pose'; did you mean 'prose'"],
        ),
        (
            ["--data", "data", "--base", "models", "--include-path", "tasks"],
            ["--base models: neither model.safetensors"],
        ),
        (
            ["--data", "data", "--base", "models/base", "--include-path", "tasks",
             "--general", "prose", "--budget", "36k"],
            ["cap 0.", "on the share of 'prose'", "lower --budget", "--general none"],
        ),
        (
            ["--data", "data", "--base", "models/base", "--include-path", "tasks",
             "--general", "web"],
            ["--general: no dataset 'web'"],
        ),
        (
            ["--data", "data", "--tokenizer", "tokenizer", "--parameters", "1B",
             "--include-path", "tasks", "--component-tokens", "10"],
            ["trained on 10 tokens, less than one sequence of"],
        ),
        (
            ["--data", "other", "--base", "models/base", "--include-path", "tasks"],
            ["--data other: holds one dataset, and a mixture needs two"],
        ),
        (
            ["--components", "models", "--data", "other", "--include-path", "tasks"],
            ["--data: no dataset is named as a component (code, math, prose)"],
        ),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], named: list[str]
) -> None:
    (home / "empty").mkdir()
    (home / "other").mkdir()
    (home / "other" / "web.jsonl").write_text('{"text": "a text"}\n')
    before = set(os.listdir())
    assert main(["init", *words]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and all(part in shown.err for part in named), shown.err
    assert set(os.listdir()) == before


@pytest.mark.parametrize(
    "words", [["--budget", "much"], ["--tokens", "web"], ["--max-epochs", "0"]]
)
def test_a_value_that_cannot_be_read_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["init", *words])
    assert words[0] in capsys.readouterr().err


def test_nothing_is_overwritten(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (home / "study.yaml", home / "link.yaml"):
        if file.name == "link.yaml":
            file.symlink_to("nowhere.yaml")
        else:
            file.write_text("mine")
        words = ["init", file.name, "--components", "models", "--include-path", "tasks", "--yes"]
        assert main(words) == 2
        assert f"{file.name}: exists already" in capsys.readouterr().err
    assert (home / "study.yaml").read_text() == "mine" and not (home / "nowhere.yaml").exists()


def test_a_file_that_appears_meanwhile_stays(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from optuna_demix.starting import making

    monkeypatch.setattr(making, "_check", lambda config: config.source.write_text("mine"))
    words = ["init", "--components", "models", "--include-path", "tasks", "--yes"]
    assert main(words) == 2
    assert "study.yaml: exists already" in capsys.readouterr().err
    assert (home / "study.yaml").read_text() == "mine"
    assert not [name for name in os.listdir() if name.startswith(".study")]


def _answer(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("optuna_demix.cli.init.is_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_it_asks_for_what_is_missing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["", "nowhere", "data", "models/base"]
    _answer(monkeypatch, *folders, "", "tasks", "lots", "5k", "perhaps", "y")
    assert main(["init", "--component-tokens", "2k"]) == 0
    shown = capsys.readouterr().err
    for said in ("there is no folder nowhere", "is needed", "'lots' is no number", "yes or no"):
        assert said in shown
    config = load_study_config("study.yaml")
    assert config.mixture.budget == 5000 and config.base == "models/base"


def test_it_asks_before_it_writes(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _answer(monkeypatch, "models", "tasks", "", "no")
    assert main(["init"]) == 0
    assert "nothing was written" in capsys.readouterr().out
    _answer(monkeypatch, "models")
    assert main(["init"]) == 2
    assert "the input has ended" in capsys.readouterr().err
    assert not (home / "study.yaml").exists()


def test_code_that_the_model_writes_runs_only_if_somebody_agrees(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / "tasks" / "code.yaml"
    file.write_text(file.read_text() + "unsafe_code: true\n")
    words = ["init", "--components", "models", "--include-path", "tasks"]
    assert main([*words, "--yes"]) == 2
    assert "'tiny_code' runs code that the model writes" in capsys.readouterr().err
    _answer(monkeypatch, "", "yes", "yes")
    assert main(words) == 0
    assert load_study_config("study.yaml").scoring.confirm_run_unsafe_code
    assert main([*words[:1], "b.yaml", *words[1:], "--yes", "--confirm-run-unsafe-code"]) == 0


def test_odd_names_of_folders_lead_to_a_study(home: Path) -> None:
    (home / "models" / "code").rename(home / "models" / "c++: 'old' [1] #x")
    (home / "models" / "math").rename(home / "models" / "größe\n2")
    words = ["init", "out/my study.yaml", "--components", "models", "--include-path", "tasks"]
    (home / "out").mkdir()
    assert main([*words, "--yes"]) == 0
    assert main(["check", "out/my study.yaml"]) == 0
    config = load_study_config("out/my study.yaml")
    assert list(config.components) == ["c++: 'old' [1] #x", "größe_2", "prose"]
    assert config.component_path("größe_2") == home / "models" / "größe\n2"


def test_data_beside_components_say_how_much_there_is(home: Path) -> None:
    for name in ("prose", "code"):  # folders whose names are patterns, and one more dataset
        (home / "data" / name).rename(home / "data" / f"{name}[x]")
        (home / "models" / name).rename(home / "models" / f"{name}[x]")
    words = ["--components", "models", "--data", "data", "--include-path", "tasks"]
    assert main(["init", *words, "--budget", "100k", "--yes"]) == 2  # as they are too small
    assert main(["init", *words, "--budget", "5k", "--yes"]) == 0
    config = load_study_config("study.yaml")
    assert config.training is None and all(data.tokens for data in config.datasets.values())
    assert len(config.dataset_files("code[x]")) >= 1


def test_without_torch_it_says_what_to_install(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise DemixError("merging needs torch")

    monkeypatch.setattr("optuna_demix.study.components.require_merging", missing)
    for where in (["--components", "models"], ["--data", "data", "--base", "models/base"]):
        assert main(["init", *where, "--include-path", "tasks", "--yes"]) == 2
        assert capsys.readouterr().err == "optuna-demix: error: merging needs torch\n"
