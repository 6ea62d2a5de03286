# SPDX-License-Identifier: Apache-2.0
"""Transposed ACS convolution layer (Yang et al., Reinventing 2D Convolutions for 3D Images, IEEE JBHI 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..functional._geometry import check_input, ntuple
from ..functional.acs_planes import fit_plane, plane_shape
from ..functional.acs_transpose import acs_transpose_apply3d, check_output_padding, embed_planes_transposed
from ._base import ConvBase, conv_arguments, conv_arguments3d, copy_state


class ACSConvTranspose3d(ConvBase):
    """Transposed 3D convolution with 2D kernels: a third of the output channels for each of the three views.

    Equal to torch.nn.ConvTranspose3d with `embed_planes_transposed(weight, groups, kernel_size)`: a stride leaves the
    slices between two planes empty. The weight is that of a ConvTranspose2d.

    References:
        J. Yang, X. Huang, Y. He, J. Xu, C. Yang, G. Xu and B. Ni, Reinventing 2D Convolutions for 3D Images, 2021.

    Args:
        in_channels: as in torch.nn.ConvTranspose3d, like all that follow.
        out_channels: split over the views as equally as possible, the remainder to the earlier ones.
        kernel_size: an int or three. The 2D kernel of an uneven size is as large as any view needs; a smaller view
            uses its centre.
        stride: an int or three.
        padding: ints.
        output_padding: an int or three, below stride or dilation.
        groups: any number that divides both channel counts.
        bias: adds a learnable bias.
        dilation: an int or three.
        padding_mode: "zeros", the only one that torch has for a transposed convolution.
        device: of the parameters.
        dtype: of the parameters.

    Shape:
        (B, C, H, W, D) or (C, H, W, D) to (B, O, H', W', D') or (O, H', W', D'), as torch.nn.ConvTranspose3d.

    Raises:
        ValueError: if an argument or the input does not fit, with its value.

    Example:
        >>> ACSConvTranspose3d(4, 8, 3, stride=2, padding=1, output_padding=1)(torch.randn(1, 4, 5, 5, 5)).shape
        torch.Size([1, 8, 10, 10, 10])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            3, in_channels, out_channels, kernel_size, stride, ntuple(padding, 3, "padding"), dilation, groups,
            padding_mode,
        )  # fmt: skip
        if padding_mode != "zeros":
            raise ValueError(f"padding_mode must be 'zeros' for a transposed convolution, but is {padding_mode!r}.")
        self.transposed = True
        self.output_padding = ntuple(output_padding, 3, "output_padding")
        self._kernel_size = list(self.kernel_size)
        self._padding, self._output_padding = self._pads[::2], list(self.output_padding)
        shape = (in_channels, out_channels // groups, *plane_shape(self.kernel_size))
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self._make_bias(bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias as torch.nn.ConvTranspose2d does for the same 2D kernel."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._reset_bias(self.weight[0].numel())

    @classmethod
    def from_conv(
        cls, conv: nn.ConvTranspose2d, depth_axis: int = -1, depth_stride: int | None = None
    ) -> ACSConvTranspose3d:
        """ACS layer with the kernel, geometry, dtype, device, bias, requires_grad and mode of a ConvTranspose2d.

        Along the depth it has the kernel size, padding and dilation that `conv` has along its first axis.

        Args:
            conv: the plain layer; it is not changed. A kernel that is not square stands in the centre of its square.
            depth_axis: axis of the volume that runs through the slices.
            depth_stride: stride along the depth; that of the first axis by default.
        """
        layer = cls(**conv_arguments3d(conv, depth_axis, depth_stride))  # type: ignore[arg-type]
        copy_state(layer, conv, fit_plane(conv.weight, layer.kernel_size))
        return layer

    def to_conv3d(self) -> nn.ConvTranspose3d:
        """Plain ConvTranspose3d with the same output: the dense kernel."""
        conv = nn.ConvTranspose3d(**conv_arguments(self))  # type: ignore[arg-type]
        dense = embed_planes_transposed(self.weight.detach(), self.groups, self.kernel_size)
        copy_state(conv, self, dense)  # type: ignore[arg-type]
        return conv

    def _extra(self, size: list[int], output_size: list[int]) -> list[int]:
        """Output padding that gives the size asked for."""
        if len(output_size) == 5:
            output_size = output_size[2:]
        if len(output_size) != 3:
            raise ValueError(f"output_size must have 3 entries (or 5 with batch and channel), but is {output_size}.")
        extra: list[int] = []
        for axis in range(3):
            stride, padding = self._stride[axis], self._padding[axis]
            least = (size[axis] - 1) * stride - 2 * padding + self._dilation[axis] * (self._kernel_size[axis] - 1) + 1
            if not least <= output_size[axis] < least + stride:
                raise ValueError(
                    f"output_size {output_size}: axis {axis} can be {least} to {least + stride - 1} for an input of "
                    f"size {size}."
                )
            extra.append(output_size[axis] - least)
        return extra

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve a batch of volumes, or one volume without batch axis; `output_size` as in torch."""
        batched = self._promote(x)
        check_input(batched, self.in_channels, 3)
        extra = self._output_padding
        if output_size is not None:
            extra = self._extra(list(batched.shape[2:]), output_size)
        check_output_padding(extra, self._stride, self._dilation)
        y = acs_transpose_apply3d(
            batched,
            self.weight,
            self.bias,
            self._kernel_size,
            self._stride,
            self._padding,
            extra,
            self._dilation,
            self.groups,
        )
        return y if batched.dim() == x.dim() else y.squeeze(0)

    def extra_repr(self) -> str:
        """Show the output padding as well."""
        shown = f", output_padding={self.output_padding}" if any(self.output_padding) else ""
        return super().extra_repr() + shown
