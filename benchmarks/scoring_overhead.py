"""What scoring a proxy costs beside its forward passes, and beside lm-eval.

Peers, with the same model, tasks and batch size: ``lm_eval.simple_evaluate`` with model and task
manager kept in memory (no bootstrap, no samples logged), and the ``lm_eval`` command on the model
saved to disk, as published recipes call it for every proxy.

1. The quickstart's tasks on one of its proxies: seconds for a score, share of them outside the
   calls of the model, and whether the scores are equal to the last bit.
2. A task of 1,000 four-choice items cut from the quickstart's text, without and with five worked
   examples, on the quickstart's model: the same, and the path of shared prefixes against HFLM's
   ``loglikelihood``.
3. The same items, fewer of them, on a random Llama of 26 M parameters with a vocabulary of
   32,000, where forward passes weigh what they do in earnest.

Every figure of a process that stays in memory is a median of several rounds, all ways taking
turns, after one round that does not count.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, print_table, provenance, write
from _quickstart import MAX_LENGTH, benchmarks, live_model, run_directory

from optuna_demix.scoring import Benchmark, HarnessScorer

SHOTS = (0, 5)
BATCH_SIZE = 32
CHOICE_LENGTH = 1024  # longest prompt of the four-choice task, in tokens
_COLUMNS = {
    "what": "",
    "way": "",
    "seconds": ".3f",
    "forward": ".3f",
    "overhead_share": ".3f",
    "ratio": ".2f",
    "max_abs_diff": ".1e",
}


@dataclass
class Sizes:
    """How much is run."""

    rounds: int = 5
    items: int = 1000
    big_items: int = 40
    commands: int = 2


QUICK = Sizes(rounds=2, items=120, big_items=8, commands=1)


@dataclass
class Clock:
    """Seconds of one way, call by call, and those inside the model's forward passes."""

    seconds: list[float] = field(default_factory=list)
    forward: list[float] = field(default_factory=list)
    _inside: float = 0.0

    def watch(self, owner: Any, method: str) -> None:
        """Count the time of a method as that of forward passes."""
        call = getattr(owner, method)

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = call(*arguments, **options)
            self._inside += time.perf_counter() - start
            return result

        setattr(owner, method, timed)

    def measure(self, call: Callable[[], Any]) -> Any:
        """Time one call."""
        self._inside = 0.0
        start = time.perf_counter()
        result = call()
        self.seconds.append(time.perf_counter() - start)
        self.forward.append(self._inside)
        return result

    def row(self, what: str, way: str) -> dict[str, Any]:
        """Medians over the calls but the first."""
        seconds, forward = (statistics.median(x[1:] or x) for x in (self.seconds, self.forward))
        row = {"what": what, "way": way, "seconds": round(seconds, 4)}
        if forward:
            shares = [(s - f) / f for s, f in zip(self.seconds[1:], self.forward[1:], strict=True)]
            row |= {
                "forward": round(forward, 4),
                "overhead_share": round(statistics.median(shares), 4),
            }
        return row


def big_model() -> Any:
    """A random Llama: 8 layers of width 512, 32,000 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        vocab_size=32_000,
        max_position_embeddings=CHOICE_LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.05,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def peer_model(model: Any, tokenizer: Any, *, max_length: int) -> Any:
    """lm-eval's model over the same weights."""
    import copy

    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=model,
        tokenizer=copy.deepcopy(tokenizer),
        batch_size=BATCH_SIZE,
        max_length=max_length,
    )


def peer_scores(results: Any, benchmarks: Sequence[Benchmark]) -> dict[str, float]:
    """lm-eval's results by benchmark, higher is better."""
    table = results["results"]
    return {
        b.name: table[b.task][f"{b.metric},none"] * (-1 if b.metric == "bits_per_byte" else 1)
        for b in benchmarks
    }


