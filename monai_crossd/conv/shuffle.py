# SPDX-License-Identifier: Apache-2.0
"""Pixel shuffle within the slices of a volume: what torch.nn.PixelShuffle of a 2D network becomes in 3D.

References:
    W. Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network, CVPR 2016.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .inflate import spatial_axis


class SlicePixelShuffle(nn.Module):
    """Pixel shuffle of every slice, and each slice repeated: all three axes grow by the factor.

    The r² channels that a 2D network makes for one are enough for a slice, not for the r³ voxels of a 3D shuffle.

    Args:
        upscale_factor: r.
        depth_axis: axis of the volume that runs through the slices.
        keep_depth: repeat no slice.

    Shape:
        (B, C·r², H, W, D) to (B, C, H·r, W·r, D·r), or D where the depth is kept.

    Example:
        >>> SlicePixelShuffle(2)(torch.randn(1, 8, 3, 4, 5)).shape
        torch.Size([1, 2, 6, 8, 10])
    """

    def __init__(self, upscale_factor: int, depth_axis: int = -1, keep_depth: bool = False) -> None:
        super().__init__()
        self.upscale_factor, self.depth_axis, self.keep_depth = upscale_factor, depth_axis, keep_depth
        self._axis = spatial_axis(depth_axis) + 2

    def forward(self, x: Tensor) -> Tensor:
        """Shuffle a batch of volumes."""
        slices = F.pixel_shuffle(x.movedim(self._axis, 1).contiguous(), self.upscale_factor)
        if not self.keep_depth:
            slices = torch.repeat_interleave(slices, self.upscale_factor, dim=1)
        return slices.movedim(1, self._axis)

    def extra_repr(self) -> str:
        """Show factor and axis."""
        kept = ", keep_depth=True" if self.keep_depth else ""
        return f"upscale_factor={self.upscale_factor}, depth_axis={self.depth_axis}{kept}"


class SlicePixelUnshuffle(nn.Module):
    """Pixel unshuffle of every slice, and runs of slices averaged: all three axes shrink by the factor.

    Args:
        downscale_factor: r.
        depth_axis: axis of the volume that runs through the slices; a rest of fewer than r slices is dropped.
        keep_depth: average no slices.

    Shape:
        (B, C, H·r, W·r, D·r) to (B, C·r², H, W, D), or D·r where the depth is kept.

    Example:
        >>> SlicePixelUnshuffle(2)(torch.randn(1, 2, 6, 8, 10)).shape
        torch.Size([1, 8, 3, 4, 5])
    """

    def __init__(self, downscale_factor: int, depth_axis: int = -1, keep_depth: bool = False) -> None:
        super().__init__()
        self.downscale_factor, self.depth_axis, self.keep_depth = downscale_factor, depth_axis, keep_depth
        self._axis = spatial_axis(depth_axis) + 2

    def forward(self, x: Tensor) -> Tensor:
        """Unshuffle a batch of volumes."""
        r = self.downscale_factor
        slices = x.movedim(self._axis, 1)
        if not self.keep_depth:
            slices = slices[:, : slices.shape[1] // r * r].unflatten(1, [-1, r]).mean(dim=2)
        return F.pixel_unshuffle(slices.contiguous(), r).movedim(1, self._axis)

    def extra_repr(self) -> str:
        """Show factor and axis."""
        kept = ", keep_depth=True" if self.keep_depth else ""
        return f"downscale_factor={self.downscale_factor}, depth_axis={self.depth_axis}{kept}"
