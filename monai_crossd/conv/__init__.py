# SPDX-License-Identifier: Apache-2.0
"""The convolutions: functions on tensors, layers with the arguments of torch.nn.Conv2d and Conv3d, and their factory.

Each file is one idea: its formula, its function, its layer, and the layer's way to a plain torch convolution.
"""

from .acs import ACSConv3d, acs_conv3d, embed_planes
from .acs_kernels import view_channels
from .acs_transpose import ACSConvTranspose3d, acs_conv_transpose3d, embed_planes_transposed
from .base import ConvBase
from .crossd import CrossDConv2d, crossd_conv2d
from .crossd3d import CrossDConv3d, crossd_conv3d
from .factory import register, use_conv
from .inflate import center_kernel, orient_bank, repeat_kernel, spread_kernel, transposed_kernel
from .planar import PlanarConv3d, planar_conv3d
from .shift import crossd_kernel2d, rotation_shift, shift_from_map, shift_kernel
from .soft_acs import SoftACSConv3d, embed_views, soft_acs_conv3d

__all__ = [
    "ACSConv3d",
    "ACSConvTranspose3d",
    "ConvBase",
    "CrossDConv2d",
    "CrossDConv3d",
    "PlanarConv3d",
    "SoftACSConv3d",
    "acs_conv3d",
    "acs_conv_transpose3d",
    "center_kernel",
    "crossd_conv2d",
    "crossd_conv3d",
    "crossd_kernel2d",
    "embed_planes",
    "embed_planes_transposed",
    "embed_views",
    "orient_bank",
    "planar_conv3d",
    "register",
    "repeat_kernel",
    "rotation_shift",
    "shift_from_map",
    "shift_kernel",
    "soft_acs_conv3d",
    "spread_kernel",
    "transposed_kernel",
    "use_conv",
    "view_channels",
]
