# SPDX-License-Identifier: Apache-2.0
"""A training step of a ResNet-18 with Cross-D layers against the plain one: forward, backward, AdamW."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch
from torch import nn

from ..networks import build_resnet
from ..transfer.to_plain import to_plain
from . import harness
from .layers import forced
from .published import FourierCrossDConv2d


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the suite."""
    harness.add_arguments(parser, rounds=7)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--published", action="store_true", help="also the published form, tens of times slower")


def published(net: nn.Module) -> nn.Module:
    """A plain net with its convolutions in the form of the paper's Algorithm 1."""
    for parent in list(net.modules()):
        for name, conv in list(parent.named_children()):
            if isinstance(conv, nn.Conv2d):
                new = FourierCrossDConv2d(
                    conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
                )
                setattr(parent, name, new)
    return net


def train_step(args: argparse.Namespace, net: nn.Module, width: int) -> Callable[[], None]:
    """Forward, cross entropy, backward and AdamW on one random batch."""
    net = net.to(args.device)
    x = harness.as_input(args, torch.randn(args.batch, 1, width, width))
    target = torch.arange(args.batch, device=args.device) % 10
    kind = torch.device(args.device).type
    optimizer = torch.optim.AdamW(net.parameters(), capturable=kind == "cuda")  # so that a CUDA graph may hold it
    call = torch.compile(net) if args.compile else net

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(kind, harness.DTYPES[args.dtype], enabled=args.dtype != "float32"):
            loss = nn.functional.cross_entropy(call(x), target)
        loss.backward()
        optimizer.step()

    return run


def run(args: argparse.Namespace) -> list[dict]:
    """Race training steps, and the forward pass of nets in evaluation mode."""
    harness.prepare(args)
    size = 32 if args.quick else args.size
    widen = 0.125 if args.quick else 1.0

    def resnet(conv: str) -> nn.Module:
        return build_resnet("resnet18", conv, num_classes=10, widen_factor=widen)

    nets: dict[str, Callable[[], nn.Module]] = {"Conv2d": lambda: resnet("conv"), "Cross-D": lambda: resnet("crossd")}
    if not args.compile:
        nets["Cross-D, grouped"] = lambda: forced(resnet("crossd"), "grouped")  # type: ignore[assignment,return-value]
    if args.published:
        nets["Cross-D as published (FFT)"] = lambda: published(resnet("conv"))

    def make(name: str) -> Callable[[], None]:
        torch.manual_seed(harness.SEED)
        return train_step(args, nets[name](), size)

    case = f"ResNet-18 {args.batch}×{size}²"
    peaks = {name: harness.peak_memory(lambda n=name: make(n), args.device) for name in nets}  # type: ignore[misc]
    times = harness.time_all({name: make(name) for name in nets}, args.device, args.rounds, warmup=1)
    rows = [
        {
            "case": case,
            "contender": name,
            "pass": "training step",
            "median_ms": t["median_ms"],
            "iqr_ms": t["iqr_ms"],
            "ratio": t["median_ms"] / times["Conv2d"]["median_ms"],
            "limit": "Conv2d",
            "peak_mib": peaks[name],
            "peak_ratio": peaks[name] / peaks["Conv2d"] if peaks["Conv2d"] else math.nan,
            "first_ms": t["first_ms"],
            **harness.environment(args),
        }
        for name, t in times.items()
    ]
    image = (args.batch, 1, size, size)
    makers: dict[str, Callable] = {
        "Conv2d": lambda: (resnet("conv").eval(), torch.randn(image)),
        "Cross-D": lambda: (resnet("crossd").eval(), torch.randn(image)),
        "Cross-D, frozen shifts": lambda: (to_plain(resnet("crossd").eval()), torch.randn(image)),
    }
    return rows + harness.compare(args, f"{case}, evaluation", makers, "Conv2d", ("forward",))
