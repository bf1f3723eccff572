from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest

from optuna_demix import MixtureSpace
from optuna_demix.report import ReportData, figures, gather, plots
from optuna_demix.report.data import effects_of
from optuna_demix.report.plots.best_mixtures import parts_of
from optuna_demix.report.plots.style import MOST_POINTS
from tests.report.studies import CAPABILITIES, COMPONENTS

pytestmark = pytest.mark.xdist_group("report")


def traces(figure: Any, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name == name]


def repeated(data: ReportData, n: int) -> ReportData:
    """The same study, its trials repeated until there are n of them."""
    rows = np.resize(np.arange(len(data.numbers)), n)
    arrays = ("weights", "values", "merit", "proposed", "proposed_std", "held_out", "held_out_std")
    return replace(
        data, numbers=np.arange(n), **{name: getattr(data, name)[rows] for name in arrays}
    )


def test_convergence_is_the_studys_own(data: ReportData, study: optuna.Study) -> None:
    figure = plots.plot_convergence(data)
    (trials,), (best,) = traces(figure, "trial"), traces(figure, "best so far")
    numbers = [t.number for t in study.trials if t.values is not None]
    np.testing.assert_array_equal(trials.x, numbers)
    values = np.array([study.trials[n].values for n in numbers])
    np.testing.assert_allclose(trials.customdata, values, rtol=1e-6)
    np.testing.assert_allclose(trials.y, data.recommendation.merit(values), rtol=1e-6)
    assert np.all(np.diff(best.y[:-1]) > 0)
    assert best.y[-1] == trials.y.max() and best.x[-1] == numbers[-1]
    (recommended,) = traces(figure, "recommended (predicted)")
    assert recommended.y[0] == data.recommendation.mixtures["recommended"].composite


def test_the_best_mixtures_add_up_and_stand_in_order(
    data: ReportData, study: optuna.Study, space: MixtureSpace
) -> None:
    figure = plots.plot_best_mixtures(data)
    left = [bar for bar in figure.data if bar.xaxis == "x"]
    right = [bar for bar in figure.data if bar.xaxis == "x2"]
    assert [bar.name for bar in left] == list(COMPONENTS) == [bar.name for bar in right]
    for bars in (left, right):
        np.testing.assert_allclose(sum(bar.x for bar in bars), 100, rtol=1e-5)
    assert list(left[0].y[:2]) == ["recommended", "prior"]
    shown = [int(label.split()[1]) for label in left[0].y[2:]]
    assert shown[0] == data.recommendation.best_trial
    merits = left[0].customdata[2:]
    assert np.all(np.diff(merits) <= 0) and merits[0] == np.float32(np.nanmax(data.merit))
    for row, number in enumerate(shown, start=2):
        weights = [study.trials[number].params[name] for name in COMPONENTS]
        np.testing.assert_allclose([bar.x[row] / 100 for bar in left], weights, rtol=1e-5)
        np.testing.assert_allclose(
            [bar.x[row] / 100 for bar in right], space.data_shares(weights), rtol=1e-5, atol=1e-7
        )
    by_name = {bar.name: bar.marker.color for bar in left}
    assert all(by_name[bar.name] == bar.marker.color for bar in right)
    assert len(set(by_name.values())) == len(COMPONENTS)


def test_many_components_keep_their_colours_apart(data: ReportData) -> None:
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(30), size=5)
    names = [f"d{i}" for i in range(30)]
    parts = parts_of(names, table)
    assert len(parts) == 12 and parts[-1][0] == "19 others"
    np.testing.assert_allclose(sum(part for _, part in parts), 1.0)
    kept = {name for name, _ in parts[:-1]}
    assert names[int(table.mean(axis=0).argmax())] in kept


def test_the_map_shows_the_three_largest_components(data: ReportData, study: optuna.Study) -> None:
    figure = plots.plot_mixture_map(data)
    weights = data.recommendation.merge_weights
    largest = sorted(weights, key=lambda name: -weights[name])[:3]
    layout = figure.layout.ternary
    corners = [layout[f"{axis}axis"].title.text for axis in "abc"]
    assert sorted(corners) == sorted(largest)
    (trials,), (star,) = traces(figure, "trial"), traces(figure, "recommended")
    assert len(trials.a) == 60
    for i, number in enumerate(trials.customdata[:, 0].astype(int)):
        params = study.trials[number].params
        given = [trials.a[i], trials.b[i], trials.c[i]]
        np.testing.assert_allclose(given, [params[name] for name in corners], rtol=1e-5)
        row = np.flatnonzero(data.numbers == number)[0]
        assert trials.marker.color[i] == np.float32(data.merit[row])
    assert [star.a[0], star.b[0], star.c[0]] == pytest.approx([weights[n] for n in corners])


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_few_components_have_a_map_as_well(n_components: int) -> None:
    space = MixtureSpace(COMPONENTS[:n_components])
    study = optuna.create_study(direction="maximize")
    rng = np.random.default_rng(0)
    for w in space.sample(12, rng):
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(zip(space.param_names, w.tolist(), strict=True)),
                distributions=space.distributions(),
                value=float(-((w[0] - 0.5) ** 2)),
            )
        )
    drawn = figures(gather(study, space))
    points = drawn["demix-mixture-map"].data[0]
    assert len(points.a if n_components == 3 else points.x) == 12
    # Every component was trained on its own dataset alone: one panel says it all.
    assert {bar.xaxis for bar in drawn["demix-best-mixtures"].data} == {"x"}
    assert drawn["demix-predictions"].layout.annotations[0].text == "value"


