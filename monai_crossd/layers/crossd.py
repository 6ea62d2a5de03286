# SPDX-License-Identifier: Apache-2.0
"""Cross-D convolution layers (Yavuz and Yang, Cross-D Conv, 2024), in 2D and 3D, with one kernel bank between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function_unary

from ..functional._geometry import check_input, constants, in_graph, ntuple
from ..functional._rule import fuses_mixing, is_compiled, is_eager
from ..functional.crossd import crossd_apply2d, crossd_apply3d, mixing_at
from ..functional.crossd_gpu import mixing_from_features
from ..functional.depth_gate import gated_kernel
from ..functional.inflate import spatial_axis, spread_kernel
from ..functional.shift import crossd_kernel2d
from ..functional.shift_few import predict_shift
from ._base import ConvBase, conv_arguments, conv_arguments3d, copy_parameter, copy_state, plain_conv, plane_conv3d

BANK_INITS = ("repeat", "paper")
CONVERSION_INITS = ("repeat", "paper", "preserve")
MODES = ("dynamic", "static")
PLACEMENTS = ("centre", "spread", "gated")


def make_predictor(
    channels: int, hidden_channels: int, device: torch.device | str | None, dtype: torch.dtype | None
) -> nn.Sequential:
    """The paper's predictor: 1×1 convolution, batch norm, ReLU, 1×1 convolution to axis (3) and angle (1)."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden_channels, 1, device=device, dtype=dtype),
        nn.BatchNorm2d(hidden_channels, device=device, dtype=dtype),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden_channels, 4, 1, device=device, dtype=dtype),
    )


def _fused_mixing(predictor: nn.Sequential, x: Tensor, bank: list[int], max_angle: float) -> tuple[Tensor, Tensor]:
    """Mixing (B, P, Q) and mean shift (3,); the operator takes in the predictor's last layer, unless it has hooks."""
    last = predictor[3]
    if type(last) is nn.Conv2d and not _is_hooked(predictor) and not _is_hooked(last):
        features, weight, bias = predictor[2](predictor[1](predictor[0](x))), last.weight.flatten(1), last.bias
    else:
        features = predictor(x)
        weight, bias = torch.eye(4, device=x.device, dtype=features.dtype), None
    if has_torch_function_unary(features):  # a MetaTensor: a kernel has no use for its metadata
        features = features.as_subclass(Tensor)
    mixing, _, mean, _ = mixing_from_features(features, weight, bias, bank, max_angle)
    return mixing, mean


def _is_hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


