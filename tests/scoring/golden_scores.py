"""Scores of fixed models on fixed tasks, and the file that keeps them.

``SCORING_VERSION`` tells studies whether they may go on: it must be raised whenever a change of
our code changes a score. The file ``golden_scores.json`` holds scores of every merge method with
the version that gave them. To write it anew::

    python -m tests.scoring.golden_scores
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from optuna_demix.merging import METHODS, Arena, ComponentSet, LiveModel, find_method
from optuna_demix.scoring import Benchmark, HarnessScorer
from optuna_demix.study.fingerprint import code_versions
from tests.tiny_models import llama_config, word_tokenizer

FILE = Path(__file__).with_name("golden_scores.json")
COMMAND = "python -m tests.scoring.golden_scores"
TOLERANCE = 1e-5
"""Relative. Other vector instructions and numbers of threads add float32 in other orders, which
moves these scores by 3e-7. Two merge methods that nearly agree, multislerp and karcher, are 1e-4
apart."""

Scores: TypeAlias = dict[str, dict[str, float]]
"""By what was merged and how it was scored, then by benchmark."""

COMPONENTS = ("web", "code", "math")
WEIGHTS = (0.5, 0.3, 0.2)
PARAMETERS: dict[str, dict[str, float]] = {
    "ties": {"density": 0.5},
    "dare_linear": {"density": 0.5},
    "dare_ties": {"density": 0.5},
    "breadcrumbs": {"density": 0.5},
    "della": {"density": 0.5},
}
WORDS = (
    "the a of and to in is was on for with river stone light green old small house tree bird "
    "water road night day hand moon cold long wide deep under over three seven eleven"
).split()
SPECIAL = ["<unk>", "<eos>"]
ANSWERS = ("river", "stone", "light")

TASKS = {
    "prose": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - {metric: bits_per_byte}
  - {metric: word_perplexity}
""",
    "choice": """
output_type: multiple_choice
training_split: train
doc_to_text: "{{text}}"
doc_to_target: gold
doc_to_choice: "{{choices}}"
metric_list:
  - {metric: acc}
  - {metric: acc_norm}
""",
    "cloze": """
output_type: loglikelihood
doc_to_text: "{{text}}"
doc_to_target: "{{' ' + answer}}"
metric_list:
  - {metric: perplexity}
  - {metric: acc}
""",
    "say": f"""
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [" the"], max_gen_toks: 12, do_sample: false}}
metric_list:
  - {{metric: exact_match}}
filter_list:
  - name: first
    filter: [{{function: regex, regex_pattern: "({"|".join(ANSWERS)})"}}, {{function: take_first}}]
""",
}
BENCHMARKS = (
    Benchmark("prose", "bits_per_byte"),
    Benchmark("prose", "word_perplexity"),
    Benchmark("choice", "acc"),
    Benchmark("choice", "acc_norm", num_fewshot=2, name="choice/acc_norm, 2 shots"),
    Benchmark("choice", "bits_per_byte_gold"),
    Benchmark("cloze", "perplexity"),
    Benchmark("cloze", "acc"),
    Benchmark("say", "exact_match,first"),
    Benchmark("say", "bits_per_byte_gold"),
)


def compute(folder: Path) -> Scores:
    """Scores by benchmark: of every merge method, and of the ways of scoring one proxy.

    Args:
        folder: Where to write models, arenas and tasks.
    """
    tasks = _write_tasks(folder / "tasks")
    tokenizer = word_tokenizer([*SPECIAL, *WORDS], eos_token="<eos>", bos_token="<eos>")
    paths = {}
    for number, name in enumerate(("base", *COMPONENTS)):
        paths[name] = folder / name
        _model(number).save_pretrained(paths[name])
        tokenizer.save_pretrained(paths[name])
    components = ComponentSet.open({name: paths[name] for name in COMPONENTS}, base=paths["base"])
    scored = _model(0)  # takes the parameters of one proxy after another

    def scorer(**options: Any) -> HarnessScorer:
        return HarnessScorer(
            BENCHMARKS, scored, tokenizer, include_path=tasks, batch_size=4, **options
        )

    def merge(name: str, dtype: str = "float32") -> None:
        method = find_method(name, PARAMETERS.get(name))
        path = folder / f"{name}-{dtype}.arena"
        arena = Arena.build(components, path, method=method, dtype=dtype, block_size=256)
        live = LiveModel(arena, method=method, compiled=False)
        live.merge(WEIGHTS)
        scored.load_state_dict(live.model.state_dict())

    plain = scorer()
    scores = {}
    for name in METHODS:
        merge(name)
        scores[name] = plain.score()
    merge("linear", "bfloat16")
    scores["linear, bfloat16"] = plain.score()
    merge("linear")
    scores["linear, shared prefixes"] = scorer(shared_prefixes=True).score()
    scores["linear, first of 3 blocks"] = dict(next(scorer(blocks=3).race()).block)
    return scores


