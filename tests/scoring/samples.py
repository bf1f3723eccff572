"""Tiny tasks of every kind and tiny models to score on them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch

from tests.tiny_models import VOCABULARY, llama_config

WORDS = (
    "the a of and to in is was on for with river stone light green old small house tree bird "
    "water road night day hand moon cold long wide deep under over three seven eleven"
).split()

TASKS = {
    "prose.yaml": """
task: prose
dataset_path: json
dataset_kwargs: {data_files: {test: data/prose.jsonl}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: text
metric_list:
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
metadata: {version: 1.0}
""",
    "choice.yaml": """
task: choice
dataset_path: json
dataset_kwargs: {data_files: {train: data/choice_train.jsonl, test: data/choice.jsonl}}
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "{{question}}"
doc_to_target: gold
doc_to_choice: "{{choices}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
  - {metric: f1, aggregation: !function helpers.weighted_hits, higher_is_better: true}
""",
    "letters.yaml": """
task: letters
dataset_path: json
dataset_kwargs: {data_files: {train: data/choice_train.jsonl, test: data/letters.jsonl}}
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "{{question}}"
doc_to_target: gold
doc_to_choice: ["a", "b", "the", "to in"]
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "blanks.yaml": """
task: blanks
dataset_path: json
dataset_kwargs: {data_files: {test: data/choice.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: gold
doc_to_choice: "{{choices}}"
doc_to_target: "{{' ' + question}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "surprise.yaml": """
task: surprise
dataset_path: json
dataset_kwargs: {data_files: {test: data/choice.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_target: gold
doc_to_choice: "{{choices}}"
metric_list:
  - {metric: acc_mutual_info, aggregation: mean, higher_is_better: true}
  - {metric: acc_bytes, aggregation: mean, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
""",
    "cloze.yaml": """
task: cloze
dataset_path: json
dataset_kwargs: {data_files: {test: data/cloze.jsonl}}
output_type: loglikelihood
test_split: test
doc_to_text: "{{prompt}}"
doc_to_target: "{{' ' + answer}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "say.yaml": """
task: say
dataset_path: json
dataset_kwargs: {data_files: {test: data/say.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: [" the"], max_gen_toks: 8, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}
filter_list:
  - name: first-letter
    filter: [{function: regex, regex_pattern: "([a-z])"}, {function: take_first}]
  - name: whole
    filter: [{function: take_first}]
""",
    "dream.yaml": """
task: dream
dataset_path: json
dataset_kwargs: {data_files: {test: data/say.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
repeats: 2
generation_kwargs: {until: [" the"], max_gen_toks: 6, do_sample: true, temperature: 1.0}
process_results: !function helpers.length
metric_list:
  - {metric: length, aggregation: mean, higher_is_better: false}
filter_list:
  - {name: first, filter: [{function: take_first}]}
""",
    "own.yaml": """
task: own
class: !function helpers.Own
dataset_path: json
dataset_kwargs: {data_files: {test: data/own.jsonl}}
output_type: generate_until
test_split: test
generation_kwargs: {until: [" the"], max_gen_toks: 8, do_sample: false}
""",
    "both.yaml": """
group: both
task: [choice, letters]
aggregate_metric_list: [{metric: acc, weight_by_size: true}]
""",
    "nested.yaml": """
group: nested
task:
  - both
  - task: cloze
  - group: inner
    task:
      - task: extra
        dataset_path: json
        dataset_kwargs: {data_files: {test: data/letters.jsonl}}
        output_type: multiple_choice
        test_split: test
        doc_to_text: "{{question}}"
        doc_to_target: gold
        doc_to_choice: ["on", "for", "with", "moon"]
        metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
aggregate_metric_list: [{metric: acc, weight_by_size: false}]
""",
    "helpers.py": """
from lm_eval.api.task import ConfigurableTask

class Own(ConfigurableTask):
    def __init__(self, config):
        super().__init__(config={k: v for k, v in config.items() if k != "class"})

    def doc_to_text(self, doc):
        return doc["prompt"]

    def doc_to_target(self, doc):
        return doc["answer"]

    def process_results(self, doc, results):
        text, target = self.doc_to_text(doc), self.doc_to_target(doc)
        own = text == doc["prompt"] and target == doc["answer"]
        return {"own": own, "hit": target in results[0]}

    def aggregation(self):
        return dict.fromkeys(["own", "hit"], lambda values: sum(values) / len(values))

    def higher_is_better(self):
        return {"own": True, "hit": True}

def length(doc, results):
    assert "spoilt" not in doc
    doc["spoilt"] = True
    return {"length": len(results[0])}

def weighted_hits(items):
    return sum(gold == pred for gold, pred in items) / len(items) / 2
""",
}


def _sentence(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def _write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_tasks(folder: Path) -> Path:
    rng = random.Random(5)
    (folder / "data").mkdir(parents=True)
    for name, text in TASKS.items():
        (folder / name).write_text(text.lstrip())
    long = [{"text": _sentence(rng, 3, 60)} for _ in range(11)]
    _write(folder / "data" / "prose.jsonl", [*long, long[2], {"text": "moon é"}])
    for name, n in (("choice_train", 7), ("choice", 13), ("letters", 5)):
        _write(
            folder / "data" / f"{name}.jsonl",
            [
                {
                    "question": _sentence(rng, 2, 9),
                    "choices": [_sentence(rng, 1, 4) for _ in range(4)],
                    "gold": rng.randrange(4),
                }
                for _ in range(n)
            ],
        )
    pairs = [{"prompt": _sentence(rng, 1, 6), "answer": _sentence(rng, 1, 2)} for _ in range(9)]
    _write(folder / "data" / "cloze.jsonl", [*pairs, {"prompt": "", "answer": "moon"}])
    _write(
        folder / "data" / "say.jsonl", [{**pair, "answer": pair["answer"][0]} for pair in pairs]
    )
    _write(
        folder / "data" / "own.jsonl",
        [{"prompt": _sentence(rng, 1, 6), "answer": rng.choice("aeiou")} for _ in range(60)],
    )
    return folder


def make_model(kind: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32):
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        LlamaForCausalLM,
    )

    torch.manual_seed(seed)
    ids = {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": VOCABULARY}
    wide = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if kind == "llama":
        model = LlamaForCausalLM(
            llama_config(
                **ids,
                **wide,
                intermediate_size=48,
                max_position_embeddings=48,
                initializer_range=0.3,
            )
        )
    elif kind == "neox":
        model = GPTNeoXForCausalLM(
            GPTNeoXConfig(
                **ids,
                **wide,
                intermediate_size=48,
                max_position_embeddings=48,
                initializer_range=0.3,
            )
        )
    else:
        model = GPT2LMHeadModel(
            GPT2Config(
                **ids, n_embd=32, n_layer=2, n_head=4, n_positions=48, initializer_range=0.3
            )
        )
    for parameter in model.parameters():  # not the buffers: rotary frequencies stay float32
        parameter.data = parameter.data.to(dtype)
    return model.eval()
