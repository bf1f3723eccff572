"""Runs that were made elsewhere, from tables to finished trials of a study."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix._progress import Report
from optuna_demix._wording import counted, unknown_name
from optuna_demix.attributes import IMPORTED_ATTR, OBJECTIVES_ATTR, SCORE_PREFIX
from optuna_demix.config.study import capabilities_of, objective_names
from optuna_demix.errors import ConfigError, DemixError, InputError
from optuna_demix.mixture.reach import nearest_weights
from optuna_demix.study.search import layout_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix.config import StudyConfig
    from optuna_demix.mixture import MixtureSpace

NAME = "{name}"
# Tables hold rounded weights: sums that miss 1 by more are refused.
_SUM = 1e-2
# The components must reach data shares this nearly, each of them.
_MISSED = 1e-2


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
        path: The file.
        rows: The rows, each a mapping of column to cell.
    """

    path: Path
    rows: list[dict[str, str]]

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.rows[0]) if self.rows else []


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a table hold what.

    Attributes:
        weights: Pattern of the columns of weights, such as ``"train_{name}"``.
        scores: Pattern of the columns of scores, such as ``"metric/{name}_loss"``; the names are
            benchmarks of the study, or its objectives.
        names: What a name of the study is called in the table, where it is called otherwise.
        of: Whether weights are merge weights of components or ``"shares"`` of datasets.
        is_loss: Whether lower scores are better.

    Raises:
        ConfigError: If a pattern does not hold ``{name}`` once.
    """

    weights: str = NAME
    scores: str = NAME
    names: Mapping[str, str] = field(default_factory=dict)
    of: str = "shares"
    is_loss: bool = False

    def __post_init__(self) -> None:
        for what in ("weights", "scores"):
            pattern = getattr(self, what)
            if pattern.count(NAME) != 1:
                raise ConfigError(
                    f"--{what} {pattern!r} must hold {NAME} once: where a column has the name"
                )

    def column(self, pattern: str, name: str) -> str:
        """The column of a name."""
        return pattern.replace(NAME, self.names.get(name, name))


def read_table(path: Path) -> Table:
    """Read a ``.csv``, ``.tsv`` or ``.parquet`` file.

    Raises:
        InputError: If it cannot be read, or has no row.
    """
    try:
        if path.suffix == ".parquet":
            rows = _parquet_rows(path)
        else:
            with path.open(newline="", encoding="utf-8-sig") as file:
                delimiter = "\t" if path.suffix == ".tsv" else ","
                reader = csv.DictReader(file, delimiter=delimiter, restkey="")
                rows = [{str(k): str(v or "") for k, v in row.items()} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a table: {error}") from None
    if not rows:
        raise InputError(f"{path}: there is no row in it")
    return Table(path, rows)


def _parquet_rows(path: Path) -> list[dict[str, str]]:
    try:
        import pandas as pd

        frame = pd.read_parquet(path)
    except ImportError:
        raise DemixError(
            f"{path}: parquet needs pandas and pyarrow; run pip install 'optuna-demix[models]', "
            "or write the table as .csv"
        ) from None
    return [
        {str(key): "" if value is None else str(value) for key, value in row.items()}
        for row in frame.to_dict("records")
    ]


def join(weights: Table, scores: Table, key: str) -> Table:
    """Join a table of weights and one of scores, row by row of equal keys.

    Raises:
        InputError: If one lacks the column, or a key is there twice or in one table only.
    """
    by_key: list[dict[str, dict[str, str]]] = []
    for table in (weights, scores):
        if key not in table.columns:
            hint = unknown_name(key, table.columns, "column")
            raise InputError(f"{table.path}: --key: {hint}")
        found: dict[str, dict[str, str]] = {}
        for row in table.rows:
            if row[key] in found:
                raise InputError(f"{table.path}: {key} {row[key]!r} is there twice; remove one")
            found[row[key]] = row
        by_key.append(found)
    first, second = by_key
    lacking = [name for name in first if name not in second]
    if lacking:
        raise InputError(
            f"{scores.path}: no row with {key} {lacking[0]!r}, which {weights.path.name} has"
            + (f"; {len(lacking)} are missing" if len(lacking) > 1 else "")
        )
    return Table(weights.path, [{**second[name], **row} for name, row in first.items()])


def trials_of(
    table: Table, columns: Columns, config: StudyConfig, space: MixtureSpace
) -> list[FrozenTrial]:
    """Finished trials of the rows of a table.

    Args:
        table: One row for each run.
        columns: Which column holds what.
        config: The study: its benchmarks and objectives.
        space: Its mixture.

    Raises:
        InputError: If a column is missing, a cell is no number, weights do not sum to 1, or the
            components do not reach the data shares; the message names file, row and column.
    """
    names = space.datasets if columns.of == "shares" else space.components
    of_weights = {name: columns.column(columns.weights, name) for name in names}
    scored = _scored(table, columns, config)
    for name, column in of_weights.items():
        if column not in table.columns:
            hint = unknown_name(column, table.columns, "column")
            raise InputError(f"{table.path}: weight of {name!r}: {hint}; see --weights, --rename")
    sign = -1.0 if columns.is_loss else 1.0
    objectives, layout = objective_names(config), layout_of(config)
    trials = []
    for number, row in enumerate(table.rows, start=1):
        where = f"{table.path}: row {number}"
        weights = np.array([_number(row, column, where) for column in of_weights.values()])
        w = _merge_weights(weights, names, columns.of, space, where)
        scores = {name: sign * _number(row, column, where) for name, column in scored.items()}
        source = f"{table.path.name}: row {number}"
        trials.append(_trial(w, scores, objectives, layout, space, source))
    return trials


def add_trials(
    study: Study, trials: Sequence[FrozenTrial], config: StudyConfig, report: Report | None = None
) -> int:
    """Add trials to a study, but those that were added before, and return how many.

    Rows are known by table and row, and by their values: an import that was interrupted goes on
    where it stopped, and a table that was corrected is taken in anew.
    """
    layout = layout_of(config)
    names = [name for objective in layout for name in objective]
    are_scored = all(SCORE_PREFIX + name in trials[0].user_attrs for name in names)
    if are_scored and study.user_attrs.get(OBJECTIVES_ATTR) != layout:
        study.set_user_attr(OBJECTIVES_ATTR, layout)
    known = {_identity(trial) for trial in study.get_trials(deepcopy=False)}
    new = [trial for trial in trials if _identity(trial) not in known]
    with (report or Report()).step("adding trials", unit="trial", total=len(new)) as step:
        for trial in new:
            study.add_trial(trial)
            step.advance()
    return len(new)


def _scored(table: Table, columns: Columns, config: StudyConfig) -> dict[str, str]:
    """Columns by benchmark; by objective if the table does not hold all benchmarks."""
    benchmarks = [name for names in capabilities_of(config).values() for name in names]
    objectives = objective_names(config)
    for names in (benchmarks, objectives):
        found = {name: columns.column(columns.scores, name) for name in names}
        if all(column in table.columns for column in found.values()):
            return found
    lacking = next(
        column
        for column in (columns.column(columns.scores, name) for name in benchmarks)
        if column not in table.columns
    )
    hint = unknown_name(lacking, table.columns, "column")
    raise InputError(
        f"{table.path}: scores: {hint}; the table needs a column for each benchmark "
        f"({', '.join(benchmarks)}) or objective ({', '.join(objectives)}), see --scores, --rename"
    )


def _merge_weights(
    weights: np.ndarray, names: Sequence[str], of: str, space: MixtureSpace, where: str
) -> np.ndarray:
    """Merge weights (K,) of the weights of a row."""
    below = np.flatnonzero(weights < 0.0)
    if len(below):
        raise InputError(f"{where}: the weight of {names[int(below[0])]!r} is negative")
    total = float(weights.sum())
    if abs(total - 1.0) > _SUM:
        raise InputError(f"{where}: the weights sum to {total:.6g}; they must sum to 1")
    weights = weights / total
    if of == "weights":
        return weights
    w = nearest_weights(weights, space.composition)
    off = np.abs(w @ space.composition - weights)
    if off.max() > _MISSED:
        worst = int(off.argmax())
        raise InputError(
            f"{where}: no merge of the components has these data shares: {names[worst]!r} is "
            f"{weights[worst]:.4f}, the nearest {float((w @ space.composition)[worst]):.4f}; give "
            "--of weights if the table holds merge weights"
        )
    return w


def _trial(
    w: np.ndarray,
    scores: Mapping[str, float],
    objectives: Sequence[str],
    layout: Sequence[Mapping[str, float]],
    space: MixtureSpace,
    source: str,
) -> FrozenTrial:
    attrs: dict[str, Any] = {IMPORTED_ATTR: source}
    if set(scores) == set(objectives):
        values = [scores[name] for name in objectives]
    else:
        attrs |= {SCORE_PREFIX + name: score for name, score in scores.items()}
        values = [
            sum(weight * scores[name] for name, weight in objective.items())
            for objective in layout
        ]
    return space.create_trial(w, values, user_attrs=attrs)


def _identity(trial: FrozenTrial) -> tuple[Any, ...]:
    params = tuple(round(float(value), 9) for _, value in sorted(trial.params.items()))
    return (trial.user_attrs.get(IMPORTED_ATTR), params, tuple(trial.values or ()))


def _number(row: Mapping[str, str], column: str, where: str) -> float:
    text = row[column].strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        given = repr(text) if text else "nothing"
        raise InputError(f"{where}, column {column!r}: {given} is no number; correct or remove it")
    return value


def summary(n_added: int, n_rows: int, table: Path) -> str:
    """What an import did, in words."""
    known = n_rows - n_added
    rest = f"; {counted(known, 'row')} were there already" if known else ""
    return f"{counted(n_added, 'run')} of {table.name} became finished trials{rest}"
