"""How fast texts are written: our own loop beside lm-eval's ``HFLM.generate_until``.

A random Llama, its prompts as token ids of made-up words, in two mixes:

- GSM8K-like: prompts that begin with the same worked examples and end in a question of their own,
  texts of very different lengths;
- HumanEval-like: shorter prompts with nothing in common, longer texts.

All ways write the same texts with the same batch size, one after another in the same process on
one thread. Seconds are those of the process's CPU time, since other programs may run. In bfloat16
rounding may tip a token: the share of texts that differ is counted for both, and beside it for
lm-eval's own loop with another batch size.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from _common import parser, print_table, provenance, quiet, write

ROWS = 32
WORDS = 4096
_COLUMNS = {
    "mix": "",
    "way": "",
    "seconds": ".2f",
    "tokens_per_second": ".0f",
    "ratio": ".2f",
    "different": ".3f",
}


@dataclass(frozen=True)
class Mix:
    """Prompts and texts of one kind, in tokens."""

    name: str
    documents: int
    shared: int
    own: tuple[int, int]
    longest_text: int


MIXES = (
    Mix("GSM8K-like", documents=64, shared=669, own=(25, 90), longest_text=256),
    Mix("HumanEval-like", documents=32, shared=0, own=(60, 250), longest_text=512),
)
QUICK = tuple(
    replace(mix, documents=mix.documents // 4, longest_text=mix.longest_text // 4) for mix in MIXES
)


def small_model(seed: int) -> Any:
    """A random Llama of 4 layers whose end token is the likeliest once in a while."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=WORDS,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        initializer_range=0.08,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[0] *= 1.5
    return model.eval().requires_grad_(False)


def words() -> Any:
    """A tokenizer of as many words as the model has tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(["<eos>", "<unk>", "Question:"])}
    ids |= {f"w{i}": i for i in range(len(ids), WORDS)}
    raw = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", unk_token="<unk>")


def requests(mix: Mix, seed: int) -> list[Any]:
    """lm-eval's requests."""
    from lm_eval.api.instance import Instance

    draw = random.Random(seed)

    def text(length: int) -> str:
        return " ".join(f"w{draw.randrange(3, WORDS)}" for _ in range(length))

    shared = text(mix.shared)
    arguments = {"until": ["Question:", "\n\n"], "max_gen_toks": mix.longest_text}
    return [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(f"{shared} {text(draw.randint(*mix.own))}".strip(), dict(arguments)),
            idx=0,
            metadata=(mix.name, number, 1),
        )
        for number in range(mix.documents)
    ]


def measure(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns and its CPU seconds."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def different(one: Sequence[str], other: Sequence[str]) -> float:
    """Share of texts that are not equal."""
    return sum(a != b for a, b in zip(one, other, strict=True)) / len(one)


def ways(model: Any, asked: list[Any], rows: int) -> dict[str, Callable[[], list[str]]]:
    """What writes the texts."""
    from optuna_demix.scoring.harness import PreparedModel

    peer = PreparedModel(model, words(), batch_size=rows, own_generation=False)
    ours = PreparedModel(model, words(), batch_size=rows)
    (their_plan,) = peer.prepare("generate_until", [asked])
    (plan,) = ours.prepare("generate_until", [asked])
    apart = replace(
        plan, prompts=[replace(p, group=str(i)) for i, p in enumerate(plan.prompts) if p]
    )
    assert len(apart.prompts) == len(asked), "the own loop refuses"

    def own() -> list[str]:
        ours.weights_changed()
        return ours.answer(plan)

    return {
        "HFLM.generate_until": lambda: peer.generate_until(
            their_plan.instances, disable_tqdm=True
        ),
        "own loop, nothing shared": lambda: ours.answer(apart),
        "own loop": own,
    }


def compare(mix: Mix, model: Any, seed: int) -> list[dict[str, Any]]:
    """Rows of one mix in float32."""
    asked = requests(mix, seed)
    rows: list[dict[str, Any]] = []
    found: list[list[str]] = []
    for way, write_texts in ways(model, asked, ROWS).items():
        texts, seconds = measure(write_texts)
        found.append(texts)
        written = sum(min(len(t.split()) + 1, mix.longest_text) for t in found[0])
        rows.append(
            {
                "mix": mix.name,
                "way": way,
                "seconds": round(seconds, 3),
                "tokens_per_second": round(written / seconds, 1),
                "ratio": round(rows[0]["seconds"] / seconds, 3) if rows else 1.0,
                "different": different(found[0], texts),
            }
        )
    lengths = sorted(len(text.split()) for text in found[0])
    print(f"{mix.name}: texts of {lengths[0]} to {lengths[-1]} words, {sum(lengths)} in all")
    return rows


def in_bfloat16(mix: Mix, seed: int) -> dict[str, float]:
    """Shares of texts that differ from lm-eval's in bfloat16."""
    import torch

    model = small_model(seed)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    asked = requests(mix, seed)
    some = ways(model, asked, ROWS)
    theirs = some["HFLM.generate_until"]()
    again = ways(model, asked, 4)["HFLM.generate_until"]()
    return {
        "own loop": different(theirs, some["own loop"]()),
        "HFLM with 4 rows": different(theirs, again),
    }


def main() -> None:
    """Run the benchmark from the command line."""
    given = parser(__doc__.splitlines()[0]).parse_args()
    quiet()
    import torch

    mixes = QUICK if given.quick else MIXES
    with torch.inference_mode():
        model = small_model(given.seed)
        rows = [row for mix in mixes for row in compare(mix, model, given.seed)]
        shares = in_bfloat16(replace(QUICK[0], shared=100), given.seed)
    print_table(rows, _COLUMNS)
    for way, share in shares.items():
        print(f"bfloat16, {QUICK[0].documents} texts: {share:.2f} differ, HFLM and {way}")
    ratios = {row["mix"]: row["ratio"] for row in rows if row["way"] == "own loop"}
    target = {"target": "times HFLM", "bound": 2.4, "met": min(ratios.values()) >= 2.4}
    print(f"{'met' if target['met'] else 'MISSED'}: {ratios}, required 2.4")
    about = {**provenance(), "quick": given.quick, "seed": given.seed, "rows_at_once": ROWS}
    write(given.out, {**about, "rows": rows, "bfloat16": shares, "targets": [target | ratios]})


if __name__ == "__main__":
    main()
