# SPDX-License-Identifier: Apache-2.0
"""Soft and mean ACS convolution: every output channel looks at all three views of a volume, weighted.

References:
    J. Yang, X. Huang, Y. He, J. Xu, C. Yang, G. Xu and B. Ni, Reinventing 2D Convolutions for 3D Images, IEEE Journal
    of Biomedical and Health Informatics 25(8), 2021 (section III.C, "mean ACS" and "soft ACS").

It is computed through its dense form: one conv3d costs less than three flat ones over all channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._geometry import check_bias, check_convolution, check_input, convolve, ntuple, pad_input, resolve_padding
from ._rule import is_eager, pick_acs_path
from .acs import read_kernel_size
from .acs_dense import dense_soft_acs, pad_plane


def dense_views(weight: Tensor, view_weight: Tensor | None, kernel_size: list[int]) -> Tensor:
    """`embed_views` with its arguments read; TorchScript."""
    dense: Tensor | None = None
    for view in range(3):
        plane = pad_plane(weight, view, kernel_size)
        plane = plane / 3 if view_weight is None else plane * view_weight[:, view].view(-1, 1, 1, 1, 1)
        dense = plane if dense is None else dense + plane
    assert dense is not None
    return dense


def soft_acs_apply3d(
    x: Tensor,
    weight: Tensor,
    view_weight: Tensor | None,
    bias: Tensor | None,
    kernel_size: list[int],
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
    padding_mode: str,
) -> Tensor:
    """`soft_acs_conv3d` with its arguments read; TorchScript."""
    if padding_mode != "zeros":
        x = pad_input(x, pads, padding_mode)
        pads = [0] * len(pads)
    if torch.jit.is_scripting():
        dense = dense_views(weight, view_weight, kernel_size)
    elif pick_acs_path(x) == "dense" and is_eager():
        dense = dense_soft_acs(x, weight, view_weight, kernel_size)
    else:
        dense = dense_views(weight, view_weight, kernel_size)
    return convolve(x, dense, bias, stride, pads, dilation, groups)


def _check_view_weight(weight: Tensor, view_weight: Tensor | None) -> None:
    if view_weight is not None and list(view_weight.shape) != [weight.shape[0], 3]:
        raise ValueError(f"view_weight must be ({weight.shape[0]}, 3), got shape {list(view_weight.shape)}.")


def embed_views(
    weight: Tensor, view_weight: Tensor | None = None, kernel_size: int | Sequence[int] | None = None
) -> Tensor:
    """Dense 3D kernel of a soft ACS weight: each 2D kernel in the centre planes of all three views, weighted and added.

    Args:
        weight: (O, I, kh, kw).
        view_weight: (O, 3), weight of each view; a third each by default.
        kernel_size: 3D kernel size; a cube by default.

    Returns:
        (O, I, k1, k2, k3).

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> embed_views(torch.ones(1, 1, 3, 3))[0, 0, 1]
        tensor([[0.3333, 0.6667, 0.3333],
                [0.6667, 1.0000, 0.6667],
                [0.3333, 0.6667, 0.3333]])
    """
    size = read_kernel_size(weight, kernel_size)
    _check_view_weight(weight, view_weight)
    return dense_views(weight, view_weight, list(size))


def soft_acs_conv3d(
    x: Tensor,
    weight: Tensor,
    view_weight: Tensor | None = None,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    kernel_size: int | Sequence[int] | None = None,
) -> Tensor:
    """3D convolution with 2D kernels over all three views: conv3d with `embed_views(weight, view_weight)`.

    Args:
        x: (B, C, H, W, D).
        weight: (O, C/groups, kh, kw).
        view_weight: (O, 3), weight of each view, used as it is (SoftACSConv3d takes a softmax first); a third each by
            default, which is mean ACS.
        bias: (O,) or None.
        stride: as in torch.nn.Conv3d.
        padding: ints, "same" or "valid".
        dilation: as in torch.nn.Conv3d.
        groups: as in torch.nn.Conv3d, any number.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        kernel_size: 3D kernel size that the 2D kernels serve; a cube by default.

    Returns:
        (B, O, H', W', D').

    Raises:
        ValueError: if a shape or an argument does not fit, with its value.

    Example:
        >>> soft_acs_conv3d(torch.randn(1, 2, 8, 8, 8), torch.randn(6, 2, 3, 3), padding=1).shape
        torch.Size([1, 6, 8, 8, 8])
    """
    size = read_kernel_size(weight, kernel_size)
    check_convolution(weight.shape[1] * groups, weight.shape[0], groups, padding_mode, size)
    check_bias(bias, weight.shape[0])
    _check_view_weight(weight, view_weight)
    check_input(x, weight.shape[1] * groups, 3)
    strides, dilations = list(ntuple(stride, 3, "stride", 1)), list(ntuple(dilation, 3, "dilation", 1))
    pads = resolve_padding(padding, size, strides, dilations)
    return soft_acs_apply3d(x, weight, view_weight, bias, list(size), strides, pads, dilations, groups, padding_mode)
