"""What a path is that holds no safetensors of a whole model, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix.merging._problem import problem

if TYPE_CHECKING:
    from pathlib import Path

    from optuna_demix.errors import ComponentError

_SAVE = "load the model with from_pretrained and save it with save_pretrained"
# By the ending of the name; the first that is there is named.
_FORMATS = (
    (
        ".gguf",
        "GGUF, a format for inference alone, is not read",
        "give the directory of the safetensors it was made from, or load it with "
        "from_pretrained(directory, gguf_file=name) and save it with save_pretrained",
    ),
    (".bin", "weights in a pickle, which could run code, are not read", _SAVE),
    (".pt", "weights in a pickle, which could run code, are not read", _SAVE),
    (".pth", "weights in a pickle, which could run code, are not read", _SAVE),
    (".ckpt", "weights in a pickle, which could run code, are not read", _SAVE),
    (".msgpack", "weights of Flax are not read", _SAVE),
    (".h5", "weights of TensorFlow are not read", _SAVE),
)
_NO_WEIGHTS = frozenset({"training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"})


def no_directory(path: Path, label: str) -> ComponentError:
    """Return the error for a path that is no directory."""
    if not path.exists():
        remedy = "give the path of a downloaded or trained model directory"
        return problem(label, f"no such directory: {path}", remedy)
    for ending, what, remedy in _FORMATS:
        if path.name.endswith(ending):
            return problem(label, what, remedy, file=path)
    return problem(label, "a file, not a directory", "give the directory it lies in", file=path)


def no_weights(directory: Path, label: str) -> ComponentError:
    """Return the error for a directory without the weights of a whole model in safetensors."""
    names = sorted(file.name for file in directory.iterdir() if file.name not in _NO_WEIGHTS)
    if "adapter_model.safetensors" in names:
        what = "weights of an adapter without adapter_config.json"
        remedy = "copy that file there, too"
        return problem(label, what, remedy, file=directory / "adapter_model.safetensors")
    for ending, what, remedy in _FORMATS:
        for name in names:
            if name.endswith(ending):
                return problem(label, what, remedy, file=directory / name)
    what = f"neither model.safetensors nor model.safetensors.index.json in {directory}"
    return problem(label, what, "save the model with save_pretrained")
