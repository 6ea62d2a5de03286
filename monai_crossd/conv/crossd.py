# SPDX-License-Identifier: Apache-2.0
"""Cross-D convolution: every sample is convolved with the middle slice of its shifted kernel bank.

References:
    M. C. Yavuz and Y. Yang, Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting
    Operation, 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function_unary

from .base import ConvBase, conv_arguments, plain_conv
from .crossd_cpu import middle_mixing, predict_shift
from .crossd_gpu import mixing_from_features
from .from_2d import checked, copy_parameter
from .geometry import Geometry, Size, check_bias, check_input, pad, read_geometry
from .graphs import constants, in_graph, is_compiled, is_eager
from .per_sample import mixed_conv
from .rule import fuses_mixing
from .shift import check_bank, crossd_kernel2d

BANK_INITS = ("repeat", "paper")
CONVERSION_INITS = ("repeat", "paper", "preserve")


def mixing_at(shift: Tensor, bank: list[int]) -> Tensor:
    """Mixing (B, P, Q) of shifts (B, 3), or (P, Q) of the one shift (3,) of all samples."""
    return middle_mixing(shift.unsqueeze(0), bank)[0] if shift.dim() == 1 else middle_mixing(shift, bank)


def crossd2d(x: Tensor, weight: Tensor, mixing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """`crossd_conv2d` with its arguments read, the shift as `mixing_at` has it; TorchScript."""
    x, geometry = pad(x, geometry)
    return mixed_conv(x, weight, mixing, bias, geometry)


def check_shift(x: Tensor, shift: Tensor) -> None:
    """Check that there is a shift for each sample, or one for all."""
    fits = shift.dim() == 2 and constants([shift.shape[1]])[0] == 3
    if not fits or not (in_graph() or shift.shape[0] in (1, x.shape[0])):
        raise ValueError(f"shift must be (B, 3) or (1, 3) for a batch of {x.shape[0]}, got shape {list(shift.shape)}.")


def crossd_conv2d(
    x: Tensor, weight: Tensor, shift: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: str | Size = 0,
    dilation: Size = 1, groups: int = 1, *, padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    """2D convolution of each sample with the middle slice of the bank shifted by that sample's shift.

    y[b] = conv2d(x[b], crossd_kernel2d(weight, shift)[b]).

    Args:
        x: (B, C, H, W).
        weight: (O, C/groups, Kd, Kh, Kw), kernel bank, through-plane axis first.
        shift: (B, 3), or (1, 3) for one shift for all samples, which costs what conv2d costs.
        bias: (O,) or None.
        stride: As in torch.nn.Conv2d.
        padding: Ints, "same" or "valid".
        dilation: As in torch.nn.Conv2d.
        groups: As in torch.nn.Conv2d.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Returns:
        (B, O, H', W').

    Raises:
        ValueError: If a shape or an argument does not fit, with its value.

    Example:
        >>> x, bank = torch.randn(2, 4, 9, 9), torch.randn(6, 4, 3, 3, 3)
        >>> crossd_conv2d(x, bank, torch.ones(2, 3), padding=1).shape
        torch.Size([2, 6, 9, 9])
    """
    check_bank(weight)
    bank, channels = constants(list(weight.shape[2:])), (weight.shape[1] * groups, weight.shape[0])
    geometry = read_geometry(channels, bank[1:], stride, padding, dilation, groups, padding_mode)
    check_input(x, channels[0], 2)
    check_bias(bias, channels[1])
    check_shift(x, shift)
    return crossd2d(x, weight, mixing_at(shift, bank), bias, geometry)


def check_word(name: str, value: str, words: Sequence[str]) -> None:
    """Check an argument that is one of a few words."""
    if value not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}, but is {value!r}.")


def kernel_bank(kernel: Tensor, depth: int) -> Tensor:
    """Bank that gives, at shift (1, 1, 1), the shift of angle 0, a 2D kernel (O, I, Kh, Kw) for every sample."""
    return kernel.roll((-1, -1), (2, 3)).unsqueeze(2).repeat_interleave(depth, dim=2)


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


class CrossDBase(ConvBase):
    """Bank, predictor and running shift: the part that is the same in 2D and 3D, key by key."""

    own_start = True  # `bank_init`

    def _read_options(self, hidden_channels: int, max_angle: float, bank_init: str) -> None:
        check_word("bank_init", bank_init, BANK_INITS)
        if hidden_channels < 1:
            raise ValueError(f"hidden_channels must be at least 1, but is {hidden_channels}.")
        if not 0 < max_angle <= math.pi:
            raise ValueError(f"max_angle is in radians, above 0 and at most pi, but is {max_angle}.")
        self.momentum = 0.1  # of the running shift; BatchNorm's
        self.hidden_channels, self.max_angle, self.bank_init = hidden_channels, float(max_angle), bank_init

    def _bank(self) -> tuple[int, ...]:
        """Sizes of the bank, through-plane axis first."""
        raise NotImplementedError

    def _is_dynamic(self) -> bool:
        return True

    def _shapes(self) -> dict[str, tuple[int, ...] | None]:
        return {"weight": (self.out_channels, self.in_channels // self.groups, *self._bank())}

    def _add_parts(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        # a 1×1×1 bank has nothing to shift: no predictor, no cost, and no parameter without a gradient
        self.predictor: nn.Sequential | None = None
        if self._is_dynamic() and max(self._bank()) > 1:
            self.predictor = make_predictor(self.in_channels, self.hidden_channels, device, dtype)
        self.running_shift: Tensor
        self.register_buffer("running_shift", torch.ones(3, device=device, dtype=dtype))

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
            self.weight.copy_(kernel_bank(kernel, self.weight.shape[2]))

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

    def kernel_from_2d(self, weight: Tensor, running_shift: Tensor | None = None) -> tuple[Tensor, str]:
        """A bank as it is; a 2D kernel repeated through the bank."""
        if weight.dim() == 5:
            return checked(weight, self, weight), "bank"
        return checked(kernel_bank(weight, self.weight.shape[2]), self, weight), "2D kernel repeated through the bank"

    def without_source(self, name: str, weight: Tensor | None) -> tuple[Tensor | None, str]:
        """Of a plain source an angle of 0 and the shift (1, 1, 1): the first output is that of its kernels."""
        why = "the source is a plain convolution; the angle is set to 0"
        if weight is not None and weight.dim() == 5:
            why = "the source kept no running shift"
        if name == "running_shift":
            return torch.ones_like(self.running_shift), why
        if name in ("predictor.3.weight", "predictor.3.bias"):
            value = self.get_parameter(name).detach().clone()
            value[3] = 0
            return value, why
        return (None, why) if name.startswith("predictor.") else super().without_source(name, weight)

    def without_target(self, name: str) -> str:
        """A bank of one element has no predictor, and a layer at its running shift needs none."""
        if self.weight[0, 0].numel() == 1 and name.startswith("predictor."):
            return "a kernel of one voxel has no shift to predict"
        return super().without_target(name) if self.predictor is None else ""

    def extra_repr(self) -> str:
        """Show the bank beside what torch shows."""
        return f"{super().extra_repr()}, bank={tuple(self.weight.shape[2:])}"


class CrossDConv2d(CrossDBase):
    r"""2D convolution whose kernel is, for each sample, the middle slice of a shifted 3D kernel bank.

    y[b] = conv2d(x[b], W[b]), W[b] the middle slice of the bank U shifted by s[b] = 1 − θ (k × 1), with axis k and
    angle θ predicted from x[b]. A drop-in for torch.nn.Conv2d: every argument means what it means there. The bank is as
    deep as the larger side of the kernel.

    References:
        M. C. Yavuz and Y. Yang, Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting
        Operation, 2024.

    Args:
        in_channels: As in torch.nn.Conv2d, like all up to `dtype` (see `ConvBase`).
        hidden_channels: Width of the predictor.
        max_angle: Largest angle θ in radians.
        bank_init: "repeat" starts from one 2D kernel repeated through the bank, "paper" from a random bank.

    Attributes:
        weight: Kernel bank (O, C/groups, Kd, Kh, Kw), through-plane axis first.
        running_shift: (3,), running mean of the shifts seen in training, as BatchNorm's running mean (momentum 0.1).

    Shape:
        (B, C, H, W) or (C, H, W) to (B, O, H', W') or (O, H', W'), as torch.nn.Conv2d.

    Example:
        >>> layer = CrossDConv2d(4, 8, 3, padding=1)
        >>> layer(torch.randn(2, 4, 16, 16)).shape, layer.weight.shape
        (torch.Size([2, 8, 16, 16]), torch.Size([8, 4, 3, 3, 3]))
    """

    _dims = 2

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: str | Size = 0,
        dilation: Size = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None, *, hidden_channels: int = 16,
        max_angle: float = math.pi / 4, bank_init: str = "repeat",
    ) -> None:  # fmt: skip
        self._read_options(hidden_channels, max_angle, bank_init)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )

    def _bank(self) -> tuple[int, ...]:
        return max(self.kernel_size), *self.kernel_size

    def _convolve(self, x: Tensor, geometry: Geometry) -> Tensor:
        return crossd2d(x, self.weight, self._mixing(x), self.bias, geometry)

    @classmethod
    def from_conv(cls, conv: nn.Module, init: str = "preserve", **options: Any) -> CrossDConv2d:  # type: ignore[override]
        """Cross-D layer with the geometry, dtype, device, bias and requires_grad of a Conv2d.

        Args:
            conv: the plain layer; it is not changed.
            init: "preserve" fills the bank with the kernel and sets the predicted angle to 0, so that the output is the
                old one; "repeat" leaves the angle, so that a fresh predictor shifts it a little; "paper" draws a new
                random bank.
            **options: `hidden_channels` and `max_angle`.

        Raises:
            ValueError: for another `init`.
        """
        check_word("init", init, CONVERSION_INITS)
        bank_init = "paper" if init == "paper" else "repeat"
        layer = cls(**conv_arguments(conv), bank_init=bank_init, **options)
        assert isinstance(conv.weight, Tensor)
        if init != "paper":
            layer.set_kernel(conv.weight)
        if init == "preserve" and layer.predictor is not None:
            with torch.no_grad():  # only the angle: with the axis at 0 as well, no gradient could move either
                for value in layer.predictor[3].parameters():
                    value[3] = 0
        layer.weight.requires_grad_(conv.weight.requires_grad)
        if isinstance(conv.bias, Tensor) and layer.bias is not None:
            copy_parameter(layer.bias, conv.bias, conv.bias)
        return layer.train(conv.training)

    def to_conv2d(self, shift: Tensor | Sequence[float] | None = None) -> nn.Conv2d:
        """Plain Conv2d that gives every image the kernel at one shift: what is left when nothing is predicted.

        Args:
            shift: (3,), in voxels; the running shift by default.

        Raises:
            ValueError: if `shift` has not three numbers.
        """
        conv: Any = plain_conv(self, self._kernel_at(shift))
        return conv

    to_plain = to_conv2d
