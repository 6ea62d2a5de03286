# SPDX-License-Identifier: Apache-2.0
"""Layers with the signatures of torch.nn.Conv2d and Conv3d, and their place in MONAI's factories."""

from .acs import ACSConv3d
from .crossd import CrossDConv2d, CrossDConv3d
from .factories import register, use_conv

__all__ = ["ACSConv3d", "CrossDConv2d", "CrossDConv3d", "register", "use_conv"]
