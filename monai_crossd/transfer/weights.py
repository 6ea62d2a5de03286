# SPDX-License-Identifier: Apache-2.0
"""Fill a 3D network with the weights of its 2D form, key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .._options import look_up_option
from ..conv.factory import CONVOLUTIONS, is_a, name_of
from ..conv.inflate import spatial_axis
from .fill import adapt_images, copied, fill, layers_of
from .names import fit_names, unwrapped, without_compiled
from .report import TransferReport
from .rules import METHODS, Misfit, convert_kernel, is_bank, is_convolution3d, methods

__all__ = ["METHODS", "transfer_weights"]


def _read_source(source: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(source, nn.Module):
        state = unwrapped(source).state_dict()
        return {
            key: value for key, value in state.items() if isinstance(value, Tensor)
        }  # a module's extra state is none
    state = dict(source)
    other = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise TypeError(
            f"the source is no state_dict: {other[0]!r} holds a {type(state[other[0]]).__name__}. "
            f"Pass the dictionary of tensors itself, e.g. checkpoint[{other[0]!r}]."
        )
    return state


def _check_layers(convolutions: Mapping[str, nn.Module], method: str, depth_axis: int) -> None:
    """Raise if the 3D network was not built with the layers that the method fills."""
    wanted = CONVOLUTIONS[method].layer3d if method in CONVOLUTIONS else None
    if wanted is not None and not any(type(layer) is wanted for layer in convolutions.values()):
        raise ValueError(
            f"method {method!r} fills {wanted.__name__} layers and the network has none: build it inside "
            f"`with monai_crossd.use_conv({method!r}):`, or choose one of 'i3d', 'center', 'bank'."
        )
    for path, layer in convolutions.items():
        name = name_of(layer)
        if name is not None and not is_a(layer, method):
            raise ValueError(
                f"method {method!r} does not fill {path}, a {type(layer).__name__}: build the network without "
                f"use_conv, or choose method {name!r}."
            )
        built = getattr(layer, "depth_axis", depth_axis)
        if name is not None and spatial_axis(built) != spatial_axis(depth_axis):
            raise ValueError(
                f"{path} was built with depth_axis={built}, not {depth_axis}: build the network inside "
                f"`with monai_crossd.use_conv({name!r}, depth_axis={depth_axis}):`."
            )


def transfer_weights(
    source: nn.Module | Mapping[str, Tensor],
    net3d: nn.Module,
    method: str = "crossd",
    depth_axis: int = -1,
    *,
    exclude: str | Sequence[str] = (),
    strict: bool = True,
) -> TransferReport:
    """Fill a 3D network with the weights of the same network in 2D.

    Build the network twice, with spatial_dims=2 and 3 (a MONAI network, or a part of it such as `unet.encoder`); keys
    are the same, and only convolution kernels change their shape:

    - "crossd": banks go over as they are, into CrossDConv3d layers that predict one shift per volume;
    - "acs": each 2D kernel (of a bank: the one at its running shift) into ACSConv3d layers, over three views;
      "soft_acs" and "mean_acs": into SoftACSConv3d layers, in all three views;
    - "planar" and "plane_cycle": into PlanarConv3d layers, in the plane of each;
    - "i3d": repeated along depth and divided by it; "center": in the middle slice, zeros elsewhere;
    - "bank": the raw bank as a 3D kernel, as the published Cross-D code does.

    A transposed convolution takes its kernel so that each slice of its output is a 2D output (`transposed_kernel`).
    What depends on the number of dimensions beyond a kernel (position embeddings, tables of relative positions, patch
    merging) keeps its initial value, and the report says why (`rules.DIMENSION_BOUND`).

    What a source lacks and a network can do without is 0, and the report says so: the bias of a convolution, and the
    number of batches that a batch norm has seen. Kernels that read the image are adapted to its number of channels
    (from 1 or 3). What a source may have beyond the network is its classifier (`fc`, `classifier`, `head`, ...), where
    the network has none of that name, and what the method has no use for.

    References:
        J. Carreira and A. Zisserman, Quo Vadis, Action Recognition?, 2017 ("i3d").
        J. Yang et al., Reinventing 2D Convolutions for 3D Images, 2021 ("acs").
        M. C. Yavuz and Y. Yang, Cross-D Conv, 2024 ("bank").

    Args:
        source: 2D network or its state_dict, plain or Cross-D; it is not changed. Prefixes of wrappers (`module.`,
            `_orig_mod.`, `model.`, `net.`, `network.`, `backbone.`, `encoder.`) that `net3d` has not are taken off.
        net3d: network to fill in place, built with the layers of the method (`use_conv`), also compiled or inside a
            DataParallel.
        method: one of the above.
        depth_axis: axis of the volume that runs through the slices; MONAI's is the last.
        exclude: pattern or patterns (as of a shell, for the whole name) of keys to leave alone, in `net3d` and in the
            source, e.g. "fc.*" for a head of other classes; each must fit a key.
        strict: every parameter of `net3d` that is not excluded, nor bound to its dimension, must find its counterpart,
            and every one of the source its place, else nothing is loaded. Without it, what fits is loaded and the
            report says what did not.

    Returns:
        What was transferred, skipped and left at its initial value, key by key.

    Raises:
        TransferError: (a ValueError) if `strict` and something does not fit; nothing is loaded, the report is in it.
        ValueError: for an unknown method, or a network that was not built with the layers of the method.
        TypeError: if `source` is no state_dict.

    Example:
        >>> from monai.networks.nets import resnet10
        >>> net2d = resnet10(spatial_dims=2, n_input_channels=1, num_classes=3)
        >>> net3d = resnet10(spatial_dims=3, n_input_channels=1, num_classes=3)
        >>> transfer_weights(net2d, net3d, "i3d").share
        1.0
    """
    method = look_up_option(method, methods())
    net3d = unwrapped(net3d)
    state, prefix = fit_names(_read_source(source), without_compiled(net3d.state_dict()))
    convolutions = {path: layer for path, layer in layers_of(net3d).items() if is_convolution3d(layer)}
    _check_layers(convolutions, method, depth_axis)
    adapted = adapt_images(state, net3d)

    def make(layer: nn.Module, path: str, name: str, source: Tensor, value: Tensor) -> tuple[Tensor, str]:
        if path not in convolutions or name != "weight":
            return copied(source, value)
        plain = source.dim() == 5 and max(source.shape[2:]) > 1 and not is_bank(path, state)
        if plain and not isinstance(layer, nn.ConvTranspose3d):
            raise Misfit(
                "the source has a plain 3D kernel, no bank (neither running_shift nor predictor beside it): it fills "
                "a 3D network of the same kind by load_state_dict or load_checkpoint"
            )
        shift = state.get(f"{path}.running_shift".lstrip("."))
        return convert_kernel(layer, source, shift, method, depth_axis)

    def needless(key: str) -> str:
        if ".predictor." in f".{key}" or key.endswith("running_shift"):
            return f"method {method!r} takes the kernel at the running shift and predicts none"
        return ""

    notes = [f"without the prefix {prefix!r} of the source"] if prefix else []
    report = fill(net3d, state, method, make, exclude=exclude, strict=strict, needless=needless, notes=notes)
    for key, text in adapted.items():
        if key in report.transferred:
            report.transferred[key] += text
    return report
