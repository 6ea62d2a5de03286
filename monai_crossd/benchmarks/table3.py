# SPDX-License-Identifier: Apache-2.0
"""Shapes of Table III of the Cross-D paper, once with volumes of depth 1 as there, once with equal voxel counts."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import nn

from ..conv import ACSConv3d, CrossDConv2d
from . import harness
from .acs import acsconv_layer
from .published import FourierCrossDConv2d

SHAPES = ((8, 64, 128), (16, 128, 224), (32, 384, 224))  # batch, channels, side
QUICK = ((2, 4, 16),)
OUT_CHANNELS = 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the suite."""
    harness.add_arguments(parser, rounds=5)
    parser.add_argument("--shrink", type=int, default=1, help="divide the sides of the images, for a slow machine")
    parser.add_argument("--depth", type=int, default=16, help="slices of the fair volumes")


def contenders(batch: int, c: int, side: int, depth: int, out: int) -> tuple[dict[str, Callable], dict[str, Callable]]:
    """Layers of the table as the paper timed them, and with as many voxels as the images have pixels."""

    def on(build: Callable[[], nn.Module], *shape: int) -> Callable:
        return lambda: (build(), torch.randn(*shape))

    paper = {
        "Conv2d": on(lambda: nn.Conv2d(c, out, 3, padding=1), batch, c, side, side),
        "Cross-D": on(lambda: CrossDConv2d(c, out, 3, padding=1), batch, c, side, side),
        "Cross-D as published (FFT)": on(lambda: FourierCrossDConv2d(c, out, 3, padding=1), batch, c, side, side),
    }
    package = acsconv_layer()
    fair = {"Conv2d": paper["Conv2d"]}
    flat, thick = (batch, c, 1, side, side), (max(1, batch // depth), c, depth, side, side)
    if batch < depth:  # as many voxels from smaller slices
        thick = (1, c, depth, side, side * batch // depth)
    for makers, shape in ((paper, flat), (fair, thick)):
        makers["Conv3d"] = on(lambda: nn.Conv3d(c, out, 3, padding=1), *shape)
        makers["ACS"] = on(lambda: ACSConv3d(c, out, 3, padding=1), *shape)
        if package is not None:
            makers["acsconv package"] = on(lambda: package(c, out, 3, padding=1), *shape)
    return paper, fair


def run(args: argparse.Namespace) -> list[dict]:
    """Race on the three shapes, twice."""
    harness.prepare(args)
    rows = []
    for batch, channels, side in QUICK if args.quick else SHAPES:
        side = max(8, side // args.shrink)
        depth = 2 if args.quick else args.depth
        out = 6 if args.quick else OUT_CHANNELS
        paper, fair = contenders(batch, channels, side, depth, out)
        case = f"({batch}, {channels}, {side}, {side})"
        rows += harness.compare(args, f"{case} depth 1", paper, "Conv2d", memory=False)
        rows += harness.compare(args, f"{case} equal voxels", fair, "Conv2d", memory=False)
    return rows
