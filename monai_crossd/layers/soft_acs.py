# SPDX-License-Identifier: Apache-2.0
"""Soft and mean ACS convolution layer (Yang et al., Reinventing 2D Convolutions for 3D Images, IEEE JBHI 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..functional._geometry import check_input
from ..functional.acs_planes import fit_plane, plane_shape
from ..functional.soft_acs import embed_views, soft_acs_apply3d
from ._base import ConvBase, conv_arguments3d, copy_state, plain_conv


class SoftACSConv3d(ConvBase):
    r"""3D convolution with 2D kernels, each in all three views of a volume, weighted per output channel.

    .. math:: W_o = \sum_v \mathrm{softmax}(α_o)_v \, \mathrm{embed}_v(w_o)

    with the 2D kernel w and the learnable view weights α, 0 at the start. It costs what Conv3d costs.

    References:
        J. Yang, X. Huang, Y. He, J. Xu, C. Yang, G. Xu and B. Ni, Reinventing 2D Convolutions for 3D Images, 2021.

    Args:
        in_channels: as in torch.nn.Conv3d, like all up to `dtype`.
        out_channels: number of output channels.
        kernel_size: an int or three. The 2D kernel of an uneven size is as large as any view needs; a smaller view
            uses its centre.
        stride: an int or three.
        padding: ints, "same" or "valid".
        dilation: an int or three.
        groups: any number that divides both channel counts.
        bias: adds a learnable bias.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: of the parameters.
        dtype: of the parameters.
        mean: mean ACS, the plain average of the views, without `view_weight`.

    Attributes:
        weight: (O, C/groups, kh, kw).
        view_weight: (O, 3), α; None with `mean`.

    Shape:
        (B, C, H, W, D) or (C, H, W, D) to (B, O, H', W', D') or (O, H', W', D'), as torch.nn.Conv3d.

    Raises:
        ValueError: if an argument or the input does not fit, with its value.

    Example:
        >>> layer = SoftACSConv3d(4, 8, 3, padding=1)
        >>> layer(torch.randn(1, 4, 6, 6, 6)).shape, layer.view_weight.shape
        (torch.Size([1, 8, 6, 6, 6]), torch.Size([8, 3]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        mean: bool = False,
    ) -> None:
        super().__init__(3, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        self.mean = mean
        self._kernel_size = list(self.kernel_size)
        shape = (out_channels, in_channels // groups, *plane_shape(self.kernel_size))
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if mean:
            self.register_parameter("view_weight", None)
        else:
            self.view_weight = nn.Parameter(torch.empty(out_channels, 3, device=device, dtype=dtype))
        self._make_bias(bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias as torch.nn.Conv2d does for the same 2D kernel; all views weigh the same."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.view_weight is not None:
            nn.init.zeros_(self.view_weight)
        self._reset_bias(self.weight[0].numel())

    @classmethod
    def from_conv(
        cls, conv: nn.Conv2d, depth_axis: int = -1, depth_stride: int | None = None, *, mean: bool = False
    ) -> SoftACSConv3d:
        """Soft ACS layer with the kernel, geometry, dtype, device, bias, requires_grad and mode of a Conv2d.

        Along the depth it has the kernel size, padding and dilation that `conv` has along its first axis.

        Args:
            conv: the plain layer; it is not changed. A kernel that is not square stands in the centre of its square.
            depth_axis: axis of the volume that runs through the slices.
            depth_stride: stride along the depth; that of the first axis by default.
            mean: mean ACS.
        """
        layer = cls(**conv_arguments3d(conv, depth_axis, depth_stride), mean=mean)  # type: ignore[arg-type]
        copy_state(layer, conv, fit_plane(conv.weight, layer.kernel_size))
        if layer.view_weight is not None:
            layer.view_weight.requires_grad_(conv.weight.requires_grad)
        return layer

    def to_conv3d(self) -> nn.Conv3d:
        """Plain Conv3d with the same output at the same cost."""
        with torch.no_grad():
            conv = plain_conv(self, embed_views(self.weight, self._view_weights(), self.kernel_size))
        assert isinstance(conv, nn.Conv3d)
        return conv

    def _view_weights(self) -> Tensor | None:
        return None if self.view_weight is None else torch.softmax(self.view_weight, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a batch of volumes, or one volume without batch axis."""
        batched = self._promote(x)
        check_input(batched, self.in_channels, 3)
        y = soft_acs_apply3d(
            batched,
            self.weight,
            self._view_weights(),
            self.bias,
            self._kernel_size,
            self._stride,
            self._pads,
            self._dilation,
            self.groups,
            self.padding_mode,
        )
        return y if batched.dim() == x.dim() else y.squeeze(0)

    def extra_repr(self) -> str:
        """Show whether the views are weighted."""
        return super().extra_repr() + (", mean=True" if self.mean else "")
