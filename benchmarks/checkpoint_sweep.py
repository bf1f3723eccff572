"""Merge three tiny components of every causal language model that transformers knows.

Each is written by ``save_pretrained``, merged twice with a forward pass in between, and compared
with the average of what ``from_pretrained`` loads: every parameter, every buffer, the logits.
Types run in processes of their own, a few at a time, so that one that crashes ends nothing.

::

    python benchmarks/checkpoint_sweep.py --out benchmarks/results/checkpoint_sweep.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _common
from _tiny_causal_lms import tiny_config

DTYPES = ("float32", "bfloat16")
OUTCOMES = ("equal", "refused", "wrong", "crashed", "not built")
MIXTURES = ((0.5, 0.3, 0.2), (0.1, 0.2, 0.7))
_INPUTS = ((3, 5, 7, 11, 13, 17, 19), (4, 6, 4, 9))
_BATCH = 48  # types a process
_TIMEOUT = 3600.0
_QUICK_STEP = 10  # every tenth type


def examine(model_type: str, dtype: str, folder: Path) -> dict[str, Any]:
    """Merge components of one type and compare.

    Args:
        model_type: As in ``config.json``.
        dtype: Element type that the components are saved in.
        folder: An empty directory.

    Returns:
        Fields ``type``, ``dtype``, ``outcome``, one of ``OUTCOMES``, and ``reason``.
    """

    def found(outcome: str, reason: object = "") -> dict[str, Any]:
        text = str(reason).strip().replace(f"{folder}/", "")
        return {"type": model_type, "dtype": dtype, "outcome": outcome, "reason": text}

    from optuna_demix.errors import DemixError

    try:
        paths = _save_components(model_type, dtype, folder)
        expected = [_expected(paths, dtype, weights) for weights in MIXTURES]
    except Exception as error:  # whatever a model's own code raises
        return found("not built", f"{type(error).__name__}: {error}".split("\n")[0])
    try:
        difference = _merged_differs(paths, dtype, expected, folder)
    except DemixError as error:
        return found("refused", error)
    except Exception as error:  # what must never happen
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{type(error).__name__}: {error}".split("\n")[0]
        return found("crashed", f"{line} ({Path(where.filename).name}:{where.lineno})")
    return found("wrong", difference) if difference else found("equal")


def _save_components(model_type: str, dtype: str, folder: Path) -> dict[str, Path]:
    """Three models of one type with random weights, as ``save_pretrained`` writes them."""
    import torch

    paths = {}
    for seed in range(len(MIXTURES[0])):
        torch.manual_seed(seed)
        config = tiny_config(model_type)
        model = _saving_class(config).from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if tensor.is_floating_point():
                    noise = torch.rand(tensor.shape, generator=_generator(seed, name))
                    tensor.add_(noise.to(tensor), alpha=0.05)
        paths[f"c{seed}"] = path = folder / f"c{seed}"
        model.save_pretrained(folder / "random" / path.name)
        # Only from_pretrained knows which tensors a model keeps in float32, and some have numbers
        # that it sets whatever is stored.
        _saving_class(config).from_pretrained(
            folder / "random" / path.name, dtype=getattr(torch, dtype)
        ).save_pretrained(path)
    return paths


def _saving_class(config: Any) -> Any:
    """The class that folders of this type are saved from: the multimodal one, where there is."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto import modeling_auto

    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    whole = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(config.model_type)
    return AutoModelForImageTextToText if whole not in (None, causal) else AutoModelForCausalLM


def _generator(seed: int, name: str) -> Any:
    import torch

    return torch.Generator().manual_seed(hash_of(f"{seed}/{name}"))


def hash_of(text: str) -> int:
    """Return a number that is the same in every process."""
    import zlib

    return zlib.crc32(text.encode())


def _expected(paths: dict[str, Path], dtype: str, weights: tuple[float, ...]) -> dict[str, Any]:
    """Average of what ``from_pretrained`` loads, tensor by tensor, and the buffers beside it."""
    states = [_load(path, dtype) for path in paths.values()]
    average = {}
    for name, tensor in states[0].state_dict().items():
        copies = [state.state_dict()[name] for state in states]
        if tensor.is_floating_point():
            total = sum(w * copy.double() for w, copy in zip(weights, copies, strict=True))
            average[name] = total.to(tensor.dtype)
        else:
            average[name] = tensor.clone()
    return average


