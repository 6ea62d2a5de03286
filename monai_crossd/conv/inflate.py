# SPDX-License-Identifier: Apache-2.0
"""From a 2D kernel to a 3D one: repeated along depth, spread over it, or set in its center.

References:
    J. Carreira and A. Zisserman, Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset, CVPR 2017
    (inflation, "I3D").

`depth_axis` counts the spatial axes of the 3D kernel (0, 1, 2 or −3, −2, −1); in MONAI's (C, H, W, D) it is the last.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spatial_axis(depth_axis: int) -> int:
    """`depth_axis` as 0, 1 or 2.

    Raises:
        ValueError: if it is no axis of a volume.
    """
    if not -3 <= depth_axis <= 2:
        raise ValueError(f"depth_axis must be one of -3 ... 2, but is {depth_axis}.")
    return depth_axis % 3


def _insert(weight: Tensor, depth: int, depth_axis: int) -> Tensor:
    if weight.dim() < 2:
        raise ValueError(f"a 2D kernel is (..., Kh, Kw), got shape {list(weight.shape)}.")
    if depth < 1:
        raise ValueError(f"depth must be at least 1, but is {depth}.")
    return weight.unsqueeze(spatial_axis(depth_axis) - 3)


def repeat_kernel(weight: Tensor, depth: int, depth_axis: int = -1) -> Tensor:
    """Repeat a 2D kernel (..., Kh, Kw) `depth` times along a new axis.

    Example:
        >>> repeat_kernel(torch.ones(1, 1, 3, 3), 5).shape
        torch.Size([1, 1, 3, 3, 5])
    """
    new = _insert(weight, depth, depth_axis)
    return torch.repeat_interleave(new, depth, dim=spatial_axis(depth_axis) - 3)


def spread_kernel(weight: Tensor, depth: int, depth_axis: int = -1) -> Tensor:
    """I3D: repeat along depth and divide by it, so that a volume constant along depth gives the 2D response.

    Example:
        >>> spread_kernel(torch.ones(1, 1, 2, 2), 4).sum()
        tensor(4.)
    """
    return repeat_kernel(weight, depth, depth_axis) / depth


def center_kernel(weight: Tensor, depth: int, depth_axis: int = -1) -> Tensor:
    """Set a 2D kernel in slice depth // 2 of a 3D kernel of zeros: each slice gives its 2D response.

    Example:
        >>> center_kernel(torch.ones(1, 1), 3).flatten()
        tensor([0., 1., 0.])
    """
    axis = spatial_axis(depth_axis) - 3
    new = _insert(weight, depth, depth_axis)
    shape = list(new.shape)
    shape[axis] = depth
    out = weight.new_zeros(shape)
    out.narrow(axis, depth // 2, 1).copy_(new)
    return out


def orient_bank(bank: Tensor, depth_axis: int = -1) -> Tensor:
    """Bank (O, I, Kd, Kh, Kw), through-plane axis first, as the 3D kernel whose depth lies on `depth_axis`.

    Example:
        >>> orient_bank(torch.zeros(1, 1, 5, 3, 3)).shape
        torch.Size([1, 1, 3, 3, 5])
    """
    return bank.movedim(-3, spatial_axis(depth_axis) - 3)


def transposed_kernel(
    weight: Tensor, depth: int, stride: int, dilation: int = 1, spread: bool = False, depth_axis: int = -1
) -> Tensor:
    """2D kernel of a transposed convolution as a 3D one whose slices give the 2D response.

    Taps whose offsets agree modulo the stride meet on the same output slices. Either they share the kernel, so that a
    volume constant along depth gives the 2D output, or the one nearest to the center has it, so that each output slice
    is the 2D output of the nearest input slice. Stride 1 is `spread_kernel` and `center_kernel`; depth = stride is
    `repeat_kernel`, both ways.

    Args:
        weight: (..., Kh, Kw).
        depth: size of the 3D kernel along depth.
        stride: along depth.
        dilation: along depth.
        spread: share the kernel.
        depth_axis: where the depth goes.

    Example:
        >>> transposed_kernel(torch.ones(1, 1), 4, 2, spread=True).flatten()
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
        >>> transposed_kernel(torch.ones(1, 1), 3, 2).flatten()
        tensor([0., 1., 1.])
    """
    share = [0.0] * depth
    for phase in range(stride):
        taps = [t for t in range(depth) if dilation * t % stride == phase]
        if taps and spread:
            for t in taps:
                share[t] = 1 / len(taps)
        elif taps:
            share[min(taps, key=lambda t: (abs(2 * t - depth + 1), -t))] = 1.0
    profile = torch.tensor(share, dtype=weight.dtype, device=weight.device)
    axis = spatial_axis(depth_axis) - 3
    return _insert(weight, depth, depth_axis) * profile.view([-1] + [1] * (-1 - axis))
