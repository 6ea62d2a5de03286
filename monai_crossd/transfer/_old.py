# SPDX-License-Identifier: Apache-2.0
"""Verbs of version 0.1, for callers that are being moved to load_2d and start_from_2d; goes before 0.2."""

from __future__ import annotations

from typing import Any

from .._options import look_up_option
from ..conv.factory import CONVOLUTIONS
from ..conv.from_2d import INFLATIONS
from .load_2d import load_2d, start_from_2d

SCRATCH = "conv3d"
METHODS = (*CONVOLUTIONS, "i3d", "center", "bank")
CHOICES = (*METHODS, SCRATCH)


def _inflate(method: str | None) -> str:
    return str(method) if method in INFLATIONS else "center"


def conv_of(choice: str) -> str:
    """Use `conv` and `inflate`."""
    choice = look_up_option(choice, CHOICES)
    return choice if choice in CONVOLUTIONS else "conv"


def transfer_weights(source: Any, net3d: Any, method: str = "crossd", depth_axis: int = -1, **options: Any) -> Any:
    """Use `load_2d`."""
    return load_2d(net3d, source, _inflate(method), depth_axis, **options)


def load_checkpoint(path: Any, net: Any, method: str | None = None, depth_axis: int = -1, **options: Any) -> Any:
    """Use `load_2d`."""
    return load_2d(net, path, _inflate(method), depth_axis, **options)


def transfer_checkpoint(path: Any, net3d: Any, method: str = "crossd", **options: Any) -> Any:
    """Use `start_from_2d`."""
    look_up_option(method, CHOICES)
    return start_from_2d(net3d, None if method == SCRATCH else path, _inflate(method), **options)
