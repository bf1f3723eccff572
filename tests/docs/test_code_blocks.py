"""Every block of code in the documents runs, and every command that they name exists.

Python blocks run as programs, shell blocks under ``sh -eu``, and YAML blocks are read as studies,
in a folder with a tiny study behind each file name that they mention. A block whose first line is
a file name in a comment becomes that file. A block of text is what the block above it prints. The
blocks of a page of the manual, and of the README, are done one after another, as a reader does;
those of other documents each for itself. What a block cannot do here is named below with its
reason: a text that is exchanged (`EXCHANGED`), a program that something stands in for
(``tests/programs.py``), or the output of what takes too long (`NOT_RUN`).
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from optuna_demix.cli._main import build_parser
from optuna_demix.config import load_study_config, objective_names, space_of
from optuna_demix.study import sampler_of
from tests import forking
from tests.docs.blocks import Block, blocks_of, read_blocks
from tests.programs import PROGRAMS, ROOT
from tests.tiny_models import LLAMA
from tests.tiny_study import COMPONENTS, make_study, make_tokenizer, write_study

pytest.importorskip("torch")
pytestmark = pytest.mark.xdist_group("docs")  # one folder and one server of programs for all

MANUAL = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = [
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "studies").glob("*/README.md")),
]
DOCUMENTS = [*MANUAL, *OTHERS]
PAGES = {page: blocks for page in MANUAL if (blocks := blocks_of(page, ROOT))}
BLOCKS = [block for document in OTHERS for block in blocks_of(document, ROOT)]

NOT_RUN = {
    ("docs/measured.md", "A run of the quickstart"): "the output of minutes",
}

# Longest first; {database} is a file of the block's own.
EXCHANGED = {
    # No database server and no network here.
    "postgresql://user:password@host/database": "sqlite:///{database}",
    # No GPU here.
    "--device cuda:0": "--device cpu",
    # It takes minutes; tests of its own run it.
    "optuna-demix demo": "optuna-demix demo --help",
    # Whole searches take hours; a few trials go the same way.
    "--n-trials 2000": "--n-trials 4",
    "--n-trials 224": "--n-trials 4",
    "--n-trials 40": "--n-trials 6",
    "n_trials=40": "n_trials=24",
    "n_trials=30": "n_trials=8",
    "n_trials=20": "n_trials=6",
    # Each process imports torch for itself.
    "--n-workers 8": "--n-workers 1",
    "--parallel 8": "--parallel 1",
    # Models are trained for minutes, on long texts; a few steps go the same way.
    "--base-tokens 800k": "--base-tokens 1k",
    "--component-tokens 200k": "--component-tokens 1k",
    "text[:4000]": "text[:400]",
    # lm-eval's own tasks would be downloaded, and data be large.
    "--tasks hellaswag gsm8k humaneval": "--include-path tasks",
    "--budget 100B": "--budget 5k",
}

# What a reader has done before he comes to the block.
BEFORE = {
    "docs/howto/evidence.md": (
        "optuna create-study --study-name mix --directions maximize maximize maximize\n"
        "cat > runs.csv <<END\n"
        "share_prose,share_code,share_math,score/prose,score/code,score/math\n"
        "0.2,0.3,0.5,0.1,0.3,0.2\n0.6,0.2,0.2,0.4,0.1,0.1\n0.1,0.8,0.1,0.2,0.5,0.1\n"
        "0.3,0.3,0.4,0.2,0.3,0.1\nEND"
    ),
    "docs/howto/export.md": (
        "optuna create-study --study-name mix --directions maximize maximize maximize\n"
        "optuna-demix worker STUDY.yaml --study-name mix --n-trials 3 --no-dashboard"
    ),
    "docs/howto/init.md": """\
python - <<END
import json
from pathlib import Path
from tests.tiny_study import COMPONENTS, TEXTS, make_tokenizer, save_model, write_task
for seed, name in enumerate(("base", *COMPONENTS)):
    save_model(Path("models", name), make_tokenizer(), seed=seed)
for folder in ("tasks", "data"):
    Path(folder).mkdir(exist_ok=True)
for name, text in TEXTS.items():
    write_task(Path("tasks"), name, text)
    Path("data", f"{name}.jsonl").write_text((json.dumps({"text": text * 9}) + "\\n") * 40)
