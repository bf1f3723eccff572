"""The text, tokenizer and tasks of the quickstart: reproducible, disjoint and well-formed."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from optuna_demix.config import load_study_config
from optuna_demix.quickstart import STUDY_FILE, SourceError, preparation, prepare
from optuna_demix.quickstart.sources import EXCERPTS, Document
from optuna_demix.quickstart.splits import Split, passages, split
from tests.forking import run_forked

pytest.importorskip("lm_eval")

DOMAINS = ("general", "prose", "code", "math", "docs")
CHOICE_DOMAINS = ("general", "code", "math")
TASKS = sorted(path.stem for path in (STUDY_FILE.parent / "tasks").glob("*.yaml"))

pytestmark = pytest.mark.xdist_group("quickstart")  # share the prepared folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quickstart") / "run"
    assert prepare(path, lambda line: None) == path / "study.yaml"
    return path


def lines_of(folder: Path) -> list[str]:
    """Prepare a folder; returns what was reported."""
    lines: list[str] = []
    prepare(folder, lines.append)
    return lines


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts(run_dir: Path, domain: str, part: str) -> list[str]:
    return [row["text"] for row in rows(run_dir / "data" / domain / f"{part}.jsonl")]


def test_second_run_does_nothing(run_dir: Path) -> None:
    before = (run_dir / "prepared.json").stat().st_mtime_ns
    assert "up to date" in lines_of(run_dir)[0]
    assert (run_dir / "prepared.json").stat().st_mtime_ns == before


def test_damage_is_mended_with_the_same_bytes(run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    (copy / "data" / "math" / "train.jsonl").write_text("{}\n")
    (copy / "tokenizer" / "tokenizer.json").unlink()
    # Everything is made anew, by a process with another order of hashes.
    program = "import sys; from pathlib import Path; from optuna_demix.quickstart import prepare; "
    done = run_forked(
        ["python", "-c", f"{program} prepare(Path(sys.argv[1]))", str(copy)],
        cwd=tmp_path,
        environment={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert "are ready" in done.stdout, done.stderr
    first, second = contents(run_dir), contents(copy)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert {path.name for path in copy.iterdir()} == {
        "data",
        "prepared.json",
        "study.yaml",
        "tasks",
        "tokenizer",
    }


def test_a_study_that_was_changed_stays(run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    (copy / "study.yaml").write_text("mine")
    prepare(copy, lambda line: None)
    assert (copy / "study.yaml").read_text() == "mine"


@pytest.mark.parametrize("mine", ["data/thesis.txt", "study.yaml"])
def test_what_others_made_is_left_alone(tmp_path: Path, mine: str) -> None:
    (tmp_path / mine).parent.mkdir(exist_ok=True)
    (tmp_path / mine).write_text("mine")
    with pytest.raises(SourceError, match=f"{Path(mine).parts[0]}: exists, but is not of the qui"):
        prepare(tmp_path, lambda line: None)
    assert list(contents(tmp_path)) == [mine]


def test_interrupted_replacement_is_made_again(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prepared.json").write_text("{}\n")
    shutil.copytree(run_dir / "data", tmp_path / "data")

    def made(folder: Path, report: object) -> None:
        shutil.copytree(run_dir, folder, dirs_exist_ok=True, ignore=lambda *_: ["prepared.json"])

    monkeypatch.setattr(preparation, "_make", made)
    assert "are ready" in lines_of(tmp_path)[0]
    assert contents(tmp_path) == contents(run_dir)


def test_the_study_finds_what_was_prepared(run_dir: Path) -> None:
    config = load_study_config(run_dir / "study.yaml")
    assert config.run_path == run_dir
    assert config.include_paths == [run_dir / "tasks"]
    assert all((run_dir / file).is_file() for d in config.datasets.values() for file in d.files)


@pytest.mark.parametrize("domain", DOMAINS)
def test_train_text_is_of_the_promised_size_and_holds_no_document_twice(
    run_dir: Path, domain: str
) -> None:
    train, heldout = texts(run_dir, domain, "train"), texts(run_dir, domain, "heldout")
    assert 1_000_000 <= sum(map(len, train)) <= 1_100_000
    assert sum(map(len, heldout)) >= 100_000
    assert max(Counter(train + heldout).values()) == 1


@pytest.mark.parametrize("domain", DOMAINS)
def test_passages_are_held_out(run_dir: Path, domain: str) -> None:
    passages = rows(run_dir / "tasks" / "data" / f"quickstart_{domain}_bpb.jsonl")
    train = texts(run_dir, domain, "train")
    trained_lines = {line.strip() for text in train for line in text.split("\n")}
    heldout = "\0".join(texts(run_dir, domain, "heldout"))
    assert len({passage["text"] for passage in passages}) == 24
    for passage in passages:
        text = passage["text"]
        assert 500 <= len(text) <= 900
        assert text in heldout
        assert text not in "\0".join(train)
        long_lines = [line.strip() for line in text.split("\n") if len(line.strip()) >= 40]
        assert trained_lines.isdisjoint(long_lines)


@pytest.mark.parametrize("domain", CHOICE_DOMAINS)
def test_choices(run_dir: Path, domain: str) -> None:
    items = rows(run_dir / "tasks" / "data" / f"quickstart_{domain}_choice.jsonl")
    train = "\0".join(texts(run_dir, domain, "train"))
    # A definition's gloss, a line of code, a theorem: blanks were normalized when they were cut.
    heldout = " ".join(" ".join(texts(run_dir, domain, "heldout")).split())
    assert len(items) == 120
    assert Counter(item["label"] for item in items) == dict.fromkeys(range(4), 30)
    for item in items:
        choices = item["choices"]
        gold = choices[item["label"]]
        assert len(set(choices)) == 4
        # Distractors are reorderings of the true end, so neither length nor tokens betray it.
        assert len({tuple(sorted(choice)) for choice in choices}) == 1
        assert item["context"] + gold not in train
        continued = [" ".join((item["context"].split(": ")[-1] + c).split()) for c in choices]
        assert continued[item["label"]] in heldout
        assert sum(text in heldout for text in continued) == 1


def test_every_task_loads_with_its_data(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import TaskManager

    # lm-eval reads relative data files from the working directory.
    monkeypatch.chdir(run_dir / "tasks")
    manager = TaskManager(include_path=str(run_dir / "tasks"), include_defaults=False)
    assert sorted(manager.all_tasks) == TASKS
    assert set(TASKS) == {f"quickstart_{domain}_bpb" for domain in DOMAINS} | {
        f"quickstart_{domain}_choice" for domain in CHOICE_DOMAINS
    }
    tasks = manager.load(TASKS)["tasks"]
    for name in TASKS:
        docs = list(tasks[name].test_docs())
        items = rows(run_dir / "tasks" / "data" / f"{name}.jsonl")
        assert len(docs) == len(items)
        directions = tasks[name].higher_is_better()
        if name.endswith("_bpb"):
            assert directions == {"bits_per_byte": False}
            assert [tasks[name].doc_to_target(doc) for doc in docs] == [i["text"] for i in items]
        else:
            assert directions == {"acc": True, "acc_norm": True}
            assert [tasks[name].doc_to_text(doc) for doc in docs] == [i["context"] for i in items]
            assert [tasks[name].doc_to_choice(doc) for doc in docs] == [
                i["choices"] for i in items
            ]
            assert [tasks[name].doc_to_target(doc) for doc in docs] == [i["label"] for i in items]


def test_tokenizer_is_small_lossless_and_knows_the_end_of_text(run_dir: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run_dir / "tokenizer")
    assert len(tokenizer) == 1024
    assert tokenizer.eos_token == tokenizer.bos_token == tokenizer.pad_token == "<|endoftext|>"
    for domain in DOMAINS:
        text = "\n\n".join(texts(run_dir, domain, "heldout"))[:40_000]
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        assert tokenizer.eos_token_id not in ids
        assert len(text) / len(ids) > 1.7  # merges were learnt from every domain


def test_notice_names_every_committed_file() -> None:
    notice = (EXCERPTS / "NOTICE").read_text(encoding="utf-8")
    headings = {
        line
        for line, rule in zip(notice.split("\n"), notice.split("\n")[1:], strict=False)
        if rule and set(rule) == {"-"}
    }
    committed = {path for path in EXCERPTS.iterdir() if path.name != "NOTICE"}
    assert headings == {path.name for path in committed}
    assert sum(path.stat().st_size for path in committed) < 2_000_000
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in notice


def test_split_refuses_a_source_that_is_too_small() -> None:
    with pytest.raises(SourceError, match="'code'.*found only 5 of"):
        split("code", [Document("a", "short")])


def test_passages_leave_out_lines_seen_in_training() -> None:
    seen = "a line that is long enough to be recognized when it is met again"
    fresh = "\n".join(f"{number}: {'some other words ' * 4}" for number in range(12))
    parts = Split(
        train=[Document("train", f"one\n    {seen}\ntwo")],
        heldout=[Document("clean", fresh), Document("leaking", f"  {seen}\n{fresh}")],
    )
    assert [passage.id for passage in passages(parts)] == ["clean#0"]
