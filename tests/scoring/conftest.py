"""A tiny tokenizer and model, a folder of tiny tasks, and lm-eval itself as the oracle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_models import byte_tokenizer

from tests.scoring.samples import WORDS, make_model, write_tasks  # isort: skip


@pytest.fixture(scope="session", autouse=True)
def _private_dataset_cache(tmp_path_factory):
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="session")
def tasks(tmp_path_factory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("study") / "tasks")


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer([" ".join(WORDS)] * 3)


@pytest.fixture
def model():
    return make_model()


def chat_tokenizer(chat_template):
    """The tiny tokenizer with a chat template, or with several by name."""
    tokenizer = byte_tokenizer([" ".join(WORDS)] * 3)
    tokenizer.chat_template = chat_template
    return tokenizer


@pytest.fixture
def oracle(tmp_path, tasks, tokenizer, monkeypatch):
    """``lm_eval.simple_evaluate`` on the weights saved to disk and loaded back."""
    import lm_eval
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(evaluator, "add_env_info", lambda results: None)
    monkeypatch.setattr(evaluator, "get_git_commit_hash", lambda: None)
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")

    def evaluate(
        model,
        names,
        *,
        batch_size=4,
        max_length=None,
        mixed_precision_dtype=None,
        stderr=False,
        saved_tokenizer=tokenizer,
        of_model=None,
        metadata=None,
        include_path=tasks,
        **options,
    ):
        folder = tmp_path / "saved"
        model.save_pretrained(folder)
        saved_tokenizer.save_pretrained(folder)
        monkeypatch.chdir(include_path)  # where lm-eval starts relative data files
        lm = HFLM(
            pretrained=str(folder),
            device="cpu",
            batch_size=batch_size,
            max_length=max_length,
            mixed_precision_dtype=mixed_precision_dtype,
            **(of_model or {}),
        )
        results = lm_eval.simple_evaluate(
            lm,
            tasks=list(names),
            task_manager=TaskManager(
                include_defaults=False, include_path=str(include_path), metadata=metadata
            ),
            bootstrap_iters=20 if stderr else 0,
            log_samples=False,
            **options,
        )
        monkeypatch.chdir(tmp_path)
        return results["results"]

    return evaluate
