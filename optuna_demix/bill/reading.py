"""Finds a study's model and the numbers in it; no weight is read and none is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna_demix._progress import Report
from optuna_demix._wording import one_line
from optuna_demix.bill.shape import ModelShape
from optuna_demix.errors import ComponentError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from optuna_demix.config import StudyConfig
    from optuna_demix.merging import ComponentSet
    from optuna_demix.merging.checkpoints.skeleton import Skeleton

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_VISITED = ("num_experts_per_tok", "moe_top_k", "moe_topk", "top_k_experts")


@dataclass(frozen=True)
class Model:
    """A study's model, valueless.

    Attributes:
        skeleton: What transformers makes of its configuration.
        dtype: Element type of the components.
        tokenizer: Directory of the tokenizer; ``None`` if none is there.
    """

    skeleton: Skeleton
    dtype: torch.dtype
    tokenizer: Path | None

    def load_tokenizer(self, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
        """Load its tokenizer.

        Raises:
            ComponentError: If there is none, or it cannot be loaded.
        """
        from transformers import AutoTokenizer

        if self.tokenizer is None:
            raise ComponentError("there is no tokenizer yet")
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                str(self.tokenizer), local_files_only=True, trust_remote_code=trust_remote_code
            )
        except Exception as error:  # whatever a tokenizer's own class raises
            raise ComponentError(
                f"{self.tokenizer}: the tokenizer cannot be loaded ({one_line(error)})"
            ) from None
        return tokenizer


def find_model(config: StudyConfig, components: ComponentSet | None) -> Model:
    """The model of a study: its components', its base's, or the one that is to be trained.

    Args:
        config: The study.
        components: Those components that are there.

    Raises:
        DemixError: If none is on this host, or what is there cannot be read.
    """
    from optuna_demix.merging.checkpoints.tokenizer_files import vocabulary_file

    if components is not None:
        path = components.standard.tokenizer_path
        return Model(components.skeleton, components.dtype, path)
    if (config.base_path / "config.json").is_file():
        folder = config.base_path
        own = folder if vocabulary_file(folder) is not None else None
        trained = config.training and config.resolve(config.training.tokenizer)
        return _from_folder(folder, trained or own, trust=config.scoring.trust_remote_code)
    if config.training is not None and config.training.model is not None:
        return _from_scratch(config)
    for name in config.components:
        cached = _cached(config, name)
        if cached is not None:
            return _from_folder(cached, cached, trust=config.scoring.trust_remote_code)
    raise ComponentError("no component, base or training.model is on this host to read it from")


def _from_folder(folder: Path, tokenizer: Path | None, *, trust: bool) -> Model:
    import torch

    from optuna_demix.merging._dtypes import MERGEABLE
    from optuna_demix.merging.checkpoints.skeleton import build_skeleton, load_config

    config = load_config(folder, str(folder), trust_remote_code=trust)
    skeleton = build_skeleton(config, str(folder), folder / "config.json", trust_remote_code=trust)
    given = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
    dtype = next((known for known in MERGEABLE.values() if known == given), torch.float32)
    return Model(skeleton, dtype, tokenizer)


def _from_scratch(config: StudyConfig) -> Model:
    import torch

    from optuna_demix.merging.checkpoints.skeleton import build_skeleton
    from optuna_demix.training._job import Job
    from optuna_demix.training._model import scratch_config
    from optuna_demix.training.data.vocabulary import Vocabulary

    assert config.training is not None
    vocabulary = Vocabulary.open(config, config.training)
    made = scratch_config(Job(config, config.training, vocabulary, "cpu", Report()))
    skeleton = build_skeleton(made, "training.model", config.source, trust_remote_code=False)
    return Model(skeleton, torch.float32, vocabulary.path)


def _cached(config: StudyConfig, name: str) -> Path | None:
    """Folder of a hub's component that was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    component = config.components[name]
    if component.hub is None:
        return None
    folder = f"{component.subfolder}/" if component.subfolder else ""
    found = try_to_load_from_cache(
        component.hub,
        f"{folder}config.json",
        revision=component.revision,
        repo_type=component.hub_type,
    )
    return Path(found).parent if isinstance(found, str) else None


def shape_of(model: Any) -> ModelShape:
    """The shape of one of transformers' causal language models, on any device.

    Attention over windows counts as full attention, and layers without attention, as of state
    space models, as having what the configuration says of heads.
    """
    from torch import nn

    text = model.config.get_text_config()
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    head = model.get_output_embeddings()
    tables = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    if head is not None:
        tables.pop(id(head.weight), None)  # tied: looked up, but multiplied with as well
    looked_up = sum(table.numel() for table in tables.values())
    experts = sum(n for name, n in sizes.items() if ".experts." in name)
    skipped = experts * (1 - _visited_share(text))
    heads = getattr(text, "num_attention_heads", None) or 0
    width = getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else 0)
    of_cache = getattr(text, "num_key_value_heads", None) or heads
    total = sum(sizes.values())
    return ModelShape(
        parameters=total,
        multiplied=round(total - looked_up - skipped),
        layers=text.num_hidden_layers,
        attention_width=heads * width,
        cache_width=of_cache * width,
    )


def _visited_share(config: Any) -> float:
    """Share of the experts that a token visits."""
    experts = next((n for name in _EXPERTS if (n := getattr(config, name, None))), None)
    visited = next((n for name in _VISITED if (n := getattr(config, name, None))), None)
    return 1.0 if experts is None or visited is None else min(1.0, visited / experts)
