"""How far off is the bill of ``optuna-demix check --bill``?

The bill is a roofline with stated shares of a GPU's peaks. Here the "GPU" is one core of this
machine: its peaks are measured (a large product of float32 matrices, a sum of two large arrays,
a pass of one token through many narrow layers), the stated shares are left as they are, and the
bill of three studies is compared with what a worker and a training run really take. Times are
CPU seconds of one thread, which other processes on the machine disturb less than the clock.

1. ``quickstart``: the quickstart's tasks, five components of its size (172 k parameters).
2. ``larger``: some of their items with 25 M parameters, where arithmetic weighs more.
3. ``texts``: texts of up to 64 tokens from passages, with 25 M parameters.
4. ``training``: a base of either size, with float32 as everywhere here.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from _common import parser, print_table, provenance, quiet, write

os.environ["OMP_NUM_THREADS"] = "1"

COMPONENTS = ("general", "prose", "code", "math", "docs")
MODELS: dict[str, dict[str, Any]] = {
    "172 k": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2},
    "25 M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8},
}
FIELDS = {
    "model_type": "llama",
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
_COLUMNS = {"what": "", "model": "", "predicted": ".3f", "real": ".3f", "ratio": ".2f"}


def seconds_of(call: Callable[[], Any], rounds: int) -> float:
    """The least CPU seconds of a call."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def measure_peaks(rounds: int) -> dict[str, float]:
    """FLOP/s, bytes a second and seconds to start a layer, of one core."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    n, m = 1024, 1 << 24
    a, b = torch.rand(n, n), torch.rand(n, n)
    x, y, out = torch.rand(m), torch.rand(m), torch.empty(m)
    fields = {**FIELDS, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 32}
    narrow = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**{**fields, "vocab_size": 16})
    ).eval()
    token = torch.zeros(1, 1, dtype=torch.long)
    with torch.inference_mode():
        return {
            "flops": 2 * n**3 / seconds_of(lambda: a @ b, 3 * rounds),
            "bandwidth": 3 * 4 * m / seconds_of(lambda: torch.add(x, y, out=out), rounds),
            "launch": seconds_of(lambda: narrow(token), 3 * rounds) / 32,
        }


def make_study(folder: Path, model: Mapping[str, Any], *, texts: int, limit: int | None) -> Path:
    """The quickstart with components of random numbers, or with texts as its only benchmark."""
    import torch
    from _random_components import random_components
    from transformers import AutoConfig, AutoTokenizer

    from optuna_demix.quickstart import prepare

    study = yaml.safe_load(prepare(folder, report=lambda line: None).read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    config = AutoConfig.for_model(
        **{**FIELDS, **model, "vocab_size": len(tokenizer), "bos_token_id": None},
        eos_token_id=tokenizer.eos_token_id,
    )
    (folder / "models").mkdir()
    for path in random_components(folder / "models", config, torch.float32, COMPONENTS):
        tokenizer.save_pretrained(path)
    training = {**study.pop("training"), "model": {**FIELDS, **model}}
    if texts:
        write_texts(folder / "tasks", texts)
        study["capabilities"] = {"all": [{"task": "texts", "metric": "exact_match"}]}
    study |= {"proxy": "merged", "training": training}
    study["scoring"] |= {} if limit is None else {"limit": limit}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder / "study.yaml"


def write_texts(folder: Path, count: int) -> None:
    """A task that goes on with passages."""
    (source,) = folder.glob("data/*prose_bpb*")
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    passages = [row["text"][:150] for row in rows][:count]
    lines = [json.dumps({"text": passage, "answer": "none"}) for passage in passages]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    task = {
        "task": "texts",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "texts.jsonl"}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["<never>"], "max_gen_toks": 64},
        "metric_list": [{"metric": "exact_match"}],
    }
    (folder / "texts.yaml").write_text(yaml.safe_dump(task))


@contextmanager
def clocked(owner: Any, method: str) -> Iterator[list[tuple[float, float]]]:
    """CPU seconds at which each call of a method began and ended."""
    call, seen = getattr(owner, method), []

    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        result = call(*arguments, **options)
        seen.append((start, time.process_time()))
        return result

    with mock.patch.object(owner, method, timed):
        yield seen


def real_trial(study: Path, n_trials: int) -> float:
    """CPU seconds from one trial of a worker to the next, sampler and database included."""
    import optuna

    from optuna_demix.config import load_study_config
    from optuna_demix.config.study import objective_names
    from optuna_demix.search.objective import MixtureObjective
    from optuna_demix.workers import run_worker

    config = load_study_config(study)
    storage = f"sqlite:///{study.parent / 'mix.db'}"
    optuna.create_study(
        storage=storage,
        study_name="mix",
        directions=["maximize"] * len(objective_names(config)),
    )
    with clocked(MixtureObjective, "__call__") as seen:
        run_worker(
            config,
            storage=storage,
            study_name="mix",
            n_trials=n_trials,
            device="cpu",
            dashboard=False,
            progress=False,
        )
    starts = [start for start, _ in seen][1:]  # the first trial warms up
    return statistics.median(b - a for a, b in zip(starts, starts[1:], strict=False))


def real_training(study: Path, tokens: int) -> float:
    """CPU seconds of the training loop of a base."""
    from transformers import Trainer

    from optuna_demix.config import load_study_config
    from optuna_demix.training import train_study

    given = yaml.safe_load(study.read_text())
    given["run_dir"] = "trained"
    given["training"]["base"]["tokens"] = tokens
    other = study.with_name("training.yaml")
    other.write_text(yaml.safe_dump(given))
    with clocked(Trainer, "train") as seen:
        train_study(
            load_study_config(other),
            only=["base"],
            device="cpu",
            progress=False,
            report=lambda line: None,
        )
    ((start, end),) = seen
    return end - start


def measure(
    machine: tuple[Any, Any], name: str, model: str, folder: Path, *, quick: bool
) -> Iterator[dict[str, Any]]:
    """Predicted and real seconds of a study's trial and, where it has no texts, its base."""
    from optuna_demix.bill import estimate_bill
    from optuna_demix.config import load_study_config
    from optuna_demix.study.components import check_components

    gpu, assumed = machine
    texts = (8 if quick else 32) if name == "texts" else 0
    limit = 5 if name == "larger" else None
    study = make_study(folder, MODELS[model], texts=texts, limit=limit)
    config = load_study_config(study)
    bill = estimate_bill(config, gpu, assumed=assumed, components=check_components(config))
    assert bill.trial is not None and bill.shape is not None
    assert not bill.uncounted and not bill.notes
    real = real_trial(study, 4 if quick else 8)
    trial = {f"predicted_{part}": getattr(bill.trial, part) for part in ("merge", "host")}
    yield row(f"a trial: {name}", model, bill.trial.seconds, real) | trial
    if texts:
        return
    tokens = (40_000 if quick else 200_000) if model == "172 k" else (8_000 if quick else 40_000)
    (base,) = (run for run in bill.runs if run.kind == "base")
    steps = round(tokens / (base.batch * base.length))
    from dataclasses import replace

    predicted = replace(base, steps=steps, done=False).seconds(bill.shape, bill.machine)
    yield row("training a base", model, predicted, real_training(study, tokens))


