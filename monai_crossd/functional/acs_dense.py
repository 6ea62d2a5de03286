# SPDX-License-Identifier: Apache-2.0
"""ACS kernels of all kinds as dense 3D kernels, made by one matrix product: what CUDA devices convolve with.

Row p of the matrix of a view says where element p of a 2D kernel stands in the 3D kernel, so dense = kernel · matrix:
one operation forward, one backward, and exact, as every element is one product with 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._geometry import constants
from ._rule import is_eager, kept_constant
from .acs_planes import plane_shape, view_channels, view_kernel


def pad_plane(kernel: Tensor, view: int, kernel_size: list[int]) -> Tensor:
    """2D kernels as 3D kernels with zeros around the centre plane of a view; TorchScript."""
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
    rows = weight.unflatten(0, [groups, -1]).transpose(1, 2).flatten(0, 1)  # (O, I/groups, kh, kw)
    dense = _place(rows, places, kernel_size, False)
    return dense.unflatten(0, [groups, -1]).transpose(1, 2).flatten(0, 1)
