# SPDX-License-Identifier: Apache-2.0
"""What every convolution layer here shares: torch's arguments, read once, and torch's way of showing them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..functional._geometry import check_convolution, ntuple, resolve_padding
from ..functional.inflate import centre_kernel, spatial_axis


class ConvBase(nn.Module):
    """Arguments of a convolution as torch.nn.Conv2d and Conv3d mean them; subclasses add the weight and the forward.

    The public attributes (`kernel_size`, `stride`, ...) are those of torch, so code that reads them goes on working.
    """

    if TYPE_CHECKING:  # not at run time: TorchScript reads class annotations and does not know the union
        weight: Tensor
        bias: Tensor | None

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int],
        padding: int | str | Sequence[int],
        dilation: int | Sequence[int],
        groups: int,
        padding_mode: str,
    ) -> None:
        super().__init__()
        self.kernel_size = ntuple(kernel_size, spatial_dims, "kernel_size", 1)
        check_convolution(in_channels, out_channels, groups, padding_mode, self.kernel_size)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.stride = ntuple(stride, spatial_dims, "stride", 1)
        self.padding = padding if isinstance(padding, str) else ntuple(padding, spatial_dims, "padding")
        self.dilation = ntuple(dilation, spatial_dims, "dilation", 1)
        self.padding_mode = padding_mode
        self.transposed = False
        self.output_padding = (0,) * spatial_dims
        # what forward reads: TorchScript knows lists of int, not words or int tuples of any length
        self._stride, self._dilation = list(self.stride), list(self.dilation)
        self._pads = resolve_padding(padding, self.kernel_size, self.stride, self.dilation)

    def _make_bias(self, bias: bool, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        if bias:
            self.bias = nn.Parameter(torch.empty(self.out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)

    def _reset_bias(self, fan_in: int) -> None:
        if self.bias is not None:
            bound = 1 / math.sqrt(fan_in)
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """Show what is not the default, as torch does."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        defaults = {
            "padding": (0,) * len(self.stride),
            "dilation": (1,) * len(self.stride),
            "groups": 1,
            "padding_mode": "zeros",
        }
        for name, default in defaults.items():
            if (value := getattr(self, name)) != default:
                text += f", {name}={value!r}"
        return text + ("" if self.bias is not None else ", bias=False")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ConvBase:
        # net.to(memory_format=...) stops at a parameter of the other rank: a bank has five axes in a 2D net, a
        # predictor or an ACS kernel four in a 3D one. Their layout is nobody's concern, so they go as flat tensors.
        def apply(value: Tensor) -> Tensor:
            try:
                return fn(value)
            except RuntimeError:
                if value.dim() not in (4, 5):
                    raise
                return fn(value.flatten()).view(value.shape)

        super()._apply(apply, recurse)
        return self

    def _promote(self, x: Tensor) -> Tensor:
        """Give an unbatched input a batch of one, as torch's layers accept it."""
        return x.unsqueeze(0) if x.dim() == len(self._stride) + 1 else x


def conv_arguments(conv: nn.Module) -> dict[str, object]:
    """Arguments that build a layer of the same geometry, dtype and device as a torch convolution or one of ours."""
    names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"]
    if conv.transposed:
        names.append("output_padding")
    weight = conv.weight
    assert isinstance(weight, Tensor)
    return {
        **{name: getattr(conv, name) for name in names},
        "bias": conv.bias is not None,
        "device": weight.device,
        "dtype": weight.dtype,
    }


def conv_arguments3d(conv: nn.Module, depth_axis: int, depth_stride: int | None = None) -> dict[str, object]:
    """Arguments of the 3D layer that a 2D convolution becomes.

    Along the depth it is what it is along the first axis of the image: as large a kernel, as padded, as strided, as
    dilated. So a size that the 2D layer keeps is kept along the depth too.

    Args:
        conv: nn.Conv2d, nn.ConvTranspose2d or one of our 2D layers.
        depth_axis: axis of the volume that runs through the slices.
        depth_stride: another stride along the depth, e.g. 1 for thick slices.
    """
    axis = spatial_axis(depth_axis)
    arguments = conv_arguments(conv)
    for name in ("kernel_size", "stride", "padding", "dilation", "output_padding"):
        values = arguments.get(name)
        if isinstance(values, tuple):
            depth = values[0] if name != "stride" or depth_stride is None else depth_stride
            arguments[name] = (*values[:axis], depth, *values[axis:])
    return arguments


def copy_state(layer: ConvBase, conv: nn.Module, kernel: Tensor) -> None:
    """Fill a layer with a kernel and with the bias, the requires_grad and the mode of the layer it stands for."""
    assert isinstance(conv.weight, Tensor)
    copy_parameter(layer.weight, kernel, conv.weight)
    if layer.bias is not None:
        assert isinstance(conv.bias, Tensor)
        copy_parameter(layer.bias, conv.bias, conv.bias)
    layer.train(conv.training)


def plain_conv(layer: ConvBase, kernel: Tensor) -> nn.Conv2d | nn.Conv3d:
    """Plain torch convolution of a layer's geometry with the kernel given, its bias, requires_grad and mode."""
    kind = nn.Conv2d if len(layer.kernel_size) == 2 else nn.Conv3d
    conv = kind(**{**conv_arguments(layer), "kernel_size": tuple(kernel.shape[2:])})  # type: ignore[arg-type]
    copy_state(conv, layer, kernel)  # type: ignore[arg-type]
    return conv


def plane_conv3d(layer: ConvBase, kernel: Tensor, axis: int) -> nn.Conv3d:
    """Plain Conv3d with a 2D kernel in the centre of `axis`: flat where torch's padding can say so, else dense."""
    size, dilation = layer.kernel_size[axis], layer.dilation[axis]
    cut = dilation * (size // 2)
    if isinstance(layer.padding, str):
        flat = size == 1 or (layer.padding == "same" and size % 2 == 1)
    else:
        flat = size % 2 == 1 and layer.padding[axis] >= cut
    if not flat:
        dense = plain_conv(layer, centre_kernel(kernel, size, axis))
        assert isinstance(dense, nn.Conv3d)
        return dense
    arguments = conv_arguments(layer)
    arguments["kernel_size"] = (*layer.kernel_size[:axis], 1, *layer.kernel_size[axis + 1 :])
    if not isinstance(layer.padding, str):
        arguments["padding"] = (*layer.padding[:axis], layer.padding[axis] - cut, *layer.padding[axis + 1 :])
    conv = nn.Conv3d(**arguments)  # type: ignore[arg-type]
    copy_state(conv, layer, kernel.unsqueeze(axis + 2))  # type: ignore[arg-type]
    return conv


def copy_parameter(target: Tensor, value: Tensor, like: Tensor) -> None:
    """Fill a parameter in place and let it require a gradient where `like` does."""
    with torch.no_grad():
        target.copy_(value)
    target.requires_grad_(like.requires_grad)
