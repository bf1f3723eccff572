"""What the packages hand on, and what that imports."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

PACKAGES = [
    f"optuna_demix.merging{inner}" for inner in ("", ".arena", ".checkpoints", ".live", ".methods")
]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_that_is_handed_on_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


def test_packages_and_parameters_import_no_torch() -> None:
    program = (
        f"import sys; import {', '.join(PACKAGES)}; "
        "from optuna_demix.merging.methods import PARAMETERS; "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
