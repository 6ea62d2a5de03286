# SPDX-License-Identifier: Apache-2.0
"""How one layer's 2D kernel becomes the parameters of its 3D counterpart, by method."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import Tensor, nn

from .._options import look_up_option
from ..conv.base import ConvBase, Misfit, checked, effective_kernel
from ..conv.factory import CONVOLUTIONS
from ..conv.inflate import center_kernel, orient_bank, spatial_axis, spread_kernel, transposed_kernel

SCRATCH = "conv3d"  # plain 3D convolutions that nothing is carried into


def methods() -> tuple[str, ...]:
    """How 2D kernels become 3D: by a convolution of ours, or one of three ways to fill a plain one."""
    return *CONVOLUTIONS, "i3d", "center", "bank"


METHODS = methods()
CHOICES = (*METHODS, SCRATCH)

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


def dimension_bound(key: str) -> str | None:
    """Why a parameter depends on the number of dimensions beyond its kernel; None if it does not."""
    for pattern, reason in DIMENSION_BOUND.items():
        if fnmatchcase(key, pattern):
            return reason
    return None


def is_convolution3d(layer: nn.Module) -> bool:
    """Whether a layer is a 3D convolution that a 2D one can fill: ours, or torch's."""
    ours = isinstance(layer, ConvBase) and len(layer.kernel_size) == 3
    return ours or isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)


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
    choice = look_up_option(choice, (*methods(), SCRATCH))
    return choice if choice in CONVOLUTIONS else "conv"


def is_bank(path: str, state: Mapping[str, Tensor]) -> bool:
    """Whether the 5D weight of a layer is a Cross-D bank, not a plain 3D kernel: its shift stands beside it."""
    start = f"{path}.".lstrip(".")
    return f"{start}running_shift" in state or f"{start}predictor.0.weight" in state


def convert_kernel(
    layer: nn.Module, weight: Tensor, running_shift: Tensor | None, method: str, depth_axis: int
) -> tuple[Tensor, str]:
    """Value for `layer.weight` and how it was made.

    Args:
        layer: a 3D convolution, to be filled.
        weight: (O, I, Kh, Kw) plain kernel or (O, I, Kd, Kh, Kw) bank of the 2D layer; (I, O, Kh, Kw) if transposed.
        running_shift: (3,) of a Cross-D source layer.
        method: one of `methods()`; a plain Conv3d among layers of ours takes the kernel in its center.
        depth_axis: axis of the volume that runs through the slices.

    Raises:
        Misfit: if shapes do not fit or the method needs what the source has not.
    """
    if weight.dim() not in (4, 5):
        raise Misfit(f"the source is no 2D kernel or bank: {tuple(weight.shape)}")
    if isinstance(layer, ConvBase):
        return layer.kernel_from_2d(weight, running_shift)
    axis = spatial_axis(depth_axis)
    if isinstance(layer, nn.ConvTranspose3d):
        if weight.dim() != 4:
            raise Misfit("the source is a bank and the layer a transposed convolution")
        depth, stride, dilation = layer.kernel_size[axis], layer.stride[axis], layer.dilation[axis]
        spread = method == "i3d"
        how = "shared by" if spread else "in the center of"
        kernel = transposed_kernel(weight, depth, stride, dilation, spread, axis)
        return checked(kernel, layer, weight), f"2D kernel {how} the depth of each output slice"
    if method == "bank":
        if weight.dim() == 4 and max(weight.shape[2:]) > 1:
            raise Misfit("a plain 2D kernel has no bank: choose 'i3d', 'center' or 'acs'")
        if weight.dim() == 5:
            return checked(orient_bank(weight, depth_axis), layer, weight), "raw bank"
    kernel, shifted = effective_kernel(weight, running_shift)
    assert isinstance(layer, nn.Conv3d)
    depth = layer.kernel_size[axis]
    if method == "i3d":
        return checked(spread_kernel(kernel, depth, depth_axis), layer, weight), f"2D kernel{shifted} repeated / depth"
    return checked(center_kernel(kernel, depth, depth_axis), layer, weight), f"2D kernel{shifted} in the center"
