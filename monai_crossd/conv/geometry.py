# SPDX-License-Identifier: Apache-2.0
"""The geometry of a convolution: kernel size, stride, padding, dilation and groups, checked and resolved once.

Arguments mean what they mean to torch.nn.Conv2d and Conv3d. What takes a `Geometry` below is TorchScript.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from .graphs import constants, in_graph

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
Size: TypeAlias = int | Sequence[int]


# All of a convolution but its values and channels. Not written as a class: TorchScript wants types here, no text.
Geometry = NamedTuple(  # noqa: UP014
    "Geometry",
    [
        ("kernel_size", list[int]),
        ("stride", list[int]),
        ("pads", list[int]),  # `[low, high]` per spatial axis, first axis first; negative to crop
        ("dilation", list[int]),
        ("groups", int),
        ("padding_mode", str),  # `pad` does what is not "zeros"; what comes after it reads no mode
    ],
)


def ntuple(value: Size, n: int, name: str, minimum: int = 0) -> tuple[int, ...]:
    """Read an int or a sequence of `n` ints as a tuple of `n` ints.

    Raises:
        ValueError: If the length is not `n` or an entry is below `minimum`.
    """
    values = tuple(value) if isinstance(value, Iterable) else (value,) * n
    if len(values) != n or not all(isinstance(v, int) and v >= minimum for v in values):
        raise ValueError(f"{name} must be an int or {n} ints, each at least {minimum}, but is {value!r}.")
    return values


def resolve_padding(
    padding: str | Size, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Padding as `[low, high]` pairs, one pair per spatial axis, first axis first.

    Raises:
        ValueError: For an unknown word, or `"same"` with a stride (torch has no such convolution either).
    """
    if isinstance(padding, str):
        if padding == "valid":
            return [0] * (2 * len(kernel_size))
        if padding != "same":
            raise ValueError(f"padding must be ints, 'same' or 'valid', but is {padding!r}.")
        if any(s != 1 for s in stride):
            raise ValueError(f"padding='same' is not defined for a strided convolution, but stride is {tuple(stride)}.")
        totals = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
        return [p for total in totals for p in (total // 2, total - total // 2)]
    return [p for p in ntuple(padding, len(kernel_size), "padding") for _ in (0, 1)]


def read_geometry(
    channels: tuple[int, int],
    kernel_size: Sequence[int],
    stride: Size = 1,
    padding: str | Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Geometry:
    """Check and read the arguments that every convolution shares; `channels` are those of input and output.

    Raises:
        ValueError: Naming the argument, its value and what was expected.
    """
    if groups < 1:
        raise ValueError(f"groups must be at least 1, but is {groups}.")
    for name, number in zip(("in_channels", "out_channels"), channels, strict=True):
        if number < 1 or number % groups:
            raise ValueError(f"groups ({groups}) must divide {name} ({number}).")
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {', '.join(PADDING_MODES)}, but is {padding_mode!r}.")
    if any(k < 1 for k in kernel_size):
        raise ValueError(f"kernel_size must be at least 1 on every axis, but is {tuple(kernel_size)}.")
    dims = len(kernel_size)
    strides, dilations = list(ntuple(stride, dims, "stride", 1)), list(ntuple(dilation, dims, "dilation", 1))
    pads = resolve_padding(padding, kernel_size, strides, dilations)
    return Geometry(list(kernel_size), strides, pads, dilations, groups, padding_mode)


def check_input(x: Tensor, in_channels: int, spatial_dims: int) -> None:
    """Check rank and channels of an input.

    Raises:
        ValueError: With both shapes.
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
        ValueError: With both shapes.
    """
    if bias is not None and list(bias.shape) != [out_channels]:
        raise ValueError(f"bias must be ({out_channels},), got shape {list(bias.shape)}.")


def add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """Add a bias per channel to (B, O, *)."""
    return y if bias is None else y + bias.to(y.dtype).view([1, -1] + [1] * (y.dim() - 2))


def with_groups(geometry: Geometry, groups: int) -> Geometry:
    """The same geometry with another number of groups."""
    g = geometry
    return Geometry(g.kernel_size, g.stride, g.pads, g.dilation, groups, g.padding_mode)


def flat_across(geometry: Geometry, axis: int) -> Geometry:
    """Geometry of a kernel that is flat across an axis and stands at k // 2 of the one there; the rest is not read."""
    g, size, pads = geometry, geometry.kernel_size.copy(), geometry.pads.copy()
    k, d = size[axis], g.dilation[axis]
    size[axis] = 1
    pads[2 * axis] -= d * (k // 2)
    pads[2 * axis + 1] -= d * (k - 1 - k // 2)
    return Geometry(size, g.stride, pads, g.dilation, g.groups, g.padding_mode)


def pack(geometry: Geometry) -> list[int]:
    """A geometry of mode "zeros" as one list, for operators and for what a trace takes in as a script."""
    return geometry.kernel_size + geometry.stride + geometry.pads + geometry.dilation + [geometry.groups]


def unpack(numbers: list[int]) -> Geometry:
    """The geometry that `pack` made a list of."""
    n = len(numbers) // 5
    pads, dilation = numbers[2 * n : 4 * n], numbers[4 * n : 5 * n]
    return Geometry(numbers[:n], numbers[n : 2 * n], pads, dilation, numbers[5 * n], "zeros")


def pad(x: Tensor, geometry: Geometry) -> tuple[Tensor, Geometry]:
    """Padding of another mode than "zeros", written out, and what is left to do."""
    g = geometry
    if g.padding_mode == "zeros":
        return x, g
    left = Geometry(g.kernel_size, g.stride, [0] * len(g.pads), g.dilation, g.groups, "zeros")
    return pad_input(x, g.pads, g.padding_mode), left


def pad_input(x: Tensor, pads: list[int], mode: str) -> Tensor:
    """Pad the spatial axes by `[low, high]` pairs, first axis first; `mode` as in torch.nn.functional.pad."""
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
        RuntimeError: If that is nothing, as torch has it for a kernel that is larger than the padded image.
    """
    size = x.shape[dim] - crop
    if not in_graph() and size < 1:
        raise RuntimeError(
            f"the kernel is larger than the padded input: an input of shape {list(x.shape)} lacks {1 - size} on axis "
            f"{dim}."
        )
    return size


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """conv2d or conv3d with `[low, high]` zero padding per axis; a negative entry crops."""
    g = geometry
    x, symmetric = crop_and_pad(x, g.pads)
    if x.dim() == 4:
        return torch.conv2d(x, weight, bias, g.stride, symmetric, g.dilation, g.groups)
    return torch.conv3d(x, weight, bias, g.stride, symmetric, g.dilation, g.groups)


def output_size(image: Sequence[int], geometry: Geometry) -> list[int]:
    """Size of the output of a convolution over an `image` of this size."""
    out = []
    for axis, n in enumerate(image):
        reach = geometry.dilation[axis] * (geometry.kernel_size[axis] - 1) + 1
        room = n + geometry.pads[2 * axis] + geometry.pads[2 * axis + 1] - reach
        out.append(max(0, room // geometry.stride[axis] + 1))
    return out


def output_positions(image: Sequence[int], geometry: Geometry) -> int:
    """Number of positions of the output of a convolution over an `image` of this size."""
    return math.prod(output_size(image, geometry))
