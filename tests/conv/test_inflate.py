# SPDX-License-Identifier: Apache-2.0
"""From 2D kernels to 3D ones: what the inflated kernels do to volumes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from monai_crossd.conv import center_kernel, orient_bank, repeat_kernel, spread_kernel

F64 = {"dtype": torch.float64}
AXES = [-3, -2, -1, 0, 1, 2]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_spread_kernel_on_a_volume_constant_along_depth_is_conv2d(axis, depth):
    image, weight = torch.randn(2, 3, 6, 7, **F64), torch.randn(4, 3, 3, 2, **F64)
    at = axis % 3 + 2
    volume = image.unsqueeze(at).repeat_interleave(depth + 2, at)
    expected = F.conv2d(image, weight).unsqueeze(at).repeat_interleave(3, at)
    torch.testing.assert_close(F.conv3d(volume, spread_kernel(weight, depth, axis)), expected)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_center_kernel_is_conv2d_slice_by_slice(axis, depth):
    volume, weight = torch.randn(2, 3, 6, 7, 8, **F64), torch.randn(4, 3, 3, 3, **F64)
    at = axis % 3 + 2
    y = F.conv3d(volume, center_kernel(weight, depth, axis))
    slices = volume.unbind(at)[depth // 2 : depth // 2 + y.shape[at]]
    torch.testing.assert_close(y, torch.stack([F.conv2d(s, weight) for s in slices], dim=at))


@pytest.mark.parametrize("axis", AXES)
def test_repeat_is_depth_times_spread(axis):
    weight = torch.randn(4, 3, 3, 2, **F64)
    repeated = repeat_kernel(weight, 3, axis)
    assert repeated.unbind(axis % 3 + 2)[2].equal(weight)
    torch.testing.assert_close(repeated, 3 * spread_kernel(weight, 3, axis))


@pytest.mark.parametrize(
    ("axis", "expected"), [(0, "oidhw"), (-3, "oidhw"), (1, "oihdw"), (-2, "oihdw"), (2, "oihwd"), (-1, "oihwd")]
)
def test_orient_bank_moves_the_first_axis(axis, expected):
    bank = torch.randn(2, 3, 4, 5, 6)
    assert orient_bank(bank, axis).equal(torch.einsum(f"oidhw->{expected}", bank))


@pytest.mark.parametrize("inflate", [repeat_kernel, spread_kernel, center_kernel])
@pytest.mark.parametrize(
    ("shape", "depth", "axis", "says"),
    [
        ((4, 3, 3, 3), 3, 3, "depth_axis must be one of -3 ... 2, but is 3"),
        ((4, 3, 3, 3), 3, -4, "but is -4"),
        ((4, 3, 3, 3), 0, -1, "depth must be at least 1, but is 0"),
        ((3,), 3, -1, r"\[3\]"),
    ],
)
def test_wrong_arguments_are_named(inflate, shape, depth, axis, says):
    with pytest.raises(ValueError, match=says):
        inflate(torch.zeros(shape), depth, axis)
