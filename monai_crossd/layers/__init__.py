# SPDX-License-Identifier: Apache-2.0
"""Layers with the signatures of torch.nn.Conv2d and Conv3d, and their place in MONAI's factories."""

from .acs import ACSConv3d
from .acs_transpose import ACSConvTranspose3d
from .crossd import CrossDConv2d, CrossDConv3d
from .factories import register, use_conv
from .planar import PlanarConv3d
from .soft_acs import SoftACSConv3d

__all__ = [
    "ACSConv3d",
    "ACSConvTranspose3d",
    "CrossDConv2d",
    "CrossDConv3d",
    "PlanarConv3d",
    "SoftACSConv3d",
    "register",
    "use_conv",
]
