"""A study with many finished trials, written by COPY: what workers wrote one by one for weeks."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import optuna
from _crowd import CAPABILITIES, COMPONENTS, STUDY, benchmark_scores

from optuna_demix import MixtureSpace
from optuna_demix.attributes import OBJECTIVES_ATTR, PROPOSAL_ATTR, SCORE_PREFIX
from optuna_demix.search.rows.targets import objective_layout


def new_study(url: str, n_trials: int, *, seed: int) -> None:
    """Make the study in an empty PostgreSQL database, with finished trials in it."""
    study = optuna.create_study(
        storage=url, study_name=STUDY, directions=["maximize"] * len(CAPABILITIES)
    )
    study.set_user_attr(OBJECTIVES_ATTR, objective_layout(CAPABILITIES, None))
    if n_trials:
        _copy(url, study._study_id, n_trials, seed)
        assert len(study.get_trials(deepcopy=False)) == n_trials


def _copy(url: str, study_id: int, n_trials: int, seed: int) -> None:
    import psycopg

    rng = np.random.default_rng(seed)
    mixtures = MixtureSpace(COMPONENTS).sample(n_trials, rng)  # (n, K)
    distribution = optuna.distributions.distribution_to_json(
        optuna.distributions.FloatDistribution(0.0, 1.0)
    )
    begin = datetime(2026, 1, 1)
    tables: dict[str, list[tuple[Any, ...]]] = {
        "trials (trial_id, number, study_id, state, datetime_start, datetime_complete)": [],
        "trial_params (trial_id, param_name, param_value, distribution_json)": [],
        "trial_values (trial_id, objective, value, value_type)": [],
        "trial_user_attributes (trial_id, key, value_json)": [],
        "trial_system_attributes (trial_id, key, value_json)": [],
    }
    trials, params, values, user, system = tables.values()
    for number, weights in enumerate(mixtures):
        trial_id = number + 1
        start = begin + timedelta(seconds=number)
        trials.append((trial_id, number, study_id, "COMPLETE", start, start))
        proposal = dict(zip(COMPONENTS, map(float, weights), strict=True))
        params += [(trial_id, name, value, distribution) for name, value in proposal.items()]
        scores = benchmark_scores(weights)
        for objective, names in enumerate(CAPABILITIES.values()):
            value = float(np.mean([scores[name] for name in names]))
            values.append((trial_id, objective, value, "FINITE"))
        user += [(trial_id, SCORE_PREFIX + k, json.dumps(v)) for k, v in scores.items()]
        user.append((trial_id, "demix:worker", json.dumps("elsewhere 0a1b2c3d 1")))
        system.append((trial_id, PROPOSAL_ATTR, json.dumps(proposal)))
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for table, rows in tables.items():
            with cursor.copy(f"COPY {table} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        cursor.execute("SELECT setval('trials_trial_id_seq', %s)", (n_trials,))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")
