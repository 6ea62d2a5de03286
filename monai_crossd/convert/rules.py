# SPDX-License-Identifier: Apache-2.0
"""How one layer's 2D kernel becomes the parameters of its 3D counterpart, by method."""

from __future__ import annotations

from torch import Tensor, nn

from ..functional.inflate import centre_kernel, orient_bank, spatial_axis, spread_kernel
from ..functional.shift import crossd_kernel2d
from ..layers.acs import ACSConv3d
from ..layers.crossd import CrossDConv3d

METHODS = ("crossd", "acs", "i3d", "centre", "bank")
LAYER_OF_METHOD: dict[str, type[nn.Module]] = {"crossd": CrossDConv3d, "acs": ACSConv3d}
CONVOLUTIONS_3D = (CrossDConv3d, ACSConv3d, nn.Conv3d)


class Misfit(Exception):
    """The source of one layer cannot fill it; the text says why."""


def effective_kernel(weight: Tensor, running_shift: Tensor | None) -> Tensor:
    """2D kernel of a source layer: a plain one as it is, a bank's at its running shift."""
    if weight.dim() == 4:
        return weight
    if running_shift is None:
        raise Misfit("the source has a bank but no running_shift: only 'crossd' and 'bank' can carry it")
    return crossd_kernel2d(weight, running_shift.to(weight).unsqueeze(0))[0]


def _fit(value: Tensor, layer: nn.Module, how: str, source: Tensor) -> tuple[Tensor, str]:
    assert isinstance(layer.weight, Tensor)
    if value.shape != layer.weight.shape:
        raise Misfit(f"source {tuple(source.shape)} does not fit {tuple(layer.weight.shape)}")
    return value, how


def convert_kernel(
    layer: nn.Module, weight: Tensor, running_shift: Tensor | None, method: str, depth_axis: int
) -> tuple[Tensor, str]:
    """Value for `layer.weight` and how it was made.

    Args:
        layer: CrossDConv3d, ACSConv3d or nn.Conv3d to be filled.
        weight: (O, I, Kh, Kw) plain kernel or (O, I, Kd, Kh, Kw) bank of the 2D layer.
        running_shift: (3,) of a Cross-D source layer.
        method: one of METHODS; a plain Conv3d among Cross-D or ACS layers takes the kernel in its centre.
        depth_axis: axis of the volume that runs through the slices.

    Raises:
        Misfit: if shapes do not fit or the method needs what the source has not.
    """
    if weight.dim() not in (4, 5):
        raise Misfit(f"the source is no 2D kernel or bank: {tuple(weight.shape)}")
    if isinstance(layer, CrossDConv3d):
        if weight.dim() == 5:
            return _fit(weight, layer, "bank", weight)
        depth = layer.weight.shape[2]
        bank = weight.roll((-1, -1), (2, 3)).unsqueeze(2).repeat_interleave(depth, dim=2)
        return _fit(bank, layer, "2D kernel repeated through the bank", weight)
    if method == "bank":
        if weight.dim() == 4 and max(weight.shape[2:]) > 1:
            raise Misfit("a plain 2D kernel has no bank: choose 'i3d', 'centre' or 'acs'")
        if weight.dim() == 5:
            return _fit(orient_bank(weight, depth_axis), layer, "raw bank", weight)
    kernel = effective_kernel(weight, running_shift)
    shifted = " at the running shift" if weight.dim() == 5 else ""
    if isinstance(layer, ACSConv3d):
        return _fit(kernel, layer, f"2D kernel{shifted} over three views", weight)
    assert isinstance(layer, nn.Conv3d)
    depth = layer.kernel_size[spatial_axis(depth_axis)]
    if method == "i3d":
        return _fit(spread_kernel(kernel, depth, depth_axis), layer, f"2D kernel{shifted} repeated / depth", weight)
    return _fit(centre_kernel(kernel, depth, depth_axis), layer, f"2D kernel{shifted} in the centre", weight)
