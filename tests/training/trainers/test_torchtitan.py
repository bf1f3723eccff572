"""torchtitan reads the texts and builds the model of a plan.

In a file that comes last: its backend changes how transformers initializes models, for good.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.samples import SEQUENCE, Make
from tests.training.trainers.samples import (
    TORCHTITAN,
    TORCHTITAN_STUBS,
    module_of,
    plan,
    start_for,
)
from tests.training.trainers.stubs import import_beside

pytestmark = [pytest.mark.readers, pytest.mark.filterwarnings("ignore")]

torch = pytest.importorskip("torch")
load_file = pytest.importorskip("safetensors.torch").load_file


def test_torchtitan_reads_the_texts_and_the_model(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import_beside(monkeypatch, TORCHTITAN, *TORCHTITAN_STUBS)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = plan(make(), "torchtitan")
    start_for(folder)
    weights = folder / "start" / "model.safetensors"
    config = module_of(folder / "base.py", monkeypatch).config()
    tokenizer = config.tokenizer.build(tokenizer_path=config.hf_assets_path)
    loader = config.dataloader.build(
        dp_world_size=1,
        dp_rank=0,
        tokenizer=tokenizer,
        seq_len=config.training.seq_len,
        local_batch_size=1,
    )
    inputs, labels = next(iter(loader))
    assert inputs["input"].shape == labels.shape == (1, SEQUENCE)

    spec = config.model_spec
    spec.model.update_from_config(config=config)
    with torch.device("meta"):
        model = spec.model.build()
    adapter = spec.state_dict_adapter(spec.model, config.hf_assets_path)
    names = {name: value.shape for name, value in adapter.to_hf(model.state_dict()).items()}
    assert names == {name: value.shape for name, value in load_file(weights).items()}
