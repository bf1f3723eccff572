"""Components must cut text into the same tokens, however their tokenizers are written down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optuna_demix.errors import ComponentError
from optuna_demix.merging import Arena, ComponentSet, LiveModel
from tests.tiny_models import VOCABULARY, byte_tokenizer

Paths = dict[str, Path]
TEXT = "the cat sat on the mat, and the dog lay by the door"


@pytest.fixture(scope="session")
def _bytes(saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bytes")
    for seed, name in enumerate(("web", "code")):
        saved(root / name, seed=seed, tokenizer=False, vocab_size=VOCABULARY)
        byte_tokenizer([TEXT]).save_pretrained(root / name)
    return root


@pytest.fixture
def byte_paths(_bytes: Path, tmp_path: Path) -> Paths:
    """Two components with a byte-level BPE tokenizer."""
    shutil.copytree(_bytes, tmp_path / "bytes")
    return {name: tmp_path / "bytes" / name for name in ("web", "code")}


def _as_separate_files(directory: Path) -> None:
    """Keep a BPE tokenizer as ``vocab.json`` and ``merges.txt``, as GPT-2's."""
    file = directory / "tokenizer.json"
    model = json.loads(file.read_text())["model"]
    file.unlink()
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]))
    (directory / "merges.txt").write_text("\n".join(map(" ".join, model["merges"])) + "\n")


def _of_class(directory: Path, name: str) -> None:
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tokenizer_class": name}))


