"""One checkpoint directory in the layout of transformers' ``save_pretrained``, headers only."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna_demix.merging._problem import problem, read_problem
from optuna_demix.merging.checkpoints.other_formats import no_directory, no_weights
from optuna_demix.merging.checkpoints.safetensors import TensorEntry, read_header
from optuna_demix.merging.checkpoints.tensor_reader import TensorReader

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from hashlib import _Hash

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
# Fields that change with the writer, not with the model.
VOLATILE_FIELDS = frozenset({"_name_or_path", "name_or_path", "transformers_version"})
_QUANTIZED = ("quantization_config", "compression_config")
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Checkpoint:
    """A directory of which the headers have been read, not the weights.

    Attributes:
        label: How messages call it: ``component 'code'`` or ``base``.
        path: The directory.
        config: The parsed ``config.json``.
        entries: Every stored tensor by its name in the file.
    """

    label: str
    path: Path
    config: dict[str, Any]
    entries: dict[str, TensorEntry]

    @property
    def model_path(self) -> Path:
        """Directory of the configurations and of the model's own code."""
        return self.path

    @property
    def tokenizer_path(self) -> Path:
        """Directory of the tokenizer's files."""
        return self.path

    @property
    def config_path(self) -> Path:
        """Path of ``config.json``."""
        return self.model_path / CONFIG_FILE

    def signature(self) -> list[list[Any]]:
        """Return ``[file name, size, mtime_ns]`` of every file the digest depends on."""
        files = {entry.file for entry in self.entries.values()} | {self.config_path}
        return file_signature(files, self.label)

    def digest(self) -> str:
        """Return the SHA-256 of all tensors, in the order of their names, and of the config."""
        config = {key: value for key, value in self.config.items() if key not in VOLATILE_FIELDS}
        state = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        hash_tensors(self.entries, self.label, state)
        return state.hexdigest()


def file_signature(files: Iterable[Path], label: str) -> list[list[Any]]:
    """Return ``[file name, size, mtime_ns]`` of files, in the order of their paths.

    Raises:
        ComponentError: If one of them cannot be found.
    """
    found: list[list[Any]] = []
    for file in sorted(files):
        try:
            stat = file.stat()
        except OSError as error:
            raise read_problem(label, error, file) from error
        found.append([file.name, stat.st_size, stat.st_mtime_ns])
    return found


def hash_tensors(entries: Mapping[str, TensorEntry], label: str, state: _Hash) -> None:
    """Bring tensors into a hash, in the order of their names.

    Raises:
        ComponentError: If one of them cannot be read.
    """
    with TensorReader(label) as reader:
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        for name, entry in sorted(entries.items()):
            state.update(json.dumps([name, entry.dtype, entry.shape]).encode())
            for start in range(0, entry.nbytes, _CHUNK_BYTES):
                part = buffer[: min(_CHUNK_BYTES, entry.nbytes - start)]
                reader.read_into(entry, start, part)
                state.update(part)


def open_checkpoint(path: str | os.PathLike[str], label: str) -> Checkpoint:
    """Read a checkpoint directory: its config and the headers of its weight files.

    Raises:
        ComponentError: If anything is missing, damaged or of a kind that cannot be merged.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise no_directory(directory, label)
    single, index = directory / WEIGHTS_FILE, directory / INDEX_FILE
    if not (single.is_file() or index.is_file()):
        raise no_weights(directory, label)
    config = _read_config(directory, label)
    # Same precedence as transformers when both are there.
    if single.is_file():
        entries = read_header(single, label)
    else:
        entries = _read_shards(index, label)
    if not entries:
        raise problem(label, "no tensors in the weight files", "save it again", file=directory)
    return Checkpoint(label, directory, config, entries)


def _read_config(directory: Path, label: str) -> dict[str, Any]:
    file = directory / CONFIG_FILE
    config = read_json(file, label, "save the model with save_pretrained")
    for scope in (config, *(value for value in config.values() if isinstance(value, dict))):
        for field in _QUANTIZED:
            if scope.get(field):
                what = f"field {field!r}: quantized weights cannot be averaged"
                remedy = "load the model dequantized and save it in bfloat16, float16 or float32"
                raise problem(label, what, remedy, file=file)
    return config


def read_json(file: Path, label: str, remedy: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ComponentError: If it is missing or holds anything else, saying what to do.
    """
    try:
        content = json.loads(file.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError as error:
        raise problem(label, "missing", remedy, file=file) from error
    except OSError as error:
        raise read_problem(label, error, file) from error
    except (ValueError, RecursionError) as error:
        raise problem(label, f"not valid JSON ({error})", remedy, file=file) from error
    return content


def _read_shards(index: Path, label: str) -> dict[str, TensorEntry]:
    again = "save or download the checkpoint again"
    weight_map = read_json(index, label, again).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(shard, str) for shard in weight_map.values()
    ):
        raise problem(label, "no usable 'weight_map'", again, file=index)
    entries: dict[str, TensorEntry] = {}
    for shard in sorted(set(weight_map.values())):
        file = index.parent / shard
        if Path(shard).name != shard:
            raise problem(label, f"shard {shard!r} lies outside the directory", again, file=index)
        if not file.is_file():
            raise problem(label, f"shard missing, named by {index.name}", again, file=file)
        found = read_header(file, label)
        for name in found:
            if weight_map.get(name) != shard:
                what = f"tensor {name!r} is in this shard but {index.name} does not say so"
                raise problem(label, what, again, file=file)
        entries.update(found)
    for name, shard in weight_map.items():
        if name not in entries:
            what = f"tensor {name!r} should be in this shard, says {index.name}, but is not"
            raise problem(label, what, again, file=index.parent / shard)
    return entries
