# SPDX-License-Identifier: Apache-2.0
"""Time contenders side by side: interleaved, warmed up, synchronised; median, interquartile range and peak memory."""

from __future__ import annotations

import argparse
import ctypes
import datetime
import functools
import gc
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .._version import __version__

Net = Callable[[Tensor], Tensor]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SEED = 0


def add_arguments(parser: argparse.ArgumentParser, rounds: int = 15) -> None:
    """Arguments that the timing suites share."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="below float32, parameters stay float32")
    parser.add_argument("--channels-last", action="store_true", help="inputs channels last; weights follow them")
    parser.add_argument("--compile", action="store_true", help="torch.compile every contender")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=rounds, help="timed calls of every contender")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, two rounds: to see that it runs")


def prepare(args: argparse.Namespace) -> None:
    """Set the number of threads; "quick" means two rounds."""
    torch.set_num_threads(args.threads)
    if args.quick:
        args.rounds = 2


def as_input(args: argparse.Namespace, x: Tensor) -> Tensor:
    """An image or a volume on the device and in the layout that the arguments ask for."""
    if not args.channels_last:
        return x.to(args.device)
    return x.to(args.device, memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def step(args: argparse.Namespace, net: Net, x: Tensor, backward: bool) -> Callable[[], None]:
    """One forward pass without gradients, or a forward and a backward pass, as a function."""
    kind = torch.device(args.device).type
    cotangent: list[Tensor] = []

    def forward() -> Tensor:
        with torch.autocast(kind, DTYPES[args.dtype], enabled=args.dtype != "float32"):
            return net(x)

    def run() -> None:
        if not backward:
            with torch.no_grad():
                forward()
            return
        x.grad = None
        if isinstance(net, nn.Module):
            net.zero_grad()
        y = forward()
        if not cotangent:
            cotangent.append(torch.randn_like(y))
        y.backward(cotangent[0])

    return run


def synchronise(device: str) -> None:
    """Wait for a GPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def time_all(functions: dict[str, Callable[[], object]], device: str, rounds: int, warmup: int = 2) -> dict[str, dict]:
    """Call every function in turn, round by round, so that all of them see the same machine.

    Returns:
        Per name `median_ms`, `iqr_ms` and `first_ms`, the very first call.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(warmup + rounds):
        for name, function in functions.items():
            synchronise(device)
            start = time.perf_counter()
            function()
            synchronise(device)
            times[name].append((time.perf_counter() - start) * 1e3)
    out = {}
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values[warmup:], n=4, method="inclusive")
        out[name] = {"median_ms": middle, "iqr_ms": high - low, "first_ms": values[0]}
    return out


def _resident(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return math.nan


def peak_memory(make: Callable[[], Callable[[], object]], device: str) -> float:
    """MiB that building a contender and running it twice needs at most, its parameters and gradients included.

    On a GPU what is allocated; on Linux the growth of the resident set, which also counts what libraries take; nan
    elsewhere.
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function = make()
        function()
        function()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if not sys.platform.startswith("linux"):
        return math.nan
    ctypes.CDLL(None).malloc_trim(0)  # what is free counts as free
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident now
    resident = _resident("VmRSS")
    function = make()
    function()
    function()
    return _resident("VmHWM") - resident


def environment(args: argparse.Namespace) -> dict[str, object]:
    """What a row has to say about the run that gave it."""
    return {
        "device": args.device,
        "dtype": args.dtype,
        "channels_last": args.channels_last,
        "compile": args.compile,
        "threads": args.threads,
        "rounds": args.rounds,
        "seed": SEED,
        "torch": torch.__version__,
        "version": __version__,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }


def compare(
    args: argparse.Namespace,
    case: str,
    makers: dict[str, Callable[[], tuple[Net, Tensor]]],
    limit: str,
    passes: tuple[str, ...] = ("forward", "forward+backward"),
    memory: bool = True,
) -> list[dict]:
    """Race contenders on one case.

    Args:
        args: parsed arguments of `add_arguments`.
        case: name of the case.
        makers: per contender, a function that builds net and input; each starts from the same seed.
        limit: the contender that all are compared with.
        passes: "forward" (no gradients) and "forward+backward".
        memory: measure the peak memory of each as well, one at a time.

    Returns:
        A row per contender and pass.
    """

    def make(name: str, backward: bool) -> Callable[[], None]:
        torch.manual_seed(SEED)
        net, x = makers[name]()
        if isinstance(net, nn.Module):
            net = net.to(args.device)
        x = as_input(args, x).requires_grad_(backward)
        return step(args, torch.compile(net) if args.compile else net, x, backward)

    rows = []
    for kind in passes:
        build = {name: functools.partial(make, name, kind != "forward") for name in makers}
        peaks = {name: peak_memory(build[name], args.device) if memory else math.nan for name in makers}
        times = time_all({name: build[name]() for name in makers}, args.device, args.rounds)
        for name, measured in times.items():
            rows.append({
                "case": case,
                "contender": name,
                "pass": kind,
                "median_ms": measured["median_ms"],
                "iqr_ms": measured["iqr_ms"],
                "ratio": measured["median_ms"] / times[limit]["median_ms"],
                "limit": limit,
                "peak_mib": peaks[name],
                "peak_ratio": peaks[name] / peaks[limit],
                "first_ms": measured["first_ms"],
                **environment(args),
            })  # fmt: skip
    return rows
