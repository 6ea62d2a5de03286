# SPDX-License-Identifier: Apache-2.0
"""Pure functions on tensors: the shift of a bank, Cross-D and ACS convolution, inflation. They need torch only."""

from ._rule import crossd_path
from .acs import acs_conv3d, embed_planes, view_channels
from .acs_transpose import acs_conv_transpose3d, embed_planes_transposed
from .crossd import crossd_conv2d, crossd_conv3d
from .inflate import centre_kernel, orient_bank, repeat_kernel, spread_kernel, transposed_kernel
from .planar import planar_conv3d
from .shift import crossd_kernel2d, rotation_shift, shift_from_map, shift_kernel
from .soft_acs import embed_views, soft_acs_conv3d

__all__ = [
    "acs_conv3d",
    "acs_conv_transpose3d",
    "centre_kernel",
    "crossd_conv2d",
    "crossd_conv3d",
    "crossd_kernel2d",
    "crossd_path",
    "embed_planes",
    "embed_planes_transposed",
    "embed_views",
    "orient_bank",
    "planar_conv3d",
    "repeat_kernel",
    "rotation_shift",
    "shift_from_map",
    "shift_kernel",
    "soft_acs_conv3d",
    "spread_kernel",
    "transposed_kernel",
    "view_channels",
]
