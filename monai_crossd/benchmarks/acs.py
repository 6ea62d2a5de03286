# SPDX-License-Identifier: Apache-2.0
"""ACS layers against Conv3d, and against the Conv2d that does as many operations; `acsconv` where it imports."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..conv import ACSConv3d, PlanarConv3d, SoftACSConv3d
from . import harness

SHAPES = ((32, 32, 3), (64, 24, 3), (128, 12, 3), (64, 24, 1))  # channels, side, kernel
QUICK = ((6, 6, 3),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the suite."""
    harness.add_arguments(parser)
    parser.add_argument("--batch", type=int, default=2)


def acsconv_layer() -> Any:
    """ACSConv of the package `acsconv` (Yang et al.'s code), or None where it is missing or older than this torch."""
    try:
        return importlib.import_module("acsconv.operators").ACSConv
    except ImportError:
        return None


def contenders(batch: int, c: int, side: int, k: int) -> dict[str, Callable]:
    """Everything that is raced on one shape, C to C channels."""

    def on(build: Callable[[], nn.Module], shape: tuple[int, ...] = (side, side, side)) -> Callable:
        return lambda: (build(), torch.randn(batch, c, *shape))

    p = k // 2
    makers = {
        "Conv3d": on(lambda: nn.Conv3d(c, c, k, padding=p, bias=False)),
        # as many voxels and, per voxel, as many operations
        "Conv2d, equal operations": on(lambda: nn.Conv2d(c, c, k, padding=p, bias=False), (side * side, side)),
        "ACS": on(lambda: ACSConv3d(c, c, k, padding=p, bias=False)),
        "soft ACS": on(lambda: SoftACSConv3d(c, c, k, padding=p, bias=False)),
        "planar": on(lambda: PlanarConv3d(c, c, k, padding=p, bias=False)),
    }
    package = acsconv_layer()
    if package is not None:
        makers["acsconv package"] = on(lambda: package(c, c, k, padding=p, bias=False))
    return makers


def run(args: argparse.Namespace) -> list[dict]:
    """Race on every shape."""
    harness.prepare(args)
    rows = []
    for c, side, k in QUICK if args.quick else SHAPES:
        case = f"{args.batch}×{c}ch {side}³ kernel {k}"
        rows += harness.compare(args, case, contenders(args.batch, c, side, k), "Conv3d")
    return rows
