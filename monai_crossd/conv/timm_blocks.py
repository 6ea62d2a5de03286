# SPDX-License-Identifier: Apache-2.0
"""Blocks of timm's networks for volumes, with the same submodules and keys; `to_3d` puts them in place of timm's."""

from __future__ import annotations

from torch import Tensor, nn


class BatchNormAct3d(nn.BatchNorm3d):
    """timm's BatchNormAct2d for volumes: batch norm, then its submodules `drop` and `act`."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, drop and activate (B, C, H, W, D)."""
        return self.act(self.drop(super().forward(x)))


class SqueezeExcite3d(nn.Module):
    """timm's SqueezeExcite for volumes: channels are weighted by what their means over the volume say."""

    conv_reduce: nn.Module
    act1: nn.Module
    conv_expand: nn.Module
    gate: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Weight the channels of (B, C, H, W, D)."""
        mean = x.mean((2, 3, 4), keepdim=True)
        return x * self.gate(self.conv_expand(self.act1(self.conv_reduce(mean))))


class SEModule3d(nn.Module):
    """timm's SEModule for volumes: as SqueezeExcite3d, with a norm and, on request, the channels' highest values."""

    fc1: nn.Module
    bn: nn.Module
    act: nn.Module
    fc2: nn.Module
    gate: nn.Module
    add_maxpool: bool

    def forward(self, x: Tensor) -> Tensor:
        """Weight the channels of (B, C, H, W, D)."""
        mean = x.mean((2, 3, 4), keepdim=True)
        if self.add_maxpool:
            mean = (mean + x.amax((2, 3, 4), keepdim=True)) / 2
        return x * self.gate(self.fc2(self.act(self.bn(self.fc1(mean)))))
