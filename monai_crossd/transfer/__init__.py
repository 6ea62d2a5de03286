# SPDX-License-Identifier: Apache-2.0
"""From a 2D network to a 3D one: layers replaced, weights carried over, and a report of what went where."""

from .checkpoints import read_checkpoint
from .load_2d import load_2d
from .modules3d import ConversionError
from .report import TransferError, TransferReport
from .rescale import rescale_kernels
from .to_3d import to_3d
from .to_crossd import to_crossd
from .to_plain import to_plain

__all__ = [
    "ConversionError",
    "TransferError",
    "TransferReport",
    "load_2d",
    "read_checkpoint",
    "rescale_kernels",
    "to_3d",
    "to_crossd",
    "to_plain",
]
