# SPDX-License-Identifier: Apache-2.0
"""Transposed ACS against a dense conv_transpose3d whose kernels hold the planes voxel by voxel."""

from __future__ import annotations

import random

import pytest
import torch
from geometry import draw_transposed, largest_difference
from oracles import acs_transposed_dense

from monai_crossd.conv import acs_conv_transpose3d, embed_planes_transposed
from monai_crossd.conv.acs_kernels import plane_shape

F64 = {"dtype": torch.float64}


@pytest.mark.parametrize("seed", range(3))
def test_equals_its_dense_form(seed):
    rng = random.Random(seed)
    for _ in range(100):
        case = draw_transposed(rng)
        size, groups, out = case["kernel_size"], case["groups"], case["out_channels"]
        x = torch.randn(2, case["in_channels"], *case["size"], **F64, requires_grad=True)
        shape = (case["in_channels"], out // groups, *plane_shape(size))
        weight = torch.randn(shape, **F64, requires_grad=True)
        bias = torch.randn(out, **F64, requires_grad=True) if case["bias"] else None
        names = ("stride", "padding", "output_padding", "groups", "dilation")
        geometry = {name: case[name] for name in names}
        ours = acs_conv_transpose3d(x, weight, bias, kernel_size=size, **geometry)
        dense = acs_transposed_dense(weight, groups, size)
        reference = torch.nn.functional.conv_transpose3d(x, dense, bias, **geometry)
        inputs = [x, weight, *([bias] if case["bias"] else [])]
        assert largest_difference(ours, reference, inputs) < 1e-10, case
        assert embed_planes_transposed(weight, groups, size).equal(dense)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"output_padding": 1}, r"output_padding \[1, 1, 1\] must be smaller than stride \[1, 1, 1\]"),
        ({"padding": "same"}, "padding must be an int or 3 ints"),
        ({"groups": 3}, r"groups \(3\) must divide in_channels \(4\)"),
        ({"bias": torch.ones(1)}, r"bias must be \(3,\), got shape \[1\]"),
        ({"kernel_size": (3, 2, 2)}, r"kernel_size \(3, 2, 2\) needs a \(3, 2\) 2D kernel"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(options, says):
    with pytest.raises(ValueError, match=says):
        acs_conv_transpose3d(torch.randn(1, 4, 5, 5, 5), torch.randn(4, 3, 3, 3), **options)
