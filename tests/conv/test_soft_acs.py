# SPDX-License-Identifier: Apache-2.0
"""Soft and mean ACS, and planar convolution, against conv3d whose kernels hold the planes voxel by voxel."""

from __future__ import annotations

import random

import pytest
import torch
from geometry import draw_conv, largest_difference
from oracles import plane_dense

from monai_crossd.conv import embed_views, planar_conv3d, soft_acs_conv3d
from monai_crossd.conv.acs_kernels import plane_shape

F64 = {"dtype": torch.float64}


def torchs(case: dict, x, dense, bias):
    arguments = {name: value for name, value in case.items() if name != "size"}
    conv = torch.nn.Conv3d(**{**arguments, "bias": bias is not None}).double()
    return torch.func.functional_call(conv, {"weight": dense, "bias": bias}, x)


def geometry(case: dict) -> dict:
    return {name: case[name] for name in ("stride", "padding", "dilation", "groups", "padding_mode")}


def tensors(case: dict, plane: tuple):
    x = torch.randn(2, case["in_channels"], *case["size"], **F64, requires_grad=True)
    shape = (case["out_channels"], case["in_channels"] // case["groups"], *plane)
    weight = torch.randn(shape, **F64, requires_grad=True)
    bias = torch.randn(case["out_channels"], **F64, requires_grad=True) if case["bias"] else None
    return x, weight, bias, [x, weight, *([bias] if case["bias"] else [])]


@pytest.mark.parametrize("mean", [False, True])
def test_soft_acs_equals_its_dense_form(mean):
    rng = random.Random(mean)
    for _ in range(150):
        case = draw_conv(rng)
        size = case["kernel_size"]
        x, weight, bias, inputs = tensors(case, plane_shape(size))
        views = None if mean else torch.rand(case["out_channels"], 3, **F64, requires_grad=True)
        share = torch.full((case["out_channels"], 3), 1 / 3, **F64) if mean else views
        dense = sum(share[:, v].view(-1, 1, 1, 1, 1) * plane_dense(weight, v, size) for v in range(3))
        ours = soft_acs_conv3d(x, weight, views, bias, kernel_size=size, **geometry(case))
        difference = largest_difference(ours, torchs(case, x, dense, bias), inputs if mean else [*inputs, views])
        assert difference < 1e-10, case


@pytest.mark.parametrize("plane", [0, 1, 2])
def test_planar_equals_its_dense_form(plane):
    rng = random.Random(plane)
    for _ in range(100):
        case = draw_conv(rng)
        size = case["kernel_size"]
        x, weight, bias, inputs = tensors(case, size[:plane] + size[plane + 1 :])
        ours = planar_conv3d(x, weight, bias, plane=plane - rng.choice([0, 3]), depth=size[plane], **geometry(case))
        dense = plane_dense(weight, plane, size)
        assert largest_difference(ours, torchs(case, x, dense, bias), inputs) < 1e-10, case


def test_a_cube_is_the_default():
    x, weight = torch.randn(1, 2, 6, 6, 6), torch.randn(3, 2, 3, 3)
    assert soft_acs_conv3d(x, weight).equal(soft_acs_conv3d(x, weight, kernel_size=3))
    assert planar_conv3d(x, weight).equal(planar_conv3d(x, weight, depth=3, plane=2))
    assert embed_views(weight).shape == (3, 2, 3, 3, 3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, w: soft_acs_conv3d(x, w, torch.ones(3, 2)), r"view_weight must be \(6, 3\), got shape \[3, 2\]"),
        (lambda x, w: soft_acs_conv3d(x, w, bias=torch.ones(5)), r"bias must be \(6,\), got shape \[5\]"),
        (lambda x, w: soft_acs_conv3d(x, w[:, :, :2]), "2×3 kernel does not say its size in 3D"),
        (lambda x, w: soft_acs_conv3d(x[:, :1], w), "expected 2 input channels, got 1"),
        (lambda x, w: embed_views(w, torch.ones(6)), r"view_weight must be \(6, 3\), got shape \[6\]"),
        (lambda x, w: planar_conv3d(x, w[0]), r"2D kernel \(O, I, kh, kw\), got shape \[2, 3, 3\]"),
        (lambda x, w: planar_conv3d(x, w, plane=3), "but is 3"),
        (lambda x, w: planar_conv3d(x, w, depth=0), r"kernel_size must be .* but is \(3, 3, 0\)"),
        (lambda x, w: planar_conv3d(x[0], w), r"5 axes .* got shape \[2, 6, 6, 6\]"),
    ],
)
def test_wrong_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call(torch.randn(1, 2, 6, 6, 6), torch.randn(6, 2, 3, 3))
