"""The probability mixture of a whole study: its components scored once, then any mixture."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from optuna_demix.cli import main
from optuna_demix.config import load_study_config
from optuna_demix.config.space import space_of
from optuna_demix.errors import ComponentError, NeedsModelError, TaskError
from optuna_demix.study import build_objective, build_probabilities
from tests.tiny_study import COMPONENTS, make_study, make_tokenizer, save_model, write_study

pytestmark = pytest.mark.xdist_group("scoring")

CAPABILITIES = {
    "language": [{"task": "tiny_prose", "metric": "bits_per_byte"}],
    "reasoning": [
        {"task": "tiny_code", "metric": "bits_per_byte"},
        {"task": "tiny_choice", "metric": "acc_norm"},
    ],
}


@pytest.fixture(scope="session", autouse=True)
def _private_dataset_cache(tmp_path_factory: pytest.TempPathFactory):
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = make_study(tmp_path_factory.mktemp("study") / "tiny")
    tasks = file.parent / "tasks"
    rows = [
        {"question": text, "choices": ["the cat", "a", "x - r"], "gold": i % 3}
        for i, text in enumerate(["the dog", "return a", "let p", "print (", "divides", "and"])
    ]
    (tasks / "choice.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "tiny_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "choice.jsonl"}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "gold",
        "doc_to_choice": "{{choices}}",
        "metric_list": [{"metric": metric} for metric in ("acc_norm", "exact_match")],
    }
    (tasks / "choice.yaml").write_text(yaml.safe_dump(task))
    del task["doc_to_choice"]
    task |= {"task": "tiny_write", "output_type": "generate_until"}
    task |= {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 4}}
    task |= {"metric_list": [{"metric": "exact_match"}], "doc_to_target": "the cat"}
    (tasks / "write.yaml").write_text(yaml.safe_dump(task))
    return file


@pytest.fixture
def study(original: Path, tmp_path: Path) -> Path:
    """Its own copy of the study's file, with its own ``run_dir``; models and tasks are shared."""
    (tmp_path / "tasks").symlink_to(original.parent / "tasks")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "models").symlink_to(original.parent / "run" / "models")
    return write_study(tmp_path, capabilities=CAPABILITIES)


def build(study: Path, said: list[str] | None = None, **options):
    config = load_study_config(study)
    report = None if said is None else said.append
    return build_probabilities(config, space_of(config), device="cpu", report=report, **options)


def rows_of(study: Path) -> list[Path]:
    return sorted((study.parent / "run" / "probabilities").glob("*/*.npy"))


def test_a_vertex_scores_as_the_component_does(study: Path) -> None:
    config = load_study_config(study)
    space = space_of(config)
    objective, _ = build_objective(config, space, device="cpu")
    proxy = build_probabilities(config, space, device="cpu")
    assert not proxy.slow and not proxy.smooth
    for w, scores in zip(np.eye(3), proxy.scores(np.eye(3)), strict=True):
        own = objective.score(w).benchmarks
        assert scores == pytest.approx([own[name] for name in proxy.benchmarks], rel=1e-6)


@pytest.mark.parametrize("exponent", [1.0, 0.7])
def test_it_agrees_with_the_mean_of_the_models_softmax_outputs(
    study: Path, exponent: float
) -> None:
    """Bits per byte of mixed probabilities, computed from the checkpoints by hand."""
    import torch
    from transformers import AutoModelForCausalLM

    write_study(
        study.parent,
        capabilities={"all": [{"task": "tiny_prose", "metric": "bits_per_byte"}]},
        probabilities={"exponent": exponent},
    )
    proxy = build(study)
    tokenizer = make_tokenizer()
    models = [
        AutoModelForCausalLM.from_pretrained(study.parent / "run" / "models" / name).eval()
        for name in COMPONENTS
    ]
    pages = [
        json.loads(line)["page"]
        for line in (study.parent / "tasks" / "prose.jsonl").read_text().splitlines()
    ]
    weights = np.array([[0.2, 0.5, 0.3], [0.0, 0.9, 0.1]])
    expected = []
    for w in weights**exponent / (weights**exponent).sum(axis=1, keepdims=True):
        nats = 0.0
        for page in pages:
            ids = tokenizer(page, add_special_tokens=False).input_ids
            for start in range(0, len(ids), 32):  # lm-eval's windows of max_length 32
                window = ids[start : start + 32]
                first = start + len(window) - 32
                context = [0, *ids][max(0, first) : start + len(window)]
                with torch.no_grad():
                    mixed = sum(
                        share * model(torch.tensor([context])).logits[0].double().softmax(-1)
                        for share, model in zip(w, models, strict=True)
                    )
                for position, token in zip(range(-len(window), 0), window, strict=True):
                    nats += math.log(mixed[position, token])
        expected.append(nats / sum(len(page.encode()) for page in pages) / math.log(2))
    assert proxy.scores(weights)[:, 0] == pytest.approx(expected, rel=1e-5)