END""",
    "docs/howto/results.md": (
        "optuna create-study --study-name mix --directions maximize maximize maximize\n"
        "optuna-demix worker STUDY.yaml --study-name mix --n-trials 6 --no-dashboard"
    ),
}

# What a block that holds this code must print, beside ending well.
PRINTED = {
    "print(recommend(study))": "Recommended mixture of",
    "--study-name mix --verify": "Recommended mixture of 'mix'",
    "--study-name demix-paper \\\n    --verify": "Recommended mixture of 'demix-paper'",
    "list_repo_tree": "Qwen3-1.7B-Mid_pt_pure_mix_code_high/checkpoint-7500\n",
}


@dataclass(frozen=True)
class Desk:
    """Where a reader sits: a folder with studies, and a shell that finds our programs."""

    home: Path
    environment: dict[str, str]

    def run(
        self, script: str, *, database: str, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-eu"],
            input=script,
            cwd=folder or self.home,
            env={**self.environment, "OPTUNA_STORAGE": f"sqlite:///{database}"},
            capture_output=True,
            text=True,
        )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    home = tmp_path_factory.mktemp("home")
    programs = home / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {forking.launcher()} {name} "$@"\n')
        program.chmod(0o755)
    make_home(home)
    environment = {
        **os.environ,
        **forking.ENVIRONMENT,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    return Desk(home, environment)


def make_home(home: Path) -> None:
    """A clone's files, and a tiny study behind each ``study.yaml`` that the documents name."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, home / name)
    capabilities = {
        name: [{"task": f"tiny_{name}", "metric": "bits_per_byte"}] for name in COMPONENTS
    }
    tiny = home / "tiny"
    make_study(tiny, capabilities=capabilities)
    absolute = {
        "capabilities": capabilities,
        "run_dir": str(tiny / "run"),
        "scoring": {"include_path": str(tiny / "tasks"), "batch_size": 4, "max_length": 32},
    }
    for name in ("quickstart", "demix_paper", "mine"):
        (home / "studies" / name).mkdir(parents=True)
    write_study(home, **absolute).rename(home / "STUDY.yaml")
    write_study(home / "studies" / "quickstart", **absolute)
    write_study(home / "studies" / "demix_paper", **absolute)
    make_tokenizer().save_pretrained(tiny / "tokenizer")
    write_study(
        home / "studies" / "mine",
        **{**absolute, "run_dir": "run"},
        datasets={name: {"files": [str(tiny / "text" / f"{name}.jsonl")]} for name in COMPONENTS},
        training={
            "tokenizer": str(tiny / "tokenizer"),
            "model": {"model_type": "llama", **LLAMA},
            "sequence_length": 16,
            "batch_size": 4,
            "base": {"tokens": 640, "learning_rate": 0.01},
            "component": {"tokens": 320, "learning_rate": 0.01},
        },
    )
    text = tiny / "text"
    text.mkdir()
    for name in COMPONENTS:
        rows = (tiny / "tasks" / f"{name}.jsonl").read_text("utf-8").replace('"page"', '"text"')
        (text / f"{name}.jsonl").write_text(rows * 10)
    run = home / "runs" / "quickstart"
    run.mkdir(parents=True)
    (run / "study.db").touch()


def exchanged(text: str, database: str) -> str:
    for old, new in EXCHANGED.items():
        text = text.replace(old, new.format(database=database))
    return text


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_runs(block: Block, desk: Desk) -> None:
    database = f"{block.document}-{block.line}.db".replace("/", "-")
    run_block(block, desk, desk.home, database)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run_one_after_another(
    page: Path, desk: Desk, tmp_path: Path
) -> None:
    folder = tmp_path / "home"
    shutil.copytree(desk.home, folder, ignore=shutil.ignore_patterns("bin", "tiny", "*.db"))
    name = page.relative_to(ROOT).as_posix()
    if name in BEFORE:
        done = desk.run(BEFORE[name], database="mix.db", folder=folder)
        assert done.returncode == 0, done.stderr
    printed = ""
    for block in PAGES[page]:
        if block.place in NOT_RUN:
            continue
        if block.language == "text":
            assert words_of(block.text) == words_of(printed), f"{block} is not what comes out"
        else:
            printed = run_block(block, desk, folder, "mix.db")


@pytest.mark.slow
def test_several_workers_share_a_study(desk: Desk) -> None:
    """What is exchanged for one worker above."""
    script = (
        "optuna create-study --study-name mix --directions maximize maximize maximize\n"
        "optuna-demix worker STUDY.yaml --study-name mix --n-trials 5 --n-workers 2"
    )
    done = desk.run(script, database="several.db")
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="mix", storage=f"sqlite:///{desk.home}/several.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 5
    said = done.stdout + done.stderr
    assert "[worker 0]" in said and "[worker 1]" in said


def words_of(text: str) -> list[str]:
    """What a program prints, without the numbers, which depend on the machine."""
    return re.sub(r"[-+±]*[0-9][-+.e0-9]*|-{2,}", " ", text).split()