class _CrossDConv(ConvBase):
    """Bank, predictor and running shift: the part that is the same in 2D and 3D, key by key."""

    def __init__(
        self, geometry: tuple, bank_size: tuple[int, ...], bias: bool, device: torch.device | str | None,
        dtype: torch.dtype | None, hidden_channels: int, max_angle: float, bank_init: str, dynamic: bool,
    ) -> None:  # fmt: skip
        super().__init__(*geometry)
        if bank_init not in BANK_INITS:
            raise ValueError(f"bank_init must be one of {', '.join(BANK_INITS)}, but is {bank_init!r}.")
        if hidden_channels < 1:
            raise ValueError(f"hidden_channels must be at least 1, but is {hidden_channels}.")
        if not 0 < max_angle <= math.pi:
            raise ValueError(f"max_angle is in radians, above 0 and at most pi, but is {max_angle}.")
        self.momentum = 0.1  # of the running shift; BatchNorm's
        self.hidden_channels, self.max_angle, self.bank_init = hidden_channels, float(max_angle), bank_init
        shape = (self.out_channels, self.in_channels // self.groups, *bank_size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self._make_bias(bias, device, dtype)
        # a 1×1×1 bank has nothing to shift: no predictor, no cost, and no parameter without a gradient
        self.predictor: nn.Sequential | None = None
        if dynamic and max(bank_size) > 1:
            self.predictor = make_predictor(self.in_channels, hidden_channels, device, dtype)
        self.running_shift: Tensor
        self.register_buffer("running_shift", torch.ones(3, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw bank, bias and predictor anew and set the running shift to (1, 1, 1), the shift of angle 0.

        "repeat" draws one 2D kernel as torch.nn.Conv2d does and repeats it through the bank; "paper" draws the whole
        bank as the published code does (normal, fan out of the 3D kernel).
        """
        if self.bank_init == "paper":
            nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        else:
            kernel = torch.empty_like(self.weight[:, :, 0])
            nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
            with torch.no_grad():
                self.weight.copy_(kernel.unsqueeze(2).expand_as(self.weight))
        self._reset_bias(self.weight[0, :, 0].numel())
        if self.predictor is not None:
            for layer in self.predictor:
                if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                    layer.reset_parameters()
        with torch.no_grad():
            self.running_shift.fill_(1.0)

    def set_kernel(self, kernel: Tensor) -> None:
        """Fill the bank so that at shift (1, 1, 1), the shift of angle 0, the 2D kernel of every sample is `kernel`.

        Args:
            kernel: (O, I, Kh, Kw).
        """
        with torch.no_grad():
            self.weight.copy_(kernel.roll((-1, -1), (2, 3)).unsqueeze(2).expand_as(self.weight))

    def _kernel_at(self, shift: Tensor | Sequence[float] | None) -> Tensor:
        """2D kernel (O, I, Kh, Kw) at one shift, the running one by default."""
        at = self.running_shift if shift is None else torch.as_tensor(shift, device=self.weight.device)
        if at.shape != (3,):
            raise ValueError(f"shift must be one shift of three numbers, got shape {list(at.shape)}.")
        return crossd_kernel2d(self.weight.detach(), at.to(self.weight.dtype).unsqueeze(0))[0]

    def _mixing(self, x: Tensor) -> Tensor:
        """Mixing per sample (B, P, Q), or of the running shift (P, Q); in training it moves the running shift."""
        bank = constants(list(self.weight.shape[2:]))
        if self.predictor is None or (not in_graph() and x.shape[0] == 0):
            return mixing_at(self.running_shift, bank)
        x = x.flatten(3) if x.dim() == 5 else x
        if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript drops a branch on just this
            if (is_eager() or is_compiled()) and fuses_mixing(x):
                mixing, mean = _fused_mixing(self.predictor, x, bank, self.max_angle)
                if self.training:
                    self._move_running_shift(mean)
                return mixing
        shift = predict_shift(self.predictor(x), self.max_angle)
        if self.training:
            self._move_running_shift(shift.detach().mean(dim=0))
        return mixing_at(shift, bank)

    def _move_running_shift(self, mean: Tensor) -> None:
        with torch.no_grad():
            self.running_shift.lerp_(mean.to(self.running_shift.dtype), self.momentum)

    def extra_repr(self) -> str:
        """Show the bank beside what torch shows."""
        return f"{super().extra_repr()}, bank={tuple(self.weight.shape[2:])}"


class CrossDConv2d(_CrossDConv):
    r"""2D convolution whose kernel is, for each sample, the middle slice of a shifted 3D kernel bank.

    y[b] = conv2d(x[b], W[b]), W[b] the middle slice of the bank U shifted by s[b] = 1 − θ (k × 1), with axis k and
    angle θ predicted from x[b]. A drop-in for torch.nn.Conv2d: every argument means what it means there.

    References:
        M. C. Yavuz and Y. Yang, Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting
        Operation, 2024.

    Args:
        in_channels: as in torch.nn.Conv2d, like all up to `dtype`.
        out_channels: number of output channels.
        kernel_size: an int or two; the bank is as deep as the larger one.
        stride: an int or two.
        padding: ints, "same" or "valid".
        dilation: an int or two.
        groups: number that divides both channel counts.
        bias: adds a learnable bias.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: of parameters and buffer.
        dtype: of parameters and buffer.
        hidden_channels: width of the predictor.
        max_angle: largest angle θ in radians.
        bank_init: "repeat" starts from one 2D kernel repeated through the bank, "paper" from a random bank.

    Attributes:
        weight: kernel bank (O, C/groups, Kd, Kh, Kw), through-plane axis first.
        running_shift: (3,), running mean of the shifts seen in training, as BatchNorm's running mean (momentum 0.1).

    Shape:
        (B, C, H, W) or (C, H, W) to (B, O, H', W') or (O, H', W'), as torch.nn.Conv2d.

    Raises:
        ValueError: if an argument or the input does not fit, with its value.

    Example:
        >>> layer = CrossDConv2d(4, 8, 3, padding=1)
        >>> layer(torch.randn(2, 4, 16, 16)).shape, layer.weight.shape
        (torch.Size([2, 8, 16, 16]), torch.Size([8, 4, 3, 3, 3]))
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
        hidden_channels: int = 16,
        max_angle: float = math.pi / 4,
        bank_init: str = "repeat",
    ) -> None:
        plane = ntuple(kernel_size, 2, "kernel_size", 1)
        super().__init__(
            (2, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode),
            (max(plane), *plane), bias, device, dtype, hidden_channels, max_angle, bank_init, True,
        )  # fmt: skip

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, init: str = "repeat", **options: object) -> CrossDConv2d:
        """Cross-D layer with the geometry, dtype, device, bias and requires_grad of a Conv2d.

        Args:
            conv: the plain layer; it is not changed.
            init: "repeat" fills the bank with the kernel, so that the output is the old one up to what a fresh
                predictor shifts; "preserve" also sets the predicted angle to 0, so that the output is the old one;
                "paper" draws a new random bank.
            **options: `hidden_channels` and `max_angle`.

        Raises:
            ValueError: for another `init`.
        """
        if init not in CONVERSION_INITS:
            raise ValueError(f"init must be one of {', '.join(CONVERSION_INITS)}, but is {init!r}.")
        bank_init = "paper" if init == "paper" else "repeat"
        layer = cls(**conv_arguments(conv), bank_init=bank_init, **options)  # type: ignore[arg-type]
        if init != "paper":
            layer.set_kernel(conv.weight)
        if init == "preserve" and layer.predictor is not None:
            last = layer.predictor[3]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            with torch.no_grad():  # only the angle: with the axis at 0 as well, no gradient could move either
                last.weight[3].zero_()
                last.bias[3].zero_()
        layer.weight.requires_grad_(conv.weight.requires_grad)
        if conv.bias is not None and layer.bias is not None:
            copy_parameter(layer.bias, conv.bias, conv.bias)
        return layer.train(conv.training)

    def to_conv2d(self, shift: Tensor | Sequence[float] | None = None) -> nn.Conv2d:
        """Plain Conv2d that gives every image the kernel at one shift: what is left when nothing is predicted.

        Args:
            shift: (3,), in voxels; the running shift by default.

        Raises:
            ValueError: if `shift` has not three numbers.
        """
        conv = plain_conv(self, self._kernel_at(shift))
        assert isinstance(conv, nn.Conv2d)
        return conv

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a batch of images, or one image without batch axis."""
        batched = self._promote(x)
        check_input(batched, self.in_channels, 2)
        y = crossd_apply2d(
            batched,
            self.weight,
            self._mixing(batched),
            self.bias,
            self._stride,
            self._pads,
            self._dilation,
            self.groups,
            self.padding_mode,
        )
        return y if batched.dim() == x.dim() else y.squeeze(0)


class CrossDConv3d(_CrossDConv):
    """3D convolution with the bank of a CrossDConv2d: its parameters and keys are the same.

    "dynamic" runs the predictor pointwise on the volume's features, one shift per volume; "static" uses the running
    shift that was learned in 2D and has no predictor. The effective 2D kernel stands in the centre of a kernel of the
    bank's depth, alone or with gates to the slices beside it, or is spread over it.

    References:
        M. C. Yavuz and Y. Yang, Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting
        Operation, 2024. (The published code copies the raw bank into a Conv3d; `transfer_weights(method="bank")` does.)

    Args:
        in_channels: as in torch.nn.Conv3d, like all up to `dtype`.
        out_channels: number of output channels.
        kernel_size: an int or three, in the order of the volume's axes; on `depth_axis` it is the depth of the bank.
        stride: an int or three.
        padding: ints, "same" or "valid".
        dilation: an int or three.
        groups: number that divides both channel counts.
        bias: adds a learnable bias.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: of parameters and buffer.
        dtype: of parameters and buffer.
        hidden_channels: width of the predictor.
        max_angle: largest angle θ in radians.
        bank_init: "repeat" or "paper", see CrossDConv2d.
        mode: "dynamic" or "static".
        depth_axis: spatial axis that runs through the slices, MONAI's is the last.
        placement: "centre", "spread" or "gated": in the centre, and beside it times a gate per input channel that
            starts closed, at 0, and is learned.

    Attributes:
        gate: (2, in_channels), of the slices before and after; None but with "gated" and a bank of depth 3 or more.

    Shape:
        (B, C, H, W, D) or (C, H, W, D) to (B, O, H', W', D') or (O, H', W', D'), as torch.nn.Conv3d.

    Raises:
        ValueError: if an argument or the input does not fit, with its value.

    Example:
        >>> CrossDConv3d(4, 8, 3, padding=1)(torch.randn(2, 4, 8, 8, 5)).shape
        torch.Size([2, 8, 8, 8, 5])
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
        hidden_channels: int = 16,
        max_angle: float = math.pi / 4,
        bank_init: str = "repeat",
        mode: str = "dynamic",
        depth_axis: int = -1,
        placement: str = "centre",
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, but is {mode!r}.")
        if placement not in PLACEMENTS:
            raise ValueError(f"placement must be one of {', '.join(PLACEMENTS)}, but is {placement!r}.")
        axis = spatial_axis(depth_axis)
        size = ntuple(kernel_size, 3, "kernel_size", 1)
        bank = (size[axis], *size[:axis], *size[axis + 1 :])
        super().__init__(
            (3, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode),
            bank, bias, device, dtype, hidden_channels, max_angle, bank_init, mode == "dynamic",
        )  # fmt: skip
        self.mode, self.depth_axis, self.placement = mode, depth_axis, placement
        self._axis = axis
        # a bank of one or two slices has no slice on both sides of its centre
        self.gate: nn.Parameter | None = None
        if placement == "gated" and size[axis] > 2:
            self.gate = nn.Parameter(torch.zeros(2, in_channels, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Draw all anew as in 2D, and close the gate."""
        super().reset_parameters()
        gate = getattr(self, "gate", None)  # none yet when the layer is being made
        if gate is not None:
            nn.init.zeros_(gate)

    @classmethod
    def from_conv(
        cls,
        conv: nn.Conv2d | CrossDConv2d,
        depth_axis: int = -1,
        depth_stride: int | None = None,
        *,
        mode: str = "dynamic",
        placement: str = "centre",
    ) -> CrossDConv3d:
        """3D form of a CrossDConv2d, with its bank, predictor, running shift and geometry, or of a plain Conv2d.

        Along the depth it is padded so that it keeps or cuts as many slices as `conv` keeps or cuts rows. Of a plain
        Conv2d, every volume's kernel is that of `conv` at first (the predicted angle is 0).

        Args:
            conv: the 2D layer; it is not changed.
            depth_axis: axis of the volume that runs through the slices.
            depth_stride: stride along the depth; that of the first axis by default.
            mode: "dynamic" or "static".
            placement: "centre", "spread" or "gated".

        Raises:
            ValueError: if no padding of the bank's depth matches that of the first axis.
        """
        source = conv if isinstance(conv, CrossDConv2d) else CrossDConv2d.from_conv(conv, init="preserve")
        arguments = conv_arguments3d(source, depth_axis, depth_stride)
        axis, depth = spatial_axis(depth_axis), source.weight.shape[2]
        size = (*source.kernel_size[:axis], depth, *source.kernel_size[axis:])
        arguments["kernel_size"] = size
        if not isinstance(source.padding, str):
            more = source.dilation[0] * (depth - source.kernel_size[0])
            if more % 2:
                raise ValueError(
                    f"a bank of depth {depth} cannot be padded like the first axis of a {source.kernel_size} kernel "
                    f"with padding {source.padding}: choose a static method such as 'centre'."
                )
            padding = (*source.padding[:axis], source.padding[0] + more // 2, *source.padding[axis:])
            arguments["padding"] = padding
        layer = cls(
            **arguments,  # type: ignore[arg-type]
            hidden_channels=source.hidden_channels,
            max_angle=source.max_angle,
            bank_init=source.bank_init,
            mode=mode,
            depth_axis=depth_axis,
            placement=placement,
        )
        copy_state(layer, source, source.weight)
        layer.momentum = source.momentum
        layer.running_shift.copy_(source.running_shift)
        if layer.predictor is not None and source.predictor is not None:
            layer.predictor.load_state_dict(source.predictor.state_dict())
            for target, value in zip(layer.predictor.parameters(), source.predictor.parameters(), strict=True):
                target.requires_grad_(value.requires_grad)
        return layer

    def to_conv3d(self, shift: Tensor | Sequence[float] | None = None) -> nn.Conv3d:
        """Plain Conv3d that gives every volume the kernel at one shift: exact for mode="static".

        Args:
            shift: (3,), in voxels; the running shift by default.

        Raises:
            ValueError: if `shift` has not three numbers.
        """
        kernel = self._kernel_at(shift)
        if self.gate is not None:
            dense = gated_kernel(kernel, self.gate.detach(), self.weight.shape[2], self._axis, self.groups)
        elif self.placement != "spread":
            return plane_conv3d(self, kernel, self._axis)
        else:
            dense = spread_kernel(kernel, self.weight.shape[2], self._axis)
        conv = plain_conv(self, dense)
        assert isinstance(conv, nn.Conv3d)
        return conv

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a batch of volumes, or one volume without batch axis."""
        batched = self._promote(x)
        check_input(batched, self.in_channels, 3)
        y = crossd_apply3d(
            batched,
            self.weight,
            self._mixing(batched),
            self.bias,
            self._stride,
            self._pads,
            self._dilation,
            self.groups,
            self.padding_mode,
            self._axis,
            self.placement,
            self.gate,
        )
        return y if batched.dim() == x.dim() else y.squeeze(0)

    def extra_repr(self) -> str:
        """Show how the kernel stands in the volume."""
        return f"{super().extra_repr()}, mode={self.mode!r}, depth_axis={self.depth_axis}, placement={self.placement!r}"
