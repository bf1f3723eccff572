"""What it takes to turn a corpus larger than its memory into tokens.

The corpus is made on the spot: pieces of the Python standard library, in random order, half as
parquet and half as .jsonl.zst, with a byte-level BPE of 32,000 tokens trained on them. Each way
runs in a process of its own, after importing torch and transformers as ``train`` does; its memory
is the resident set of the process and all its children together, looked at ten times a second.

1. Ours on the whole corpus: tokens a second, and peak memory.
2. Ours and ``datasets.map`` with a process a core, the way of transformers' ``run_clm.py``, on a
   part of it. The peer's result is rows of ids, not yet the blocks that training reads.
3. Ours killed in the middle by SIGKILL and started again: tokens that were made twice.

Seconds depend on what else the machine does; seconds of CPU for a million tokens hardly.
"""

from __future__ import annotations

import glob
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _common import parser, print_table, provenance, write

VOCABULARY = 32_000
FILES = 8
_COLUMNS = {
    "what": "",
    "way": "",
    "text_mb": ",.0f",
    "tokens": ",.0f",
    "seconds": ",.1f",
    "tokens_per_second": ",.0f",
    "cpu_seconds_per_million": ".2f",
    "peak_mb": ",.0f",
}


def documents(seed: int) -> Iterator[str]:
    """Pieces of a few thousand characters of the standard library, without end."""
    stdlib = sysconfig.get_paths()["stdlib"]
    texts = []
    for name in sorted(glob.glob(f"{stdlib}/**/*.py", recursive=True)):
        if "site-packages" not in name:
            texts.append(Path(name).read_text("utf-8", errors="ignore"))
    rng = random.Random(seed)
    while True:
        text = rng.choice(texts)
        start = rng.randrange(max(len(text) - 500, 1))
        yield text[start : start + rng.randint(500, 8000)] or "pass"