@contextmanager
def working_directory(folder: Path) -> Iterator[None]:
    """Where lm-eval looks for a task's relative data files."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def quickstart(run: Path, sizes: Sizes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Part 1: rows, and what is concluded from them."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    tasks, wanted = run / "tasks", benchmarks()
    live = live_model(run)
    model, tokenizer = live.model, live.tokenizer
    options: dict[str, Any] = {
        "include_path": tasks,
        "batch_size": BATCH_SIZE,
        "max_length": MAX_LENGTH,
    }
    ours = HarnessScorer(wanted, model, tokenizer, **options)
    fast = HarnessScorer(wanted, model, tokenizer, **options, shared_prefixes=True)
    peer = peer_model(model, tokenizer, max_length=MAX_LENGTH)
    manager = TaskManager(include_defaults=False, include_path=str(tasks))

    def simple_evaluate() -> Any:
        return lm_eval.simple_evaluate(
            peer,
            tasks=[b.task for b in wanted],
            task_manager=manager,
            bootstrap_iters=0,
            log_samples=False,
        )

    clocks = {"ours": Clock(), "ours, shared prefixes": Clock(), "simple_evaluate": Clock()}
    clocks["ours"].watch(ours._lm.passes, "_logits_of")
    clocks["ours, shared prefixes"].watch(fast._lm.passes, "_logits_of")
    clocks["simple_evaluate"].watch(peer, "_model_call")
    with working_directory(tasks):
        for _ in range(1 + sizes.rounds):
            scores = clocks["ours"].measure(ours.score)
            fast_scores = clocks["ours, shared prefixes"].measure(fast.score)
            theirs = peer_scores(clocks["simple_evaluate"].measure(simple_evaluate), wanted)
    command, command_scores = lm_eval_command(model, tokenizer, tasks, wanted, sizes.commands)
    clocks["lm_eval command"] = command
    rows = [clock.row("quickstart tasks", way) for way, clock in clocks.items()]
    for row in rows:
        row["ratio"] = round(row["seconds"] / rows[0]["seconds"], 3)
    return rows, {
        "overhead_share": rows[0]["overhead_share"],
        "log_softmax_share": round(log_softmax_seconds(ours) / rows[0]["forward"], 4),
        "vs_simple_evaluate": rows[2]["ratio"],
        "vs_command": rows[3]["ratio"],
        "scores_equal": scores == theirs == command_scores,
        "fast_scores_differ": max(abs(scores[n] - fast_scores[n]) for n in scores),
    }


def log_softmax_seconds(scorer: HarnessScorer) -> float:
    """Seconds of nothing but the log-softmax of the rows that are read."""
    import torch

    passes = [p for plans in scorer._suite._plans.values() for plan in plans for p in plan.passes]
    rows = sum(len(passed.readout.positions) for passed in passes)
    block = torch.randn(1024, scorer._lm.model.config.vocab_size)
    out = torch.empty_like(block)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        torch.log_softmax(block, -1, out=out)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) * rows / len(block)


def lm_eval_command(
    model: Any, tokenizer: Any, tasks: Path, benchmarks: Sequence[Benchmark], runs: int
) -> tuple[Clock, dict[str, float]]:
    """The published way: save the proxy, start ``lm_eval`` on it; the saving is not timed."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        saved, out = Path(scratch, "proxy"), Path(scratch, "out")
        model.save_pretrained(
            saved, state_dict={k: v.clone() for k, v in model.state_dict().items()}
        )
        tokenizer.save_pretrained(saved)
        command = [
            *(str(Path(sys.executable).with_name("lm_eval")), "run", "--model", "hf"),
            *("--model_args", f"pretrained={saved},max_length={MAX_LENGTH}"),
            *("--tasks", ",".join(b.task for b in benchmarks), "--include_path", str(tasks)),
            *("--batch_size", str(BATCH_SIZE), "--device", "cpu", "--output_path", str(out)),
        ]
        for _ in range(1 + runs):
            clock.measure(
                lambda: subprocess.run(command, cwd=tasks, check=True, capture_output=True)
            )
        newest = max(out.rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
        return clock, peer_scores(json.loads(newest.read_text("utf-8")), benchmarks)


def write_choices(run: Path, folder: Path, count: int) -> None:
    """A task of four-choice items: which words follow these?"""
    texts = []
    for domain in ("prose", "general", "docs"):
        lines = (run / "data" / domain / "train.jsonl").read_text("utf-8").splitlines()
        texts.append(re.findall(r"\S+", " ".join(json.loads(line)["text"] for line in lines)))
    draw = random.Random(0)

    def item(_: int) -> dict[str, Any]:
        words = draw.choice(texts)
        starts = [draw.randrange(len(words) - 40) for _ in range(4)]
        ends = [" ".join(words[s + 20 : s + 20 + draw.randint(3, 6)]) for s in starts]
        label = draw.randrange(4)
        ends[0], ends[label] = ends[label], ends[0]
        return {"context": " ".join(words[starts[0] :][:20]), "choices": ends, "label": label}

    for split, size in (("train", 50), ("test", count)):
        rows = "".join(json.dumps(item(i)) + "\n" for i in range(size))
        (folder / f"{split}.jsonl").write_text(rows, "utf-8")
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "test")}
    (folder / "next_words.yaml").write_text(
        f"""task: next_words
dataset_path: json
dataset_kwargs: {{data_files: {json.dumps(files)}}}
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
""",
        "utf-8",
    )


