"""Makes the model that a base starts from: random weights, configuration, tokenizer."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="folder with the model's config.json")
    parser.add_argument("out", type=Path, help="where the model is saved")
    parser.add_argument("--tokenizer", required=True, help="folder of the tokenizer")
    parser.add_argument("--seed", type=int, required=True, help="seed of the weights")
    given = parser.parse_args()
    if given.out.exists():
        return 0
    aside = given.out.with_name(f".{given.out.name}.{secrets.token_hex(4)}")
    set_seed(given.seed)
    loader: Any = AutoModelForCausalLM
    config = AutoConfig.from_pretrained(given.config)
    try:
        loader.from_config(config, dtype=torch.float32).save_pretrained(aside)
        AutoTokenizer.from_pretrained(given.tokenizer).save_pretrained(aside)
        os.rename(aside, given.out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
