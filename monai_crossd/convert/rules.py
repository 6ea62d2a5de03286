# SPDX-License-Identifier: Apache-2.0
"""How one layer's 2D kernel becomes the parameters of its 3D counterpart, by method."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import Tensor, nn

from .._options import look_up_option
from ..functional.acs_planes import fit_plane
from ..functional.inflate import centre_kernel, orient_bank, spatial_axis, spread_kernel, transposed_kernel
from ..functional.shift import crossd_kernel2d
from ..layers.acs import ACSConv3d
from ..layers.crossd import CrossDConv3d
from ..layers.planar import PlanarConv3d
from ..layers.soft_acs import SoftACSConv3d

METHODS = ("crossd", "acs", "soft_acs", "mean_acs", "i3d", "centre", "planar", "plane_cycle", "bank")
SCRATCH = "conv3d"  # plain 3D convolutions that nothing is carried into
CHOICES = (*METHODS, SCRATCH)
LAYER_OF_METHOD: dict[str, type[nn.Module]] = {
    "crossd": CrossDConv3d,
    "acs": ACSConv3d,
    "soft_acs": SoftACSConv3d,
    "mean_acs": SoftACSConv3d,
    "planar": PlanarConv3d,
    "plane_cycle": PlanarConv3d,
}
OUR_LAYERS = (CrossDConv3d, ACSConv3d, SoftACSConv3d, PlanarConv3d)
CONVOLUTIONS_3D = (*OUR_LAYERS, nn.Conv3d, nn.ConvTranspose3d)

# key pattern: why a parameter of another shape in 3D has no 2D counterpart
DIMENSION_BOUND = {
    "*relative_position_bias_table": "one entry per offset in a window, and a 3D window has more offsets",
    "*relative_position_index": "counts the offsets in a window, which 3D windows have more of",
    "*position_embeddings": "one vector per patch, and a volume has more patches",
    "*pos_embed": "one vector per patch, and a volume has more patches",
    "*patch_embeddings.1.*": "reads all pixels of a patch, and a 3D patch has more",
    "*downsample.reduction.weight": "merges 4 patches in 2D and 8 in 3D",
    "*downsample.norm.*": "merges 4 patches in 2D and 8 in 3D",
}


class Misfit(Exception):
    """The source of one layer cannot fill it; the text says why."""


def dimension_bound(key: str) -> str | None:
    """Why a parameter depends on the number of dimensions beyond its kernel; None if it does not."""
    for pattern, reason in DIMENSION_BOUND.items():
        if fnmatchcase(key, pattern):
            return reason
    return None


def layer_of(layer: nn.Module) -> str:
    """Method that fills a layer of ours, in words for a message."""
    if isinstance(layer, SoftACSConv3d) and layer.mean:
        return "mean_acs"
    return next(method for method, kind in LAYER_OF_METHOD.items() if type(layer) is kind)


def conv_of(choice: str) -> str:
    """Convolution that a 3D network is built with, so that one word in a config says that and how it is filled.

    Args:
        choice: a method of `transfer_weights`, or "conv3d" for plain 3D convolutions from scratch.

    Returns:
        What `build_resnet` and `ResNetUNet` take as `conv`: the choice, or "conv" where the layers are plain.

    Raises:
        ValueError: for another word, with the choices.

    Example:
        >>> [conv_of(choice) for choice in ("crossd", "acs", "i3d", "conv3d")]
        ['crossd', 'acs', 'conv', 'conv']
    """
    choice = look_up_option(choice, CHOICES)
    return choice if choice in LAYER_OF_METHOD else "conv"


def fills(method: str, layer: nn.Module) -> bool:
    """Whether a method fills a layer of ours."""
    if isinstance(layer, SoftACSConv3d):
        return method == layer_of(layer)
    return type(layer) is LAYER_OF_METHOD.get(method)


def is_bank(path: str, state: Mapping[str, Tensor]) -> bool:
    """Whether the 5D weight of a layer is a Cross-D bank, not a plain 3D kernel: its shift stands beside it."""
    start = f"{path}.".lstrip(".")
    return f"{start}running_shift" in state or f"{start}predictor.0.weight" in state


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


def _fit_plane(kernel: Tensor, layer: ACSConv3d | SoftACSConv3d) -> Tensor:
    try:
        return fit_plane(kernel, layer.kernel_size)
    except ValueError as error:
        raise Misfit(str(error)) from error


def convert_kernel(
    layer: nn.Module, weight: Tensor, running_shift: Tensor | None, method: str, depth_axis: int
) -> tuple[Tensor, str]:
    """Value for `layer.weight` and how it was made.

    Args:
        layer: one of CONVOLUTIONS_3D, to be filled.
        weight: (O, I, Kh, Kw) plain kernel or (O, I, Kd, Kh, Kw) bank of the 2D layer; (I, O, Kh, Kw) if transposed.
        running_shift: (3,) of a Cross-D source layer.
        method: one of METHODS; a plain Conv3d among layers of ours takes the kernel in its centre.
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
    axis = spatial_axis(depth_axis)
    if isinstance(layer, nn.ConvTranspose3d):
        if weight.dim() != 4:
            raise Misfit("the source is a bank and the layer a transposed convolution")
        depth, stride, dilation = layer.kernel_size[axis], layer.stride[axis], layer.dilation[axis]
        spread = method == "i3d"
        how = "shared by" if spread else "in the centre of"
        kernel = transposed_kernel(weight, depth, stride, dilation, spread, axis)
        return _fit(kernel, layer, f"2D kernel {how} the depth of each output slice", weight)
    if method == "bank":
        if weight.dim() == 4 and max(weight.shape[2:]) > 1:
            raise Misfit("a plain 2D kernel has no bank: choose 'i3d', 'centre' or 'acs'")
        if weight.dim() == 5:
            return _fit(orient_bank(weight, depth_axis), layer, "raw bank", weight)
    kernel = effective_kernel(weight, running_shift)
    shifted = " at the running shift" if weight.dim() == 5 else ""
    if isinstance(layer, ACSConv3d | SoftACSConv3d):
        views = "in all" if isinstance(layer, SoftACSConv3d) else "over"
        return _fit(_fit_plane(kernel, layer), layer, f"2D kernel{shifted} {views} three views", weight)
    if isinstance(layer, PlanarConv3d):
        return _fit(kernel, layer, f"2D kernel{shifted} in the plane across axis {spatial_axis(layer.plane)}", weight)
    assert isinstance(layer, nn.Conv3d)
    depth = layer.kernel_size[axis]
    if method == "i3d":
        return _fit(spread_kernel(kernel, depth, depth_axis), layer, f"2D kernel{shifted} repeated / depth", weight)
    return _fit(centre_kernel(kernel, depth, depth_axis), layer, f"2D kernel{shifted} in the centre", weight)
