# SPDX-License-Identifier: Apache-2.0
"""A kernel of one slice that also reads the slices before and after it, through a gate per channel."""

from __future__ import annotations

import torch
from torch import Tensor

from .geometry import Geometry, pad_input


def gate_depth(x: Tensor, gate: Tensor, axis: int, step: int) -> Tensor:
    """Add to each slice the one before and the one after, times a gate: x + g0·before + g1·after; TorchScript.

    Outside are zeros. A convolution within the slices behind it is the 3D convolution of `gated_kernel`, at a third of
    its operations.

    Args:
        x: (B, C, ...).
        gate: (2, C), of the slice before and of the slice after.
        axis: spatial axis, 0 the first.
        step: slices between taps, the dilation along that axis.
    """
    dim, slices = axis + 2, x.shape[axis + 2]
    scale = gate.to(x.dtype).view([2, 1, -1] + [1] * (x.dim() - 2))
    outside = [0, 0] * (x.dim() - 2)
    outside[2 * axis], outside[2 * axis + 1] = step, step
    wide = pad_input(x, outside, "constant")
    return x + wide.narrow(dim, 0, slices) * scale[0] + wide.narrow(dim, 2 * step, slices) * scale[1]


def gate_across(x: Tensor, gate: Tensor, geometry: Geometry, axis: int) -> tuple[Tensor, Geometry]:
    """`gate_depth` of what a kernel that is flat across `axis` reads, and the geometry that is left; TorchScript."""
    # a tap may read a slice where the centre stands outside: those centres have to be there
    g, pads, outside = geometry, geometry.pads.copy(), [0] * len(geometry.pads)
    for side in (2 * axis, 2 * axis + 1):
        outside[side], pads[side] = max(pads[side], 0), min(pads[side], 0)
    x = gate_depth(pad_input(x, outside, "constant"), gate, axis, g.dilation[axis])
    return x, Geometry(g.kernel_size, g.stride, pads, g.dilation, g.groups, g.padding_mode)


def gated_kernel(kernel: Tensor, gate: Tensor, depth: int, axis: int, groups: int = 1) -> Tensor:
    """The 3D kernel that a 2D kernel and a gate stand for: the kernel in the centre, and times the gate beside it.

    Args:
        kernel: (O, C/groups, Kh, Kw).
        gate: (2, C).
        depth: of the 3D kernel, at least 3.
        axis: spatial axis of the depth, 0 the first.
        groups: of the convolution.

    Example:
        >>> gated_kernel(torch.ones(1, 1, 1, 1), torch.tensor([[0.5], [0.25]]), 3, 2).flatten().tolist()
        [0.5, 1.0, 0.25]
    """
    of_output = gate.unflatten(1, (groups, -1)).repeat_interleave(kernel.shape[0] // groups, dim=1)  # (2, O, C/groups)
    before, after = (kernel * g[:, :, None, None] for g in of_output)
    empty = torch.zeros_like(kernel)
    centre = depth // 2
    slices = [empty] * (centre - 1) + [before, kernel, after] + [empty] * (depth - centre - 2)
    return torch.stack(slices, dim=axis + 2)
