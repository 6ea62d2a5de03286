# SPDX-License-Identifier: Apache-2.0
"""Pure functions on tensors: the shift of a bank, Cross-D and ACS convolution, inflation. They need torch only."""

from .acs import acs_conv3d, embed_planes, view_channels
from .crossd import crossd_conv2d, crossd_conv3d
from .inflate import centre_kernel, orient_bank, repeat_kernel, spread_kernel
from .shift import crossd_kernel2d, rotation_shift, shift_from_map, shift_kernel

__all__ = [
    "acs_conv3d",
    "centre_kernel",
    "crossd_conv2d",
    "crossd_conv3d",
    "crossd_kernel2d",
    "embed_planes",
    "orient_bank",
    "repeat_kernel",
    "rotation_shift",
    "shift_from_map",
    "shift_kernel",
    "spread_kernel",
    "view_channels",
]
