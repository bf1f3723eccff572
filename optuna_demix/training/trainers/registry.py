"""The trainers by name."""

from __future__ import annotations

from collections.abc import Mapping

from optuna_demix.training.trainers import (
    hf,
    llm_foundry,
    megatron,
    megatron_bridge,
    nanotron,
    olmo_core,
    torchtitan,
)
from optuna_demix.training.trainers.runs import Trainer

_PREFIXES = "prefixes of .bin and .idx files"

TRAINERS: Mapping[str, Trainer] = {
    "torchtitan": Trainer("torchtitan", torchtitan.write, torchtitan.commands),
    "megatron": Trainer(
        "Megatron-LM",
        megatron.write,
        megatron.commands,
        data=_PREFIXES,
        find=megatron.find,
        kinds=megatron.KINDS,
        needs={megatron.CHECKOUT: "a checkout of Megatron-LM"},
    ),
    "megatron-bridge": Trainer(
        "Megatron-Bridge",
        megatron_bridge.write,
        megatron_bridge.commands,
        data=_PREFIXES,
        find=megatron.find,
    ),
    "olmo-core": Trainer(
        "OLMo-core",
        olmo_core.write,
        olmo_core.commands,
        data="files of raw tokens, .npy without a header",
        find=olmo_core.find,
        kinds=olmo_core.KINDS,
        schedules=("cosine", "constant"),
    ),
    "nanotron": Trainer(
        "nanotron",
        nanotron.write,
        nanotron.commands,
        data="folders of .ds files",
        find=nanotron.find,
        kinds=nanotron.KINDS,
        needs={nanotron.CHECKOUT: "a checkout of nanotron"},
    ),
    "llm-foundry": Trainer(
        "LLM Foundry",
        llm_foundry.write,
        llm_foundry.commands,
        data="folders of MDS shards of concatenated tokens",
        find=llm_foundry.find,
        schedules=("cosine", "constant"),
        needs={llm_foundry.CHECKOUT: "a checkout of LLM Foundry"},
    ),
    "hf": Trainer("transformers", hf.write, hf.commands),
}
"""Trainers by name, as ``optuna-demix plan --for`` takes them."""
