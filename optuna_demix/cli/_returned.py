"""What ``optuna-demix check --components`` prints."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from optuna_demix.cli._console import console, say

if TYPE_CHECKING:
    from optuna_demix.config import StudyConfig


def print_returned(config: StudyConfig) -> None:
    """Check components that came back from a trainer, and print what names them in the study."""
    from optuna_demix.study.components import require_merging

    require_merging()
    from optuna_demix.training.returned import check_returned, study_lines

    for found in check_returned(config, report=console(shown=True)):
        facts = [] if found.steps is None else [f"{found.steps:,} steps"]
        if found.drift is not None:
            facts.append(f"drift {found.drift:.3f} from the base")
        print(f"  {found.name}: {', '.join([*facts, 'all weights finite'])}")
        if found.bends:
            say(
                f"{os.path.relpath(found.path)}: {found.name} has drifted so far that proxies "
                "score below trained models; 'optuna-demix fidelity' tells whether they still rank"
            )
    print(study_lines(config), end="")
