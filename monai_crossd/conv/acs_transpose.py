# SPDX-License-Identifier: Apache-2.0
"""Transposed ACS convolution: 2D kernels over three views, a third of the output channels each.

A plane with a stride across it leaves the slices between empty, exactly as the dense kernel that it equals.

References:
    J. Yang, X. Huang, Y. He, J. Xu, C. Yang, G. Xu and B. Ni, Reinventing 2D Convolutions for 3D Images, IEEE Journal
    of Biomedical and Health Informatics 25(8), 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .acs import embed_planes
from .acs_kernels import dense_acs_transposed, fit_plane, plane_shape, read_kernel_size, rows_of, view_kernel, view_runs
from .base import ConvBase, plain_conv
from .geometry import Geometry, Size, add_bias, check_bias, check_input, crop_or_pad, ntuple, read_geometry, with_groups
from .graphs import constants, in_graph, is_eager
from .rule import pick_acs_path


def check_output_padding(output_padding: list[int], geometry: Geometry) -> None:
    """Check what torch checks: output padding below stride or dilation on each axis.

    Raises:
        ValueError: With the values.
    """
    for axis in range(3):
        if output_padding[axis] >= max(geometry.stride[axis], geometry.dilation[axis]):
            raise ValueError(
                f"output_padding {output_padding} must be smaller than stride {geometry.stride} or dilation "
                f"{geometry.dilation} on each axis."
            )


def least_size(size: list[int], geometry: Geometry) -> list[int]:
    """Size of the output for an input of this size, without output padding; TorchScript."""
    least: list[int] = []
    for axis in range(3):
        reach = geometry.dilation[axis] * (geometry.kernel_size[axis] - 1) + 1
        least.append((size[axis] - 1) * geometry.stride[axis] - 2 * geometry.pads[2 * axis] + reach)
    return least


def check_output_size(x: Tensor, geometry: Geometry, output_padding: list[int]) -> None:
    """Check that something is left of the output, as torch does; a graph fails when it runs.

    Raises:
        RuntimeError: With both sizes.
    """
    if not in_graph():
        image = list(x.shape[2:])
        size = [least + extra for least, extra in zip(least_size(image, geometry), output_padding)]  # noqa: B905
        if min(size) < 1:
            raise RuntimeError(
                f"an input of size {image} would give an output of size {size}: it is too small for kernel_size "
                f"{geometry.kernel_size}, stride {geometry.stride}, padding {geometry.pads[::2]} and output_padding "
                f"{output_padding}."
            )


def _one_view(x: Tensor, weight: Tensor, view: int, geometry: Geometry, output_padding: list[int]) -> Tensor:
    """Transposed convolution with kernels flat across `view`, without bias."""
    g, within, extra = geometry, geometry.pads[::2], output_padding.copy()
    # across the view the plane stands at k // 2: zeros before and after it, or a crop where padding cuts more
    k, d = g.kernel_size[view], g.dilation[view]
    pads = [0, 0, 0, 0, 0, 0]
    pads[2 * view] = d * (k // 2) - within[view]
    pads[2 * view + 1] = d * (k - 1 - k // 2) - within[view] + extra[view]
    within[view], extra[view] = 0, 0
    kernel = view_kernel(weight, view, g.kernel_size)
    y = torch.conv_transpose3d(x, kernel, None, g.stride, within, extra, g.groups, g.dilation)
    return crop_or_pad(y, pads)


def acs_transpose(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, output_padding: list[int]
) -> Tensor:
    """`acs_conv_transpose3d` with its arguments read; TorchScript."""
    g, padding, extra = geometry, geometry.pads[::2], output_padding
    check_output_padding(extra, geometry)
    check_output_size(x, geometry, extra)
    if max(g.kernel_size) == 1:
        kernel = weight.unsqueeze(-1)
        return torch.conv_transpose3d(x, kernel, bias, g.stride, padding, extra, g.groups, g.dilation)
    if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript drops a branch on just this
        if pick_acs_path(x) == "dense" and is_eager():
            dense = dense_acs_transposed(weight, g.kernel_size, g.groups)
            return torch.conv_transpose3d(x, dense, bias, g.stride, padding, extra, g.groups, g.dilation)
    shape = constants(list(weight.shape))
    out_per_group, in_per_group = shape[1], shape[0] // g.groups
    parts: list[Tensor] = []
    for view, start, end in view_runs(out_per_group * g.groups, g.groups):
        group, span = start // out_per_group, max(1, (end - start) // out_per_group)
        part_x, part_weight = x, weight
        if g.groups != span:
            part_x = x.narrow(1, group * in_per_group, span * in_per_group)
            part_weight = weight.narrow(0, group * in_per_group, span * in_per_group)
        part_weight = part_weight.narrow(1, start % out_per_group, min(out_per_group, end - start))
        parts.append(_one_view(part_x, part_weight, view, with_groups(g, span), extra))
    return add_bias(torch.cat(parts, dim=1), bias)


def embed_planes_transposed(weight: Tensor, groups: int = 1, kernel_size: Size | None = None) -> Tensor:
    """Dense transposed 3D kernel (I, O/groups, k1, k2, k3) of a transposed ACS weight (I, O/groups, kh, kw).

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> embed_planes_transposed(torch.ones(1, 3, 2, 2))[0, 2, ..., 0].sum().item()
        0.0
    """
    return rows_of(embed_planes(rows_of(weight, groups), kernel_size), groups)


def acs_conv_transpose3d(  # noqa: D417
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1, *, kernel_size: Size | None = None,
) -> Tensor:  # fmt: skip
    """Transposed 3D convolution with 2D kernels over three views: conv_transpose3d with `embed_planes_transposed`.

    Arguments, in their order, and output are those of torch.nn.functional.conv_transpose3d, but for

    Args:
        weight: (C, O/groups, kh, kw).
        kernel_size: 3D kernel size that the 2D kernels serve; a cube by default.

    Example:
        >>> acs_conv_transpose3d(torch.randn(1, 4, 4, 4, 4), torch.randn(4, 6, 3, 3), stride=2).shape
        torch.Size([1, 6, 9, 9, 9])
    """
    size, channels = read_kernel_size(weight, kernel_size), (weight.shape[0], weight.shape[1] * groups)
    geometry = read_geometry(channels, size, stride, ntuple(padding, 3, "padding"), dilation, groups)
    check_bias(bias, channels[1])
    check_input(x, channels[0], 3)
    return acs_transpose(x, weight, bias, geometry, list(ntuple(output_padding, 3, "output_padding")))


class ACSConvTranspose3d(ConvBase):
    """Transposed 3D convolution with 2D kernels: a third of the output channels for each of the three views.

    Equal to torch.nn.ConvTranspose3d with `embed_planes_transposed(weight, groups, kernel_size)`: a stride leaves the
    slices between two planes empty. The weight is that of a ConvTranspose2d; channels and views as in `ACSConv3d`.

    References:
        J. Yang, X. Huang, Y. He, J. Xu, C. Yang, G. Xu and B. Ni, Reinventing 2D Convolutions for 3D Images, 2021.

    Args:
        in_channels: As in torch.nn.ConvTranspose3d, like all that follow.
        padding: An int or three.
        output_padding: An int or three, below stride or dilation.
        padding_mode: "zeros", the only one that torch has for a transposed convolution.

    Shape:
        (B, C, H, W, D) or (C, H, W, D) to (B, O, H', W', D') or (O, H', W', D'), as torch.nn.ConvTranspose3d.

    Example:
        >>> ACSConvTranspose3d(4, 8, 3, stride=2, padding=1, output_padding=1)(torch.randn(1, 4, 5, 5, 5)).shape
        torch.Size([1, 8, 10, 10, 10])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size = 0,
        output_padding: Size = 0, groups: int = 1, bias: bool = True, dilation: Size = 1, padding_mode: str = "zeros",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        if padding_mode != "zeros":
            raise ValueError(f"padding_mode must be 'zeros' for a transposed convolution, but is {padding_mode!r}.")
        padding = ntuple(padding, 3, "padding")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.transposed = True
        self.output_padding = ntuple(output_padding, 3, "output_padding")
        self._output_padding = list(self.output_padding)

    def _shapes(self) -> dict[str, tuple[int, ...] | None]:
        return {"weight": (self.in_channels, self.out_channels // self.groups, *plane_shape(self.kernel_size))}

    def _extra(self, size: list[int], output_size: list[int]) -> list[int]:
        """Output padding that gives the size asked for."""
        if len(output_size) == 5:
            output_size = output_size[2:]
        if len(output_size) != 3:
            raise ValueError(f"output_size must have 3 entries (or 5 with batch and channel), but is {output_size}.")
        extra: list[int] = []
        for axis, least in enumerate(least_size(size, self._geometry())):
            most = least + self._stride[axis] - 1
            if not least <= output_size[axis] <= most:
                raise ValueError(
                    f"output_size {output_size}: axis {axis} can be {least} to {most} for an input of size {size}."
                )
            extra.append(output_size[axis] - least)
        return extra

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve a batch of volumes, or one volume without batch axis; `output_size` as in torch."""
        batched = x.unsqueeze(0) if x.dim() == 4 else x
        check_input(batched, self.in_channels, 3)
        extra = self._output_padding
        if output_size is not None:
            extra = self._extra(list(batched.shape[2:]), output_size)
        y = acs_transpose(batched, self.weight, self.bias, self._geometry(), extra)
        return y if batched.dim() == x.dim() else y.squeeze(0)

    def _from_kernel(self, kernel: Tensor) -> tuple[Tensor, str]:
        return fit_plane(kernel, self.kernel_size), "over three views"

    def to_conv3d(self) -> nn.ConvTranspose3d:
        """Plain ConvTranspose3d with the same output: the dense kernel."""
        conv = plain_conv(self, embed_planes_transposed(self.weight.detach(), self.groups, self.kernel_size))
        assert isinstance(conv, nn.ConvTranspose3d)
        return conv

    to_plain = to_conv3d

    def extra_repr(self) -> str:
        """Show the output padding as well."""
        shown = f", output_padding={self.output_padding}" if any(self.output_padding) else ""
        return super().extra_repr() + shown
