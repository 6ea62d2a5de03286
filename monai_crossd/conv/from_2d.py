# SPDX-License-Identifier: Apache-2.0
"""What a layer gets from a 2D layer: the one rule by which kernels go from 2D to 3D, by what the layer is.

A layer of ours answers for itself (`kernel_from_2d`, `without_source`, `without_target` of `ConvBase`); a plain
convolution of torch is filled in one of three ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .inflate import center_kernel, orient_bank, spatial_axis, spread_kernel, transposed_kernel
from .shift import crossd_kernel2d

# how a plain 3D kernel is filled by a 2D one: in its middle slice, repeated and divided, or by the raw bank
INFLATIONS = ("center", "i3d", "bank")


class Misfit(ValueError):
    """The 2D source of one layer cannot fill it; the text says why."""


def is_of_predictor(name: str) -> bool:
    """Whether a parameter of this name inside a layer is what only a Cross-D layer has."""
    return name == "running_shift" or name.startswith("predictor.")


def without_counterpart(name: str) -> str:
    """Why a parameter of a source layer may go nowhere where the layer has one fixed kernel; empty if it may not."""
    return "the kernel at the running shift is taken, and none is predicted" if is_of_predictor(name) else ""


def effective_kernel(weight: Tensor, running_shift: Tensor | None) -> tuple[Tensor, str]:
    """2D kernel of a source layer, a plain one as it is, a bank's at its running shift; and words for which it is.

    Raises:
        Misfit: If the shift of a bank is not known.
    """
    if weight.dim() == 4:
        return weight, ""
    if running_shift is None and max(weight.shape[2:]) > 1:
        raise Misfit("the source has a bank but no running_shift: only Cross-D layers and inflate='bank' can carry it")
    if running_shift is None:
        return weight[:, :, 0], ""
    return crossd_kernel2d(weight, running_shift.to(weight).unsqueeze(0))[0], " at the running shift"


def checked(value: Tensor, layer: nn.Module, source: Tensor) -> Tensor:
    """A value that has the shape of the weight of a layer.

    Raises:
        Misfit: If it has not.
    """
    assert isinstance(layer.weight, Tensor)
    if value.shape != layer.weight.shape:
        raise Misfit(f"source {tuple(source.shape)} does not fit {tuple(layer.weight.shape)}")
    return value


def kernel_for(
    layer: nn.Module, source: Mapping[str, Tensor], inflate: str = "center", depth_axis: int = -1
) -> tuple[Tensor, str]:
    """Value for the weight of a convolution that a source layer gives, and how it was made; nothing is written.

    A kernel of the layer's own rank is copied, a 2D kernel or a bank fills a layer of ours by its `kernel_from_2d` and
    a plain 3D convolution by `inflate`; a plain 2D convolution takes a bank's kernel at the running shift.

    Args:
        layer: Convolution to be filled, of torch or ours, in 2D or 3D.
        source: What the source layer has, by its names inside it: "weight", and beside a bank its "running_shift".
        inflate: One of INFLATIONS.
        depth_axis: Axis of the volume that runs through the slices.

    Raises:
        Misfit: If the shapes do not fit or the source lacks what the layer needs.
    """
    weight, shift, from_2d = source["weight"], source.get("running_shift"), getattr(layer, "kernel_from_2d", None)
    assert isinstance(layer.weight, Tensor)
    is_point = weight.dim() > 2 and max(weight.shape[2:]) == 1
    is_bank = weight.dim() == 5 and (is_point or any(map(is_of_predictor, source)))
    is_2d, rank = weight.dim() == 4 or is_bank, layer.weight.dim()
    if from_2d is not None and is_2d:
        made: tuple[Tensor, str] = from_2d(weight, shift)
        return made
    if from_2d is not None and weight.dim() == 5:
        raise Misfit(
            "the source has a plain 3D kernel, no bank (neither running_shift nor predictor beside it): it fills a "
            "plain 3D convolution"
        )
    if is_bank and rank == 4:
        kernel, shifted = effective_kernel(weight, shift)
        return checked(kernel, layer, weight), f"2D kernel{shifted}"
    if not is_2d or rank != 5 or (weight.dim() == 5 and is_point):
        return checked(weight, layer, weight), "copied"
    if isinstance(layer, nn.ConvTranspose3d):
        return _transposed(layer, weight, inflate, spatial_axis(depth_axis))
    if inflate == "bank" and is_bank:
        return checked(orient_bank(weight, depth_axis), layer, weight), "raw bank"
    if inflate == "bank" and not is_point:
        raise Misfit("a plain 2D kernel has no bank: choose 'center' or 'i3d'")
    kernel, shifted = effective_kernel(weight, shift)
    depth = layer.weight.shape[spatial_axis(depth_axis) + 2]
    if inflate == "i3d":
        return checked(spread_kernel(kernel, depth, depth_axis), layer, weight), f"2D kernel{shifted} repeated / depth"
    return checked(center_kernel(kernel, depth, depth_axis), layer, weight), f"2D kernel{shifted} in the center"


def _transposed(layer: nn.ConvTranspose3d, weight: Tensor, inflate: str, axis: int) -> tuple[Tensor, str]:
    if weight.dim() != 4:
        raise Misfit("the source is a bank and the layer a transposed convolution")
    depth, stride, dilation = layer.kernel_size[axis], layer.stride[axis], layer.dilation[axis]
    spread = inflate == "i3d"
    kernel = transposed_kernel(weight, depth, stride, dilation, spread, axis)
    how = "shared by" if spread else "in the center of"
    return checked(kernel, layer, weight), f"2D kernel {how} the depth of each output slice"


def copy_parameter(target: Tensor, value: Tensor, like: Tensor) -> None:
    """Fill a parameter in place and let it require a gradient where `like` does."""
    with torch.no_grad():
        target.copy_(value)
    target.requires_grad_(like.requires_grad)


def copy_state(layer: nn.Module, conv: nn.Module, kernel: Tensor) -> None:
    """Fill a layer with a kernel and with the bias, the requires_grad and the mode of the layer it stands for."""
    assert isinstance(layer.weight, Tensor)
    assert isinstance(conv.weight, Tensor)
    copy_parameter(layer.weight, kernel, conv.weight)
    if isinstance(layer.bias, Tensor):
        assert isinstance(conv.bias, Tensor)
        copy_parameter(layer.bias, conv.bias, conv.bias)
    layer.train(conv.training)


def fill_layer(layer: nn.Module, conv: nn.Module, inflate: str = "center", depth_axis: int = -1) -> None:
    """Fill a new layer with all that the 2D layer which it stands for has: values, requires_grad and mode.

    Raises:
        Misfit: If the kernel does not fill the layer.
    """
    given: dict[str, Tensor] = {**dict(conv.named_parameters()), **dict(conv.named_buffers())}
    kernel, _ = kernel_for(layer, {name: value.detach() for name, value in given.items()}, inflate, depth_axis)
    copy_state(layer, conv, kernel)
    for name, value in layer.state_dict(keep_vars=True).items():
        if name in given and name not in ("weight", "bias"):
            copy_parameter(value, given[name], given[name])
        elif name not in given:
            ours: Any = layer
            new, _ = ours.without_source(name, given["weight"])
            copy_parameter(value, value if new is None else new, value)
