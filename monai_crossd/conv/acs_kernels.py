# SPDX-License-Identifier: Apache-2.0
"""How a 2D kernel stands in the three views of a 3D kernel, and ACS kernels of all kinds as dense 3D kernels.

On CUDA the dense kernel is made by one matrix product. Row p of the matrix of a view says where element p of a 2D
kernel stands in the 3D kernel, so dense = kernel · matrix: one operation forward, one backward, and exact, as every
element is one product with 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .from_2d import Misfit
from .geometry import Size, ntuple
from .graphs import constants, is_eager, kept_constant


def view_channels(out_channels: int) -> list[int]:
    """Output channels of the three views: as equal as possible, the remainder to the earlier ones.

    Example:
        >>> view_channels(64)
        [22, 21, 21]
    """
    return [(out_channels + 2 - view) // 3 for view in range(3)]


def view_runs(out_channels: int, groups: int) -> list[tuple[int, int, int]]:
    """View, first and last (excluded) of every run of output channels that is one grouped convolution.

    Such a run is whole groups of one view, or a piece of a single group. TorchScript.

    Example:
        >>> view_runs(8, 2)
        [(0, 0, 3), (1, 3, 4), (1, 4, 6), (2, 6, 8)]
    """
    per_group = out_channels // groups
    runs: list[tuple[int, int, int]] = []
    start = 0
    for view, count in enumerate(view_channels(out_channels)):
        view_end = start + count
        while start < view_end:
            end = view_end // per_group * per_group
            if start % per_group != 0 or end <= start:
                end = min(view_end, (start // per_group + 1) * per_group)
            runs.append((view, start, end))
            start = end
    return runs


def plane_shape(kernel_size: Sequence[int]) -> tuple[int, int]:
    """Shape of the 2D kernel that serves the three views of a (k1, k2, k3) kernel.

    The views of a cube share one k×k shape. Otherwise the 2D kernel is as large as any view needs, and a smaller view
    uses its center.
    """
    k1, k2, k3 = kernel_size
    return max(k1, k2), max(k2, k3)


def read_kernel_size(weight: Tensor, kernel_size: Size | None) -> tuple[int, ...]:
    """The 3D kernel size that a 2D weight stands for; by default a cube.

    Raises:
        ValueError: If the weight is no 2D kernel or does not fit `kernel_size`.
    """
    if weight.dim() != 4:
        raise ValueError(f"an ACS weight is a 2D kernel (O, I, kh, kw), got shape {list(weight.shape)}.")
    if kernel_size is None:
        if weight.shape[2] != weight.shape[3]:
            raise ValueError(
                f"a {weight.shape[2]}×{weight.shape[3]} kernel does not say its size in 3D: give kernel_size."
            )
        return (weight.shape[2],) * 3
    size = ntuple(kernel_size, 3, "kernel_size", 1)
    if plane_shape(size) != tuple(weight.shape[2:]):
        raise ValueError(
            f"kernel_size {size} needs a {plane_shape(size)} 2D kernel, got a weight of shape {list(weight.shape)}."
        )
    return size


def fit_plane(kernel: Tensor, kernel_size: Sequence[int]) -> Tensor:
    """A 2D kernel (O, I, kh, kw) as the weight for a 3D kernel size: zeros around it where that has a larger plane.

    Raises:
        Misfit: If the kernel is larger than the plane.
    """
    height, width = plane_shape(kernel_size)
    if kernel.shape[2] > height or kernel.shape[3] > width:
        raise Misfit(
            f"a {kernel.shape[2]}×{kernel.shape[3]} kernel does not fit the {height}×{width} plane of a kernel of size "
            f"{tuple(kernel_size)}."
        )
    top, left = height // 2 - kernel.shape[2] // 2, width // 2 - kernel.shape[3] // 2
    return F.pad(kernel, [left, width - left - kernel.shape[3], top, height - top - kernel.shape[2]])


def view_kernel(weight: Tensor, view: int, kernel_size: list[int]) -> Tensor:
    """2D kernels (O, I, kh, kw) as 3D kernels that are flat across axis `view`; a smaller view takes their center."""
    size = kernel_size[:view] + kernel_size[view + 1 :]
    shape = constants(list(weight.shape))
    top, left = shape[2] // 2 - size[0] // 2, shape[3] // 2 - size[1] // 2
    return weight[:, :, top : top + size[0], left : left + size[1]].unsqueeze(view + 2)


def pad_plane(kernel: Tensor, view: int, kernel_size: list[int]) -> Tensor:
    """2D kernels as 3D kernels with zeros around the center plane of a view; TorchScript."""
    plane = view_kernel(kernel, view, kernel_size)
    # not padded: of that, torch's older ONNX exporter does not know the shape
    slices = [torch.zeros_like(plane)] * kernel_size[view]
    slices[kernel_size[view] // 2] = plane
    return torch.cat(slices, dim=view + 2)


def cat_planes(weight: Tensor, kernel_size: list[int]) -> Tensor:
    """Dense ACS kernel (O, I, k1, k2, k3) in operations that every exporter knows; TorchScript."""
    parts: list[Tensor] = []
    start = 0
    for view, count in enumerate(view_channels(constants([weight.shape[0]])[0])):
        parts.append(pad_plane(weight[start : start + count], view, kernel_size))
        start += count
    return torch.cat(parts)


def rows_of(weight: Tensor, groups: int) -> Tensor:
    """Transposed kernel (I, O/groups, *) as (O, I/groups, *): the output channels of all groups side by side."""
    return weight.unflatten(0, [groups, -1]).transpose(1, 2).flatten(0, 1)


@kept_constant
def _places(kernel_size: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """(3, P, Q): per view, where each of P elements of a 2D kernel stands among the Q of the 3D kernel."""
    height, width = plane_shape(kernel_size)
    units = torch.eye(height * width, device=device, dtype=dtype).view(-1, 1, height, width)
    return torch.stack([pad_plane(units, view, list(kernel_size)).flatten(1) for view in range(3)])


@kept_constant
def _mean_places(kernel_size: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return _places(kernel_size, device, dtype).mean(0, keepdim=True)


@kept_constant
def _places_of_channels(
    channels: int, repeats: int, kernel_size: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(O, P, Q), each output channel with the matrix of its view; in the order of a transposed kernel's groups."""
    views = torch.arange(3, device=device).repeat_interleave(torch.tensor(view_channels(channels), device=device))
    return _places(kernel_size, device, dtype)[views].unflatten(0, [repeats, -1]).flatten(0, 1)


