# SPDX-License-Identifier: Apache-2.0
"""crossd_conv2d against Algorithm 1, crossd_conv3d against one conv3d per volume: outputs and every gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import crossd_conv2d_fft, crossd_conv3d_loop

from monai_crossd.conv import crossd_conv2d, crossd_conv3d, crossd_kernel2d, rotation_shift
from monai_crossd.conv.crossd_cpu import grouped_conv
from monai_crossd.conv.geometry import Geometry, convolve, read_geometry
from monai_crossd.conv.per_sample import per_sample_patches
from monai_crossd.conv.rule import PATHS, crossd_path

F64 = {"dtype": torch.float64}


@pytest.fixture(autouse=True, params=PATHS)
def path(request):
    """Every test of this file holds on every path."""
    with crossd_path(request.param):
        yield request.param


def leaves(*shapes):
    return [torch.randn(shape, **F64).requires_grad_() for shape in shapes]


def rotation(batch):
    axis, angle = leaves((batch, 3), (batch,))
    return axis, (angle.detach() * math.pi / 4).requires_grad_()


def assert_same(ours, literal, inputs, atol=1e-10):
    """Outputs and the gradients of all inputs agree."""
    torch.testing.assert_close(ours, literal, atol=atol, rtol=0)
    cotangent = torch.randn_like(literal)
    # a 1x1 bank does not depend on its rotation
    options = {"allow_unused": True, "materialize_grads": True}
    got = torch.autograd.grad(ours, inputs, cotangent, **options)
    expected = torch.autograd.grad(literal, inputs, cotangent, **options)
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        torch.testing.assert_close(a, b, atol=atol, rtol=0, msg=lambda m, i=index: f"gradient {i}: {m}")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("groups", [1, 2, "C"])
def test_output_and_all_gradients_are_those_of_algorithm_1(size, groups):
    channels = 4
    groups = channels if groups == "C" else groups
    x, bank, bias = leaves((3, channels, 9, 8), (8, channels // groups, size, size, size), (8,))
    axis, angle = rotation(3)
    ours = crossd_conv2d(x, bank, rotation_shift(axis, angle), bias, padding=size // 2, groups=groups)
    literal = crossd_conv2d_fft(x, bank, axis, angle, bias, padding=size // 2, groups=groups)
    inputs = [x, bank, axis, angle, bias]
    assert_same(ours, literal, inputs)


# in, out, bank (depth first), stride, padding, dilation, groups, padding_mode, image
CASES_2D = [
    (3, 4, (3, 3, 3), 1, 0, 1, 1, "zeros", (7, 7)),
    (3, 4, (3, 3, 3), 2, 1, 1, 1, "zeros", (8, 7)),
    (4, 6, (3, 3, 3), (2, 1), (0, 2), 1, 2, "zeros", (9, 6)),
    (2, 2, (3, 3, 3), 1, 2, 2, 1, "zeros", (8, 8)),
    (2, 2, (3, 3, 3), 1, (2, 1), (2, 1), 1, "zeros", (8, 9)),
    (2, 3, (5, 3, 5), 1, (1, 2), 1, 1, "zeros", (6, 8)),
    (2, 3, (5, 5, 1), 2, (2, 0), 1, 1, "zeros", (9, 5)),
    (2, 3, (4, 2, 4), 1, 1, 1, 1, "zeros", (6, 7)),
    (3, 3, (2, 2, 2), 2, 0, 1, 3, "zeros", (8, 8)),
    (3, 5, (1, 1, 1), 1, 0, 1, 1, "zeros", (4, 5)),
    (4, 8, (1, 1, 1), 2, 0, 1, 4, "zeros", (5, 5)),
    (3, 4, (3, 1, 1), 1, 0, 1, 1, "zeros", (4, 5)),
    (3, 4, (1, 3, 3), 1, 1, 1, 1, "zeros", (5, 5)),
    (3, 4, (3, 3, 3), 1, "same", 1, 1, "zeros", (6, 7)),
    (3, 4, (4, 4, 2), 1, "same", 1, 1, "zeros", (6, 7)),
    (3, 4, (4, 4, 4), 1, "same", (2, 3), 1, "zeros", (13, 11)),
    (3, 4, (3, 3, 3), 2, "valid", 1, 1, "zeros", (6, 7)),
    (4, 4, (3, 3, 3), 1, 1, 1, 2, "reflect", (6, 7)),
    (4, 4, (3, 3, 3), 2, (2, 1), 1, 4, "replicate", (6, 7)),
    (4, 4, (5, 5, 5), 1, 2, 1, 1, "circular", (6, 7)),
    (4, 4, (4, 4, 2), 1, "same", 1, 1, "reflect", (6, 7)),
    (4, 4, (4, 2, 4), 1, "same", 2, 2, "circular", (7, 7)),
    (2, 2, (7, 7, 7), 3, 3, 1, 1, "zeros", (10, 13)),
]


@pytest.mark.parametrize("case", CASES_2D, ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_geometry_is_that_of_conv2d(case, with_bias):
    in_channels, out_channels, size, stride, padding, dilation, groups, mode, image = case
    x, bank, bias = leaves((2, in_channels, *image), (out_channels, in_channels // groups, *size), (out_channels,))
    axis, angle = rotation(2)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": mode}
    bias = bias if with_bias else None
    ours = crossd_conv2d(x, bank, rotation_shift(axis, angle), bias, **geometry)
    literal = crossd_conv2d_fft(x, bank, axis, angle, bias, **geometry)
    assert_same(ours, literal, [t for t in (x, bank, bias) if t is not None])


@st.composite
def geometries(draw, dims):
    """A convolution that torch accepts, of any shape."""
    groups, inner, outer = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    size = draw(st.tuples(*[st.integers(1, 4)] * dims))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * dims))
    stride = draw(st.tuples(*[st.integers(1, 3)] * dims))
    padding = draw(st.tuples(*[st.integers(0, 3)] * dims))
    if draw(st.booleans()):
        padding, stride = draw(st.sampled_from(["same", "valid"])), (1,) * dims
    image = tuple(d * (k - 1) + 1 + draw(st.integers(0, 3)) for k, d in zip(size, dilation, strict=True))
    mode = draw(st.sampled_from(["zeros", "replicate"]))
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": mode}
    return inner * groups, outer * groups, size, image, geometry


@given(geometries(2))
def test_at_a_shift_of_one_voxel_it_is_a_plain_conv2d(case):
    in_channels, out_channels, size, image, geometry = case
    conv = torch.nn.Conv2d(in_channels, out_channels, size, **geometry).double()
    x = torch.randn(2, in_channels, *image, **F64)
    # the bank that the shift (1, 1, 1) rolls into the kernel
    bank = conv.weight.roll((-1, -1), (2, 3)).unsqueeze(2).repeat(1, 1, max(size), 1, 1)
    ours = crossd_conv2d(x, bank, torch.ones(2, 3, **F64), conv.bias, **geometry)
    torch.testing.assert_close(ours, conv(x), atol=1e-10, rtol=0)


# in, out, bank (depth first), stride, padding, dilation, groups, padding_mode, volume
CASES_3D = [
    (2, 4, (3, 3, 3), 1, 1, 1, 1, "zeros", (5, 6, 7)),
    (2, 4, (3, 3, 3), (2, 1, 3), 1, 1, 2, "zeros", (6, 5, 7)),
    (3, 3, (3, 3, 3), 1, 0, 1, 3, "zeros", (5, 5, 5)),
    (2, 2, (3, 3, 3), 2, 2, 2, 1, "zeros", (6, 7, 6)),
    (2, 2, (4, 2, 3), 1, (1, 2, 3), 1, 1, "zeros", (6, 6, 6)),
    (2, 2, (1, 3, 3), 1, 1, 1, 1, "zeros", (5, 5, 5)),
    (2, 2, (2, 2, 2), 2, 0, 1, 1, "zeros", (6, 6, 6)),
    (2, 3, (1, 1, 1), 2, 0, 1, 1, "zeros", (5, 5, 5)),
    (2, 3, (3, 1, 1), 1, 1, 1, 1, "zeros", (4, 5, 4)),
    (2, 3, (4, 4, 2), 1, "same", 1, 1, "zeros", (5, 6, 7)),
    (2, 3, (3, 3, 3), 1, "valid", (1, 2, 1), 1, "zeros", (5, 7, 5)),
    (2, 2, (3, 3, 3), 1, 1, 1, 1, "reflect", (5, 5, 5)),
    (2, 2, (3, 3, 3), 2, 2, 1, 2, "replicate", (5, 5, 5)),
    (2, 2, (4, 3, 2), 1, "same", 1, 1, "circular", (5, 5, 5)),
]


@pytest.mark.parametrize("case", CASES_3D, ids=str)
@pytest.mark.parametrize("depth_axis", [0, 1, -1])
@pytest.mark.parametrize("placement", ["center", "spread"])
def test_each_volume_is_convolved_with_its_kernel_in_the_volume(case, depth_axis, placement):
    in_channels, out_channels, size, stride, padding, dilation, groups, mode, volume = case
    x, bank, bias = leaves((2, in_channels, *volume), (out_channels, in_channels // groups, *size), (out_channels,))
    axis, angle = rotation(2)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": mode}
    ours = crossd_conv3d(
        x, bank, rotation_shift(axis, angle), bias, **geometry, depth_axis=depth_axis, placement=placement
    )
    literal = crossd_conv3d_loop(x, bank, axis, angle, bias, depth_axis, placement, **geometry)
    assert_same(ours, literal, [x, bank, axis, angle, bias])


@pytest.mark.parametrize("dims", [2, 3])
def test_one_shift_serves_all_samples(dims):
    function = crossd_conv2d if dims == 2 else crossd_conv3d
    x, bank, bias = leaves((3, 2, *[6] * dims), (4, 2, 3, 3, 3), (4,))
    shift = torch.tensor([[0.4, 1.5, 1.1]], **F64)
    one = function(x, bank, shift, bias, padding=1)
    assert_same(one, function(x, bank, shift.expand(3, 3), bias, padding=1), [x, bank, bias])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_sample_does_not_see_its_neighbours(dims):
    function = crossd_conv2d if dims == 2 else crossd_conv3d
    x, bank = torch.randn(4, 3, *[6] * dims, **F64), torch.randn(6, 3, 3, 3, 3, **F64)
    shift = torch.randn(4, 3, **F64)
    together = function(x, bank, shift)
    apart = torch.cat([function(x[b : b + 1], bank, shift[b : b + 1]) for b in range(4)])
    torch.testing.assert_close(together, apart, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("shifts", [0, 1])
def test_empty_batch_has_a_shape_and_zero_gradients(dims, shifts):
    function = crossd_conv2d if dims == 2 else crossd_conv3d
    x, bank, bias = leaves((0, 2, *[6] * dims), (4, 2, 3, 3, 3), (4,))
    y = function(x, bank, torch.ones(shifts, 3, **F64), bias, stride=2)
    assert y.shape == (0, 4, *[2] * dims)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert bank.grad.abs().sum() == 0
    assert bias.grad.abs().sum() == 0


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", [case for case in CASES_2D + CASES_3D if case[7] == "zeros"], ids=str)
def test_exported_way_of_applying_kernels_agrees(case, batch):
    """Grouped convolution (scripted, compiled) and a product over patches (exported)."""
    in_channels, out_channels, size, stride, padding, dilation, groups, _, image = case
    dims = len(image)
    size = size[-dims:]
    stride, dilation = ([v] * dims if isinstance(v, int) else list(v) for v in (stride, dilation))
    geometry = read_geometry((in_channels, out_channels), size, stride, padding, dilation, groups)
    x = torch.randn(batch, in_channels, *image, **F64)
    kernels = torch.randn(batch, out_channels, in_channels // groups, *size, **F64)
    torch.testing.assert_close(
        per_sample_patches(x, kernels, geometry),
        grouped_conv(x, kernels, geometry),
        atol=1e-11,
        rtol=0,
    )


@pytest.mark.parametrize(
    "pads", [(1, 0, 0, 2), (-1, -1, 0, 0), (-1, 2, 3, -2), (0, 0, 0, 0), (2, 2, 1, 1), (-2, 0, 0, 1)], ids=str
)
def test_lopsided_and_negative_padding(pads):
    x, weight = torch.randn(2, 3, 7, 8, **F64), torch.randn(4, 3, 3, 3, **F64)
    padded = torch.nn.functional.pad(x, (*pads[2:], *pads[:2]))
    expected = torch.nn.functional.conv2d(padded, weight, stride=2)
    geometry = Geometry([3, 3], [2, 2], list(pads), [1, 1], 1, "zeros")
    torch.testing.assert_close(convolve(x, weight, None, geometry), expected)


def test_gradcheck():
    x, bank, bias = leaves((2, 2, 4, 3), (2, 1, 2, 3, 2), (2,))
    axis, angle = rotation(2)

    def function(x, bank, axis, angle, bias):
        return crossd_conv2d(x, bank, rotation_shift(axis, angle), bias, padding=1, groups=2)

    assert torch.autograd.gradcheck(function, (x, bank, axis, angle, bias), fast_mode=True)


@pytest.mark.parametrize("placement", ["center", "spread"])
def test_gradcheck_3d(placement):
    x, bank, bias = leaves((2, 1, 3, 2, 3), (2, 1, 2, 2, 3), (2,))
    axis, angle = rotation(2)

    def function(x, bank, axis, angle, bias):
        return crossd_conv3d(x, bank, rotation_shift(axis, angle), bias, padding=1, placement=placement)

    assert torch.autograd.gradcheck(function, (x, bank, axis, angle, bias), fast_mode=True)


RIGHT_2D = {"x": (2, 4, 8, 8), "weight": (6, 4, 3, 3, 3), "shift": (2, 3), "bias": (6,)}
RIGHT_3D = {**RIGHT_2D, "x": (2, 4, 8, 8, 8)}
WRONG = [
    ({"x": (4,)}, r"shape \[4\]"),
    ({"weight": (6, 4, 3, 3)}, r"\[6, 4, 3, 3\]"),
    ({"weight": (6, 4)}, r"\[6, 4\]"),
    ({"weight": (6, 3, 3, 3, 3)}, "expected 3 input channels, got 4"),
    ({"shift": (3, 3)}, r"batch of 2, got shape \[3, 3\]"),
    ({"shift": (3,)}, r"\[3\]"),
    ({"shift": (2, 2)}, r"\[2, 2\]"),
    ({"bias": (1,)}, r"6.*\[1\]"),
    ({"bias": (7,)}, r"6.*\[7\]"),
    ({"groups": 4}, r"groups \(4\) must divide out_channels \(6\)"),
    ({"groups": 0}, "groups must be at least 1, but is 0"),
    ({"padding": "full"}, "'full'"),
    ({"padding": -1}, "padding must be .* but is -1"),
    ({"padding": (1, 1, 1, 1)}, r"\(1, 1, 1, 1\)"),
    ({"padding": "same", "stride": 2}, "stride is"),
    ({"stride": 0}, "stride .* 0"),
    ({"dilation": 0}, "dilation .* 0"),
    ({"padding_mode": "mirror"}, "reflect.*'mirror'"),
]


@pytest.mark.parametrize(("wrong", "says"), WRONG, ids=str)
@pytest.mark.parametrize("function", [crossd_conv2d, crossd_conv3d])
def test_wrong_arguments_are_named(function, wrong, says):
    right = RIGHT_2D if function is crossd_conv2d else RIGHT_3D
    arguments = {**right, **wrong}
    tensors = {name: torch.zeros(arguments[name]) for name in right}
    function(**{name: torch.zeros(shape) for name, shape in right.items()})
    with pytest.raises(ValueError, match=says):
        function(**{**arguments, **tensors})


@pytest.mark.parametrize(
    ("wrong", "says"), [({"depth_axis": 3}, "but is 3"), ({"placement": "middle"}, "center, spread, but is 'middle'")]
)
def test_wrong_arguments_of_3d_are_named(wrong, says):
    tensors = {name: torch.zeros(shape) for name, shape in RIGHT_3D.items()}
    with pytest.raises(ValueError, match=says):
        crossd_conv3d(**tensors, **wrong)


def test_kernel_of_a_repeated_bank_depends_on_two_shifts_only():
    bank = torch.randn(2, 2, 1, 3, 3, **F64).repeat(1, 1, 3, 1, 1)
    shift = torch.tensor([[0.2, 1.3, 0.7], [1.9, 1.3, 0.7]], **F64)
    first, second = crossd_kernel2d(bank, shift)
    torch.testing.assert_close(first, second, atol=1e-13, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("dims", [2, 3])
def test_cuda_gives_what_the_cpu_gives(dims):
    function = crossd_conv2d if dims == 2 else crossd_conv3d
    x, bank, bias = leaves((3, 4, *[8] * dims), (6, 2, 3, 3, 3), (6,))
    shift = torch.randn(3, 3, **F64)
    expected = function(x, bank, shift, bias, padding=1, groups=2)
    got = function(x.cuda(), bank.cuda(), shift.cuda(), bias.cuda(), padding=1, groups=2)
    torch.testing.assert_close(got.cpu(), expected, atol=1e-9, rtol=0)
