# SPDX-License-Identifier: Apache-2.0
"""ACS against a dense conv3d whose kernels hold the planes voxel by voxel."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import acs_dense

from monai_crossd.conv import acs_conv3d, embed_planes, view_channels
from monai_crossd.conv.acs_kernels import plane_shape

F64 = {"dtype": torch.float64}
MODES = ("zeros", "reflect", "replicate", "circular")


def draw_geometry(rng: random.Random) -> tuple:
    """A Conv3d that torch accepts: any kernel, stride, padding, dilation, groups and padding mode."""
    groups, inner, outer = rng.randint(1, 4), rng.randint(1, 2), rng.randint(1, 4)
    if rng.random() < 0.2:
        inner = 1  # depthwise
    size = (rng.randint(1, 4),) * 3 if rng.random() < 0.5 else tuple(rng.randint(1, 4) for _ in range(3))
    dilation = tuple(rng.randint(1, 2) for _ in range(3))
    mode = rng.choice(MODES)
    word = rng.random()
    if word < 0.15:
        stride, padding = (1, 1, 1), "same"
        pads = [d * (k - 1) for k, d in zip(size, dilation, strict=True)]
    elif word < 0.25:
        stride, padding, pads = tuple(rng.randint(1, 3) for _ in range(3)), "valid", [0, 0, 0]
    else:
        stride = tuple(rng.randint(1, 3) for _ in range(3))
        padding = tuple(rng.randint(0, 3) for _ in range(3))
        pads = list(padding)
    # large enough for the kernel without padding, and for a reflection of it
    volume = tuple(
        max(d * (k - 1) + 1, p + 1) + rng.randint(0, 2) for k, d, p in zip(size, dilation, pads, strict=True)
    )
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": mode}
    return inner * groups, outer * groups, size, volume, geometry, rng.random() < 0.7


def largest_difference(case) -> float:
    """Between ACS and the dense convolution, of outputs and of gradients of input, weight and bias."""
    in_channels, out_channels, size, volume, geometry, with_bias = case
    x = torch.randn(2, in_channels, *volume, **F64, requires_grad=True)
    shape = (out_channels, in_channels // geometry["groups"], *plane_shape(size))
    weight = torch.randn(shape, **F64, requires_grad=True)
    bias = torch.randn(out_channels, **F64, requires_grad=True) if with_bias else None
    ours = acs_conv3d(x, weight, bias, kernel_size=size, **geometry)
    conv = torch.nn.Conv3d(in_channels, out_channels, size, bias=with_bias, **geometry).double()
    dense = torch.func.functional_call(conv, {"weight": acs_dense(weight, size), "bias": bias}, x)
    assert ours.shape == dense.shape
    inputs = [x, weight] + ([bias] if with_bias else [])
    cotangent = torch.randn_like(dense)
    pairs = [(ours, dense)]
    pairs += zip(
        torch.autograd.grad(ours, inputs, cotangent), torch.autograd.grad(dense, inputs, cotangent), strict=True
    )
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("block", range(8))
def test_400_random_geometries_are_dense_convolutions(block):
    rng = random.Random(block)
    differ = []
    for _ in range(50):
        case = draw_geometry(rng)
        if (difference := largest_difference(case)) > 1e-10:
            differ.append((difference, case))
    assert not differ


@given(st.randoms(use_true_random=False))
def test_any_geometry_is_a_dense_convolution(rng):
    assert largest_difference(draw_geometry(rng)) <= 1e-10


@pytest.mark.parametrize("size", [(3, 3, 3), (2, 2, 2), (1, 1, 1), (5, 5, 5), (3, 5, 1), (4, 3, 2), (1, 1, 3)], ids=str)
@pytest.mark.parametrize("out_channels", [1, 2, 3, 4, 5, 8])
def test_embedded_planes(size, out_channels):
    weight = torch.randn(out_channels, 2, *plane_shape(size), **F64)
    assert embed_planes(weight, size).equal(acs_dense(weight, size))


def test_gradient_of_embedded_planes():
    weight = torch.randn(4, 1, 3, 3, **F64, requires_grad=True)
    assert torch.autograd.gradcheck(embed_planes, weight)


@pytest.mark.parametrize("channels", range(1, 12))
def test_views_share_the_channels(channels):
    views = view_channels(channels)
    assert sum(views) == channels
    assert views == sorted(views, reverse=True)
    assert max(views) - min(views) <= 1


def test_each_view_sees_its_plane_only():
    x = torch.zeros(1, 1, 5, 5, 5)
    x[0, 0, 2, 2, 2] = 1
    y = acs_conv3d(x, torch.ones(3, 1, 3, 3), padding=1)
    for view in range(3):
        where = y[0, view].nonzero()
        assert len(where) == 9
        assert (where[:, view] == 2).all()


def test_gradcheck():
    x = torch.randn(1, 2, 3, 4, 3, **F64, requires_grad=True)
    weight, bias = torch.randn(4, 1, 3, 3, **F64, requires_grad=True), torch.randn(4, **F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: acs_conv3d(*a, padding=1, groups=2), (x, weight, bias), fast_mode=True)


def test_empty_batch():
    x, weight = torch.randn(0, 2, 5, 5, 5, requires_grad=True), torch.randn(6, 2, 3, 3, requires_grad=True)
    y = acs_conv3d(x, weight, padding=1)
    y.sum().backward()
    assert y.shape == (0, 6, 5, 5, 5)
    assert weight.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"x": (2, 4, 8, 8)}, r"5 axes.*\[2, 4, 8, 8\]"),
        ({"x": (2, 3, 8, 8, 8)}, "expected 4 input channels, got 3"),
        ({"weight": (6, 4, 3, 3, 3)}, r"\[6, 4, 3, 3, 3\]"),
        ({"weight": (6, 4, 3, 5)}, "give kernel_size"),
        ({"kernel_size": (3, 3, 5)}, r"\(3, 3, 5\) needs a \(3, 5\)"),
        ({"kernel_size": 0}, "kernel_size .* 0"),
        ({"bias": (1,)}, r"6.*\[1\]"),
        ({"bias": (9,)}, r"6.*\[9\]"),
        ({"groups": 4}, r"groups \(4\) must divide out_channels \(6\)"),
        ({"padding": "full"}, "'full'"),
        ({"padding": "same", "stride": (1, 2, 1)}, r"stride is \(1, 2, 1\)"),
        ({"padding_mode": "mirror"}, "'mirror'"),
        ({"dilation": (1, 1)}, r"\(1, 1\)"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(wrong, says):
    right = {"x": (2, 4, 8, 8, 8), "weight": (6, 4, 3, 3), "bias": (6,)}
    acs_conv3d(**{name: torch.zeros(shape) for name, shape in right.items()})
    arguments = {**right, **wrong}
    tensors = {name: torch.zeros(arguments[name]) for name in right}
    with pytest.raises(ValueError, match=says):
        acs_conv3d(**{**arguments, **tensors})


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives():
    x, weight = torch.randn(2, 4, 6, 7, 8, **F64), torch.randn(8, 2, 3, 3, **F64)
    got = acs_conv3d(x.cuda(), weight.cuda(), padding=1, groups=2, stride=2)
    torch.testing.assert_close(got.cpu(), acs_conv3d(x, weight, padding=1, groups=2, stride=2), atol=1e-9, rtol=0)
