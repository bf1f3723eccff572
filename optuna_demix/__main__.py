"""``python -m optuna_demix``: the same as the ``optuna-demix`` command."""

from __future__ import annotations

import sys

from optuna_demix.cli._main import main

sys.exit(main())
