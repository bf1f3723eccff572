"""A tiny model that ends texts now and then, prompts of all lengths, and lm-eval as the oracle."""

from __future__ import annotations

import random

import torch

from optuna_demix.scoring.generation import Arguments, Prompt
from optuna_demix.scoring.harness import PreparedModel

from tests.scoring.samples import WORDS  # isort: skip
from tests.tiny_models import VOCABULARY, llama_config  # isort: skip


def talker(seed: int = 0, dtype: torch.dtype = torch.float32, **changes):
    """A random Llama with fewer key than query heads; its end token is likely at times."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    fields = {
        "vocab_size": VOCABULARY,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
    }
    config = llama_config(**{**fields, **changes})
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[0] *= 1.7
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model.eval().requires_grad_(False)


def texts(count: int = 24, *, header: str = "", seed: int = 3) -> list[str]:
    """Prompts of 1 to 25 words, some twice."""
    rng = random.Random(seed)
    found = [header + " ".join(rng.choices(WORDS, k=rng.randint(1, 25))) for _ in range(count)]
    return [*found, *found[:2]]


def prompts(tokenizer, said, *, limit: int = 24, stops=("<eos>",), group="g") -> list[Prompt]:
    arguments = Arguments(limit, tuple(stops))
    return [Prompt(tuple(tokenizer(text).input_ids), arguments, group) for text in said]


def requests(said, arguments, *, task="say"):
    """lm-eval's requests for texts."""
    from lm_eval.api.instance import Instance

    return [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(text, dict(arguments)),
            idx=0,
            metadata=(task, number, 1),
        )
        for number, text in enumerate(said)
    ]


def both_ways(model, tokenizer, instances, *, rows=4, think_end_token=None, **options):
    """Texts of the own loop and of lm-eval's, and what wrote the first ones."""
    found, writers = [], []
    for own in (True, False):
        lm = PreparedModel(
            model, tokenizer, batch_size=rows, generation="auto" if own else "hf", **options
        )
        (plan,) = lm.prepare("generate_until", [instances], think_end_token=think_end_token)
        writers.append([prompt is not None for prompt in plan.prompts])
        with torch.inference_mode():
            found.append(lm.answer(plan))
    assert not any(writers[1])
    return found[0], found[1], writers[0]


class Watched:
    """Counts the tokens that a model is given, and runs out of memory above so many rows."""

    def __init__(self, model, rows=None):
        self.rows, self.forward, self.shapes = rows, model.forward, []
        model.forward = self

    def __call__(self, input_ids, **options):
        self.shapes.append(tuple(input_ids.shape))
        if self.rows is not None and len(input_ids) > self.rows:
            raise torch.OutOfMemoryError("out of memory, as asked")
        return self.forward(input_ids, **options)


TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: texts.jsonl}}}}
output_type: generate_until
test_split: test
fewshot_split: test
fewshot_config: {{sampler: first_n}}
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {arguments}
process_results: !function helpers.measured
metric_list:
  - {{metric: letters, aggregation: mean, higher_is_better: true}}
  - {{metric: length, aggregation: mean, higher_is_better: true}}
"""

HELPERS = """
def measured(doc, results):
    (text,) = results
    return {"letters": sum((i + 1) * ord(c) for i, c in enumerate(text)), "length": len(text)}
"""
