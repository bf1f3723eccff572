"""The check on real files and models, through the command a user types."""

from __future__ import annotations

import json
import math
import shutil
import weakref
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.stats
import yaml

from optuna_demix import cli
from optuna_demix.config import load_study_config
from optuna_demix.fidelity import Fidelity, ScoredReference, check_fidelity, judge, scatter
from tests.tiny_study import COMPONENTS, make_study, make_tokenizer

torch = pytest.importorskip("torch")

N = 9
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(len(COMPONENTS)), size=N)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose references are its own proxies, written to disk."""
    from optuna_demix.merging import Arena, ComponentSet, LiveModel

    root = tmp_path_factory.mktemp("prepared") / "study"
    make_study(root)
    models = root / "run" / "models"
    shutil.copytree(models / COMPONENTS[0], models / "base")
    components = ComponentSet.open({name: models / name for name in COMPONENTS})
    live = LiveModel(Arena.build(components, root / "fixture.arena"))
    for i, w in enumerate(WEIGHTS):
        live.merge(w)
        live.save_pretrained(models / "references" / str(i))
    rows = {str(i): dict(zip(COMPONENTS, w.tolist(), strict=True)) for i, w in enumerate(WEIGHTS)}
    (models / "references" / "mixtures.json").write_text(json.dumps(rows))
    return root


def references(root: Path) -> Path:
    return root / "run" / "models" / "references"


def run(root: Path, *extra: str) -> int:
    return cli.main(["fidelity", str(root / "study.yaml"), "--no-progress", *extra])


def test_a_reference_that_is_its_proxy_agrees_with_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repeats = root / "repeats"
    shutil.copytree(references(root), repeats)
    out = root / "out"
    status = run(
        root, "--json", str(out / "f.json"), "--plots", str(out), "--repeats", str(repeats)
    )
    shown = capsys.readouterr().out
    assert status == 0
    found = json.loads((out / "f.json").read_text())
    merged = found["proxies"]["merged"]
    assert merged["macro"]["spearman"]["value"] == pytest.approx(1.0)
    assert merged["macro"]["recovery"]["value"] == pytest.approx(1.0)
    for row in found["references"]:
        assert row["trained"] == pytest.approx(row["proxies"]["merged"])
    assert set(merged["capabilities"]) == {"language", "reasoning"}
    assert found["ceiling"]["macro"]["spearman"]["value"] == pytest.approx(1.0)
    assert found["drift"]["prose"] == 0.0 and found["drift"]["code"] > 0.1
    assert "component" in shown and "has drifted" in shown and "best quarter" in shown
    for capability in found["benchmark_names"]:
        tree = ElementTree.parse(out / f"{capability}.svg")
        assert len(tree.findall(".//{http://www.w3.org/2000/svg}circle")) == 2 * N


def test_both_proxies_are_compared(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna_demix.config.space import space_of
    from optuna_demix.merging import LiveModel
    from optuna_demix.study import build_probabilities

    models: list[weakref.ref[Any]] = []
    init = LiveModel.__init__

    def alone(self: LiveModel, *args: Any, **options: Any) -> None:
        assert all(model() is None for model in models)  # two would need twice the memory
        init(self, *args, **options)
        models.append(weakref.ref(self.model))

    monkeypatch.setattr(LiveModel, "__init__", alone)
    assert run(root, "--json", str(root / "f.json")) == 0
    shown = capsys.readouterr().out
    found = json.loads((root / "f.json").read_text())
    assert len(models) == 2
    monkeypatch.undo()
    config = load_study_config(root / "study.yaml")
    proxy = build_probabilities(config, space_of(config), device="cpu")
    scores = proxy.scores(WEIGHTS)
    for i, row in enumerate(found["references"]):
        expected = dict(zip(proxy.benchmarks, scores[i], strict=True))
        assert row["proxies"]["probabilities"] == pytest.approx(expected)
    assert set(found["proxies"]) == {"merged", "probabilities", "both"}
    macro = found["comparison"]["macro"]
    assert macro["merged"] == pytest.approx(1.0) and macro["trust"] in ("merged", "either")
    assert found["merged_only"] == []
    assert "Which proxy to trust" in shown and "probabilities" in shown


def add_written_benchmark(root: Path, kept: str | None) -> None:
    """A study whose second capability is scored on text that a model writes."""
    task = yaml.safe_load((root / "tasks" / "math.yaml").read_text())
    task |= {"task": "tiny_write", "output_type": "generate_until", "doc_to_text": "{{page}}"}
    task |= {"generation_kwargs": {"until": ["."], "max_gen_toks": 2}}
    task |= {"metric_list": [{"metric": "exact_match"}]}
    (root / "tasks" / "write.yaml").write_text(yaml.safe_dump(task))
    study = yaml.safe_load((root / "study.yaml").read_text())
    study["capabilities"] = {"writing": [{"task": "tiny_write", "metric": "exact_match"}]}
    if kept is not None:
        study["capabilities"]["rest"] = [{"task": kept, "metric": "bits_per_byte"}]
    (root / "study.yaml").write_text(yaml.safe_dump(study))


def test_benchmarks_without_probabilities_are_judged_by_merges(root: Path) -> None:
    add_written_benchmark(root, "tiny_math")
    found = check_fidelity(load_study_config(root / "study.yaml"), references(root))
    written, kept = "tiny_write/exact_match", "tiny_math/bits_per_byte"
    assert found.merged_only == [written] and found.comparison is not None
    assert found.comparison.benchmarks[written].trust == "merged"
    assert set(found.proxies["probabilities"].benchmarks) == {kept}
    assert set(found.proxies["both"].capabilities) == {"rest"}
    rest = found.proxies["merged"].capabilities["rest"].spearman.value
    assert found.comparison.macro.merged == rest
    assert f"merged only, nothing else can score them: {written}" in str(found)


def test_without_a_probability_mixture_merges_alone_are_judged(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_written_benchmark(root, None)
    assert run(root, "--json", str(root / "f.json"), "--plots", str(root / "plots")) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "alone" in line]
    assert len(said) == 1 and "benchmark 'tiny_write/exact_match'" in said[0]
    found = json.loads((root / "f.json").read_text())
    assert set(found["proxies"]) == {"merged"} and found["comparison"] is None
    assert (root / "plots" / "writing.svg").is_file()


def test_a_score_that_is_not_finite_leaves_the_benchmark_to_merges(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna_demix.study import ProbabilityProxy

    scores = ProbabilityProxy.scores

    def broken(self: ProbabilityProxy, W: Any) -> Any:
        values = scores(self, W)
        values[3, self.benchmarks.index("tiny_math/bits_per_byte")] = np.nan
        return values

    monkeypatch.setattr(ProbabilityProxy, "scores", broken)
    found = check_fidelity(load_study_config(root / "study.yaml"), references(root))
    assert found.merged_only == ["tiny_math/bits_per_byte"]
    assert sum("'tiny_math/bits_per_byte' has no finite" in line for line in found.warnings) == 1
    assert "reference 3" in "".join(found.warnings)


def test_scores_are_kept_and_taken_up_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna_demix.scoring import HarnessScorer

    calls: list[int] = []
    score = HarnessScorer.score

    def counted(self: HarnessScorer) -> dict[str, float]:
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(1)
        return score(self)

    monkeypatch.setattr(HarnessScorer, "score", counted)
    assert run(root) == 130
    calls.clear()
    monkeypatch.setattr(HarnessScorer, "score", lambda self: calls.append(1) or score(self))
    config = load_study_config(root / "study.yaml")
    seen: list[tuple[int, int]] = []
    first = check_fidelity(config, references(root), done=lambda *count: seen.append(count))
    assert len(calls) == 2 * N - 5 and seen[-1] == (2 * N, 2 * N)
    calls.clear()
    again = check_fidelity(config, references(root))
    assert calls == [] and again.references == first.references
    # A score of another scoring plan is not taken for one of this.
    study = yaml.safe_load((root / "study.yaml").read_text())
    study["scoring"]["limit"] = 2
    (root / "study.yaml").write_text(yaml.safe_dump(study))
    check_fidelity(load_study_config(root / "study.yaml"), references(root))
    assert len(calls) == 2 * N


def swap(root: Path) -> None:
    file = references(root) / "mixtures.json"
    rows = json.loads(file.read_text())
    names = list(rows)
    file.write_text(json.dumps(dict(zip(names, reversed(rows.values()), strict=True))))


def test_references_of_other_mixtures_than_said_do_not_agree(root: Path) -> None:
    config = load_study_config(root / "study.yaml")
    swap(root)
    found = check_fidelity(config, references(root))
    rho = found.proxies["merged"].macro.spearman.value
    assert rho is not None and rho < 0.9


def damage_tokenizer(root: Path) -> str:
    make_tokenizer()  # the same vocabulary size, other merges
    file = references(root) / "2" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["merges"] = content["model"]["merges"][:-1]
    last = max(content["model"]["vocab"], key=content["model"]["vocab"].get)
    content["model"]["vocab"]["~~~"] = content["model"]["vocab"].pop(last)
    file.write_text(json.dumps(content))
    return "reference 2"


def damage_architecture(root: Path) -> str:
    file = references(root) / "2" / "config.json"
    content: dict[str, Any] = json.loads(file.read_text())
    content["rms_norm_eps"] = 0.5
    file.write_text(json.dumps(content))
    return "rms_norm_eps"


def damage_weights(root: Path) -> str:
    from safetensors.torch import load_file, save_file

    file = references(root) / "2" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] = math.nan
    save_file(tensors, file, metadata={"format": "pt"})
    return "tensor 'model.norm.weight' holds NaN"


def damage_sum(root: Path) -> str:
    file = references(root) / "mixtures.json"
    rows = json.loads(file.read_text())
    rows["2"][COMPONENTS[0]] += 0.5
    file.write_text(json.dumps(rows))
    return "not to 1"


def damage_number(root: Path) -> str:
    for i in range(2, N):
        shutil.rmtree(references(root) / str(i))
    (references(root) / "mixtures.json").write_text(
        json.dumps({str(i): dict.fromkeys(COMPONENTS, 1 / 3) for i in range(2)})
    )
    return "2 reference models are too few"


@pytest.mark.parametrize(
    "damage",
    [damage_tokenizer, damage_architecture, damage_weights, damage_sum, damage_number],
)
def test_bad_input_is_one_clear_line_and_no_figures(
    root: Path, capsys: pytest.CaptureFixture[str], damage: Any
) -> None:
    said = damage(root)
    assert run(root, "--json", str(root / "f.json")) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and not (root / "f.json").exists()
    message = captured.err.strip().split("optuna-demix: error:")[-1]
    assert said in message and "2" in message and "\n" not in message.strip()


def test_a_missing_score_is_refused_not_counted_as_zero(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from optuna_demix.scoring import HarnessScorer

    score = HarnessScorer.score
    monkeypatch.setattr(
        HarnessScorer, "score", lambda self: {**score(self), "tiny_math/bits_per_byte": math.nan}
    )
    assert run(root) == 2
    assert "reference 0: benchmark 'tiny_math/bits_per_byte' gives no" in capsys.readouterr().err


def test_repeats_must_be_the_same_mixtures(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(references(root), root / "repeats")
    swap(root)
    assert run(root, "--repeats", str(root / "repeats")) == 2
    assert "was trained on another mixture" in capsys.readouterr().err


def made_up(n: int, mixed_error: float | None = None) -> Fidelity:
    """References with proxies that miss their scores a little, and mixtures that miss by more."""
    rng = np.random.default_rng(1)
    rows = []
    for i, (t, e, f) in enumerate(rng.random((n, 3)).tolist()):
        proxies = {"merged": {"a": t + 0.1 * e, "b": t + 0.1 * f}}
        if mixed_error is not None:
            proxies["probabilities"] = {"a": 5 * (t + mixed_error * f)}
        rows.append(ScoredReference(str(i), {}, {}, proxies, {"a": t, "b": t}))
    return judge(rows, {"a & b": ["a"], "c": ["b"]})


def test_few_references_are_warned_of_and_figures_are_plain_json() -> None:
    few, many = made_up(10), made_up(40)
    assert any("best quarter of 10" in line for line in few.warnings) and not many.warnings
    assert json.loads(few.to_json())["ceiling"] is None
    assert "n/a" not in str(many) and "a & b" in str(many) and "proxy" not in str(many)


@pytest.mark.parametrize(
    ("error", "trust"), [(0.0, "probabilities"), (0.1, "either"), (3.0, "merged")]
)
def test_the_better_proxy_is_trusted_if_the_interval_says_so(error: float, trust: str) -> None:
    found = made_up(40, error)
    assert found.comparison is not None
    one = found.comparison.benchmarks["a"]
    assert one.trust == found.comparison.capabilities["a & b"].trust == trust
    assert one.difference.value == pytest.approx((one.probabilities or 0) - (one.merged or 0))
    assert found.comparison.macro.difference == one.difference  # of what both can score
    other = found.comparison.capabilities["c"]
    assert (other.probabilities, other.trust) == (None, "merged")
    assert found.merged_only == ["b"]
    text = str(found)
    assert len([line for line in text.splitlines() if line.endswith(f"  {trust}")]) >= 3


def test_the_mean_of_both_weighs_them_alike_whatever_their_units() -> None:
    found = made_up(40, 0.1)
    merged, mixed = (
        scipy.stats.zscore([row.proxies[kind]["a"] for row in found.references])
        for kind in ("merged", "probabilities")
    )
    trained = [row.trained["a"] for row in found.references]
    both = found.proxies["both"].benchmarks["a"]
    expected = scipy.stats.spearmanr(merged + mixed, trained).statistic
    assert both.spearman.value == pytest.approx(expected)
    assert both.recovery.value is None  # it has no level of its own


def test_a_plot_is_well_formed_whatever_a_capability_is_called() -> None:
    tree = ElementTree.fromstring(scatter(made_up(12), "a & b"))
    texts = [node.text for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert "a & b" in texts and any("Spearman" in str(text) for text in texts)
    places = [
        float(circle.attrib[at])
        for circle in tree.iter("{http://www.w3.org/2000/svg}circle")
        for at in ("cx", "cy")
    ]
    assert len(places) == 24 and 0 < min(places) and max(places) < 420
