# SPDX-License-Identifier: Apache-2.0
"""Soft and mean ACS convolution: every output channel looks at all three views of a volume, weighted.

It is computed through its dense form: one conv3d costs less than three flat ones over all channels.

References:
    J. Yang, X. Huang, Y. He, J. Xu, C. Yang, G. Xu and B. Ni, Reinventing 2D Convolutions for 3D Images, IEEE Journal
    of Biomedical and Health Informatics 25(8), 2021 (section III.C, "mean ACS" and "soft ACS").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .acs_kernels import dense_soft_acs, fit_plane, pad_plane, plane_shape, read_kernel_size
from .base import ConvBase, plain_conv
from .geometry import Geometry, Size, check_bias, check_input, convolve, pad, read_geometry
from .graphs import is_eager
from .rule import pick_acs_path


def dense_views(weight: Tensor, view_weight: Tensor | None, kernel_size: list[int]) -> Tensor:
    """`embed_views` with its arguments read; TorchScript."""
    dense: Tensor | None = None
    for view in range(3):
        plane = pad_plane(weight, view, kernel_size)
        plane = plane / 3 if view_weight is None else plane * view_weight[:, view].view(-1, 1, 1, 1, 1)
        dense = plane if dense is None else dense + plane
    assert dense is not None
    return dense


def soft_acs(x: Tensor, weight: Tensor, view_weight: Tensor | None, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """`soft_acs_conv3d` with its arguments read; TorchScript."""
    x, geometry = pad(x, geometry)
    if torch.jit.is_scripting():
        dense = dense_views(weight, view_weight, geometry.kernel_size)
    elif pick_acs_path(x) == "dense" and is_eager():
        dense = dense_soft_acs(x, weight, view_weight, geometry.kernel_size)
    else:
        dense = dense_views(weight, view_weight, geometry.kernel_size)
    return convolve(x, dense, bias, geometry)


def _check_view_weight(weight: Tensor, view_weight: Tensor | None) -> None:
    if view_weight is not None and list(view_weight.shape) != [weight.shape[0], 3]:
        raise ValueError(f"view_weight must be ({weight.shape[0]}, 3), got shape {list(view_weight.shape)}.")


def embed_views(  # noqa: D417
    weight: Tensor, view_weight: Tensor | None = None, kernel_size: Size | None = None
) -> Tensor:
    """Dense 3D kernel of a soft ACS weight: each 2D kernel in the center planes of all three views, weighted and added.

    Arguments and result are those of `embed_planes`, but for

    Args:
        view_weight: (O, 3), weight of each view; a third each by default.

    Example:
        >>> embed_views(torch.ones(1, 1, 3, 3))[0, 0, 1]
        tensor([[0.3333, 0.6667, 0.3333],
                [0.6667, 1.0000, 0.6667],
                [0.3333, 0.6667, 0.3333]])
    """
    size = read_kernel_size(weight, kernel_size)
    _check_view_weight(weight, view_weight)
    return dense_views(weight, view_weight, list(size))


def soft_acs_conv3d(  # noqa: D417
    x: Tensor, weight: Tensor, view_weight: Tensor | None = None, bias: Tensor | None = None, stride: Size = 1,
    padding: str | Size = 0, dilation: Size = 1, groups: int = 1, *, padding_mode: str = "zeros",
    kernel_size: Size | None = None,
) -> Tensor:  # fmt: skip
    """3D convolution with 2D kernels over all three views: conv3d with `embed_views(weight, view_weight)`.

    Arguments, output and errors are those of `acs_conv3d`, but for

    Args:
        view_weight: (O, 3), weight of each view, used as it is (SoftACSConv3d takes a softmax first); a third each by
            default, which is mean ACS.

    Example:
        >>> soft_acs_conv3d(torch.randn(1, 2, 8, 8, 8), torch.randn(6, 2, 3, 3), padding=1).shape
        torch.Size([1, 6, 8, 8, 8])
    """
    size, channels = read_kernel_size(weight, kernel_size), (weight.shape[1] * groups, weight.shape[0])
    geometry = read_geometry(channels, size, stride, padding, dilation, groups, padding_mode)
    _check_view_weight(weight, view_weight)
    check_input(x, channels[0], 3)
    check_bias(bias, channels[1])
    return soft_acs(x, weight, view_weight, bias, geometry)


class SoftACSConv3d(ConvBase):
    r"""3D convolution with 2D kernels, each in all three views of a volume, weighted per output channel.

    .. math:: W_o = \sum_v \mathrm{softmax}(α_o)_v \, \mathrm{embed}_v(w_o)

    with the 2D kernel w and the learnable view weights α, 0 at the start. It costs what Conv3d costs. The 2D kernel of
    an uneven size is as large as any view needs, and a smaller view uses its center.

    References:
        J. Yang, X. Huang, Y. He, J. Xu, C. Yang, G. Xu and B. Ni, Reinventing 2D Convolutions for 3D Images, 2021.

    Args:
        in_channels: As in torch.nn.Conv3d, like all up to `dtype` (see `ConvBase`).
        mean: Mean ACS, the plain average of the views, without `view_weight`.

    Attributes:
        weight: (O, C/groups, kh, kw).
        view_weight: (O, 3), α; None with `mean`.

    Shape:
        (B, C, H, W, D) or (C, H, W, D) to (B, O, H', W', D') or (O, H', W', D'), as torch.nn.Conv3d.

    Example:
        >>> layer = SoftACSConv3d(4, 8, 3, padding=1)
        >>> layer(torch.randn(1, 4, 6, 6, 6)).shape, layer.view_weight.shape
        (torch.Size([1, 8, 6, 6, 6]), torch.Size([8, 3]))
    """

    if TYPE_CHECKING:
        view_weight: Tensor | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: str | Size = 0,
        dilation: Size = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None, *, mean: bool = False,
    ) -> None:  # fmt: skip
        self.mean = mean  # before the base asks for the shapes
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )

    def _shapes(self) -> dict[str, tuple[int, ...] | None]:
        weight = (self.out_channels, self.in_channels // self.groups, *plane_shape(self.kernel_size))
        return {"weight": weight, "view_weight": None if self.mean else (self.out_channels, 3)}

    def reset_parameters(self) -> None:
        """Draw weight and bias as torch.nn.Conv2d does for the same 2D kernel; all views weigh the same."""
        super().reset_parameters()
        if self.view_weight is not None:
            nn.init.zeros_(self.view_weight)

    def _view_weights(self) -> Tensor | None:
        return None if self.view_weight is None else torch.softmax(self.view_weight, dim=1)

    def _convolve(self, x: Tensor, geometry: Geometry) -> Tensor:
        return soft_acs(x, self.weight, self._view_weights(), self.bias, geometry)

    @classmethod
    def filled(cls, conv: nn.Module, arguments: dict[str, Any], depth_axis: int = -1, **options: Any) -> SoftACSConv3d:
        """`from_conv` with all arguments of the geometry given; view weights learn where the kernel does."""
        layer = super().filled(conv, arguments, depth_axis, **options)
        if layer.view_weight is not None:
            layer.view_weight.requires_grad_(layer.weight.requires_grad)
        return layer

    def _from_kernel(self, kernel: Tensor) -> tuple[Tensor, str]:
        return fit_plane(kernel, self.kernel_size), "in all three views"

    def without_source(self, name: str, weight: Tensor | None) -> tuple[Tensor | None, str]:
        """View weights of 0."""
        if self.view_weight is not None and name == "view_weight":
            return torch.zeros_like(self.view_weight), "all views weigh the same"
        return super().without_source(name, weight)

    def to_conv3d(self) -> nn.Conv3d:
        """Plain Conv3d with the same output at the same cost."""
        with torch.no_grad():
            return plain_conv(self, embed_views(self.weight, self._view_weights(), self.kernel_size))

    to_plain = to_conv3d

    def extra_repr(self) -> str:
        """Show whether the views are weighted."""
        return super().extra_repr() + (", mean=True" if self.mean else "")