def make_tokenizer(folder: Path, seed: int) -> None:
    """A byte-level BPE, as GPT-2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    source = documents(seed)
    tokenizer.train_from_iterator((next(source) for _ in range(2000)), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    fast.save_pretrained(folder)


def make_corpus(folder: Path, megabytes: float, seed: int) -> float:
    """Write half of a corpus as parquet and half as .jsonl.zst; returns its megabytes of text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    source, written = documents(seed), 0
    zstd = __import__("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    zstd = zstd.zstd
    for number in range(FILES):
        texts: list[str] = []
        size = 0
        while size < megabytes * 1e6 / FILES:
            texts.append(next(source))
            size += len(texts[-1].encode())
        written += size
        if number % 2:
            table = pa.table({"text": texts, "id": range(len(texts))})
            pq.write_table(table, folder / f"{number}.parquet", row_group_size=10_000)
        else:
            with zstd.open(folder / f"{number}.jsonl.zst", "wt", level=1, encoding="utf-8") as out:
                for text in texts:
                    out.write(json.dumps({"text": text}) + "\n")
    return written / 1e6


def write_study(root: Path, corpus: str) -> Path:
    """A study of one dataset."""
    import yaml

    budget = {"tokens": 1_000_000, "learning_rate": 0.001}
    study = {
        "run_dir": f"run-{corpus}",
        "datasets": {"text": {"files": [corpus]}},
        "components": ["text"],
        "capabilities": {"all": [{"task": "none", "metric": "acc"}]},
        "training": {"tokenizer": "tokenizer", "component": budget},
    }
    file = root / f"{corpus}.yaml"
    file.write_text(yaml.safe_dump(study))
    return file


def ours(study: Path) -> int:
    """Tokenize as ``train`` does."""
    import torch  # noqa: F401
    import transformers  # noqa: F401

    from optuna_demix._progress import Report
    from optuna_demix.config import load_study_config
    from optuna_demix.training._job import Job
    from optuna_demix.training.data.corpus import corpus_of
    from optuna_demix.training.data.tokens import blocks_of
    from optuna_demix.training.data.vocabulary import Vocabulary

    config = load_study_config(study)
    training = config.training
    assert training is not None
    job = Job(config, training, Vocabulary.open(config, training), "cpu", Report(print))
    return blocks_of(job, corpus_of(config, "text")).tokens


def peer(study: Path) -> int:
    """Tokenize as ``run_clm.py`` does, with a process for each core."""
    import datasets
    import torch  # noqa: F401
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(study.parent / "tokenizer")
    folder, cache = study.with_suffix(""), study.parent / "peer-cache"
    total = 0
    for kind, pattern in (("parquet", "*.parquet"), ("json", "*.jsonl.zst")):
        rows = datasets.load_dataset(
            kind, data_files=str(folder / pattern), split="train", cache_dir=str(cache)
        )
        made = rows.map(
            lambda batch: {"input_ids": tokenizer(batch["text"])["input_ids"]},
            batched=True,
            num_proc=os.cpu_count(),
            remove_columns=rows.column_names,
        )
        for batch in made.with_format("arrow").iter(1000):
            ids = batch.column("input_ids")
            total += sum(len(chunk.flatten()) for chunk in ids.chunks) + len(ids)
    return total


def watched(
    way: str, study: Path, *, stop: Callable[[float], bool] | None = None
) -> dict[str, Any]:
    """Run one way in a process of its own, and look at the memory of it and its children."""
    import psutil

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(
            [sys.executable, __file__, "--child", way, str(study)], stdout=out, env=environment
        )
        peak, process = 0, psutil.Process(child.pid)
        while child.poll() is None:
            resident = 0
            for one in [process, *_children(process)]:
                try:
                    resident += one.memory_info().rss
                except psutil.Error:
                    continue
            peak = max(peak, resident)
            if stop is not None and stop(time.perf_counter() - start):
                child.send_signal(signal.SIGKILL)
            time.sleep(0.1)
        seconds = time.perf_counter() - start
        out.seek(0)
        lines = out.read().splitlines()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    row: dict[str, Any] = {"way": way, "seconds": round(seconds, 2), "peak_mb": round(peak / 1e6)}
    if child.returncode == 0:
        facts = json.loads(lines[-1])
        made = facts["tokens"]
        row |= {
            "tokens": made,
            "import_seconds": round(facts["import_seconds"], 2),
            "tokens_per_second": round(made / (seconds - facts["import_seconds"])),
            "cpu_seconds_per_million": round(cpu / made * 1e6, 3),
        }
    elif stop is None:
        raise SystemExit(f"{way}: failed with {child.returncode}")
    return row


def _children(process: Any) -> list[Any]:
    import psutil

    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def resumed(root: Path, study: Path, tokens: int) -> dict[str, Any]:
    """Kill ours when half of its tokens are on the disk, start it again; what is made twice."""
    cache = root / f"run-{study.stem}" / "cache"
    seen: dict[str, int] = {}

    def half(_: float) -> bool:
        for file in cache.glob(".*.saved"):
            try:
                seen["tokens"] = json.loads(file.read_text())["tokens"]
            except (OSError, ValueError, KeyError):
                continue
        for file in cache.glob(".*.new"):
            seen["written"] = file.stat().st_size // 2
        return seen.get("tokens", 0) > tokens // 3

    shutil.rmtree(cache.parent, ignore_errors=True)
    watched("ours", study, stop=half)
    again = watched("ours", study)
    return again | {
        "what": "resumed after SIGKILL",
        "tokens_kept": seen["tokens"],
        "tokens_made_twice": max(seen["written"] - seen["tokens"], 0),
        "tokens_per_second": round(
            (again["tokens"] - seen["tokens"]) / (again["seconds"] - again["import_seconds"])
        ),
    }


def main() -> None:
    """Make the corpora, run each way, print and write the results."""
    options = parser(__doc__ or "")
    options.add_argument("--gigabytes", type=float, default=4.0, help="text of the corpus")
    options.add_argument("--part", type=float, default=0.4, help="gigabytes for the peer")
    options.add_argument("--scratch", type=Path, help="where corpora are made (default: /tmp)")
    options.add_argument("--child", nargs=2, metavar=("WAY", "STUDY"), help="for its own use")
    given = options.parse_args()
    if given.child:
        start = time.perf_counter()
        import datasets  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401

        spent = time.perf_counter() - start
        made = {"ours": ours, "peer": peer}[given.child[0]](Path(given.child[1]))
        print(json.dumps({"tokens": made, "import_seconds": spent}))
        return
    whole, part = (0.04, 0.02) if given.quick else (given.gigabytes, given.part)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        root = Path(folder)
        make_tokenizer(root / "tokenizer", given.seed)
        text = make_corpus(root / "whole", whole * 1000, given.seed)
        rows.append(
            {"what": "whole", "text_mb": text} | watched("ours", write_study(root, "whole"))
        )
        print(rows[-1], flush=True)
        shutil.rmtree(root / "whole")
        shutil.rmtree(root / "run-whole")
        text = make_corpus(root / "part", part * 1000, given.seed + 1)
        study = write_study(root, "part")
        for way in ("ours", "peer"):
            rows.append({"what": "part", "text_mb": text} | watched(way, study))
            print(rows[-1], flush=True)
        if not given.quick:
            rows.append({"text_mb": text} | resumed(root, study, rows[1]["tokens"]))
    print_table(rows, _COLUMNS)
    write(given.out, {**provenance(), "seed": given.seed, "rows": rows})


if __name__ == "__main__":
    main()
