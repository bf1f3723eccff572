"""How parameters follow live weights, without vLLM."""

from __future__ import annotations

import torch

from optuna_demix.scoring.generation.vllm.weights import (
    Copies,
    Source,
    bind,
    side_by_side,
    tensor_attributes,
)

from tests.scoring.generation.samples import talker  # isort: skip


def live(*shapes, gap=0):
    """Tensors side by side in one buffer, or with a gap between them."""
    sizes = [torch.Size(shape).numel() for shape in shapes]
    flat = torch.arange(float(sum(sizes) + gap * len(sizes)))
    found, start = [], 0
    for size, shape in zip(sizes, shapes, strict=True):
        found.append(flat[start : start + size].view(shape))
        start += size + gap
    return flat, found


def loaded(parameter, tensors):
    """What is copied when rows of tensors are loaded into one parameter."""
    with Copies() as copies:
        start = 0
        for tensor in tensors:
            parameter.data.narrow(0, start, len(tensor)).copy_(tensor)
            start += len(tensor)
    return copies.made


def test_parts_that_are_neighbours_become_one_view():
    flat, parts = live((4, 3), (2, 3))
    parameter = torch.nn.Parameter(torch.zeros(6, 3), requires_grad=False)
    found = bind({"qkv": parameter}, loaded(parameter, parts), parts)
    assert (found.bound, found.copied, found.reason) == (["qkv"], [], None)
    flat += 1
    assert torch.equal(parameter, torch.cat(parts))
    assert parameter.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()


def test_others_are_copied_after_each_change():
    flat, parts = live((4, 3), (2, 3), gap=1)
    parameter = torch.nn.Parameter(torch.zeros(6, 3), requires_grad=False)
    found = bind({"qkv": parameter}, loaded(parameter, parts), parts)
    assert (found.bound, len(found.copied), found.reason) == ([], 2, None)
    flat += 1
    assert not torch.equal(parameter, torch.cat(parts))
    found.update()
    assert torch.equal(parameter, torch.cat(parts))


def test_neighbours_in_another_order_padding_and_another_dtype_are_no_view():
    _, (first, second) = live((2, 3), (2, 3))
    for shape, tensors, dtype in (
        ((4, 3), (second, first), torch.float32),
        ((5, 3), (first, second), torch.float32),
        ((4, 3), (first, second), torch.float64),
    ):
        parameter = torch.nn.Parameter(torch.zeros(shape, dtype=dtype), requires_grad=False)
        assert side_by_side(parameter, loaded(parameter, tensors)) is None


def test_converted_weights_and_new_parameters_cannot_be_followed():
    _, parts = live((4, 3))
    good, other = (torch.nn.Parameter(torch.zeros(4, 3), requires_grad=False) for _ in "ab")
    copies = [*loaded(good, parts), *loaded(other, [parts[0] * 2])]
    found = bind({"good": good, "other": other}, copies, parts)
    assert found.reason == "other is loaded from converted weights"
    fresh = torch.nn.Parameter(torch.zeros(4, 3), requires_grad=False)
    found = bind({"good": good, "fresh": fresh}, copies, parts)
    assert found.reason == "fresh was made anew after loading" and not found.bound
    assert good.data_ptr() != parts[0].data_ptr()  # nothing was bound


def test_tensors_that_modules_keep_aside_are_found():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert tensor_attributes(module) == set()
    module[0].packed = torch.zeros(2)
    assert tensor_attributes(module) == {"0.packed"}


def test_tensors_of_a_live_model_are_views_by_their_names_in_a_checkpoint():
    model = talker()
    found = Source(model).tensors()
    state = model.state_dict()
    assert found.keys() == state.keys()
    assert all(found[name].data_ptr() == state[name].data_ptr() for name in state)
