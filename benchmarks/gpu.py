"""What an accelerator does: merges, likelihoods, texts and workers of a 1.7 B model.

Seven components of random numbers in the shape of Qwen3-1.7B, bfloat16. Measured are

- memory: how fast the device reads its own memory, and pinned memory of the host;
- merges: from weights to a proxy, the arena resident on the device and streamed to it, beside the
  traffic that a merge cannot avoid (resident: K models read, one written; streamed: K sent);
- likelihood: tokens of four-choice items a second, plain and packed with shared prefixes;
- texts: tokens written a second, by our own loop and by lm-eval's;
- workers: ``optuna-demix worker`` with a process for each device, on the same components.

It needs torch, this package with ``[models]`` and, for the full size, 35 GB of disk in ``--work``.
``--tiny --device cpu`` runs all of it on anything.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from _common import parser, print_table, provenance, write
from _random_components import random_components

from optuna_demix.merging import Arena, ComponentSet, LiveModel

K = 7
WORDS = 4096
NAMES = [f"component{k}" for k in range(K)]
_COLUMNS = {"what": "", "way": "", "seconds": ".4f", "rate": ".1f", "unit": "", "share": ".3f"}


@dataclass(frozen=True)
class Sizes:
    """How large the model is, and how much is asked of it.

    Attributes:
        model: Fields of the model's configuration.
        buffer: Bytes that are read to measure a bandwidth.
        merges: Merges of each way, after one that does not count.
        items: Four-choice items; ``prefix`` tokens are shared by the choices of one.
        prefix: See there.
        texts: Texts of ``text`` tokens each.
        text: See there.
        rows: Rows of one forward pass.
        trials: Trials of each worker.
    """

    model: dict[str, int]
    buffer: int
    merges: int
    items: int
    prefix: int
    texts: int
    text: int
    rows: int
    trials: int


FULL = Sizes(
    model={
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 4096,
    },
    buffer=4 << 30,
    merges=10,
    items=256,
    prefix=400,
    texts=64,
    text=128,
    rows=32,
    trials=6,
)
TINY = Sizes(
    model={
        "vocab_size": WORDS,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
    },
    buffer=1 << 20,
    merges=2,
    items=4,
    prefix=20,
    texts=4,
    text=8,
    rows=4,
    trials=2,
)


@dataclass(frozen=True)
class Bench:
    """One run.

    Attributes:
        device: What is measured.
        sizes: How much.
        folder: Where components and arena are.
    """

    device: torch.device
    sizes: Sizes
    folder: Path

    def timed(self, call: Callable[[], Any]) -> float:
        """Seconds of a call, until the device has done what it queued."""
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - start

    def median(self, call: Callable[[], Any], n: int) -> float:
        """Median seconds of n calls after one that does not count."""
        seconds = sorted([self.timed(call) for _ in range(n + 1)][1:])
        return seconds[len(seconds) // 2]

    def wait(self) -> None:
        """Until the device has nothing left to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def words() -> Any:
    """A tokenizer of made-up words, one token each."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(["<eos>", "<unk>"])}
    ids |= {f"w{i}": i for i in range(len(ids), WORDS)}
    raw = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", unk_token="<unk>")


def text(draw: random.Random, length: int) -> str:
    """Made-up words."""
    return " ".join(f"w{draw.randrange(2, WORDS)}" for _ in range(length))


def make_arena(bench: Bench) -> tuple[Arena, float]:
    """The arena of components of random numbers, and the seconds that building it took."""
    from transformers import Qwen3Config

    config = Qwen3Config(
        **bench.sizes.model,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
        architectures=["Qwen3ForCausalLM"],
        bos_token_id=0,
        eos_token_id=0,
    )
    models = bench.folder / "run" / "models"
    models.mkdir(parents=True)
    # Two of them are written and the others linked to these: speed does not follow from values.
    paths = random_components(models, config, torch.bfloat16, NAMES, distinct=2)
    for path in paths:
        words().save_pretrained(path)
    start = time.perf_counter()
    components = ComponentSet.open({path.name: path for path in paths})
    arena = Arena.build(components, bench.folder / "run" / "components.arena")
    return arena, time.perf_counter() - start


def memory(bench: Bench) -> list[dict[str, Any]]:
    """Bandwidths that merges cannot exceed."""
    own = torch.ones(bench.sizes.buffer // 4, device=bench.device)
    rows = [_rate("memory", "own", bench.median(own.sum, bench.sizes.merges), own.nbytes)]
    if bench.device.type == "cuda":
        host = torch.ones(bench.sizes.buffer // 4, pin_memory=True)
        seconds = bench.median(lambda: own.copy_(host, non_blocking=True), bench.sizes.merges)
        rows.append(_rate("memory", "from the host, pinned", seconds, host.nbytes))
    return rows


def merges(bench: Bench, arena: Arena, limits: dict[str, float]) -> list[dict[str, Any]]:
    """Merges with the arena on the device, and streamed to it."""
    draw = random.Random(0)
    rows = []
    for resident in (True, False):
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(bench.device)
        start = time.perf_counter()
        live = LiveModel(arena, device=bench.device, resident=resident)
        live.merge([1 / K] * K)
        bench.wait()
        ready = time.perf_counter() - start

        def merge(live: LiveModel = live) -> None:
            weights = [draw.random() for _ in range(K)]
            live.merge([weight / sum(weights) for weight in weights])

        seconds = bench.median(merge, bench.sizes.merges)
        way = "resident" if resident else "streamed"
        moved = arena.nbytes + arena.nbytes // K if resident else arena.nbytes
        row = _rate("merge", way, seconds, moved)
        limit = limits.get("own" if resident else "from the host, pinned")
        if limit:
            row["share"] = row["rate"] / limit
        rows.append(row | {"first_merge_seconds": round(ready, 2), "memory": _memory(bench)})
        del live, merge
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def _rate(what: str, way: str, seconds: float, moved: int) -> dict[str, Any]:
    rate = moved / seconds / 1e9
    return {"what": what, "way": way, "seconds": seconds, "rate": rate, "unit": "GB/s"}


def _memory(bench: Bench) -> int:
    """The most bytes of the device that tensors have held; 0 on a CPU."""
    if bench.device.type != "cuda":
        return 0
    return int(torch.cuda.max_memory_allocated(bench.device))


def likelihood(bench: Bench, live: LiveModel) -> list[dict[str, Any]]:
    """Tokens of four-choice items a second: each choice's whole input counts, shared or not."""
    from lm_eval.api.instance import Instance

    from optuna_demix.scoring.harness import PreparedModel

    draw = random.Random(0)
    asked = []
    for item in range(bench.sizes.items):
        prefix = text(draw, bench.sizes.prefix)
        for choice in range(4):
            arguments = (prefix, " " + text(draw, 8))
            metadata = ("choices", item, 1)
            asked.append(Instance("loglikelihood", {}, arguments, choice, metadata))
    tokens = len(asked) * (bench.sizes.prefix + 8)
    rows = []
    for packs in (False, True):
        prepared = PreparedModel(
            live.model, words(), batch_size=bench.sizes.rows, shared_prefixes=packs
        )
        (plan,) = prepared.prepare("loglikelihood", [asked])
        seconds = bench.median(lambda p=prepared, plan=plan: p.answer(plan), 2)
        way = "packed, shared prefixes" if prepared.packs else "plain"
        rows.append(_tokens("likelihood", way, seconds, tokens))
        rows[-1]["TFLOP/s"] = round(2 * live.arena.n_parameters * tokens / seconds / 1e12, 3)
    return rows


