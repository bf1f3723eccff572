"""Other ways from component weights to a model ready to score, timed in a process of their own.

Run by ``merge_throughput.py`` under the interpreter that has mergekit; prints JSON. Nothing of
optuna_demix is imported here. Every way merges the mixtures it is given in turn; the first one
warms it up and is not counted, except for the command, which has nothing to keep warm.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    """Time one way and print ``{"seconds": […], "probe": […]}``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--components", nargs="+", type=Path, required=True)
    parser.add_argument("--mixtures", type=json.loads, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    print(json.dumps(WAYS[options.way](options.components, options.mixtures)))


def _timed(
    merge: Callable[[list[float]], Any], mixtures: list[list[float]]
) -> tuple[list[float], list[float]]:
    """Seconds of each merge, and a probe of the last model."""
    seconds, probe = [], []
    for w in mixtures:
        gc.collect()
        start = time.perf_counter()
        model = merge(w)
        seconds.append(time.perf_counter() - start)
        probe = _probe(model)
        del model
    return seconds, probe


def _each(
    merge: Callable[[list[float]], Any], mixtures: list[list[float]], made: Path
) -> dict[str, Any]:
    """Time merges that each write a directory, which is removed in between."""
    seconds: list[float] = []
    for w in mixtures:
        taken, probe = _timed(merge, [w])
        seconds += taken
        shutil.rmtree(made)
    return {"seconds": seconds, "probe": probe}


def _result(seconds: list[float], probe: list[float]) -> dict[str, Any]:
    """Leave out the first merge, which warms up."""
    return {"seconds": seconds[1:], "probe": probe}


def _probe(model: Any) -> list[float]:
    """A few parameters, by which ways can be told to have merged the same."""
    return [float(x) for x in model.get_input_embeddings().weight[1, :8]]


def _dtype(components: list[Path]) -> str:
    config = json.loads((components[0] / "config.json").read_text())
    return str(config.get("dtype") or config["torch_dtype"])


def _config(components: list[Path], w: list[float]) -> dict[str, Any]:
    """The merge as a published configuration file has it."""
    models = [
        {"model": str(path), "parameters": {"weight": weight}}
        for path, weight in zip(components, w, strict=True)
    ]
    return {"merge_method": "linear", "dtype": _dtype(components), "models": models}


def _load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def state_dict_loop(components: list[Path], mixtures: list[list[float]]) -> dict[str, Any]:
    """State dicts in memory, one tensor after another, sums in float32, ``load_state_dict``."""
    model = _load(components[0])
    tied = {name for name in model.state_dict() if name == "lm_head.weight"}
    states = []
    for path in components:
        state = _load(path).state_dict()
        states.append({name: tensor for name, tensor in state.items() if name not in tied})

    def merge(w: list[float]) -> Any:
        merged = {}
        for name, first in states[0].items():
            total = first.float() * w[0]
            for state, weight in zip(states[1:], w[1:], strict=True):
                total += state[name].float() * weight
            merged[name] = total.to(first.dtype)
        model.load_state_dict(merged, strict=False)
        return model

    return _result(*_timed(merge, mixtures))


def mergekit_command(components: list[Path], mixtures: list[list[float]]) -> dict[str, Any]:
    """``mergekit-yaml`` to a new directory, then ``from_pretrained``: the published path."""
    import yaml

    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(dir=components[0].parent) as name:
        folder = Path(name)

        def merge(w: list[float]) -> Any:
            (folder / "merge.yaml").write_text(yaml.safe_dump(_config(components, w)))
            command = [str(scripts / "mergekit-yaml"), str(folder / "merge.yaml")]
            subprocess.run(
                [*command, str(folder / "merged")], check=True, capture_output=True, text=True
            )
            return _load(folder / "merged")

        return _each(merge, mixtures[1:], folder / "merged")


def mergekit_to_disk(components: list[Path], mixtures: list[list[float]]) -> dict[str, Any]:
    """``run_merge`` in this process to a new directory, then ``from_pretrained``."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    with tempfile.TemporaryDirectory(dir=components[0].parent) as name:
        folder = Path(name)

        def merge(w: list[float]) -> Any:
            config = MergeConfiguration.model_validate(_config(components, w))
            run_merge(config, str(folder / "merged"), MergeOptions(quiet=True))
            return _load(folder / "merged")

        result = _each(merge, mixtures, folder / "merged")
    return _result(**result)


def mergekit_evolve(components: list[Path], mixtures: list[list[float]]) -> dict[str, Any]:
    """The in-memory path of mergekit-evolve: plan, execute, copy into one live model.

    The steps of its ``InMemoryMergeEvaluator.evaluate``, up to the evaluation. That class cannot
    be imported beside current lm-eval releases, and ``plan_in_memory`` fails in the validation of
    current pydantic releases; both are gone round here, and nothing else is changed.
    """
    from mergekit.architecture import arch_info_for_config
    from mergekit.config import MergeConfiguration
    from mergekit.graph import Executor
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import _model_out_config
    from mergekit.options import MergeOptions
    from mergekit.plan import MergePlanner

    options = MergeOptions(quiet=True)
    LoaderCache().setup(options)
    model = _load(components[0]).requires_grad_(False)
    parameters = dict(model.named_parameters())
    info = arch_info_for_config(model.config)

    def merge(w: list[float]) -> Any:
        config = MergeConfiguration.model_validate(_config(components, w))
        out = _model_out_config(config, info, trust_remote_code=False)
        tasks = _plan(MergePlanner(config, info, options, out))
        executor = Executor(tasks, math_device="cpu", storage_device="cpu")
        for task, value in executor.run(quiet=True):
            name = task.weight_info.name
            if name in parameters:
                parameters[name].data.copy_(value, non_blocking=True)
        return model

    return _result(*_timed(merge, mixtures))


def _plan(planner: Any) -> list[Any]:
    """What ``plan_in_memory`` returns, its tasks made without pydantic's validation."""
    from mergekit.io.tasks import ReturnTensor

    planner._plan()
    return [
        ReturnTensor.model_construct(
            weight_info=weight,
            tensor_task=task,
            dtype=weight.force_dtype or planner.config.out_dtype,
        )
        for weight, task in planner._tensors
    ]


def mergekit_state_dicts(components: list[Path], mixtures: list[list[float]]) -> dict[str, Any]:
    """``merge_state_dicts`` of state dicts in memory, then ``load_state_dict``."""
    from mergekit.merge_methods.api import merge_state_dicts
    from safetensors.torch import load_file

    model = _load(components[0])
    states = [load_file(path / "model.safetensors") for path in components]

    def merge(w: list[float]) -> Any:
        merged = merge_state_dicts(states, "linear", parameters={"weight": w})
        model.load_state_dict(merged, strict=False)
        return model

    with torch.no_grad():
        return _result(*_timed(merge, mixtures))


WAYS = {
    "state-dict loop": state_dict_loop,
    "mergekit command": mergekit_command,
    "mergekit to disk": mergekit_to_disk,
    "mergekit-evolve in memory": mergekit_evolve,
    "mergekit merge_state_dicts": mergekit_state_dicts,
}

if __name__ == "__main__":
    main()
