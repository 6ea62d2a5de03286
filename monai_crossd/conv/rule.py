# SPDX-License-Identifier: Apache-2.0
"""Which of several equal ways computes a convolution: all rules by device and shape, and what overrides them.

=============== ============================================= ========================================================
what            on a CPU                                      on a CUDA device
=============== ============================================= ========================================================
ACS             "flat": three flat convolutions, a third of   "dense": one convolution with embedded planes: cuDNN has
                the operations                                no fast kernel for 11, 22 or 43 output channels
soft, mean ACS  dense, made from three padded planes          dense, made by one product
Cross-D, 2D     by shape: "grouped", "per_sample", "shared"   "implicit" where Triton and the shape allow, else
                                                              "grouped"
Cross-D, 3D     by shape, as in 2D                            "per_sample": batches of volumes are small
=============== ============================================= ========================================================

Other devices take "flat" and "grouped". These rules hold for eager execution (on CUDA for `torch.compile` as well).
What is scripted, traced or exported keeps one plain form that every runtime knows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec

import torch
from torch import Tensor

PATHS = ("grouped", "per_sample", "shared", "implicit")  # of Cross-D
ACS_PATHS = ("flat", "dense")
CACHED = 2**22  # elements of all kernels of a batch that are quick to make and to keep, whatever the shape
FEW_POSITIONS = 64  # of an output map, up to which more operations are cheaper than kernels
LARGE_KERNEL = 8  # times as large as the sample's output: then keeping it would rule the memory

HAS_TRITON = find_spec("triton") is not None
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FEW_CHANNELS = 16  # of a group: with fewer, a tile of a product is mostly empty, which only one group can bear

_forced: dict[str, str] = {}


@contextmanager
def _force(kind: str, paths: tuple[str, ...], path: str) -> Iterator[None]:
    """Take one path inside the block, whatever the shape and the device; for tests and measurements."""
    if path not in paths:
        raise ValueError(f"path must be one of {', '.join(paths)}, but is {path!r}.")
    before = _forced.get(kind)
    _forced[kind] = path
    try:
        yield
    finally:
        del _forced[kind]
        if before is not None:
            _forced[kind] = before


# "implicit" is for compiled graphs too; where Triton's kernels do not run, it does the same with torch's operations
crossd_path = partial(_force, "crossd", PATHS)
# soft and mean ACS are dense in any case; "dense" makes their kernel by one product, as on CUDA
acs_path = partial(_force, "acs", ACS_PATHS)


def choose_path(batch: int, out_channels: int, in_per_group: int, taps: int, positions: int) -> str:
    """The path of Cross-D for a batch of shapes: measured on a CPU, see the table in crossd_cpu.py.

    Args:
        batch: B.
        out_channels: O.
        in_per_group: I.
        taps: P, elements of one kernel per pair of channels.
        positions: elements of one output map.

    Example:
        >>> [choose_path(8, c, c, 9, size * size) for c, size in ((64, 56), (128, 28), (256, 14), (512, 7))]
        ['grouped', 'grouped', 'per_sample', 'shared']
    """
    if batch * out_channels * in_per_group * taps <= CACHED:
        return "grouped"
    if positions <= FEW_POSITIONS:
        return "shared"
    return "per_sample" if in_per_group * taps > LARGE_KERNEL * positions else "grouped"


def pick_path(x: Tensor, weight: Tensor, mixing: Tensor, positions: int) -> str:
    """The path forced by `crossd_path`, else the one that the rule picks."""
    if "crossd" in _forced:
        return _forced["crossd"]
    if x.is_cuda and x.dim() == 5:
        return "per_sample"
    if x.is_cuda and fits_kernels(x, weight):
        return "implicit"
    if x.device.type != "cpu":
        return "grouped"
    return choose_path(x.shape[0], weight.shape[0], weight.shape[1], mixing.shape[1], positions)


def takes_operator(x: Tensor, weight: Tensor) -> bool:
    """Whether `pick_path` is "implicit"; for compiled graphs, where other paths do not count."""
    return _forced.get("crossd", "implicit" if x.is_cuda and fits_kernels(x, weight) else "") == "implicit"


def fuses_mixing(x: Tensor) -> bool:
    """Whether the mixing matrix is made by one operator: on CUDA with Triton, and where "implicit" is forced."""
    return _forced.get("crossd", "implicit" if x.is_cuda and has_kernels(x) else "") == "implicit"


def has_kernels(x: Tensor) -> bool:
    """Whether Triton's kernels can read a tensor: CUDA from compute capability 8.0, or Triton's interpreter."""
    return x.dtype in KERNEL_DTYPES and _runs_on(x.device)


def fits_kernels(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution per sample has a kernel: images, and one group or groups that fill a tile."""
    inner, groups = weight.shape[1], x.shape[1] // weight.shape[1]
    wide = groups == 1 or min(inner, weight.shape[0] // groups) >= FEW_CHANNELS
    return x.dim() == 4 and wide and has_kernels(x)


def _runs_on(device: torch.device) -> bool:
    if not HAS_TRITON:
        return False
    if device.type == "cuda":
        return _is_capable(device.index or 0)
    return device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"


# all that torch.compiler.assume_constant_result does, which would import torch's compiler, a second, with this package
setattr(_runs_on, "_dynamo_marked_constant", True)  # noqa: B010  (mypy: a function has no such attribute)


@cache
def _is_capable(index: int) -> bool:
    return torch.version.cuda is not None and torch.cuda.get_device_capability(index) >= (8, 0)


def pick_acs_path(x: Tensor) -> str:
    """The path forced by `acs_path`, else dense on CUDA and flat elsewhere."""
    return _forced.get("acs", "dense" if x.is_cuda else "flat")