def texts(bench: Bench, live: LiveModel) -> list[dict[str, Any]]:
    """Tokens written a second."""
    from lm_eval.api.instance import Instance

    from optuna_demix.scoring.harness import PreparedModel

    draw = random.Random(0)
    arguments = {"until": ["Question:"], "max_gen_toks": bench.sizes.text}
    asked = [
        Instance(
            "generate_until", {}, (text(draw, bench.sizes.prefix // 2), dict(arguments)), 0,
            ("texts", number, 1),
        )
        for number in range(bench.sizes.texts)
    ]  # fmt: skip
    rows = []
    for generation, way in (("hf", "lm-eval's loop"), ("auto", "own loop")):
        prepared = PreparedModel(
            live.model, words(), batch_size=bench.sizes.rows, generation=generation
        )
        (plan,) = prepared.prepare("generate_until", [asked])
        found: list[str] = []

        def write_texts(prepared: Any = prepared, plan: Any = plan, found: list = found) -> None:
            prepared.weights_changed()
            found[:] = prepared.answer(plan)

        seconds = bench.median(write_texts, 1)
        written = sum(min(len(each.split()) + 1, bench.sizes.text) for each in found)
        rows.append(_tokens("texts", way, seconds, written))
    return rows


def _tokens(what: str, way: str, seconds: float, tokens: int) -> dict[str, Any]:
    rate = tokens / seconds
    return {"what": what, "way": way, "seconds": seconds, "rate": rate, "unit": "tokens/s"}


def workers(bench: Bench) -> list[dict[str, Any]]:
    """``optuna-demix worker`` with a process for each device, start and arena included."""
    import optuna

    file = write_study(bench)
    url = f"sqlite:///{bench.folder / 'study.db'}"
    optuna.create_study(storage=url, study_name="gpu", direction="maximize")
    n_workers = torch.cuda.device_count() if bench.device.type == "cuda" else 1
    n_trials = n_workers * bench.sizes.trials
    command = [
        sys.executable, "-m", "optuna_demix", "worker", str(file), "--storage", url,
        "--study-name", "gpu", "--n-trials", str(n_trials), "--n-workers", str(n_workers),
        "--device", bench.device.type, "--no-progress", "--no-dashboard",
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"a worker ended with status {done.returncode}")
    trials = optuna.load_study(storage=url, study_name="gpu").trials
    starts = [trial.datetime_start.timestamp() for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete]
    way = f"{n_workers} in all, trials alone"
    each = (max(ends) - min(starts)) / len(ends)
    row = {"what": "workers", "way": way, "seconds": each, "rate": 3600 / each}
    return [row | {"unit": "trials/h", "with_start_seconds": round(seconds, 2)}]


def write_study(bench: Bench) -> Path:
    """A study of the components, with one task of made-up words."""
    draw = random.Random(1)
    tasks = bench.folder / "tasks"
    tasks.mkdir()
    lines = [
        json.dumps({"page": text(draw, bench.sizes.prefix)}) for _ in range(bench.sizes.items)
    ]
    (tasks / "pages.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = {
        "task": "made_up_pages",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "pages.jsonl"}},
        "output_type": "loglikelihood_rolling",
        "test_split": "test",
        "doc_to_text": "",
        "doc_to_target": "{{page}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    }
    (tasks / "pages.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    study = {
        "run_dir": "run",
        "proxy": "merged",
        "components": NAMES,
        "objective": "composite",
        "capabilities": {"all": [{"task": "made_up_pages", "metric": "bits_per_byte"}]},
        "scoring": {"include_path": "tasks", "batch_size": bench.sizes.rows, "max_length": 256},
    }
    file = bench.folder / "study.yaml"
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    return file


@contextmanager
def work_folder(parent: Path | None) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix="gpu-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def run(bench: Bench) -> dict[str, Any]:
    """Everything, one part after the other."""
    rows = memory(bench)
    limits = {row["way"]: row["rate"] for row in rows}
    arena, built = make_arena(bench)
    rows += merges(bench, arena, limits)
    live = LiveModel(arena, device=bench.device)
    live.merge([1 / K] * K)
    with torch.inference_mode():
        rows += likelihood(bench, live)
        rows += texts(bench, live)
    facts = {
        "parameters": arena.n_parameters,
        "arena_bytes": arena.nbytes,
        "build_seconds": round(built, 2),
    }
    del live, arena
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()  # the workers need the room
    rows += workers(bench)
    return facts | {"rows": rows}


def _device(given: argparse.Namespace, arguments: argparse.ArgumentParser) -> torch.device:
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        arguments.error("--device cuda: torch sees no CUDA device; try --device cpu --tiny")
    return device


def main() -> None:
    """Run the benchmark from the command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--device", default="cuda", help="cuda (default) or cpu")
    arguments.add_argument("--tiny", action="store_true", help="a tiny model, in a minute")
    arguments.add_argument("--work", type=Path, metavar="DIR", help="where components are written")
    given = arguments.parse_args()
    device = _device(given, arguments)
    start = time.perf_counter()
    with work_folder(given.work) as folder:
        found = run(Bench(device, TINY if given.tiny or given.quick else FULL, folder))
    about = {
        **provenance(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cuda": torch.version.cuda,
        "tiny": given.tiny or given.quick,
        "seconds": round(time.perf_counter() - start, 1),
    }
    print_table(found["rows"], _COLUMNS)
    write(given.out, {**about, "components": K, **found})


if __name__ == "__main__":
    main()