class TestSpellings:
    """Different files, the same tokens."""

    def test_merges_as_pairs_or_as_text(
        self, byte_paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        def spell(content: dict[str, Any]) -> None:
            model = content["model"]
            assert isinstance(model["merges"][0], list)
            model["merges"] = [" ".join(pair) for pair in model["merges"]]

        edit_json(byte_paths["code"] / "tokenizer.json", spell)
        assert ComponentSet.open(byte_paths).names

    def test_fields_that_are_left_out(
        self, byte_paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        def leave_out(content: dict[str, Any]) -> None:
            del content["model"]["fuse_unk"], content["normalizer"]
            content["pre_tokenizer"]["trim_offsets"] = False  # changes no token

        edit_json(byte_paths["code"] / "tokenizer.json", leave_out)
        assert ComponentSet.open(byte_paths).names

    def test_a_vocabulary_beside_its_merges(self, byte_paths: Paths) -> None:
        for path in byte_paths.values():
            _of_class(path, "GPT2Tokenizer")
        _as_separate_files(byte_paths["code"])
        assert ComponentSet.open(byte_paths).names

    def test_a_flag_that_reaches_no_token(
        self, paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        edit_json(
            paths["math"] / "tokenizer_config.json",
            lambda content: content.update(clean_up_tokenization_spaces=False, legacy=False),
        )
        assert ComponentSet.open(paths).names

    def test_merges_in_another_order_are_other_tokens(
        self, byte_paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        edit_json(
            byte_paths["code"] / "tokenizer.json",
            lambda content: content["model"]["merges"].reverse(),
        )
        with pytest.raises(ComponentError, match="'code': .*tokenizer.json: field 'merges'"):
            ComponentSet.open(byte_paths)


class TestEnds:
    """The tokens that begin and end a text."""

    def test_another_end_is_named(self, paths: Paths, edit_json: Callable[..., None]) -> None:
        for name, path in paths.items():
            end = "word3" if name == "math" else "<s>"
            edit_json(
                path / "tokenizer_config.json",
                lambda content, end=end: content.update(eos_token=end),
            )
        with pytest.raises(ComponentError) as caught:
            ComponentSet.open(paths)
        assert "component 'math'" in str(caught.value)
        assert "'eos_token' is 'word3', but '<s>' in component 'web'" in str(caught.value)
        assert "merging.config_of" in str(caught.value)

    def test_the_chosen_one_counts(
        self, paths: Paths, edit_json: Callable[..., None], tmp_path: Path
    ) -> None:
        edit_json(
            paths["math"] / "tokenizer_config.json",
            lambda content: content.update(eos_token="<unk>"),
        )
        components = ComponentSet.open(paths, config_of="math")
        assert LiveModel(Arena.build(components, tmp_path / "x")).tokenizer.eos_token == "<unk>"


def test_tokens_of_a_tiktoken_file_travel_with_the_arena(paths: Paths, tmp_path: Path) -> None:
    for path in paths.values():
        (path / "tokenizer.json").unlink()
        (path / "qwen.tiktoken").write_text("IQ== 0\n")
    (paths["math"] / "qwen.tiktoken").write_text("Ig== 0\n")
    with pytest.raises(ComponentError, match="component 'math': .*qwen.tiktoken: content differs"):
        ComponentSet.open(paths)
    shutil.copy(paths["web"] / "qwen.tiktoken", paths["math"])
    arena = Arena.build(ComponentSet.open(paths), tmp_path / "x.arena")
    with arena.extracted() as directory:
        assert (directory / "qwen.tiktoken").read_text() == "IQ== 0\n"


class TestProbes:
    """Tokenizers that cannot be written down are compared by vocabulary and ids."""

    @pytest.fixture(autouse=True)
    def _not_canonical(self, monkeypatch: pytest.MonkeyPatch) -> None:
        place = "optuna_demix.merging.checkpoints.tokenization._canonical"
        monkeypatch.setattr(place, lambda tokenizer, n_embeddings: None)

    def test_equal_ids_pass(self, byte_paths: Paths, edit_json: Callable[..., None]) -> None:
        edit_json(
            byte_paths["code"] / "tokenizer.json",
            lambda content: content["decoder"].update(trim_offsets=False),
        )
        assert ComponentSet.open(byte_paths).names

    def test_other_ids_are_shown(self, byte_paths: Paths, edit_json: Callable[..., None]) -> None:
        edit_json(
            byte_paths["code"] / "tokenizer.json",
            lambda content: content.update(normalizer={"type": "Lowercase"}),
        )
        with pytest.raises(ComponentError, match=r"Hello, world!.* becomes \[.*, but \[.* in"):
            ComponentSet.open(byte_paths)


class TestRoom:
    """Token ids that have no embedding, in a model of 64."""

    @pytest.fixture
    def full(self, paths: Paths, edit_json: Callable[..., None]) -> Paths:
        """Components whose words have all the embeddings."""
        words = {f"more{number}": number for number in range(60, 64)}
        for path in paths.values():
            edit_json(
                path / "tokenizer.json", lambda content: content["model"]["vocab"].update(words)
            )
        return paths

    def test_of_a_word_are_refused(self, full: Paths, edit_json: Callable[..., None]) -> None:
        for path in full.values():
            edit_json(
                path / "tokenizer.json",
                lambda content: content["model"]["vocab"].update(extra=64),
            )
        with pytest.raises(
            ComponentError,
            match="component 'web': .*token 'extra' is id 64, but the model has 64 embeddings",
        ):
            ComponentSet.open(full)

    def test_of_the_token_that_ends_texts_are_refused(
        self, full: Paths, edit_json: Callable[..., None]
    ) -> None:
        for path in full.values():
            edit_json(
                path / "tokenizer_config.json", lambda content: content.update(eos_token="<end>")
            )
        with pytest.raises(ComponentError, match="token '<end>' is id 64, but the model has 64"):
            ComponentSet.open(full)

    def test_of_an_added_token_may_be(self, full: Paths, edit_json: Callable[..., None]) -> None:
        edit_json(
            full["math"] / "tokenizer.json",
            lambda content: content["added_tokens"].append(_added("<pad>", 64)),
        )
        assert ComponentSet.open(full).names
        assert ComponentSet.open({"math": full["math"]}).names


def _rules(content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"__type": "AddedToken", "content": content, "special": True, **flags}


def _added(content: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, "special": True, **flags}


class TestDifferences:
    """What makes other tokens is named."""

    def test_another_vocabulary_is_named_by_its_first_token(
        self, paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        def swap(content: dict[str, Any]) -> None:
            vocabulary = content["model"]["vocab"]
            vocabulary["word3"], vocabulary["word5"] = vocabulary["word5"], vocabulary["word3"]

        edit_json(paths["math"] / "tokenizer.json", swap)
        with pytest.raises(
            ComponentError,
            match=r"'math': .*tokenizer.json: 'word3' is id 7, but id 5 in component 'web'",
        ):
            ComponentSet.open(paths)

    def test_a_token_too_many_is_named(self, paths: Paths, edit_json: Callable[..., None]) -> None:
        edit_json(
            paths["math"] / "tokenizer.json",
            lambda content: content["model"]["vocab"].update(extra=60),
        )
        with pytest.raises(
            ComponentError, match="'extra' is id 60, but no token in component 'web'"
        ):
            ComponentSet.open(paths)

    def test_another_added_token_is_named(
        self, paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        edit_json(
            paths["math"] / "tokenizer.json",
            lambda content: content["added_tokens"].append(_added("<tool>", 60)),
        )
        with pytest.raises(ComponentError, match="'<tool>' is id 60, but no token in"):
            ComponentSet.open(paths)

    def test_another_normalizer_is_named(
        self, paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        edit_json(
            paths["math"] / "tokenizer.json",
            lambda content: content.update(normalizer={"type": "Lowercase"}),
        )
        with pytest.raises(ComponentError, match="field 'normalizer' differs"):
            ComponentSet.open(paths)

    def test_another_way_to_begin_a_text_is_named(
        self, paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
        text = {"Sequence": {"id": "A", "type_id": 0}}
        template = {
            "type": "TemplateProcessing",
            "single": [begin, text],
            "pair": [begin, text],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        }
        edit_json(
            paths["math"] / "tokenizer.json",
            lambda content: content.update(post_processor=template),
        )
        with pytest.raises(ComponentError, match="component 'math': .*'post_processor' differs"):
            ComponentSet.open(paths)

    def test_a_token_saved_with_its_rules_is_the_same_token(
        self, paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        edit_json(
            paths["math"] / "tokenizer_config.json",
            lambda content: content.update(unk_token=_rules(content["unk_token"])),
        )
        assert ComponentSet.open(paths).names

    def test_a_tokenizer_where_the_first_has_none_is_refused(self, paths: Paths) -> None:
        (paths["web"] / "tokenizer.json").unlink()
        with pytest.raises(ComponentError, match="component 'code': .*has a tokenizer, but"):
            ComponentSet.open(paths)

    def test_no_tokenizer_at_all_is_allowed(self, paths: Paths) -> None:
        for path in paths.values():
            (path / "tokenizer.json").unlink()
        assert ComponentSet.open(paths).names

    def test_sentencepiece_models_are_compared_by_content(self, paths: Paths) -> None:
        for name, path in paths.items():
            (path / "tokenizer.json").unlink()
            (path / "tokenizer.model").write_bytes(b"same" if name != "math" else b"other")
        with pytest.raises(ComponentError, match="component 'math': .*tokenizer.model: content"):
            ComponentSet.open(paths)

    def test_byte_pair_merges_are_compared(self, byte_paths: Paths) -> None:
        for path in byte_paths.values():
            _of_class(path, "GPT2Tokenizer")
            _as_separate_files(path)
        merges = byte_paths["code"] / "merges.txt"
        merges.write_text("\n".join(reversed(merges.read_text().splitlines())))
        with pytest.raises(ComponentError, match="component 'code': .*field 'merges' differ"):
            ComponentSet.open(byte_paths)
