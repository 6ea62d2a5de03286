# SPDX-License-Identifier: Apache-2.0
"""Carry knowledge from 2D images into 3D MONAI networks: Cross-D and ACS convolution, weight transfer, bundles.

Importing the package registers its layers in MONAI's `Conv` factory and its encoders in `FLEXUNET_BACKBONE`. `data`,
`demo`, `training` and `visualize` are imported at their first use: they bring SimpleITK, and most programs need only
layers.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from . import conv, networks, transfer, transforms
from ._version import __version__
from .conv import (
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
from .transfer import (
    ConversionError,
    TransferError,
    TransferReport,
    load_2d,
    to_3d,
    to_crossd,
    to_plain,
)

if TYPE_CHECKING:
    from . import data, demo, training, visualize

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
    "conv",
    "data",
    "demo",
    "load_2d",
    "networks",
    "to_3d",
    "to_crossd",
    "to_plain",
    "training",
    "transfer",
    "transforms",
    "use_conv",
    "visualize",
]

_AT_FIRST_USE = ("data", "demo", "training", "visualize")


def __getattr__(name: str) -> ModuleType:
    if name in _AT_FIRST_USE:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_AT_FIRST_USE})
