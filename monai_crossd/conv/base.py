# SPDX-License-Identifier: Apache-2.0
"""What every convolution layer shares: torch's arguments, its forward, and its ways from a 2D layer and to a plain one.

A new convolution is a subclass of `ConvBase` in a file of its own, and one line in factory.py. It says

- `_shapes`: its parameters;
- `_convolve`: its output;
- `_from_kernel`: its weight from a 2D kernel (or `kernel_from_2d`, from a bank as well);
- `to_plain`: the torch convolution that it is equal to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from .from_2d import checked, copy_state, effective_kernel, fill_layer, without_counterpart
from .geometry import Geometry, Size, check_input, ntuple, read_geometry
from .inflate import center_kernel, spatial_axis

Layer = TypeVar("Layer", bound="ConvBase")


class ConvBase(nn.Module):
    """Convolution with the arguments of torch.nn.Conv2d or Conv3d, in their order and with their meaning.

    The public attributes (`kernel_size`, `stride`, ...) are those of torch, so code that reads them goes on working.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: An int, or one per spatial axis.
        stride: An int, or one per spatial axis.
        padding: An int, one per spatial axis, "same" or "valid".
        dilation: An int, or one per spatial axis.
        groups: Any number that divides both channel counts.
        bias: Adds a learnable bias.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: Device of the parameters.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument or the input does not fit, with its value.

    Example:
        >>> from monai_crossd import ACSConv3d
        >>> ACSConv3d(2, 4, 3, padding=1).to_plain()
        Conv3d(2, 4, kernel_size=(3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1))
    """

    if TYPE_CHECKING:  # not at run time: TorchScript reads class annotations and does not know the union
        weight: Tensor
        bias: Tensor | None

    _dims = 3
    own_start = False  # whether a network's constructor may not draw the weight anew, as if it were one kernel

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: str | Size = 0,
        dilation: Size = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = ntuple(kernel_size, self._dims, "kernel_size", 1)
        channels = in_channels, out_channels
        geometry = read_geometry(channels, self.kernel_size, stride, padding, dilation, groups, padding_mode)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.stride, self.dilation = tuple(geometry.stride), tuple(geometry.dilation)
        self.padding = padding if isinstance(padding, str) else ntuple(padding, self._dims, "padding")
        self.padding_mode = padding_mode
        self.transposed, self.output_padding = False, (0,) * self._dims
        # what forward reads: TorchScript knows lists of int, not words or int tuples of any length
        self._size, self._stride, self._pads, self._dilation = geometry[:4]
        shapes: dict[str, Any] = {**self._shapes(), "bias": (out_channels,) if bias else None}
        for name, shape in shapes.items():
            value = None if shape is None else nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            self.register_parameter(name, value)
        self._add_parts(device, dtype)
        self.reset_parameters()

    def _shapes(self) -> dict[str, tuple[int, ...] | None]:
        """Shape of each parameter but the bias, in their order, None for one that is not there."""
        raise NotImplementedError

    def _add_parts(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """Add buffers and modules."""

    def _convolve(self, x: Tensor, geometry: Geometry) -> Tensor:
        """Output of a batch."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draw weight and bias as torch.nn.Conv2d does for the same 2D kernel."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._reset_bias(self.weight[0].numel())

    def _reset_bias(self, fan_in: int) -> None:
        if self.bias is not None:
            bound = 1 / math.sqrt(fan_in)
            nn.init.uniform_(self.bias, -bound, bound)

    def _geometry(self) -> Geometry:
        return Geometry(self._size, self._stride, self._pads, self._dilation, self.groups, self.padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a batch of images or volumes, or one of them without batch axis."""
        dims = len(self._stride)
        batched = x.unsqueeze(0) if x.dim() == dims + 1 else x
        check_input(batched, self.in_channels, dims)
        y = self._convolve(batched, self._geometry())
        return y if batched.dim() == x.dim() else y.squeeze(0)

    def extra_repr(self) -> str:
        """Show what is not the default, as torch does."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        defaults = {"padding": (0,) * self._dims, "dilation": (1,) * self._dims, "groups": 1, "padding_mode": "zeros"}
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

    # ------------------------------------------------------------------------------- from a 2D layer, to a plain one

    @classmethod
    def from_conv(
        cls: type[Layer], conv: nn.Module, depth_axis: int = -1, depth_stride: int | None = None, **options: Any
    ) -> Layer:
        """3D layer with the kernel, geometry, dtype, device, bias, requires_grad and mode of a 2D convolution.

        Along the depth it has the kernel size, stride, padding and dilation that `conv` has along its first axis.

        Args:
            conv: The plain layer; it is not changed.
            depth_axis: Axis of the volume that runs through the slices.
            depth_stride: Stride along the depth; that of the first axis by default.
            **options: Further arguments of the layer.

        Raises:
            Misfit: (a ValueError) if the kernel cannot fill the layer.
        """
        return cls.filled(conv, cls.arguments3d(conv, depth_axis, depth_stride), depth_axis, **options)

    @classmethod
    def arguments3d(cls, conv: nn.Module, depth_axis: int, depth_stride: int | None = None) -> dict[str, Any]:
        """Arguments of the layer that a 2D convolution becomes, see `conv_arguments3d`."""
        return conv_arguments3d(conv, depth_axis, depth_stride)

    @classmethod
    def options3d(cls, conv: nn.Module, depth_axis: int, **options: Any) -> dict[str, Any]:
        """Options of the layer that a 2D convolution becomes: those given, and what follows from the convolution."""
        return options

    @classmethod
    def may_be_thinner(cls, depth_axis: int = -1, **options: Any) -> bool:
        """Whether the layer of these options is the same with a kernel of another size along the depth."""
        return False

    @classmethod
    def filled(
        cls: type[Layer], conv: nn.Module, arguments: dict[str, Any], depth_axis: int = -1, **options: Any
    ) -> Layer:
        """`from_conv` with all arguments of the geometry given."""
        layer = cls(**arguments, **cls.options3d(conv, depth_axis, **options))
        fill_layer(layer, conv, depth_axis=depth_axis)
        return layer

    def kernel_from_2d(self, weight: Tensor, running_shift: Tensor | None = None) -> tuple[Tensor, str]:
        """Value for `weight` that the weight of a 2D layer gives, and how it was made; nothing is written.

        Args:
            weight: 2D kernel (O, I, Kh, Kw), or Cross-D bank (O, I, Kd, Kh, Kw).
            running_shift: (3,), of a bank.

        Raises:
            Misfit: If the shapes do not fit or the source lacks what the layer needs.
        """
        kernel, shifted = effective_kernel(weight, running_shift)
        value, where = self._from_kernel(kernel)
        return checked(value, self, weight), f"2D kernel{shifted} {where}"

    def _from_kernel(self, kernel: Tensor) -> tuple[Tensor, str]:
        """Value for `weight` from a 2D kernel, and where the kernel stands in it."""
        raise NotImplementedError

    def without_source(self, name: str, weight: Tensor | None) -> tuple[Tensor | None, str]:
        """What becomes of a parameter that the 2D source of this layer has not.

        Args:
            name: Name of the parameter in this layer.
            weight: Weight of the source, where it has one.

        Returns:
            Its value, None for the one it has, and the reason; no reason if the source must have it.
        """
        return None, ""

    def without_target(self, name: str) -> str:
        """Why a parameter of the source that this layer has not may go nowhere; empty if it may not."""
        return without_counterpart(name)

    def to_plain(self) -> nn.Module:
        """Plain torch convolution with the same output, or as near to it as a fixed kernel comes."""
        raise NotImplementedError


def conv_arguments(conv: nn.Module) -> dict[str, Any]:
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


def conv_arguments3d(conv: nn.Module, depth_axis: int, depth_stride: int | None = None) -> dict[str, Any]:
    """Arguments of the 3D layer that a 2D convolution becomes.

    Along the depth it is what it is along the first axis of the image: as large a kernel, as padded, as strided, as
    dilated. So a size that the 2D layer keeps is kept along the depth too.

    Args:
        conv: nn.Conv2d, nn.ConvTranspose2d or one of our 2D layers.
        depth_axis: Axis of the volume that runs through the slices.
        depth_stride: Another stride along the depth, e.g. 1 for thick slices.
    """
    axis = spatial_axis(depth_axis)
    arguments = conv_arguments(conv)
    for name in ("kernel_size", "stride", "padding", "dilation", "output_padding"):
        values = arguments.get(name)
        if isinstance(values, tuple):
            depth = values[0] if name != "stride" or depth_stride is None else depth_stride
            arguments[name] = (*values[:axis], depth, *values[axis:])
    return arguments


def plain_conv(layer: ConvBase, kernel: Tensor) -> nn.Conv3d:
    """Plain torch convolution of a layer's geometry with the dense kernel given, its bias, requires_grad and mode."""
    kind: Any = nn.Conv2d if kernel.dim() == 4 else nn.ConvTranspose3d if layer.transposed else nn.Conv3d
    conv: nn.Conv3d = kind(**{**conv_arguments(layer), "kernel_size": tuple(kernel.shape[2:])})
    copy_state(conv, layer, kernel)
    return conv


def plane_conv3d(layer: ConvBase, kernel: Tensor, axis: int) -> nn.Conv3d:
    """Plain Conv3d with a 2D kernel in the center of `axis`: flat where torch's padding can say so, else dense."""
    size, dilation = layer.kernel_size[axis], layer.dilation[axis]
    cut = dilation * (size // 2)
    if isinstance(layer.padding, str):
        flat = size == 1 or (layer.padding == "same" and size % 2 == 1)
    else:
        flat = size % 2 == 1 and layer.padding[axis] >= cut
    if not flat:
        return plain_conv(layer, center_kernel(kernel, size, axis))
    arguments = conv_arguments(layer)
    arguments["kernel_size"] = (*layer.kernel_size[:axis], 1, *layer.kernel_size[axis + 1 :])
    if not isinstance(layer.padding, str):
        arguments["padding"] = (*layer.padding[:axis], layer.padding[axis] - cut, *layer.padding[axis + 1 :])
    conv = nn.Conv3d(**arguments)
    copy_state(conv, layer, kernel.unsqueeze(axis + 2))
    return conv
