# SPDX-License-Identifier: Apache-2.0
"""Batch norm, dropout and activation in one module, as timm's networks have it, for volumes."""

from __future__ import annotations

from torch import Tensor, nn


class BatchNormAct3d(nn.BatchNorm3d):
    """timm's BatchNormAct2d for volumes: batch norm, then its submodules `drop` and `act`; the keys are the same."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, drop and activate (B, C, H, W, D)."""
        return self.act(self.drop(super().forward(x)))
