"""A tiny configuration of every causal language model that transformers knows."""

from __future__ import annotations

import re
from typing import Any

VOCABULARY = 64
# Fields by name, first match, with the value that makes a model tiny.
_SIZES: tuple[tuple[str, int], ...] = (
    (r"encoder_hash_byte_group_vocab|shape_vocab_size|pronunciation_vocab_size", 16),
    (r"nemo_conv_channels|.*_out_channel|output_channels", 16),
    (r"shape_embed_dim|pronunciation_embed_dim|d_inner|zero_expert_num", 8),
    (r"expert_ffn_hidden_size|neck_hidden_channels|rotary_dim|linear_attn_head_dim", 4),
    (r"vocab(ulary)?_size(_per_layer_input)?|padded_vocab_size|n_vocab", VOCABULARY),
    (r"(bos|decoder_start)_token_id", 1),
    (r"(eos|forced_eos|sep)_token_id", 2),
    (r"pad_token_id", 0),
    (r"max_position_embeddings|n_positions|max_seq_len|seq_length|max_sequence_length", 64),
    (r"original_max_position_embeddings|context_length|n_ctx|max_target_positions", 64),
    (r"sliding_window(_size)?|attention_window|attention_window_size|window_size", 4),
    (r"num_(hidden_layers|layers)|n_layers?|(en|de)coder_layers|num_(en|de)coder_layers", 2),
    (r"num_(key_value|kv|global_key_value|swa_key_value)_heads|n_head_kv|.*kv_heads", 2),
    (r"num_(attention|swa_attention|query)_heads|n_heads?|(en|de)coder_attention_heads", 4),
    (r"head_dim|.*attention_head_dim|global_head_dim|swa_head_dim|kv_channels|d_kv", 8),
    (r"head_size|index_head_dim|v_head_dim|swa_v_head_dim", 8),
    (r"qk_(rope|nope)_head_dim", 4),
    (r"qk_head_dim", 8),
    (r"(q|kv|o|output|query)_lora_rank", 8),
    (r"index_n_heads|index_topk|o_groups", 2),
    (r"hidden_size(_per_layer_input)?|d_model|n_embd|embed_dim|model_dim|emb_dim", 32),
    (r"embedding_size|word_embed_proj_dim|input_embedding_size|attention_hidden_size", 32),
    (r"lru_width|attention_size|output_embedding_size", 32),
    (r".*intermediate_size.*|n_inner|(en|de)coder_ffn_dim|ffn_dim|ffn_hidden_size|d_ff", 48),
    (r"expert_dim|feed_forward_size|dff|dim_ff", 48),
    (r"(num|n|moe_num)_(routed_|local_)?experts|moe_num_routed_experts", 4),
    (r"num_experts_per_tok(en)?|moe_(k|topk|top_k)|top_k(_experts)?|num_selected_experts", 2),
    (r"n_group|topk_group|num_expert_group", 1),
    (r"(n|num)_shared_experts|moe_num_shared_experts", 1),
    (r"(moe_layer_start_index|first_k_dense_replace|num_dense_layers)", 1),
    (r"mamba_n_heads|mamba_num_heads|num_heads", 4),
    (r"mamba_d_head|mamba_head_dim|mamba_headdim", 16),
    (r"mamba_d_state|ssm_state_size|state_size|mamba_ngroups_d_state", 8),
    (r"mamba_d_ssm|mamba_dt_rank|time_step_rank", 64),
    (r"mamba_n_groups|mamba_ngroups|n_groups", 1),
    (r"(mamba_)?chunk_size|mamba_chunk_size", 4),
    (r"linear_num_(key|value)_heads", 2),
    (r"linear_(key|value)_head_dim", 8),
    (r"image_size", 16),
    (r"patch_size|vision_patch_size", 4),
)
_PATTERNS = [(re.compile(pattern), value) for pattern, value in _SIZES]
"""What the rules leave out, by type: changes of single fields."""
OVERRIDES: dict[str, dict[str, Any]] = {
    "axk1": {"num_key_value_heads": 4, "head_dim": 4},
    "axk2": {"num_key_value_heads": 4, "index_n_heads": 4},
    "bamba": {"attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"]},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0}},
    "deepseek_v2": {"num_key_value_heads": 4, "num_experts_per_tok": 2},
    "deepseek_v3": {"num_key_value_heads": 4, "head_dim": 4},
    "deepseek_v32": {"num_key_value_heads": 4},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_d_head": 8, "layer_types": "default"},
    "gemma3n_text": {"num_kv_shared_layers": 0, "intermediate_size": [48, 48]},
    "glm_moe_dsa": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2},
    "kimi_linear": {"linear_head_dim": 8, "linear_num_heads": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "longcat_flash": {"num_key_value_heads": 4, "head_dim": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "is_decoder": True,
        "axial_pos_embds_dim": [16, 16],
        "axial_pos_shape": [8, 8],
        "attn_layers": ["local", "lsh"],
    },
    "rwkv": {"rescale_every": 1},
    "xlstm": {"hidden_size": 128},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "youtu": {"num_key_value_heads": 4, "head_dim": 4},
    "zamba": {
        "layers_block_type": ["mamba", "hybrid", "hybrid"],
        "num_hidden_layers": 3,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
    },
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid", "hybrid"],
        "num_hidden_layers": 3,
        "num_key_value_heads": 4,
        "n_mamba_heads": 4,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
}


def tiny_config(model_type: str) -> Any:
    """Return a configuration of a few thousand parameters.

    Raises:
        Exception: Whatever the configuration class raises.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[model_type]
    fields = {**_shrunk(config_class), **OVERRIDES.get(model_type, {})}
    return config_class(**{name: value for name, value in fields.items() if value != "default"})


def _shrunk(config_class: Any) -> dict[str, Any]:
    """Return keyword arguments that make a configuration small, nested ones too."""
    default = config_class()
    nested = dict(getattr(config_class, "sub_configs", {}) or {})
    fields: dict[str, Any] = {}
    for name, value in default.to_dict().items():
        if name in nested or isinstance(value, dict):
            continue
        size = _size_of(name)
        if size is not None and isinstance(value, int) and not isinstance(value, bool):
            fields[name] = min(size, value) if value > 0 else value
    for name in nested:
        value = getattr(default, name, None)
        if value is not None:
            fields[name] = _shrunk(type(value))
            fields[name]["model_type"] = value.model_type
    kinds = default.to_dict().get("layer_types")
    if isinstance(kinds, list) and kinds:
        chosen = list(dict.fromkeys(kinds))
        chosen = chosen if len(chosen) > 1 else chosen * 2
        fields["layer_types"] = chosen
        fields["num_hidden_layers"] = len(chosen)
    return fields


def _size_of(name: str) -> int | None:
    for pattern, value in _PATTERNS:
        if pattern.fullmatch(name):
            return value
    return None