def test_known_scores_equal_lm_evals_at_any_mixture(study: Path) -> None:
    write_study(study.parent, capabilities=CAPABILITIES, probabilities={"exponent": 1.0})
    proxy = build(study)
    W = np.random.default_rng(5).dirichlet(np.ones(3), 6)
    fast = proxy.scores(W)
    for row, likelihoods in zip(fast, proxy.mixture.log_likelihoods(W), strict=True):
        slow = proxy.replay.scores(likelihoods)
        assert row == pytest.approx([slow[name] for name in proxy.benchmarks], rel=1e-12)
    proxy.functions.clear()
    assert proxy.slow == proxy.benchmarks
    assert proxy.scores(W) == pytest.approx(fast, rel=1e-12)


@pytest.mark.parametrize("exponent", [1.0, 0.7])
def test_gradients_are_those_of_differences(study: Path, exponent: float) -> None:
    write_study(study.parent, probabilities={"exponent": exponent})  # bits per byte alone
    proxy = build(study)
    assert proxy.smooth
    w, step = np.array([0.2, 0.5, 0.3]), 1e-3 * np.array([1.0, -2.0, 1.0])
    change = proxy.scores([w + step, w - step])
    along = proxy.gradients(w) @ step
    assert along == pytest.approx((change[0] - change[1]) / 2, rel=1e-3)


def test_components_are_scored_once(study: Path) -> None:
    said: list[str] = []
    first = build(study, said)
    assert [line for line in said if line.startswith("scoring")] == [
        f"scoring component {name} for its token probabilities" for name in COMPONENTS
    ]
    assert len(rows_of(study)) == 3
    again: list[str] = []
    second = build(study, again)
    assert not [line for line in again if line.startswith("scoring")]
    W = np.full((1, 3), 1 / 3)
    assert second.scores(W).tolist() == first.scores(W).tolist()


def test_a_truncated_row_is_scored_again(study: Path) -> None:
    build(study)
    file = rows_of(study)[0]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    said: list[str] = []
    build(study, said)
    assert len([line for line in said if line.startswith("scoring")]) == 1
    assert file.read_bytes() == whole


def test_rows_of_other_components_or_tasks_are_not_used(study: Path) -> None:
    build(study)
    before = rows_of(study)
    write_study(study.parent)
    said: list[str] = []
    build(study, said)
    assert len([line for line in said if line.startswith("scoring")]) == 3
    write_study(study.parent, capabilities=CAPABILITIES)
    models = study.parent / "run" / "models"
    shared = models.readlink()
    models.unlink()
    models.mkdir()
    for name in ("prose", "code"):
        (models / name).symlink_to(shared / name)
    save_model(models / "math", make_tokenizer(), seed=9)
    said.clear()
    build(study, said)
    assert [line for line in said if line.startswith("scoring")] == [
        "scoring component math for its token probabilities"
    ]
    assert set(before) < set(rows_of(study))


def test_a_method_that_changes_components_leaves_the_rows_alone(study: Path) -> None:
    """Vertices of TIES are no components: it gets an arena of its own."""
    build(study)
    before = {file: file.stat().st_mtime_ns for file in rows_of(study)}
    write_study(
        study.parent,
        capabilities=CAPABILITIES,
        base="run/models/prose",
        merging={"method": "ties", "parameters": {"density": 0.5}},
    )
    build(study)
    assert {file: file.stat().st_mtime_ns for file in rows_of(study)} == before
    assert not (study.parent / "run" / "probabilities" / "components.arena.partial").exists()


