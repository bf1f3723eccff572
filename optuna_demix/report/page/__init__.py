"""``report.html``: one file that answers first, draws then, and predicts any mixture by itself.

:func:`build_page` makes it from :class:`~optuna_demix.report.data.ReportData`. Tables and bars are
written here; the scripts and the style in ``assets`` draw the plots once the page has its width,
and evaluate the surrogate. Nothing is loaded from anywhere.
"""

from __future__ import annotations

from optuna_demix.report.page.build import build_page

__all__ = ["build_page"]
