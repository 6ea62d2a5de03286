# SPDX-License-Identifier: Apache-2.0
"""The shift: what a rotation gives, and what it does to a bank, against the literal Fourier form."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import crossd_bank_fft, rotation_shift_matrix, shift_bank_fft

from monai_crossd.conv import crossd_kernel2d, rotation_shift, shift_from_map, shift_kernel

CUBES = [(k, k, k) for k in (1, 2, 3, 4, 5, 7)]
BRICKS = [(3, 2, 5), (4, 1, 3), (1, 3, 2), (2, 2, 3), (3, 5, 5), (6, 4, 2), (2, 3, 3)]


def random_rotation(batch, **options):
    axis = torch.randn(batch, 3, dtype=torch.float64)
    angle = (torch.rand(batch, dtype=torch.float64) - 0.5) * math.pi / 2
    return axis.requires_grad_(options.get("grad", False)), angle.requires_grad_(options.get("grad", False))


finite = st.floats(-10, 10)


@given(st.lists(st.tuples(finite, finite, finite, st.floats(-math.pi, math.pi)), min_size=1, max_size=4))
def test_shift_is_the_transposed_rotation_times_one(rows):
    values = torch.tensor(rows, dtype=torch.float64)
    axis, angle = values[:, :3], values[:, 3]
    shift = rotation_shift(axis, angle)
    torch.testing.assert_close(shift, rotation_shift_matrix(axis, angle), atol=1e-12, rtol=0)
    torch.testing.assert_close(shift.sum(1), torch.full_like(angle, 3), atol=1e-12, rtol=0)


def test_no_rotation_is_a_shift_of_one_voxel():
    assert rotation_shift(torch.randn(5, 3), torch.zeros(5)).equal(torch.ones(5, 3))


def test_length_of_the_axis_does_not_matter():
    axis, angle = random_rotation(4)
    torch.testing.assert_close(rotation_shift(7 * axis, angle), rotation_shift(axis, angle), atol=1e-7, rtol=0)


def test_zero_axis_has_a_shift_and_a_gradient():
    axis = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    shift = rotation_shift(axis, torch.tensor([0.3], dtype=torch.float64))
    shift.square().sum().backward()
    assert shift.equal(torch.ones_like(shift))
    assert axis.grad.isfinite().all()


@pytest.mark.parametrize(
    ("axis", "angle", "says"),
    [
        ((2, 4), (2,), r"\[2, 4\]"),
        ((2, 3), (3,), r"\[3\]"),
        ((3,), (1,), r"\[3\]"),
        ((2, 3), (2, 1), r"\[2, 1\]"),
    ],
)
def test_rotation_of_other_shapes_is_refused(axis, angle, says):
    with pytest.raises(ValueError, match=says):
        rotation_shift(torch.zeros(axis), torch.zeros(angle))


@pytest.mark.parametrize("size", CUBES + BRICKS, ids=str)
def test_shifted_bank_is_the_fourier_one(size):
    bank = torch.randn(4, 2, *size, dtype=torch.float64, requires_grad=True)
    axis, angle = random_rotation(3, grad=True)
    ours, literal = shift_kernel(bank, rotation_shift(axis, angle)), crossd_bank_fft(bank, axis, angle)
    torch.testing.assert_close(ours, literal, atol=1e-12, rtol=0)
    cotangent = torch.randn_like(ours)
    for got, expected in zip(
        # a 1x1x1 bank does not depend on its rotation
        torch.autograd.grad(ours, (bank, axis, angle), cotangent, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(literal, (bank, axis, angle), cotangent, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", [(3, 3, 3), (4, 4, 4), (2, 5, 3), (1, 1, 1)], ids=str)
def test_any_shift_is_the_fourier_one(size):
    bank, shift = torch.randn(2, 2, *size, dtype=torch.float64), torch.randn(3, dtype=torch.float64) * 4
    ours = shift_kernel(bank, shift.unsqueeze(0))[0]
    torch.testing.assert_close(ours, shift_bank_fft(bank, shift), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", CUBES + BRICKS, ids=str)
@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 1, 1), (2, -1, 2), (-3, 5, 1)], ids=str)
def test_shift_by_whole_voxels_is_a_roll(size, shift):
    bank = torch.randn(2, 3, *size, dtype=torch.float64)
    ours = shift_kernel(bank, torch.tensor([shift], dtype=torch.float64))[0]
    torch.testing.assert_close(ours, bank.roll(shift, (2, 3, 4)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", CUBES + BRICKS, ids=str)
def test_2d_kernel_is_the_middle_slice(size):
    bank, shift = torch.randn(2, 3, *size, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(
        crossd_kernel2d(bank, shift), shift_kernel(bank, shift)[:, :, :, size[0] // 2], atol=1e-13, rtol=0
    )


@given(st.tuples(*[st.integers(1, 5)] * 3), st.tuples(*[st.floats(-3, 3)] * 3), st.tuples(*[st.integers(-4, 4)] * 3))
def test_shifts_by_whole_voxels_add_up(size, shift, voxels):
    bank = torch.randn(1, 1, *size, dtype=torch.float64)
    first, more = torch.tensor([shift], dtype=torch.float64), torch.tensor([voxels], dtype=torch.float64)
    moved = shift_kernel(bank, first)[0].roll(voxels, (2, 3, 4))
    # an even axis loses its Nyquist phase with the real part, so only then does the order matter
    if all(k % 2 for k in size):
        torch.testing.assert_close(shift_kernel(bank, first + more)[0], moved, atol=1e-11, rtol=0)
    torch.testing.assert_close(shift_kernel(bank.roll(voxels, (2, 3, 4)), first)[0], moved, atol=1e-11, rtol=0)
    # the mean of a bank is its zero frequency: no shift moves it
    torch.testing.assert_close(moved.sum(), bank.sum(), atol=1e-11, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_shift_does_not_lower_the_precision_of_the_bank(dtype):
    bank, shift = torch.randn(2, 2, 3, 3, 3), torch.tensor([[0.5, 1.0, 1.5]])
    half = crossd_kernel2d(bank, shift.to(dtype))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, crossd_kernel2d(bank, shift))
    assert crossd_kernel2d(bank.to(dtype), shift).dtype == dtype


@pytest.mark.parametrize("spatial", [(5,), (4, 3), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("max_angle", [math.pi / 4, 1.0])
def test_shift_from_map_pools_each_channel_with_its_own_softmax(spatial, max_angle):
    rotation_map = torch.randn(3, 4, *spatial, dtype=torch.float64)
    pooled = torch.zeros(3, 4, dtype=torch.float64)
    for b in range(3):
        for c in range(4):
            v = rotation_map[b, c].flatten()
            pooled[b, c] = sum(v * torch.exp(v) / torch.exp(v).sum())
    expected = rotation_shift_matrix(pooled[:, :3], torch.tanh(pooled[:, 3]) * max_angle)
    torch.testing.assert_close(shift_from_map(rotation_map, max_angle), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_shift_from_a_half_map_is_single(dtype):
    assert shift_from_map(torch.randn(2, 4, 6).to(dtype)).dtype == torch.float32


@pytest.mark.parametrize("function", [shift_kernel, crossd_kernel2d])
@pytest.mark.parametrize(
    ("bank", "shift", "says"),
    [
        ((4, 2, 3, 3), (1, 3), r"\(O, I, Kd, Kh, Kw\), got shape \[4, 2, 3, 3\]"),
        ((4, 2, 3, 3, 3), (3,), r"\(B, 3\), got shape \[3\]"),
        ((4, 2, 3, 3, 3), (2, 4), r"\(B, 3\), got shape \[2, 4\]"),
    ],
)
def test_other_shapes_are_refused(function, bank, shift, says):
    with pytest.raises(ValueError, match=says):
        function(torch.zeros(bank), torch.zeros(shift))


@pytest.mark.parametrize("size", [(2, 2, 2), (3, 3, 3), (3, 2, 4)], ids=str)
def test_gradients_of_the_kernel(size):
    axis, angle = random_rotation(2, grad=True)
    bank = torch.randn(2, 1, *size, dtype=torch.float64, requires_grad=True)

    def function(bank, axis, angle):
        return crossd_kernel2d(bank, rotation_shift(axis, angle))

    assert torch.autograd.gradcheck(function, (bank, axis, angle), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (bank, axis, angle), fast_mode=True)


def test_gradients_of_the_pooling():
    assert torch.autograd.gradcheck(shift_from_map, torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True))


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives():
    bank, shift = torch.randn(4, 2, 3, 4, 5, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    torch.testing.assert_close(crossd_kernel2d(bank.cuda(), shift.cuda()).cpu(), crossd_kernel2d(bank, shift))
