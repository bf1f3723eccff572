"""The header reader believes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from optuna_demix.errors import ComponentError
from optuna_demix.merging.checkpoints.safetensors import read_header
from tests.fuzzing import N_INPUTS


def _file(directory: Path, header: Any, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = directory / "model.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def _tensor(begin: int, end: int, shape: Any = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_what_safetensors_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    a, b = torch.arange(6.0).view(2, 3), torch.ones(5, dtype=torch.bfloat16)
    save_file({"a": a, "b": b, "scalar": torch.tensor(3.0)}, path, metadata={"format": "pt"})
    entries = read_header(path, "base")
    assert {name: (entry.dtype, entry.shape) for name, entry in entries.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("BF16", (5,)),
        "scalar": ("F32", ()),
    }
    content = path.read_bytes()
    assert content[entries["a"].start :][: entries["a"].nbytes] == a.numpy().tobytes()


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        pytest.param(b"{", b"", "unreadable safetensors header", id="broken JSON"),
        pytest.param(b"[]", b"", "not a JSON object", id="JSON of another kind"),
        pytest.param(b'{"a": 1, "a": 2}', b"", "occurs twice", id="a name twice"),
        pytest.param({"a": [1]}, b"", "entry of tensor 'a'", id="entry of another kind"),
        pytest.param({"a": _tensor(-8, 0)}, b"", "entry of tensor 'a'", id="negative offset"),
        pytest.param(
            {"a": _tensor(0, 8, (True, 2))}, b"\0" * 8, "entry of tensor 'a'", id="boolean size"
        ),
        pytest.param({"a": _tensor(0, 8, (3,))}, b"\0" * 8, "needs 12 bytes", id="wrong size"),
        pytest.param({"a": _tensor(0, 8)}, b"\0" * 7, "truncated", id="data cut short"),
        pytest.param({"a": _tensor(0, 8)}, b"\0" * 9, "1 bytes follow", id="data too long"),
        pytest.param({"a": _tensor(8, 16)}, b"\0" * 16, "begins at byte", id="a gap"),
        pytest.param(
            {"a": _tensor(0, 8), "b": _tensor(4, 12)}, b"\0" * 12, "'b' begins at", id="an overlap"
        ),
        pytest.param(
            {"a": _tensor(0, 2, dtype="F8_E4M3")}, b"\0" * 2, "'a' is stored as F8_E4M3", id="F8"
        ),
    ],
)
def test_a_bad_header_is_refused(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    path = _file(tmp_path, header, data)
    with pytest.raises(ComponentError) as caught:
        read_header(path, "component 'code'")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"component 'code': {path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"1234", (10**12).to_bytes(8, "little") + b"{}"])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ComponentError, match="truncated|not a safetensors file"):
        read_header(path, "base")


@pytest.mark.fuzz
@settings(
    max_examples=N_INPUTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(position=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.integers(0, 10**6))
def test_a_damaged_file_is_refused_or_stays_within_its_bounds(
    tmp_path: Path, position: int, value: int, cut: int
) -> None:
    path = tmp_path / "fuzz.safetensors"
    save_file({"a": torch.zeros(4), "b": torch.zeros(2, 2)}, path)
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content[: cut % (2 * len(content))] if cut % 3 == 0 else content)
    size = path.stat().st_size
    try:
        entries = read_header(path, "base")
    except ComponentError:
        return
    assert all(
        0 <= entry.start <= entry.start + entry.nbytes <= size for entry in entries.values()
    )


numbers = st.integers(-5, 20) | st.integers() | st.floats() | st.booleans() | st.none()
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "I64", "f32", ""]) | numbers,
        "shape": st.lists(numbers, max_size=3) | numbers,
        "data_offsets": st.lists(numbers, max_size=3) | numbers,
    },
)


@pytest.mark.fuzz
@settings(
    max_examples=N_INPUTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    header=st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), entries | numbers)
    | st.lists(numbers)
    | numbers,
    data=st.binary(max_size=16),
)
def test_any_header_is_read_within_bounds_or_refused(
    tmp_path: Path, header: Any, data: bytes
) -> None:
    path = _file(tmp_path, header, data)
    size = path.stat().st_size
    try:
        found = read_header(path, "base")
    except ComponentError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return
    assert all(0 <= each.start <= each.start + each.nbytes <= size for each in found.values())
