# SPDX-License-Identifier: Apache-2.0
"""ACS convolution layer (Yang et al., Reinventing 2D Convolutions for 3D Images, IEEE JBHI 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..functional._geometry import check_input
from ..functional.acs import acs_apply3d, embed_planes
from ..functional.acs_planes import fit_plane, plane_shape
from ._base import ConvBase, conv_arguments3d, copy_state, plain_conv


class ACSConv3d(ConvBase):
    """3D convolution with 2D kernels: a third of the output channels looks at each of the three views of a volume.

    Equal to torch.nn.Conv3d with `embed_planes(weight, kernel_size)`, at about a third of its operations. The weight is
    that of a Conv2d, so 2D weights go in as they are.

    References:
        J. Yang, X. Huang, Y. He, J. Xu, C. Yang, G. Xu and B. Ni, Reinventing 2D Convolutions for 3D Images, 2021.

    Args:
        in_channels: as in torch.nn.Conv3d, like all that follow.
        out_channels: split over the views as equally as possible, the remainder to the earlier ones.
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

    Shape:
        (B, C, H, W, D) or (C, H, W, D) to (B, O, H', W', D') or (O, H', W', D'), as torch.nn.Conv3d.

    Raises:
        ValueError: if an argument or the input does not fit, with its value.

    Example:
        >>> ACSConv3d(4, 8, 3, padding=1)(torch.randn(1, 4, 6, 6, 6)).shape
        torch.Size([1, 8, 6, 6, 6])
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
    ) -> None:
        super().__init__(3, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        self._kernel_size = list(self.kernel_size)
        shape = (out_channels, in_channels // groups, *plane_shape(self.kernel_size))
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self._make_bias(bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias as torch.nn.Conv2d does for the same 2D kernel."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._reset_bias(self.weight[0].numel())

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, depth_axis: int = -1, depth_stride: int | None = None) -> ACSConv3d:
        """ACS layer with the kernel, geometry, dtype, device, bias, requires_grad and mode of a Conv2d.

        Along the depth it has the kernel size, padding and dilation that `conv` has along its first axis.

        Args:
            conv: the plain layer; it is not changed. A kernel that is not square stands in the centre of its square.
            depth_axis: axis of the volume that runs through the slices.
            depth_stride: stride along the depth; that of the first axis by default.
        """
        layer = cls(**conv_arguments3d(conv, depth_axis, depth_stride))  # type: ignore[arg-type]
        copy_state(layer, conv, fit_plane(conv.weight, layer.kernel_size))
        return layer

    def to_conv3d(self) -> nn.Conv3d:
        """Plain Conv3d with the same output: the dense kernel, at about three times the operations."""
        conv = plain_conv(self, embed_planes(self.weight.detach(), self.kernel_size))
        assert isinstance(conv, nn.Conv3d)
        return conv

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a batch of volumes, or one volume without batch axis."""
        batched = self._promote(x)
        check_input(batched, self.in_channels, 3)
        y = acs_apply3d(
            batched,
            self.weight,
            self.bias,
            self._kernel_size,
            self._stride,
            self._pads,
            self._dilation,
            self.groups,
            self.padding_mode,
        )
        return y if batched.dim() == x.dim() else y.squeeze(0)
