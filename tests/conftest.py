from __future__ import annotations

import pytest

# Their asserts should explain themselves as ours do.
pytest.register_assert_rewrite("optuna.testing.pytest_samplers")
