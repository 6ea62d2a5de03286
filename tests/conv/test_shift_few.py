# SPDX-License-Identifier: Apache-2.0
"""Shift, mixing and kernels in few operations: equal to the formulas, to the literal Fourier form, and few."""

from __future__ import annotations

import math

import pytest
import torch
from counting import count_operations
from monai.data import MetaTensor
from oracles import crossd_bank_fft, rotation_shift_matrix

from monai_crossd.conv import CrossDConv2d, CrossDConv3d, shift_from_map
from monai_crossd.conv.crossd_cpu import frequencies, middle_mixing, mix_kernels_few, predict_shift
from monai_crossd.conv.rule import crossd_path
from monai_crossd.conv.shift import mix_kernels, shift_mixing

F64 = {"dtype": torch.float64}
BANKS = [(k, k, k) for k in (1, 2, 3, 4, 5, 7)] + [(3, 2, 5), (4, 1, 3), (1, 3, 2), (2, 2, 3), (6, 4, 2)]


def same_gradients(ours, expected, inputs):
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=1e-10)
    cotangent = torch.randn_like(ours)
    for got, wanted in zip(
        torch.autograd.grad(ours, inputs, cotangent), torch.autograd.grad(expected, inputs, cotangent), strict=True
    ):
        torch.testing.assert_close(got, wanted, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("spatial", [(1,), (6,), (5, 4), (3, 4, 2)], ids=str)
@pytest.mark.parametrize("max_angle", [math.pi / 4, 1.5])
def test_shift_and_its_gradient(spatial, max_angle):
    rotation_map = (3 * torch.randn(3, 4, *spatial, **F64)).requires_grad_()
    same_gradients(predict_shift(rotation_map, max_angle), shift_from_map(rotation_map, max_angle), [rotation_map])


def test_shift_of_a_zero_axis_has_a_gradient():
    rotation_map = torch.zeros(2, 4, 5, **F64, requires_grad=True)
    shift = predict_shift(rotation_map, 1.0)
    shift.square().sum().backward()
    assert shift.equal(torch.ones_like(shift))
    assert rotation_map.grad.isfinite().all()


@pytest.mark.parametrize("size", BANKS, ids=str)
def test_mixing_and_its_gradient(size):
    shift = (2 * torch.randn(3, 3, **F64)).requires_grad_()
    ours, formula = middle_mixing(shift, list(size)), shift_mixing(shift, list(size), True)
    if max(size) > 1:
        same_gradients(ours, formula, [shift])
    else:  # nothing to shift
        torch.testing.assert_close(ours, formula)


@pytest.mark.parametrize("size", BANKS, ids=str)
def test_kernels_are_those_of_algorithm_1(size):
    bank = torch.randn(4, 2, *size, **F64, requires_grad=True)
    axis, angle = torch.randn(3, 3, **F64), torch.rand(3, **F64).requires_grad_()
    mixing = middle_mixing(rotation_shift_matrix(axis, angle.detach()), list(size))
    kernels = mix_kernels_few(bank, mixing, list(size[1:]))
    literal = crossd_bank_fft(bank, axis, angle)[:, :, :, size[0] // 2]
    same_gradients(kernels, literal, [bank])


def test_kernels_and_their_gradients():
    bank, mixing = (
        torch.randn(4, 2, 3, 3, 3, **F64, requires_grad=True),
        torch.randn(3, 9, 27, **F64, requires_grad=True),
    )
    same_gradients(mix_kernels_few(bank, mixing, [3, 3]), mix_kernels(bank, mixing, [3, 3]), [bank, mixing])
    frozen = bank.detach()
    same_gradients(mix_kernels_few(frozen, mixing, [3, 3]), mix_kernels(frozen, mixing, [3, 3]), [mixing])


@pytest.mark.parametrize("size", BANKS, ids=str)
def test_frequencies_count_the_whole_grid(size):
    kept, times = frequencies(size)
    assert sum(times) == math.prod(size)
    assert len(set(kept)) == len(kept)


@pytest.mark.parametrize("size", BANKS, ids=str)
def test_no_rotation_is_a_roll_in_single_precision_too(size):
    bank = torch.randn(2, 2, *size)
    kernels = mix_kernels_few(bank, middle_mixing(torch.ones(1, 3), list(size)), list(size[1:]))
    rolled = bank.roll((1, 1, 1), (2, 3, 4))[:, :, size[0] // 2]
    torch.testing.assert_close(kernels[0], rolled, atol=2e-6, rtol=0)


def few(rotation_map, bank):
    return mix_kernels_few(bank, middle_mixing(predict_shift(rotation_map, 1.0), [3, 2, 3]), [2, 3])


def test_derivatives_of_both_orders():
    inputs = [torch.randn(shape, **F64, requires_grad=True) for shape in ((2, 4, 5), (2, 1, 3, 2, 3))]
    assert torch.autograd.gradcheck(few, inputs)
    assert torch.autograd.gradgradcheck(few, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_shift_and_mixing_in_single_precision(dtype):
    rotation_map, bank = torch.randn(2, 4, 9, requires_grad=True), torch.randn(2, 1, 3, 2, 3, requires_grad=True)
    expected = few(rotation_map, bank)
    wanted = torch.autograd.grad(expected.sum(), [rotation_map, bank])
    with torch.autocast("cpu", dtype=dtype):
        shift = predict_shift(rotation_map, 1.0)
        mixing = middle_mixing(shift, [3, 2, 3])
        kernels = few(rotation_map, bank)
        gradients = torch.autograd.grad(kernels.float().sum(), [rotation_map, bank])  # inside, as some trainers have it
    torch.testing.assert_close(shift, predict_shift(rotation_map, 1.0), atol=0, rtol=0)
    torch.testing.assert_close(mixing, middle_mixing(shift, [3, 2, 3]), atol=0, rtol=0)
    assert kernels.dtype == dtype
    torch.testing.assert_close(kernels.float(), expected, atol=0.05, rtol=0.02)
    for got, value in zip(gradients, wanted, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, value, atol=0.05, rtol=0.05)


def test_half_and_meta_tensors():
    rotation_map = torch.randn(2, 4, 3, 3)
    assert predict_shift(rotation_map.bfloat16(), 1.0).dtype == torch.float32
    image = MetaTensor(rotation_map).requires_grad_()
    shift = predict_shift(image, 1.0)
    assert type(shift) is torch.Tensor
    assert shift.equal(predict_shift(rotation_map, 1.0))
    shift.square().sum().backward()
    assert image.grad.abs().sum() > 0
    assert predict_shift(rotation_map.to("meta"), 1.0).shape == (2, 3)
    assert middle_mixing(torch.empty(2, 3, device="meta"), [3, 3, 3]).shape == (2, 9, 27)


def test_constants_first_made_in_inference_mode_serve_training():
    size = [5, 2, 1]  # of no other test
    with torch.inference_mode():
        middle_mixing(torch.ones(1, 3), size)
    shift = torch.ones(1, 3, requires_grad=True)
    middle_mixing(shift, size).square().sum().backward()
    assert shift.grad.isfinite().all()


@pytest.mark.parametrize(
    ("layer", "forward_limit", "limit"),
    [
        (CrossDConv2d(4, 8, 3, padding=1), 25, 60),
        (CrossDConv2d(4, 8, 3, padding=1, bias=False), 25, 60),
        (CrossDConv2d(4, 8, 7, padding=3, stride=2), 27, 65),  # its mixing is made in double precision
        (CrossDConv2d(4, 8, (2, 3)), 25, 60),
        (CrossDConv3d(4, 8, 3, padding=1), 25, 60),
    ],
    ids=str,
)
def test_a_training_step_takes_few_operations(layer, forward_limit, limit):
    layer.train()
    x = torch.randn(2, 4, *range(6, 6 + len(layer.stride)), requires_grad=True)

    def step(x):
        layer.zero_grad()
        return layer(x)

    with crossd_path("grouped"):
        forward, backward = count_operations(step, x)
    assert len(forward) <= forward_limit, forward
    assert len(forward) + len(backward) <= limit, backward


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives():
    inputs = [torch.randn(shape, **F64, requires_grad=True) for shape in ((2, 4, 5), (2, 1, 3, 2, 3))]
    same_gradients(few(*(t.cuda() for t in inputs)).cpu(), few(*inputs), inputs)