def differences(stored: Scores, now: Scores) -> list[str]:
    """The scores that are not those stored, one line each."""
    both = {(row, name) for scores in (stored, now) for row in scores for name in scores[row]}
    found = []
    for row, name in sorted(both):
        before, after = (scores.get(row, {}).get(name) for scores in (stored, now))
        if before is None or after is None or abs(after - before) > TOLERANCE * abs(before):
            found.append(f"{row}: {name}: {before} before, {after} now")
    return found


def read() -> dict[str, Any]:
    """What the file holds: ``versions`` and ``scores``."""
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


def remedy(stored: Mapping[str, str | int]) -> str:
    """What to do about other scores than those that were stored under some versions."""
    now = code_versions()
    libraries = [
        f"{name} {stored.get(name)} -> {now.get(name)}"
        for name in sorted({*stored, *now} - {"scoring"})
        if stored.get(name) != now.get(name)
    ]
    if libraries:
        return (
            f"libraries have changed ({', '.join(libraries)}), which a study's fingerprint "
            f"holds as well: run '{COMMAND}'"
        )
    return (
        "if that is meant, raise SCORING_VERSION in optuna_demix/study/fingerprint.py, so that "
        f"no study goes on with other scores than it began with, and run '{COMMAND}'"
    )


def main() -> int:
    """Write the file, unless scores have changed under the same versions."""
    import datasets

    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
        scores = compute(Path(folder))
    if FILE.is_file():
        stored = read()
        of_old = {row: scores[row] for row in stored["scores"] if row in scores}
        changed = differences(stored["scores"], of_old)
        if changed and stored["versions"] == code_versions():
            print(*changed, remedy(stored["versions"]), sep="\n", file=sys.stderr)
            return 1
    content = {"versions": code_versions(), "scores": scores}
    FILE.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    print(f"wrote {FILE}")
    return 0


def _model(number: int) -> Any:
    """A Llama whose weights follow from integers: model 0 is the base, the others lie near it."""
    from transformers import LlamaForCausalLM

    config = llama_config(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(sorted(model.named_parameters())):
            values = 0.9 * _uniform(parameter.numel(), seed)
            if number:
                values += 0.3 * _uniform(parameter.numel(), 1000 * number + seed)
            if "norm" in name:
                values = 1.0 + 0.1 * values
            parameter.copy_(torch.from_numpy(values.astype(np.float32)).view(parameter.shape))
    return model


def _uniform(count: int, seed: int) -> np.ndarray:
    """Numbers (count,) between -0.5 and 0.5 by integers alone (SplitMix64): equal everywhere."""
    z = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / (1 << 53) - 0.5


def _write_tasks(folder: Path) -> Path:
    folder.mkdir(parents=True)
    drawn = iter(((_uniform(1000, 7) + 0.5) * len(WORDS)).astype(int).tolist())

    def words(n: int) -> str:
        return " ".join(WORDS[next(drawn)] for _ in range(n))

    def document(number: int) -> dict[str, Any]:
        return {
            "text": words(3 + number % 7),
            "choices": [words(1 + (number + k) % 3) for k in range(4)],
            "gold": number * 7 % 4,
            "answer": ANSWERS[number * 5 % 3],
        }

    for split, count in (("train", 5), ("test", 15)):
        rows = [json.dumps(document(number)) for number in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(
            f"task: {name}\n"
            "dataset_path: json\n"
            "dataset_kwargs: {data_files: {train: train.jsonl, test: test.jsonl}}\n"
            f"test_split: test\n{text.lstrip()}"
        )
    return folder


if __name__ == "__main__":
    sys.exit(main())