def run_block(block: Block, desk: Desk, folder: Path, database: str) -> str:
    """Do what a block says, in a folder; returns what it prints."""
    script = exchanged(block.text, database)
    name = re.match(r"# ([\w/]+\.(?:py|yaml))\n", script)
    file = folder / (name[1] if name else f"block.{block.language}")
    if block.language in ("python", "yaml"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script)
    if block.language == "yaml":
        read_yaml(file, folder)
        return ""
    assert block.language in ("python", "sh"), f"{block} is neither run nor named in NOT_RUN"
    if block.language == "python":
        script = f"python {file.relative_to(folder)}"
    done = desk.run(script, database=database, folder=folder)
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    for code, printed in PRINTED.items():
        assert code not in block.text or printed in done.stdout
    return done.stdout


def read_yaml(file: Path, home: Path) -> None:
    """Read a file as a study; one without components as fields to add to the tiny study."""
    given: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    if "task" in given:
        return  # the study that names it reads it
    if "components" not in given:
        tiny = (home / "studies" / "quickstart" / "study.yaml").read_text("utf-8")
        file.write_text(tiny + file.read_text("utf-8"))
    config = load_study_config(file)
    sampler_of(config, space_of(config))
    assert objective_names(config)


@pytest.mark.parametrize(
    "script",
    [
        "make no-such-target",
        "optuna-dashboard sqlite:///no-study.db",
        "optuna-demix check STUDY.yaml --no-such-option",
        "pip install '.[no-such-extra]'",
        "pip install 'lm-eval[math]==0.1'",
        "python benchmarks/racing.py --no-such-option",
        "python no_such_file.py",
    ],
)
def test_a_wrong_command_fails(script: str, desk: Desk) -> None:
    assert desk.run(script, database="wrong.db").returncode != 0


def test_extras_in_the_text_exist() -> None:
    found = [
        requirement
        for document in DOCUMENTS
        for requirement in re.findall(
            r"pip\s+install\s+'(optuna-demix[^']*)'", document.read_text("utf-8")
        )
    ]
    assert found and not any(PROGRAMS["pip"](["install", requirement]) for requirement in found)


def test_nothing_is_excused_that_is_not_there() -> None:
    blocks = [*BLOCKS, *(block for page in PAGES.values() for block in page)]
    assert set(NOT_RUN) <= {block.place for block in blocks}
    assert set(BEFORE) <= {block.document for block in blocks}
    code = "\n".join(block.text for block in blocks)
    assert [text for text in (*EXCHANGED, *PRINTED) if text not in code] == []


def test_fenced_and_indented_blocks_are_found() -> None:
    text = """\
# Title

```sh
# a comment, no heading

    indented, but fenced
```

## `Second` part

- a list

      python - <<END
      pass

      END

Text
    that goes on.
"""
    fenced, indented = read_blocks("X.md", text)
    assert (fenced.place, fenced.language, fenced.line) == (("X.md", "Title"), "sh", 4)
    assert fenced.text == "# a comment, no heading\n\n    indented, but fenced\n"
    assert indented.place == ("X.md", "Second part")
    assert (indented.language, indented.line) == ("sh", 13)
    assert indented.text == "python - <<END\npass\n\nEND\n"


def commands() -> Iterator[tuple[str, str, set[str]]]:
    """Each ``optuna-demix`` command in a document: where, its name and its options."""
    for document in DOCUMENTS:
        text = document.read_text("utf-8").replace("\\\n", " ")
        for found in re.finditer(r"(?:optuna-demix|-m optuna_demix) ([a-z]+)([^`\n]*)", text):
            yield document.name, found[1], set(re.findall(r"--[a-z-]+", found[2]))


def subparsers() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in build_parser()._actions if isinstance(a.choices, dict))
    return dict(action.choices)  # type: ignore[arg-type]


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    options = {option for action in parser._actions for option in action.option_strings}
    return {option for option in options if option.startswith("--")} - {"--help"}


def test_commands_in_the_text_exist_with_their_options() -> None:
    known = {name: options_of(parser) for name, parser in subparsers().items()}
    found = list(commands())
    assert {name for _, name, _ in found} >= {"check", "train", "worker", "recommend", "serve"}
    assert [use for use in found if use[1] not in known or not use[2] <= known[use[1]]] == []


def test_examples_of_commands_are_valid() -> None:
    """Those that the commands' help and the page of commands show."""
    parser = build_parser()
    lines = [line.strip() for line in help_texts(parser) if "STUDY" not in line]
    examples = [line for line in lines if re.search("optuna[-_]demix ", line)]
    assert len(examples) >= 9
    for line in examples:
        words = shlex.split(line.split("optuna_demix " if "-m" in line else "optuna-demix ")[1])
        assert callable(parser.parse_args(words).run), line


def help_texts(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Each line of the examples below the commands' help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from (command.epilog or "").splitlines()[1:]
                yield from help_texts(command)


def test_variables_of_the_quickstart_are_read() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    text = (ROOT / "studies" / "quickstart" / "README.md").read_text("utf-8")
    variables = re.findall(r"^([A-Z]+)=\S+ make quickstart", text, re.MULTILINE)
    assert variables and all(f"$({name})" in makefile for name in variables)
