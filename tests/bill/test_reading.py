"""The shape of a model, compared with what PyTorch counts."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from optuna_demix.bill.reading import shape_of  # noqa: E402

SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 100}
LLAMA = {**SIZES, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
ENDS = {"bos_token_id": 0, "eos_token_id": 0}
CONFIGS = {
    "untied": ("LlamaConfig", {**LLAMA, "tie_word_embeddings": False}),
    "tied": ("LlamaConfig", {**LLAMA, "tie_word_embeddings": True}),
    "wide heads": ("Qwen3Config", {**LLAMA, "head_dim": 32}),
    "gpt2": ("GPT2Config", {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 100, **ENDS}),
}


def meta(kind: str, fields: dict[str, Any]) -> Any:
    config = getattr(transformers, kind)(**fields)
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("name", CONFIGS)
def test_operations_are_those_that_pytorch_counts(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = meta(*CONFIGS[name])
    shape = shape_of(model)
    length = 48
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(2, length, dtype=torch.long, device="meta"))
    # Norms and biases count as multiplied: a little more.
    counted = counter.get_total_flops()
    assert counted <= shape.forward_flops(2 * length, length)
    assert shape.forward_flops(2 * length, length) < 1.02 * counted


def test_a_token_is_multiplied_with_a_tied_table_once_and_with_an_untied_head() -> None:
    tied, untied = (shape_of(meta(*CONFIGS[name])) for name in ("tied", "untied"))
    assert untied.parameters - tied.parameters == 100 * 64
    assert tied.multiplied == tied.parameters == untied.multiplied
    assert (tied.layers, tied.attention_width, tied.cache_width) == (3, 64, 32)
    assert tied.cache_bytes(10, 2) == 2 * 3 * 32 * 10 * 2


def test_of_experts_only_those_count_that_a_token_visits() -> None:
    fields = {**LLAMA, "num_local_experts": 8, "num_experts_per_tok": 2}
    shape = shape_of(meta("MixtralConfig", fields))
    experts = 3 * 8 * 3 * 64 * 96  # layers, experts, matrices
    assert shape.parameters - shape.multiplied == 100 * 64 + experts * 6 // 8