def test_predictions_stand_against_what_came_true(data: ReportData, study: optuna.Study) -> None:
    figure = plots.plot_predictions(data)
    for j, name in enumerate(CAPABILITIES):
        axis = "x" if j == 0 else f"x{j + 1}"
        proposed, held_out = (
            next(t for t in traces(figure, kind) if t.xaxis == axis)
            for kind in ("predicted when proposed", "held-out prediction")
        )
        assert len(held_out.x) == 60 and len(proposed.x) == 44  # the first 16 were drawn blindly
        for i, number in enumerate(proposed.customdata[:, 0].astype(int)):
            trial = study.trials[number]
            assert proposed.x[i] == np.float32(trial.user_attrs[f"predicted:{name}"])
            assert proposed.y[i] == np.float32(trial.values[j])
        # A surrogate that had seen a trial would be closer to it than one trial's noise.
        residual = np.std(held_out.x - held_out.y)
        assert 0.002 < residual < 0.05


def test_effects_are_those_of_the_surface() -> None:
    space = MixtureSpace(["a", "b", "c"])

    def predict(X: np.ndarray) -> np.ndarray:
        return np.column_stack([3 * X[:, 0] - X[:, 1], np.zeros(len(X))])

    effects = effects_of(predict, space, ["linear", "flat"])
    base = space.sample(256, np.random.default_rng([0, 3]))
    slope = np.array([3.0, -1.0, 0.0])
    expected = 0.1 * (slope - (base @ slope).mean())
    np.testing.assert_allclose(effects.change, [expected, np.zeros(3)], atol=1e-12)
    np.testing.assert_allclose(effects.spread, [(base @ slope).std(), 0.0])


def test_the_heat_map_names_rows_and_columns(data: ReportData) -> None:
    (cells,) = plots.plot_effects(data).data
    assert list(cells.x) == list(COMPONENTS)
    assert sorted(cells.y) == sorted(n for names in CAPABILITIES.values() for n in names)
    z = dict(zip(cells.y, cells.z, strict=True))
    assert z["gsm8k/exact_match"].argmax() == COMPONENTS.index("math_high")
    assert z["humaneval/pass@1"].argmax() == COMPONENTS.index("code_high")
    assert z["hellaswag/acc_norm"].argmax() == COMPONENTS.index("general")
    assert cells.zmin == -cells.zmax  # white is no effect
    assert cells.text[0][0] == f"{cells.z[0][0]:+.2f}"


def test_long_studies_are_thinned_and_say_so(data: ReportData) -> None:
    long = repeated(data, 2000)
    drawn = figures(long)
    points = drawn["demix-convergence"].data[0]
    assert len(points.x) <= MOST_POINTS
    best = set(np.argsort(-long.merit, kind="stable")[:200].tolist())
    assert best <= set(points.x.tolist())
    assert points.x.min() < 50 and points.x.max() > 1950
    assert "of 2,000 trials" in drawn["demix-convergence"].layout.title.subtitle.text
    assert sum(len(figure.to_json()) for figure in drawn.values()) < 200_000


def test_short_studies_show_every_trial(data: ReportData) -> None:
    drawn = figures(data)
    assert all("shown" not in figure.layout.title.subtitle.text for figure in drawn.values())
    for figure in drawn.values():
        json.loads(figure.to_json())


def test_trials_that_break_a_constraint_are_left_out(
    study: optuna.Study, space: MixtureSpace
) -> None:
    bad = {7, 11}
    constrained = optuna.create_study(directions=["maximize"] * 3)
    for trial in study.trials[:20]:
        trial.system_attrs["constraints:size"] = 1.0 if trial.number in bad else -1.0
        constrained.add_trial(trial)
    data = gather(constrained, space)
    assert set(data.numbers[~np.isfinite(data.merit)]) == bad
    shown = plots.plot_convergence(data).data[0].x
    assert set(shown) == set(range(20)) - bad


def test_names_are_shown_as_they_are(data: ReportData) -> None:
    odd = replace(data, objectives=("a<b>", "x&y", "z"))
    titles = [a.text for a in plots.plot_predictions(odd).layout.annotations]
    assert titles[:2] == ["a&lt;b&gt;", "x&amp;y"]
