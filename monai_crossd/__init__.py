# SPDX-License-Identifier: Apache-2.0
"""Carry knowledge from 2D images into 3D MONAI networks: Cross-D and ACS convolution, weight transfer, bundles.

Importing the package registers its layers in MONAI's `Conv` factory and its encoders in `FLEXUNET_BACKBONE`.
"""

from . import convert, data, functional, layers, networks, training, transforms, visualize
from ._version import __version__
from .convert import (
    ConversionError,
    TransferError,
    TransferReport,
    freeze,
    load_checkpoint,
    to_3d,
    to_crossd,
    transfer_weights,
)
from .layers import (
    ACSConv3d,
    ACSConvTranspose3d,
    CrossDConv2d,
    CrossDConv3d,
    PlanarConv3d,
    SoftACSConv3d,
    register,
    use_conv,
)
from .networks import register_backbones

register()
register_backbones()

__all__ = [
    "ACSConv3d",
    "ACSConvTranspose3d",
    "ConversionError",
    "CrossDConv2d",
    "CrossDConv3d",
    "PlanarConv3d",
    "SoftACSConv3d",
    "TransferError",
    "TransferReport",
    "__version__",
    "convert",
    "data",
    "freeze",
    "functional",
    "layers",
    "load_checkpoint",
    "networks",
    "to_3d",
    "to_crossd",
    "training",
    "transfer_weights",
    "transforms",
    "use_conv",
    "visualize",
]
