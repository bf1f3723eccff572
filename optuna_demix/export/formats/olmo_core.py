"""Mixtures of OLMo-core: the list of sources of its numpy datasets, and composable sources."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from optuna_demix.export.formats._text import entries_of, repetitions, yaml_of
from optuna_demix.export.sources import DataSource, Stage


def to_olmo_core(sources: Sequence[DataSource]) -> str:
    """A ``SourceMixtureList`` of OLMo-core.

    Where the size of a dataset and the budget are known, ``max_repetition_ratio`` allows as many
    epochs as the mixture needs: OLMo-core refuses a mixture that asks for more.
    """
    entries = []
    for source in sources:
        entry: dict[str, Any] = {
            "source_name": source.name,
            "target_ratio": source.share,
            "paths": [source.path],
        }
        limit = repetitions(source.epochs)
        if limit is not None:
            entry["max_repetition_ratio"] = limit
        entries.append(entry)
    return yaml_of({"sources": entries})


def to_olmo_core_composable(sources: Sequence[DataSource]) -> str:
    """A Python module of composable sources, with one mix; see the whole run's."""
    return stages_to_olmo_core_composable([Stage("run", 1.0, sources)])


def stages_to_olmo_core_composable(
    stages: Sequence[Stage], step_tokens: float | None = None
) -> str:
    """A Python module whose ``data_loader()`` gives the mixes of a run one after another.

    Each is a ``MixingInstanceSource`` of instances of one length, so that ratios are shares of
    tokens. A dataset that the run does not see as a whole is split between the stages, as
    OLMo-core's own curricula are, so that none of it is seen twice.

    Args:
        stages: The stages in the order of the run.
        step_tokens: Not needed: OLMo-core counts stages in tokens.
    """
    content = ""
    for index, stage in enumerate(stages):
        tokens = "None" if stage.tokens is None else f"{round(stage.tokens):_}"
        entries = entries_of(_entries(stages, index), indent=12)
        content += f"    {stage.name!r}: (\n        {tokens},\n        {{\n{entries}        }},\n"
        content += "    ),\n"
    return _COMPOSABLE.format(stages=content)


def _entries(stages: Sequence[Stage], index: int) -> dict[str, tuple[str, float, float, float]]:
    """Path, ratio, limit of repetitions and part of what is left, of each source of a stage."""
    entries = {}
    for source in stages[index].sources:
        uses = [s for stage in stages for s in stage.sources if s.name == source.name]
        later = [s for stage in stages[index:] for s in stage.sources if s.name == source.name]
        epochs, part = source.epochs, 1.0
        whole = math.fsum(s.epochs or 0.0 for s in uses)
        if 0.0 < whole <= 1.0 and len(uses) > 1 and source.epochs:
            part = source.epochs / math.fsum(s.epochs or 0.0 for s in later)
            epochs = whole
        entries[source.name] = (source.path, source.share, repetitions(epochs) or 1.0, part)
    return entries


_COMPOSABLE = '''\
from olmo_core.data.composable import (
    ComposableDataLoader,
    ConcatAndChunkInstanceSource,
    MixingInstanceSource,
    ShuffleStrategy,
)
from olmo_core.data.tokenizer import TokenizerConfig

# For each stage its tokens (None: as many as the sources have), and for each source its .npy
# files, its share of the tokens, how often it may be seen, and the part of what earlier stages
# have left of it that is split off for this one.
STAGES = {{
{stages}}}


def mixes(
    tokenizer: TokenizerConfig, sequence_length: int, seed: int = 0
) -> list[MixingInstanceSource.Config]:
    """The mix of each stage, in order."""
    left, configs = {{}}, []
    for number, (tokens, sources) in enumerate(STAGES.values()):
        specs = []
        for name, (path, ratio, repetition, part) in sources.items():
            source = left.get(name) or ConcatAndChunkInstanceSource.Config.from_npy(
                path, tokenizer=tokenizer, sequence_length=sequence_length, label=name
            )
            if part < 1.0:
                source, left[name] = source.random_split(part, seed=seed)
            specs.append(
                MixingInstanceSource.Spec.Config(
                    source=source, ratio=ratio, max_repetition_factor=repetition, label=name
                )
            )
        configs.append(
            MixingInstanceSource.Config(source_specs=specs, num_tokens=tokens, seed=seed + number)
        )
    return configs


def data_loader(
    tokenizer: TokenizerConfig, sequence_length: int, global_batch_size: int, work_dir: str
) -> ComposableDataLoader:
    """One stage after another, each shuffled for itself; global_batch_size in tokens."""
    return ComposableDataLoader.Config(
        tokenizer=tokenizer,
        global_batch_size=global_batch_size,
        shuffle_strategy=ShuffleStrategy.intra_source,
    ).build(
        *[mix.build(work_dir) for mix in mixes(tokenizer, sequence_length)], work_dir=work_dir
    )
'''