def choices(
    name: str, model: Any, tokenizer: Any, folder: Path, *, shots: int, limit: int, rounds: int
) -> list[dict[str, Any]]:
    """Parts 2 and 3: ours, plain and with shared prefixes, against ``HFLM.loglikelihood``."""
    options: dict[str, Any] = {
        "include_path": folder,
        "batch_size": BATCH_SIZE,
        "max_length": CHOICE_LENGTH,
        "num_fewshot": shots,
        "limit": limit,
    }
    wanted = [Benchmark("next_words", "acc")]
    ours = HarnessScorer(wanted, model, tokenizer, **options)
    fast = HarnessScorer(wanted, model, tokenizer, **options, shared_prefixes=True)
    peer = peer_model(model, tokenizer, max_length=CHOICE_LENGTH)
    (plan,), (fast_plan,) = (
        ours._suite._plans["loglikelihood"],
        fast._suite._plans["loglikelihood"],
    )
    clocks = {"HFLM.loglikelihood": Clock(), "ours": Clock(), "ours, shared prefixes": Clock()}
    clocks["ours"].watch(ours._lm.passes, "_logits_of")
    clocks["ours, shared prefixes"].watch(fast._lm.passes, "_logits_of")
    clocks["HFLM.loglikelihood"].watch(peer, "_model_call")
    for _ in range(1 + rounds):
        theirs = clocks["HFLM.loglikelihood"].measure(
            lambda: peer.loglikelihood(plan.instances, disable_tqdm=True)
        )
        clocks["ours"].measure(ours.score)
        clocks["ours, shared prefixes"].measure(fast.score)
    import torch

    with torch.inference_mode():
        answers = {
            "ours": ours._lm.answer(plan),
            "ours, shared prefixes": fast._lm.answer(fast_plan),
        }
    what = f"{limit} items, {shots}-shot, {name}"
    rows = []
    for way, clock in clocks.items():
        row = clock.row(what, way) | {"shots": shots, "model": name, "items": limit}
        row["ratio"] = round(rows[0]["seconds"] / row["seconds"], 3) if rows else 1.0
        if way in answers:
            row |= compare(theirs, answers[way])
        rows.append(row)
    return rows


