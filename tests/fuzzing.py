"""How many inputs a fuzz test tries: few in ``make test``, more in ``make test-faults``."""

from __future__ import annotations

import os

N_INPUTS = int(os.environ.get("FUZZ_INPUTS", "100"))
