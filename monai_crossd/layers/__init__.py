# SPDX-License-Identifier: Apache-2.0
"""Layers of `monai_crossd.conv` under their former name."""

from ..conv import (
    ACSConv3d,
    ACSConvTranspose3d,
    CrossDConv2d,
    CrossDConv3d,
    PlanarConv3d,
    SoftACSConv3d,
    register,
    use_conv,
)

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
