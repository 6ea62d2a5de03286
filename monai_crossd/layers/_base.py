# SPDX-License-Identifier: Apache-2.0
"""What every convolution layer here shares: torch's arguments, read once, and torch's way of showing them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..functional._geometry import check_convolution, ntuple, resolve_padding


class ConvBase(nn.Module):
    """Arguments of a convolution as torch.nn.Conv2d and Conv3d mean them; subclasses add the weight and the forward.

    The public attributes (`kernel_size`, `stride`, ...) are those of torch, so code that reads them goes on working.
    """

    if TYPE_CHECKING:  # not at run time: TorchScript reads class annotations and does not know the union
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
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    weight = conv.weight
    assert isinstance(weight, Tensor)
    return {
        **{name: getattr(conv, name) for name in names},
        "bias": conv.bias is not None,
        "device": weight.device,
        "dtype": weight.dtype,
    }


def copy_parameter(target: Tensor, value: Tensor, like: Tensor) -> None:
    """Fill a parameter in place and let it require a gradient where `like` does."""
    with torch.no_grad():
        target.copy_(value)
    target.requires_grad_(like.requires_grad)
