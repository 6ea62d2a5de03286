# SPDX-License-Identifier: Apache-2.0
"""Everything that counts on a GPU in one table: from Python, as a CUDA graph, memory, kernels launched, and the goals.

A CUDA graph replays a step without the cost of launching it: what the kernels themselves take. "before" is the ratio of
that time measured on an H200 (torch 2.11, 2026-11-26) for the grouped and flat convolutions of that day.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import nn

from ..conv import ACSConv3d, CrossDConv2d, CrossDConv3d, PlanarConv3d, SoftACSConv3d
from ..conv.rule import acs_path, crossd_path
from ..networks import build_resnet
from ..transfer.to_plain import to_plain
from . import harness
from .networks import train_step

LAYERS = {(64, 56): (4.8, 2.0), (128, 28): (6.0, 2.2), (256, 14): (10.4, 2.8), (512, 7): (20.6, 5.0)}  # before, goal
TABLE3 = {(8, 64, 128): (1.47, 1.08), (16, 128, 224): (1.29, 1.08)}
VOLUMES = {(32, 96): (3.9, 1.0), (64, 48): (3.1, 1.0), (128, 24): (3.9, 1.0)}  # of dynamic CrossDConv3d
ACS = {  # before, by layout; the goal is 1.1 everywhere
    "channels last": {32: 3.6, 64: 2.3, 128: 2.4},
    "contiguous": {32: 6.5, 64: 9.5, 128: 12.5},
}
NO_GOAL = (math.nan, math.nan)
Step = Callable[[], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the suite."""
    harness.add_arguments(parser, rounds=9)
    parser.set_defaults(device="cuda")
    parser.add_argument("--batch", type=int, default=32)


def graph_ms(step: Step, rounds: int) -> float:
    """Milliseconds of a step replayed as a CUDA graph; nan if it cannot be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError:
        torch.cuda.synchronize()
        return math.nan
    times = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(3):
            graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 3)
    return sorted(times)[len(times) // 2]


def kernels_launched(step: Step) -> int:
    """Kernels and copies that one step starts on the GPU."""
    kinds = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds) as profile:
        step()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def measure(make: Callable[[], Step], device: str, rounds: int) -> dict[str, float]:
    """Time from Python, time as a CUDA graph, peak memory and kernels launched; on a CPU the first and the third."""
    peak = harness.peak_memory(make, device)
    step = make()
    step()  # tunes kernels
    eager = harness.time_all({"step": step}, device, rounds)["step"]["median_ms"]
    cuda = torch.device(device).type == "cuda"
    return {
        "eager_ms": eager,
        "gpu_ms": graph_ms(step, rounds) if cuda else math.nan,
        "peak_mib": peak,
        "kernels": kernels_launched(step) if cuda else math.nan,
    }


def on_path(step: Step, crossd: str | None = None, acs: str | None = None) -> Step:
    """A step with its convolutions on one path."""

    def run() -> None:
        with ExitStack() as stack:
            if crossd is not None:
                stack.enter_context(crossd_path(crossd))
            if acs is not None:
                stack.enter_context(acs_path(acs))
            step()

    return run


def race(
    args: argparse.Namespace, case: str, kind: str, makers: dict[str, Callable[[], Step]],
    goals: dict[str, tuple[float, float]],
) -> list[dict]:  # fmt: skip
    """Rows of one case; the first contender is what the others are compared with."""
    measured = {}
    for name, make in makers.items():
        torch.manual_seed(harness.SEED)
        measured[name] = measure(make, args.device, args.rounds)
    limit = measured[next(iter(makers))]
    rows = []
    for name, found in measured.items():
        before, goal = goals.get(name, NO_GOAL)
        rows.append({
            "case": case,
            "pass": kind,
            "contender": name,
            "eager_ms": found["eager_ms"],
            "gpu_ms": found["gpu_ms"],
            "eager_ratio": found["eager_ms"] / limit["eager_ms"],
            "gpu_ratio": found["gpu_ms"] / limit["gpu_ms"],
            "before": before,
            "goal": goal,
            "peak_ratio": found["peak_mib"] / limit["peak_mib"] if limit["peak_mib"] else math.nan,
            "peak_mib": found["peak_mib"],
            "kernels": found["kernels"],
            **harness.environment(args),
        })  # fmt: skip
    return rows


def layer_maker(
    args: argparse.Namespace, build: Callable[[], nn.Module], shape: Sequence[int], backward: bool, **paths: str
) -> Callable[[], Step]:  # fmt: skip
    """Maker of a step of one layer on random input."""

    def make() -> Step:
        net = build().to(args.device)
        x = harness.as_input(args, torch.randn(shape)).requires_grad_(backward)
        return on_path(harness.step(args, net, x, backward), **paths)

    return make


def layers2d(args: argparse.Namespace) -> list[dict]:
    """Stages of a ResNet-18, forward and backward, bfloat16, channels last, each way of applying the kernels."""
    rows = []
    for (c, size), goal in LAYERS.items() if not args.quick else [((4, 8), NO_GOAL)]:
        shape = (args.batch, c, size, size)

        def conv(c: int = c) -> nn.Module:
            return nn.Conv2d(c, c, 3, padding=1, bias=False)

        def crossd(c: int = c) -> nn.Module:
            return CrossDConv2d(c, c, 3, padding=1, bias=False)

        for kind in ("forward+backward", "forward"):
            back = kind != "forward"
            makers = {"Conv2d": layer_maker(args, conv, shape, back), "Cross-D": layer_maker(args, crossd, shape, back)}
            if back:
                for path in ("grouped", "per_sample", *(["shared"] if size <= 14 else [])):
                    makers[f"Cross-D, {path}"] = layer_maker(args, crossd, shape, back, crossd=path)
            rows += race(args, f"{args.batch}×{c}ch {size}²", kind, makers, {"Cross-D": goal} if back else {})
    return rows


def networks(args: argparse.Namespace) -> list[dict]:
    """A ResNet-18: a training step in bfloat16, an evaluation in float32."""
    width = 32 if args.quick else 224

    def resnet(conv: str) -> nn.Module:
        return build_resnet("resnet18", conv, num_classes=10, widen_factor=0.125 if args.quick else 1.0)

    def step(conv: str) -> Callable[[], Step]:
        return lambda: train_step(args, resnet(conv), width)

    single = argparse.Namespace(**{**vars(args), "dtype": "float32"})

    def evaluation(net: Callable[[], nn.Module]) -> Callable[[], Step]:
        return layer_maker(single, lambda: net().eval(), (args.batch, 1, width, width), False)

    case = f"ResNet-18 {args.batch}×{width}²"
    steps = {"Conv2d": step("conv"), "Cross-D": step("crossd")}
    evaluations = {
        "Conv2d": evaluation(lambda: resnet("conv")),
        "Cross-D": evaluation(lambda: resnet("crossd")),
        "Cross-D, frozen shifts": evaluation(lambda: to_plain(resnet("crossd"))),
    }
    return [
        *race(args, case, "training step", steps, {"Cross-D": (5.5, 2.0)}),
        *race(single, case, "evaluation", evaluations, {"Cross-D": (13.3, 2.5)}),
    ]


def table3(args: argparse.Namespace) -> list[dict]:
    """Shapes of the paper's Table III, forward, float32."""
    rows = []
    single = argparse.Namespace(**{**vars(args), "dtype": "float32"})
    for (batch, c, side), goal in TABLE3.items() if not args.quick else [((2, 4, 8), NO_GOAL)]:
        out = 512 if not args.quick else 6
        shape = (batch, c, side, side)

        def conv(c: int = c, out: int = out) -> nn.Module:
            return nn.Conv2d(c, out, 3, padding=1)

        def crossd(c: int = c, out: int = out) -> nn.Module:
            return CrossDConv2d(c, out, 3, padding=1)

        makers = {
            "Conv2d": layer_maker(single, conv, shape, False),
            "Cross-D": layer_maker(single, crossd, shape, False),
            "Cross-D, grouped": layer_maker(single, crossd, shape, False, crossd="grouped"),
        }
        rows += race(single, f"{shape} → {out}", "forward", makers, {"Cross-D": goal})
    return rows


