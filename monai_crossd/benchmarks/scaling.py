# SPDX-License-Identifier: Apache-2.0
"""CrossDConv2d against Conv2d as batch, channels, size, kernel, number of threads and compilation change."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import nn

from ..conv import CrossDConv2d
from . import harness

BASE = {"batch": 8, "channels": 64, "size": 28, "kernel": 3}
SWEEPS = {
    "batch": (1, 2, 4, 8, 16, 32),
    "channels": (8, 16, 32, 64, 128, 256),
    "size": (7, 14, 28, 56, 112),
    "kernel": (1, 3, 5, 7),
}
QUICK = {"batch": (1, 2)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the suite."""
    harness.add_arguments(parser, rounds=9)


def contenders(batch: int, channels: int, size: int, kernel: int) -> dict[str, Callable]:
    """Both layers on one shape."""
    c, k = channels, kernel

    def on(build: Callable[[], nn.Module]) -> Callable:
        return lambda: (build(), torch.randn(batch, c, size, size))

    return {
        "Conv2d": on(lambda: nn.Conv2d(c, c, k, padding=k // 2, bias=False)),
        "Cross-D": on(lambda: CrossDConv2d(c, c, k, padding=k // 2, bias=False)),
    }


def run(args: argparse.Namespace) -> list[dict]:
    """Sweep one thing at a time from the same base."""
    harness.prepare(args)
    rows = []
    base = {"batch": 2, "channels": 4, "size": 8, "kernel": 3} if args.quick else BASE
    for name, values in (QUICK if args.quick else SWEEPS).items():
        for value in values:
            shape = {**base, name: value}
            case = f"{name} {value}: {shape['batch']}×{shape['channels']}ch {shape['size']}² kernel {shape['kernel']}"
            rows += harness.compare(args, case, contenders(**shape), "Conv2d", ("forward+backward",))
    threads = args.threads
    for count in (1,) if args.quick else sorted({1, 2, threads}):
        args.threads = count
        torch.set_num_threads(count)
        rows += harness.compare(args, f"threads {count}", contenders(**base), "Conv2d", ("forward+backward",))
    args.threads = threads
    torch.set_num_threads(threads)
    if not args.compile and not args.quick:
        args.compile = True
        # without memory, whose runs would compile before the first call is timed
        rows += harness.compare(args, "compiled", contenders(**base), "Conv2d", ("forward+backward",), memory=False)
        args.compile = False
    return rows
