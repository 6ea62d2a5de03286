# SPDX-License-Identifier: Apache-2.0
"""Cross-D layers against Conv2d: each way of applying the kernels, the published form, and a frozen shift."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..conv import CrossDConv2d, CrossDConv3d
from ..conv.rule import PATHS, crossd_path
from . import harness
from .published import FourierCrossDConv2d

SHAPES = ((64, 56), (128, 28), (256, 14), (512, 7))  # stages of a ResNet-18 at 224²
QUICK = ((4, 8),)
VOLUMES = ((32, 32), (128, 16))  # channels, side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the suite."""
    harness.add_arguments(parser)
    parser.add_argument("--batch", type=int, default=8)


def forced(net: nn.Module, path: str) -> Callable[[Tensor], Tensor]:
    """The net with its kernels applied by one path."""

    class Forced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            with crossd_path(path):
                y: Tensor = self.net(x)
            return y

    return Forced()


def contenders2d(args: argparse.Namespace, channels: int, size: int) -> dict[str, Callable]:
    """Everything that is raced on one shape, 3×3, C to C channels."""
    c = channels

    def on(build: Callable[[], object]) -> Callable:
        return lambda: (build(), torch.randn(args.batch, c, size, size))

    makers = {
        "Conv2d": on(lambda: nn.Conv2d(c, c, 3, padding=1, bias=False)),
        "Cross-D": on(lambda: CrossDConv2d(c, c, 3, padding=1, bias=False)),
        "Cross-D, frozen shift": on(lambda: CrossDConv2d(c, c, 3, padding=1, bias=False).to_conv2d()),
    }
    if not args.compile:  # a compiled graph has one path
        for path in PATHS:
            if path != "shared" or size <= 14:  # it only loses on larger maps
                makers[f"Cross-D, {path}"] = on(
                    lambda p=path: forced(CrossDConv2d(c, c, 3, padding=1, bias=False), p)  # type: ignore[misc]
                )
        makers["Cross-D as published (FFT)"] = on(lambda: FourierCrossDConv2d(c, c, 3, padding=1))
    return makers


def contenders3d(args: argparse.Namespace, channels: int, side: int) -> dict[str, Callable]:
    """Dynamic CrossDConv3d against the flat convolution it ends in, and a dense Conv3d."""

    def on(build: Callable[[], nn.Module]) -> Callable:
        return lambda: (build(), torch.randn(2, channels, side, side, side))

    c = channels
    return {
        "Conv3d 3×3×1": on(lambda: nn.Conv3d(c, c, (3, 3, 1), padding=(1, 1, 0), bias=False)),
        "CrossDConv3d, dynamic": on(lambda: CrossDConv3d(c, c, 3, padding=1, bias=False)),
        "CrossDConv3d, static": on(lambda: CrossDConv3d(c, c, 3, padding=1, bias=False, mode="static")),
        "Conv3d 3×3×3": on(lambda: nn.Conv3d(c, c, 3, padding=1, bias=False)),
    }


def run(args: argparse.Namespace) -> list[dict]:
    """Race on every shape."""
    harness.prepare(args)
    rows = []
    for channels, size in QUICK if args.quick else SHAPES:
        case = f"{args.batch}×{channels}ch {size}²"
        rows += harness.compare(args, case, contenders2d(args, channels, size), "Conv2d")
    for channels, side in QUICK if args.quick else VOLUMES:
        rows += harness.compare(args, f"2×{channels}ch {side}³", contenders3d(args, channels, side), "Conv3d 3×3×1")
    return rows