def volume_makers(args: argparse.Namespace, c: int, side: int) -> dict[str, Callable[[], Step]]:
    """3D layers of one shape, Conv3d first."""

    def maker(kind: Callable[..., nn.Module], **paths: str) -> Callable[[], Step]:
        def build() -> nn.Module:
            return kind(c, c, 3, padding=1, bias=False)

        return layer_maker(args, build, (2, c, side, side, side), True, **paths)

    makers = {
        "Conv3d": maker(nn.Conv3d),
        "ACS": maker(ACSConv3d),
        "soft ACS": maker(SoftACSConv3d),
        "CrossDConv3d, dynamic": maker(CrossDConv3d),
    }
    if args.channels_last:
        makers["ACS, flat"] = maker(ACSConv3d, acs="flat")
        makers["CrossDConv3d, grouped"] = maker(CrossDConv3d, crossd="grouped")
        makers["planar, one flat kernel"] = maker(PlanarConv3d)
    return makers


def volumes(args: argparse.Namespace) -> list[dict]:
    """3D layers against Conv3d, forward and backward, bfloat16, in both layouts."""
    rows = []
    for (c, side), goal in VOLUMES.items() if not args.quick else [((4, 6), NO_GOAL)]:
        for layout, before in ACS.items():
            here = argparse.Namespace(**{**vars(args), "channels_last": layout == "channels last"})
            goals = {"ACS": (before.get(c, math.nan), 1.1), "CrossDConv3d, dynamic": goal}
            case = f"2×{c}ch {side}³, {layout}"
            rows += race(here, case, "forward+backward", volume_makers(here, c, side), goals)
    return rows


def run(args: argparse.Namespace) -> list[dict]:
    """The whole table.

    Raises:
        SystemExit: If there is no CUDA device. (A CPU may be named: that shows that the suite runs, no more.)
    """
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "The suite gpu needs a CUDA device, and torch sees none here: run it on a machine with an NVIDIA GPU, with "
            "a torch built for CUDA."
        )
    harness.prepare(args)
    if args.quick:
        args.batch = 2
    args.dtype, args.channels_last = "bfloat16", True  # what the goals are stated for
    start = time.perf_counter()
    rows = []
    for part in (layers2d, networks, table3, volumes):
        rows += part(args)
        print(f"{part.__name__}: {time.perf_counter() - start:.0f} s", flush=True)
    return rows