def row(what: str, model: str, predicted: float, real: float) -> dict[str, Any]:
    """A line of the table."""
    return {
        "what": what,
        "model": model,
        "predicted": predicted,
        "real": real,
        "ratio": predicted / real,
    }


def main() -> int:
    """Measure, print and write."""
    arguments = parser(__doc__.partition("\n")[0]).parse_args()
    quiet()
    from optuna_demix.bill import Assumptions, Gpu

    peaks = measure_peaks(3 if arguments.quick else 10)
    gpu = Gpu("a core", peaks["flops"], peaks["flops"], peaks["bandwidth"], 1e12, 1e12, "measured")
    machine = (gpu, Assumptions(launch=peaks["launch"]))
    print(
        f"one core: {peaks['flops'] / 1e9:.1f} GFLOP/s, {peaks['bandwidth'] / 1e9:.1f} GB/s, "
        f"{1e3 * peaks['launch']:.2f} ms to start a layer"
    )
    rows = []
    for name, model in (("quickstart", "172 k"), ("larger", "25 M"), ("texts", "25 M")):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "study")
            rows += measure(machine, name, model, folder, quick=arguments.quick)
    print_table(rows, _COLUMNS)
    write(
        arguments.out,
        {
            **provenance(),
            "quick": arguments.quick,
            "peaks": peaks,
            "assumed": vars(machine[1]),
            "rows": rows,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