def compare(theirs: list[Any], ours: list[Any]) -> dict[str, Any]:
    """Largest difference of a log-likelihood, and whether all choices and greedy flags agree."""
    a, b = (np.array([likelihood for likelihood, _ in answers]) for answers in (theirs, ours))
    picks = a.reshape(-1, 4).argmax(axis=1) == b.reshape(-1, 4).argmax(axis=1)
    flags = [one[1] == other[1] for one, other in zip(theirs, ours, strict=True)]
    return {
        "max_abs_diff": float(np.abs(a - b).max()),
        "decisions_equal": bool(picks.all() and all(flags)),
    }


def check(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What was aimed at, with the figure reached and the one required."""
    ratios = result["ratios"]
    aims = [
        ("share outside the model, quickstart tasks", result["overhead_share"], "<=", 0.03),
        ("times simple_evaluate, quickstart tasks", ratios["vs_simple_evaluate"], ">=", 2.5),
        ("times the lm_eval command, quickstart tasks", ratios["vs_command"], ">=", 10.0),
        ("shared prefixes: times HFLM, 0-shot", ratios["fast_0shot"], ">=", 2.5),
        ("shared prefixes: times HFLM, 5-shot", ratios["fast_5shot"], ">=", 5.0),
        ("shared prefixes: largest difference", result["fast_max_abs_diff"], "<=", 1e-4),
        ("scores equal (1 = yes)", int(result["scores_equal"]), ">=", 1),
        ("decisions equal (1 = yes)", int(result["fast_decisions_equal"]), ">=", 1),
    ]
    return [
        {
            "target": text,
            "value": value,
            "bound": bound,
            "met": bool(value <= bound if sign == "<=" else value >= bound),
        }
        for text, value, sign, bound in aims
    ]


def main() -> None:
    """Run the benchmark from the command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument(
        "--run", type=Path, required=True, metavar="DIR", help="run_dir of a quickstart"
    )
    arguments.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    options = arguments.parse_args()
    run = run_directory(arguments, options.run)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for the command
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import datasets
    import torch

    torch.set_num_threads(options.threads)
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)
    sizes = QUICK if options.quick else Sizes()
    rows, found = quickstart(run, sizes)
    live = live_model(run)
    with tempfile.TemporaryDirectory() as scratch:
        write_choices(run, Path(scratch), sizes.items)
        for name, chosen, limit, rounds in (
            ("172 k", live.model, sizes.items, 2),
            ("26 M", big_model(), sizes.big_items, 1),
        ):
            for shots in SHOTS:
                rows += choices(
                    name,
                    chosen,
                    live.tokenizer,
                    Path(scratch),
                    shots=shots,
                    limit=limit,
                    rounds=rounds,
                )
    fast = [row for row in rows if "shots" in row and row["way"] == "ours, shared prefixes"]
    result = {
        "overhead_share": found["overhead_share"],
        "ratios": {
            "vs_simple_evaluate": found["vs_simple_evaluate"],
            "vs_command": found["vs_command"],
            **{
                f"fast_{s}shot": min(row["ratio"] for row in fast if row["shots"] == s)
                for s in SHOTS
            },
        },
        "scores_equal": found["scores_equal"],
        "fast_max_abs_diff": max(row["max_abs_diff"] for row in fast),
        "fast_decisions_equal": all(row["decisions_equal"] for row in fast),
        "log_softmax_share": found["log_softmax_share"],
        "fast_scores_differ": found["fast_scores_differ"],
    }
    targets = check(result)
    print_table(rows, _COLUMNS)
    print(f"log-softmax of the rows that are read: {found['log_softmax_share']:.3f} of forward")
    for target in targets:
        verdict = "met   " if target["met"] else "MISSED"
        print(f"{verdict} {target['target']}: {target['value']:.4g}, required {target['bound']:g}")
    about = {**provenance(), "quick": options.quick, "threads": options.threads}
    write(options.out, {**about, **result, "rows": rows, "targets": targets})


if __name__ == "__main__":
    main()
