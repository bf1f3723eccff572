"""Puts a converted checkpoint in its place, loaded and saved by transformers.

What has a tensor too many or too few, or one of another shape, is refused. The place is taken as
a whole or not at all.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="folder of .safetensors files")
    parser.add_argument("final", type=Path, help="where the checkpoint shall lie")
    parser.add_argument("--config", required=True, help="folder with the model's config.json")
    parser.add_argument("--tokenizer", required=True, help="folder of the tokenizer")
    parser.add_argument("--dtype", required=True, help="element type of the checkpoint")
    given = parser.parse_args()
    if not any(given.weights.glob("*.safetensors")):
        return _refuse(f"{given.weights}: holds no .safetensors file; has the training ended?")
    if given.final.exists():
        return _refuse(f"{given.final}: is there already; move it away")
    shutil.copyfile(Path(given.config) / "config.json", given.weights / "config.json")
    loader: Any = AutoModelForCausalLM
    model, found = loader.from_pretrained(
        given.weights,
        config=AutoConfig.from_pretrained(given.config),
        dtype=given.dtype,
        output_loading_info=True,
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[kind]:
            return _refuse(f"{given.weights}: {kind.replace('_', ' ')}: {sorted(found[kind])[:3]}")
    aside = given.final.with_name(f".{given.final.name}.{secrets.token_hex(4)}")
    try:
        model.save_pretrained(aside)
        AutoTokenizer.from_pretrained(given.tokenizer).save_pretrained(aside)
        state = given.weights / "trainer_state.json"
        if state.is_file():  # says how many steps there were
            shutil.copyfile(state, aside / state.name)
        os.rename(aside, given.final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(f"{given.final}: is there")
    return 0


def _refuse(line: str) -> int:
    print(line, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
