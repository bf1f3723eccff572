from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Their asserts should explain themselves as ours do.
pytest.register_assert_rewrite("optuna.testing.pytest_samplers")

# New examples are for a developer's desk; a change is judged by the same ones each time.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
