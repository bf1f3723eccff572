"""How Sphinx builds the pages: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from optuna_demix import __version__

project = "optuna-demix"
author = "The optuna_demix developers"
copyright = f"2026, {author}"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "references",
]
exclude_patterns = ["_build", "_ext", "README.md"]

html_theme = "furo"
html_title = f"optuna-demix {version}"
html_static_path = ["_static"]

# Code fences hold code only, which the tests run; directives stand between colons.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
default_role = "code"
napoleon_use_ivar = True
