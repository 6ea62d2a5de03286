# SPDX-License-Identifier: Apache-2.0
"""What stride, padding and dilation mean: read like torch.nn.Conv2d and Conv3d read them, as plain lists of int.

Everything below `resolve_padding` is TorchScript: layers read their arguments once, when they are built, and hand
lists to the scripted cores.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# torch 2.7 is the first with is_exporting
_torch_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def ntuple(value: int | Sequence[int], n: int, name: str, minimum: int = 0) -> tuple[int, ...]:
    """Read an int or a sequence of `n` ints as a tuple of `n` ints.

    Raises:
        ValueError: if the length is not `n` or an entry is below `minimum`.
    """
    values = tuple(value) if isinstance(value, Iterable) else (value,) * n
    if len(values) != n or not all(isinstance(v, int) and v >= minimum for v in values):
        raise ValueError(f"{name} must be an int or {n} ints, each at least {minimum}, but is {value!r}.")
    return values


def resolve_padding(
    padding: int | str | Sequence[int], kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Padding as `[low, high]` pairs, one pair per spatial axis, first axis first.

    Raises:
        ValueError: for an unknown word, or `"same"` with a stride (torch has no such convolution either).
    """
    if isinstance(padding, str):
        if padding == "valid":
            return [0] * (2 * len(kernel_size))
        if padding != "same":
            raise ValueError(f"padding must be ints, 'same' or 'valid', but is {padding!r}.")
        if any(s != 1 for s in stride):
            raise ValueError(f"padding='same' is not defined for a strided convolution, but stride is {tuple(stride)}.")
        pads = []
        for k, d in zip(kernel_size, dilation, strict=True):
            total = d * (k - 1)
            pads += [total // 2, total - total // 2]
        return pads
    return [p for p in ntuple(padding, len(kernel_size), "padding") for _ in (0, 1)]


def check_convolution(
    in_channels: int, out_channels: int, groups: int, padding_mode: str, kernel_size: Sequence[int]
) -> None:
    """Check the arguments that every convolution shares.

    Raises:
        ValueError: naming the argument, its value and what was expected.
    """
    if groups < 1:
        raise ValueError(f"groups must be at least 1, but is {groups}.")
    if in_channels < 1 or in_channels % groups:
        raise ValueError(f"groups ({groups}) must divide in_channels ({in_channels}).")
    if out_channels < 1 or out_channels % groups:
        raise ValueError(f"groups ({groups}) must divide out_channels ({out_channels}).")
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {', '.join(PADDING_MODES)}, but is {padding_mode!r}.")
    if any(k < 1 for k in kernel_size):
        raise ValueError(f"kernel_size must be at least 1 on every axis, but is {tuple(kernel_size)}.")


def is_exporting() -> bool:
    """Whether torch.export or torch.onnx, of either exporter, records a graph: it is used with other shapes."""
    return torch.onnx.is_in_onnx_export() or _torch_is_exporting()


def constants(sizes: list[int]) -> list[int]:
    """Sizes that a weight fixes, as numbers; a trace has them as values of its graph, in single precision."""
    if not torch.jit.is_scripting():
        return _traced_constants(sizes) if torch.jit.is_tracing() else sizes
    return sizes


def _traced_constants(sizes: list[int]) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return [int(size) for size in sizes]


def in_graph() -> bool:
    """Whether a graph is recorded by tracing or export: a branch on a shape would be decided by the example's."""
    if not torch.jit.is_scripting():
        return torch.jit.is_tracing() or is_exporting()
    return False


def check_input(x: Tensor, in_channels: int, spatial_dims: int) -> None:
    """Check rank and channels of an input.

    Raises:
        ValueError: with both shapes.
    """
    if x.dim() != spatial_dims + 2:
        raise ValueError(
            f"expected an input of {spatial_dims + 2} axes (batch, channel and {spatial_dims} spatial axes), "
            f"got shape {list(x.shape)}."
        )
    channels = constants([x.shape[1]])[0]
    if channels != in_channels:
        raise ValueError(f"expected {in_channels} input channels, got {channels} (shape {list(x.shape)}).")


def check_bias(bias: Tensor | None, out_channels: int) -> None:
    """Check that a bias has one value per output channel: one of another length would be broadcast or cut.

    Raises:
        ValueError: with both shapes.
    """
    if bias is not None and list(bias.shape) != [out_channels]:
        raise ValueError(f"bias must be ({out_channels},), got shape {list(bias.shape)}.")


def pad_input(x: Tensor, pads: list[int], mode: str) -> Tensor:
    """Pad the spatial axes by `[low, high]` pairs, first axis first; `mode` as in torch.nn.Conv2d, not `"zeros"`."""
    backwards: list[int] = []
    for axis in range(len(pads) // 2 - 1, -1, -1):
        backwards += [pads[2 * axis], pads[2 * axis + 1]]
    return F.pad(x, backwards, mode)


def crop_and_pad(x: Tensor, pads: list[int]) -> tuple[Tensor, list[int]]:
    """Zero padding by `[low, high]` pairs, negative to crop, as far as a convolution cannot do it itself.

    Returns:
        The input, cropped and padded where `pads` is lopsided, and the symmetric padding left to do, one per axis: the
        common case copies nothing.
    """
    symmetric: list[int] = []
    rest: list[int] = []
    for axis in range(len(pads) // 2):
        low, high = pads[2 * axis], pads[2 * axis + 1]
        common = max(min(low, high), 0)
        symmetric.append(common)
        rest += [low - common, high - common]
    return crop_or_pad(x, rest), symmetric


def crop_or_pad(x: Tensor, pads: list[int]) -> Tensor:
    """Zero padding by `[low, high]` pairs, negative to crop, written out; a crop alone is a view."""
    outside = [max(pad, 0) for pad in pads]
    if max(outside) > 0:  # before the crop, which may take more than the image has: what is left are zeros
        x = pad_input(x, outside, "constant")
    for axis in range(len(pads) // 2):
        low, high = max(-pads[2 * axis], 0), max(-pads[2 * axis + 1], 0)
        if low + high > 0:
            x = x.narrow(axis + 2, low, crop_size(x, axis + 2, low + high))
    return x


def crop_size(x: Tensor, dim: int, crop: int) -> int:
    """What a crop leaves of an axis.

    Raises:
        RuntimeError: if that is nothing, as torch has it for a kernel that is larger than the padded image.
    """
    size = x.shape[dim] - crop
    if not in_graph() and size < 1:
        raise RuntimeError(
            f"the kernel is larger than the padded input: an input of shape {list(x.shape)} lacks {1 - size} on axis "
            f"{dim}."
        )
    return size


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], pads: list[int], dilation: list[int], groups: int
) -> Tensor:
    """conv2d or conv3d with `[low, high]` zero padding per axis; a negative entry crops."""
    x, symmetric = crop_and_pad(x, pads)
    if x.dim() == 4:
        return torch.conv2d(x, weight, bias, stride, symmetric, dilation, groups)
    return torch.conv3d(x, weight, bias, stride, symmetric, dilation, groups)


def output_size(
    image: Sequence[int], size: Sequence[int], stride: Sequence[int], pads: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Size of the output of a convolution over an `image` of this size."""
    out = []
    for axis, n in enumerate(image):
        room = n + pads[2 * axis] + pads[2 * axis + 1] - dilation[axis] * (size[axis] - 1) - 1
        out.append(max(0, room // stride[axis] + 1))
    return out


def output_positions(
    image: Sequence[int], size: Sequence[int], stride: Sequence[int], pads: Sequence[int], dilation: Sequence[int]
) -> int:
    """Number of positions of the output of a convolution over an `image` of this size."""
    return math.prod(output_size(image, size, stride, pads, dilation))
