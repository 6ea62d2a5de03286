# SPDX-License-Identifier: Apache-2.0
"""From a 2D network to a 3D one: layers replaced, weights carried over, and a report of what went where."""

from .checkpoint import read_checkpoint, start_from_2d, transfer_checkpoint
from .files import read_file
from .load import load_checkpoint
from .modules3d import ConversionError
from .report import TransferError, TransferReport
from .rules import CHOICES, conv_of
from .to_3d import to_3d
from .to_crossd import to_crossd
from .to_plain import to_plain
from .weights import METHODS, transfer_weights

__all__ = [
    "CHOICES",
    "METHODS",
    "ConversionError",
    "TransferError",
    "TransferReport",
    "conv_of",
    "load_checkpoint",
    "read_checkpoint",
    "read_file",
    "start_from_2d",
    "to_3d",
    "to_crossd",
    "to_plain",
    "transfer_checkpoint",
    "transfer_weights",
]