def test_scores_that_are_not_numbers_name_the_component(study: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    models = study.parent / "run" / "models"
    shared = models.readlink()
    models.unlink()
    models.mkdir()
    for name in ("prose", "math"):
        (models / name).symlink_to(shared / name)
    broken = AutoModelForCausalLM.from_pretrained(shared / "code")
    with torch.no_grad():
        broken.model.embed_tokens.weight.mul_(1e3)
        broken.model.norm.weight.fill_(1e38)  # finite, but not what is computed with it
    broken.save_pretrained(models / "code")
    make_tokenizer().save_pretrained(models / "code")
    with pytest.raises(ComponentError, match="component 'code' gives log-prob.*not finite"):
        build(study)
    assert len(rows_of(study)) == 1


def test_a_benchmark_that_needs_more_is_refused_before_anything_is_scored(study: Path) -> None:
    write_study(
        study.parent,
        capabilities={"all": [{"task": "tiny_choice", "metric": "exact_match"}]},
    )
    with pytest.raises(TaskError, match="benchmark 'tiny_choice/exact_match' reads whether"):
        build(study)
    assert not rows_of(study)


def test_benchmarks_that_need_more_can_be_left_out(study: Path) -> None:
    written = {"task": "tiny_write", "metric": "exact_match"}
    likeliest = {"task": "tiny_choice", "metric": "exact_match"}
    kept = {"task": "tiny_prose", "metric": "bits_per_byte"}
    write_study(study.parent, capabilities={"a": [written, kept], "b": [likeliest]})
    with pytest.raises(NeedsModelError) as refused:
        build(study)
    assert refused.value.benchmarks == ("tiny_write/exact_match",)
    assert build(study, partial=True).benchmarks == ("tiny_prose/bits_per_byte",)
    write_study(study.parent, capabilities={"a": [written], "b": [likeliest]})
    with pytest.raises(NeedsModelError, match="tiny_choice/exact_match"):
        build(study, partial=True)


def recommend(study: Path, *options: str) -> int:
    return main(["recommend", str(study), "--proxy", "probabilities", "--device", "cpu", *options])


@pytest.mark.parametrize("capabilities", [None, CAPABILITIES], ids=["smooth", "choice"])
def test_the_command_recommends_without_a_study(
    study: Path, capabilities: dict | None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    changes = {} if capabilities is None else {"capabilities": capabilities}
    write_study(study.parent, mixture={"upper": {"prose": 0.4}}, **changes)
    file = tmp_path / "found.json"
    assert recommend(study, "--json", str(file)) == 0
    out, err = capsys.readouterr()
    assert "optuna-demix: scoring component prose for its token probabilities" in err
    assert out.startswith("Recommended mixture, predicted by the probability mixture\n")
    found = json.loads(file.read_text())
    assert list(found["mixtures"]) == ["prior", "uniform", "recommended"]
    best, prior, uniform = (found["mixtures"][n] for n in ("recommended", "prior", "uniform"))
    assert best["composite"] >= max(prior["composite"], uniform["composite"])
    assert best["merge_weights"]["prose"] <= 0.4 + 1e-9
    assert sum(best["data_shares"].values()) == pytest.approx(1.0)
    config = load_study_config(study)
    space = space_of(config)
    proxy = build(study)
    scores = proxy.scores(space.sample(500, np.random.default_rng(11)))
    objectives = np.stack([scores[:, 0], scores[:, 1:].mean(axis=1)], axis=1)
    assert not (objectives > list(best["capabilities"].values())).all(axis=1).any()
    again = recommend(study, "--json", "-", "--no-progress")
    out, err = capsys.readouterr()
    assert again == 0 and json.loads(out) == found and "optuna-demix" not in err


def test_a_benchmark_that_is_never_finite_is_named(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna_demix.study import ProbabilityProxy

    scores = ProbabilityProxy.scores

    def broken(self: ProbabilityProxy, W: np.ndarray) -> np.ndarray:
        found = scores(self, W)
        found[:, 1] = np.nan
        return found

    monkeypatch.setattr(ProbabilityProxy, "scores", broken)
    assert recommend(study) == 2
    assert "benchmark 'tiny_code/bits_per_byte' has no finite score" in capsys.readouterr().err


def test_options_that_read_a_study_are_refused(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (["--verify"], ["--study-name", "mix"], ["--storage", "sqlite:///mix.db"]):
        assert recommend(study, *options) == 2
        assert f"{options[0]} is of no use to --proxy probabilities" in capsys.readouterr().err


def test_a_study_must_be_named_for_merged_proxies(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", str(study)]) == 2
    assert "--study-name is missing" in capsys.readouterr().err


def test_other_weights_of_capabilities_give_another_mixture(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for capability in CAPABILITIES:
        assert recommend(study, "--weights", f"{capability}=1", "--json", "-") == 0
        found[capability] = json.loads(capsys.readouterr().out)["mixtures"]["recommended"]
    for capability, mixture in found.items():
        others = [m["capabilities"][capability] for n, m in found.items() if n != capability]
        assert mixture["capabilities"][capability] >= max(others)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (["langage=1"], "language"),
        (["language"], "capability"),
        (["language=many"], "'language=many' is not NAME=WEIGHT"),
        (["language=-1"], "'language=-1' is not NAME=WEIGHT"),
        (["language=0"], "all 0"),
    ],
)
def test_weights_that_are_none_are_refused(
    study: Path, weights: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommend(study, "--weights", *weights) == 2
    assert said in capsys.readouterr().err
