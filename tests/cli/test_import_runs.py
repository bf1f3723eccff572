"""``optuna-demix import`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

from optuna_demix.cli import main

SETS = ["web", "code", "math"]
BEST = np.array([0.2, 0.5, 0.3])


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(
        storage=f"sqlite:///{tmp_path / 'mix.db'}",
        study_name="mix",
        directions=["maximize", "maximize"],
    )


def write_study(folder: Path, **fields: Any) -> None:
    benchmark = {"metric": "bpb"}
    config = {
        "components": SETS,
        "capabilities": {
            "text": [{"task": "a", "name": "prose", **benchmark}],
            "stem": [{"task": x, "name": n, **benchmark} for x, n in (("b", "py"), ("c", "gsm"))],
        },
        **fields,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def swarm(n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Mixtures (n, 3) that were trained, and their losses (n, 3)."""
    W = np.random.default_rng(0).dirichlet(np.ones(3), size=n).round(4)
    losses = 1.0 + (np.sqrt(W) - np.sqrt(BEST)) ** 2
    return W, losses


def write_tables(folder: Path) -> list[str]:
    """Two tables as RegMix has them; the command that takes them in."""
    W, losses = swarm()
    for name, head, values in (
        ("mixtures", [f"train_{s}" for s in SETS], W),
        ("losses", ["metric/prose_loss", "metric/py_loss", "metric/gsm_loss"], losses),
    ):
        rows = [",".join(["index", *head])]
        rows += [",".join([str(i), *map(repr, row.tolist())]) for i, row in enumerate(values)]
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return [
        *command(folder, folder / "mixtures.csv"),
        *("--scores-table", str(folder / "losses.csv"), "--key", "index"),
        *("--weights", "train_{name}", "--scores", "metric/{name}_loss", "--losses"),
    ]


def command(folder: Path, table: Path) -> list[str]:
    words = ["import", str(folder / "study.yaml"), "--storage", f"sqlite:///{folder / 'mix.db'}"]
    return [*words, "--study-name", "mix", "--table", str(table)]


def test_a_swarm_of_two_tables_is_recommended_from(
    tmp_path: Path, study: optuna.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path)
    words = write_tables(tmp_path)
    assert main(words) == 0
    told = capsys.readouterr().err
    assert "24 runs of mixtures.csv became finished trials" in told
    assert told.splitlines()[-1].startswith("next: optuna-demix recommend ")
    trials = study.get_trials()
    W, losses = swarm()
    assert [trials[3].params[name] for name in SETS] == pytest.approx(W[3] / W[3].sum())
    assert trials[3].user_attrs["score:gsm"] == pytest.approx(-losses[3, 2])
    assert trials[3].values == pytest.approx([-losses[3, 0], -losses[3, 1:].mean()])
    assert study.metric_names == ["text", "stem"]

    assert main(words) == 0  # once more: nothing is taken twice
    assert "0 runs of mixtures.csv" in capsys.readouterr().err
    assert len(study.get_trials()) == 24

    recommend = ["recommend", *words[1:6], "--json", str(tmp_path / "found.json")]
    assert main(recommend) == 0
    found = json.loads((tmp_path / "found.json").read_text())["mixtures"]["recommended"]
    assert list(found["data_shares"].values()) == pytest.approx(BEST, abs=0.1)


def test_one_table_of_objectives_and_merge_weights(tmp_path: Path, study: optuna.Study) -> None:
    write_study(tmp_path, general={"dataset": "web", "share": 0.5})
    table = tmp_path / "runs.tsv"
    table.write_text("w.web\tw.code\tw.math\ttext\tstem\n0.2\t0.3\t0.5\t0.7\t0.1\n")
    words = [*command(tmp_path, table), "--weights", "w.{name}", "--of", "weights"]
    assert main(words) == 0
    (trial,) = study.get_trials()
    assert trial.params == {"web": 0.2, "code": 0.3, "math": 0.5}
    assert trial.values == [0.7, 0.1]


def test_data_shares_become_the_merge_weights_that_have_them(
    tmp_path: Path, study: optuna.Study
) -> None:
    write_study(tmp_path, general={"dataset": "web", "share": 0.5})
    table = tmp_path / "runs.csv"
    table.write_text("cc,code,math,text,stem\n0.7,0.2,0.1,0.5,0.5\n")
    assert main([*command(tmp_path, table), "--rename", "web=cc"]) == 0
    (trial,) = study.get_trials()
    assert [trial.params[name] for name in SETS] == pytest.approx([0.4, 0.4, 0.2])


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("web,code,math,text,stem\n0.5,0.3,0.1,1,1\n", [], "row 1: the weights sum to 0.9"),
        ("web,code,math,text,stem\n0.5,0.3,0.2,1,\n", [], "row 1, column 'stem': nothing is no"),
        ("web,code,math,text,stem\n0.5,x,0.2,1,1\n", [], "column 'code': 'x' is no number"),
        ("web,code,math,text,stem\n1.5,-0.7,0.2,1,1\n", [], "the weight of 'code' is negative"),
        ("web,code,maths,text,stem\n0.5,0.3,0.2,1,1\n", [], "did you mean 'maths'"),
        ("web,code,math,text\n0.5,0.3,0.2,1\n", [], "scores: "),
        ("web,code,math,text,stem\n", [], "there is no row"),
        ("web,code,math,text,stem\n1,0,0,1,1\n", ["--weights", "w"], "must hold {name} once"),
        ("web,code,math,text,stem\n1,0,0,1,1\n", ["--rename", "web"], "is not NAME=OTHER"),
        ("web,code,math,text,stem\n1,0,0,1,1\n", ["--key", "index"], "belong together"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    tmp_path: Path,
    study: optuna.Study,
    capsys: pytest.CaptureFixture[str],
    text: str,
    more: list[str],
    said: str,
) -> None:
    write_study(tmp_path)
    table = tmp_path / "runs.csv"
    table.write_text(text)
    assert main([*command(tmp_path, table), *more]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not study.get_trials() and study.metric_names is None


def test_a_later_row_that_is_wrong_keeps_the_earlier_ones_out(
    tmp_path: Path, study: optuna.Study
) -> None:
    write_study(tmp_path)
    table = tmp_path / "runs.csv"
    table.write_text("web,code,math,text,stem\n0.2,0.3,0.5,1,1\n0.2,0.3,0.4,1,1\n")
    assert main(command(tmp_path, table)) == 2
    assert not study.get_trials()


def test_keys_must_match(
    tmp_path: Path, study: optuna.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path)
    words = write_tables(tmp_path)
    losses = tmp_path / "losses.csv"
    losses.write_text("\n".join(losses.read_text().splitlines()[:-1]) + "\n")
    assert main(words) == 2
    assert "no row with index '23', which mixtures.csv has" in capsys.readouterr().err