def _place(weight: Tensor, places: Tensor, kernel_size: list[int], channels_last: bool) -> Tensor:
    """Dense kernels of (O, I, kh, kw) and (O or 1, P, Q), laid out as the input is, so that nothing is copied later."""
    out = weight.shape[0]
    flat, places = weight.flatten(2), places.expand(out, -1, -1)
    if channels_last:
        dense = torch.bmm(places.transpose(1, 2), flat.transpose(1, 2))  # (O, Q, I)
        return dense.view([out, *kernel_size, -1]).movedim(-1, 1)
    return torch.bmm(flat, places).view([out, -1, *kernel_size])


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last_3d) and not x.is_contiguous()


def dense_acs(x: Tensor, weight: Tensor, kernel_size: list[int]) -> Tensor:
    """Dense ACS kernel for an input, in its layout."""
    if not is_eager():
        return cat_planes(weight, kernel_size)
    places = _places_of_channels(weight.shape[0], 1, tuple(kernel_size), weight.device, weight.dtype)
    return _place(weight, places, kernel_size, _is_channels_last(x))


def dense_soft_acs(x: Tensor, weight: Tensor, view_weight: Tensor | None, kernel_size: list[int]) -> Tensor:
    """Dense kernel of soft ACS, or without `view_weight` of mean ACS, for an input, in its layout; eager."""
    key = tuple(kernel_size), weight.device, weight.dtype
    if view_weight is None:
        return _place(weight, _mean_places(*key), kernel_size, _is_channels_last(x))
    places = _places(*key)  # (3, P, Q)
    mixed = (view_weight.to(places.dtype) @ places.flatten(1)).unflatten(1, places.shape[1:])  # (O, P, Q)
    return _place(weight, mixed, kernel_size, _is_channels_last(x))


def dense_acs_transposed(weight: Tensor, kernel_size: list[int], groups: int) -> Tensor:
    """Dense transposed ACS kernel (I, O/groups, k1, k2, k3) of (I, O/groups, kh, kw); eager."""
    out = weight.shape[1] * groups
    places = _places_of_channels(out, groups, tuple(kernel_size), weight.device, weight.dtype)
    return rows_of(_place(rows_of(weight, groups), places, kernel_size, False), groups)