def _load(path: Path, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()


def _merged_differs(
    paths: dict[str, Path], dtype: str, expected: list[dict[str, Any]], folder: Path
) -> str | None:
    """Return the first difference between proxies and what they should be."""
    import torch

    from optuna_demix.merging import Arena, ComponentSet, LiveModel

    live = LiveModel(Arena.build(ComponentSet.open(paths), folder / "x.arena"))
    for number, (weights, average) in enumerate(zip(MIXTURES, expected, strict=True)):
        live.merge(weights)
        state = live.model.state_dict()
        reference = _load(paths["c0"], dtype)
        if set(state) != set(average):
            return f"names differ: {sorted(set(state) ^ set(average))[0]}"
        beside = {} if number else dict(reference.named_buffers())  # later ones have been used
        for name, buffer in live.model.named_buffers():
            if name in beside and name not in state and not _close(buffer, beside[name]):
                return f"merge {number}: buffer {name} differs"
        for name, tensor in state.items():
            if not _close(tensor, average[name]):
                return f"merge {number}: {name} differs"
        for name, tensor in reference.state_dict().items():
            tensor.copy_(state[name])
        for ids in _INPUTS:
            wanted = _logits(reference, ids)
            if isinstance(wanted, Exception):
                if not isinstance(_logits(live.model, ids), Exception):
                    return f"merge {number}: only the reference fails ({wanted})"
                continue
            given = _logits(live.model, ids)
            if isinstance(given, Exception):
                raise given
            if not torch.allclose(given, wanted, rtol=1e-4, atol=1e-4, equal_nan=True):
                difference = float((given - wanted).abs().max())
                return f"merge {number}: logits differ by {difference:.3g}"
    return None


def _logits(model: Any, ids: tuple[int, ...]) -> Any:
    """Logits of one input in float32, or what the model raises."""
    import torch

    torch.manual_seed(0)
    try:
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids]), use_cache=False).logits.float().clone()
    except Exception as error:  # whatever a model's own code raises
        return error


def _close(given: Any, wanted: Any) -> bool:
    import torch

    if given.dtype != wanted.dtype or given.shape != wanted.shape:
        return False
    if not given.is_floating_point():
        return torch.equal(given, wanted)
    # Sums are float32, and terms may cancel.
    given, wanted, step = given.double(), wanted.double(), torch.finfo(given.dtype).eps
    noise = 4 * torch.finfo(torch.float32).eps * float(wanted.abs().nan_to_num(posinf=0).max())
    return torch.allclose(given, wanted, rtol=step, atol=noise, equal_nan=True)


def sweep(types: list[str], dtypes: tuple[str, ...] = DTYPES) -> Iterator[dict[str, Any]]:
    """Examine types in processes of their own, and yield what is found."""
    for dtype in dtypes:
        waiting = list(types)
        while waiting:
            batch, waiting = waiting[:_BATCH], waiting[_BATCH:]
            done = 0
            for outcome in _run_batch(batch, dtype):
                done += 1
                yield outcome
            if done < len(batch):  # the process died over this one
                reason = "the process died or took too long"
                yield {"type": batch[done], "dtype": dtype, "outcome": "crashed", "reason": reason}
                waiting = batch[done + 1 :] + waiting


def _run_batch(batch: list[str], dtype: str) -> list[dict[str, Any]]:
    command = [sys.executable, __file__, "--worker", "--dtypes", dtype, "--types", *batch]
    try:
        ended = subprocess.run(command, stdout=subprocess.PIPE, timeout=_TIMEOUT, check=False)
        output = ended.stdout
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
    lines = [line for line in output.decode().splitlines() if line.startswith('{"type"')]
    return [json.loads(line) for line in lines]


def _work(types: list[str], dtypes: list[str]) -> None:
    """Examine types in this process, one line of JSON each."""
    from transformers.utils import logging

    warnings.filterwarnings("ignore")
    logging.set_verbosity(logging.CRITICAL + 1)
    logging.disable_progress_bar()
    for dtype in dtypes:
        for model_type in types:
            with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
                print(json.dumps(examine(model_type, dtype, Path(folder))), flush=True)


def table(found: list[dict[str, Any]]) -> str:
    """Return the outcomes counted, as Markdown."""
    dtypes = list(dict.fromkeys(entry["dtype"] for entry in found))
    counts = Counter((entry["outcome"], entry["dtype"]) for entry in found)
    lines = ["| outcome | " + " | ".join(dtypes) + " |", "|---|" + "---|" * len(dtypes)]
    lines += [
        f"| {outcome} | " + " | ".join(str(counts[outcome, dtype]) for dtype in dtypes) + " |"
        for outcome in OUTCOMES
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the sweep; the exit status is 1 if a proxy was wrong or a traceback came."""
    parser = _common.parser(__doc__.split("\n")[0])
    parser.add_argument("--types", nargs="+", help="model types, by default all")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work(options.types, options.dtypes)
        return 0

    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    types = options.types or [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    found = []
    for entry in sweep(types[::_QUICK_STEP] if options.quick else types, tuple(options.dtypes)):
        found.append(entry)
        if entry["outcome"] != "equal":
            line = f"{entry['type']} {entry['dtype']}: {entry['outcome']} {entry['reason']}"
            print(line, flush=True)
    print(table(found))
    facts = {**_common.provenance(), "transformers": transformers.__version__}
    _common.write(options.out, {**facts, "found": found})
    return int(any(entry["outcome"] in ("wrong", "crashed") for entry in found))


if __name__ == "__main__":
    sys.exit(main())
