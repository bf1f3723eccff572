"""The device that scores."""

from __future__ import annotations

import pytest

from optuna_demix.errors import InputError
from optuna_demix.study.device import choose_device

torch = pytest.importorskip("torch")


@pytest.fixture
def n_devices(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """How many CUDA devices PyTorch sees."""
    n: int = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    return n


@pytest.mark.parametrize(
    ("n_devices", "given", "device_map", "chosen"),
    [
        (0, "auto", None, "cpu"),
        (2, "auto", None, "cuda"),
        (2, "auto", "auto", "cuda"),
        (2, "auto", "cuda:1", "cuda:1"),
        (2, "cpu", "cuda:1", "cpu"),
        (2, "cuda:0", "cpu", "cuda:0"),
    ],
    indirect=["n_devices"],
)
def test_the_command_line_comes_first_and_then_the_file(
    n_devices: int, given: str, device_map: str | None, chosen: str
) -> None:
    assert choose_device(given, device_map) == chosen


@pytest.mark.parametrize(
    ("n_devices", "given", "device_map", "said"),
    [
        (2, "gpu", None, "device 'gpu' is unknown; give auto, cpu, cuda or cuda:<number>"),
        (2, "cuda:", None, "device 'cuda:' is unknown"),
        (2, "cuda:x", None, "device 'cuda:x' is unknown"),
        (2, "cuda:2", None, "device 'cuda:2': the CUDA devices here are 0 to 1"),
        (0, "cuda", None, "device 'cuda': PyTorch sees no CUDA device here; give cpu"),
        (0, "auto", "cuda:0", "scoring.device_map 'cuda:0': PyTorch sees no CUDA device"),
    ],
    indirect=["n_devices"],
)
def test_a_device_that_is_not_there_is_refused(
    n_devices: int, given: str, device_map: str | None, said: str
) -> None:
    with pytest.raises(InputError) as caught:
        choose_device(given, device_map)
    assert str(caught.value).startswith(said)
