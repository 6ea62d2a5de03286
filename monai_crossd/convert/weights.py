# SPDX-License-Identifier: Apache-2.0
"""Fill a 3D network with the weights of its 2D form, key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from monai.utils import look_up_option
from torch import Tensor, nn

from ..functional.inflate import spatial_axis
from ..layers.crossd import CrossDConv3d
from .report import TransferError, TransferReport
from .rules import (
    CONVOLUTIONS_3D,
    LAYER_OF_METHOD,
    METHODS,
    OUR_LAYERS,
    Misfit,
    convert_kernel,
    dimension_bound,
    fills,
    layer_of,
)

__all__ = ["METHODS", "transfer_weights"]


def _read_source(source: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = source.state_dict() if isinstance(source, nn.Module) else dict(source)
    other = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise TypeError(
            f"the source is no state_dict: {other[0]!r} holds a {type(state[other[0]]).__name__}. "
            f"Pass the dictionary of tensors itself, e.g. checkpoint[{other[0]!r}]."
        )
    return state


def _check_layers(convolutions: dict[str, nn.Module], method: str, depth_axis: int) -> None:
    """Raise if the 3D network was not built with the layers that the method fills."""
    wanted = LAYER_OF_METHOD.get(method)
    if wanted is not None and not any(type(layer) is wanted for layer in convolutions.values()):
        raise ValueError(
            f"method {method!r} fills {wanted.__name__} layers and the network has none: build it inside "
            f"`with monai_crossd.use_conv({method!r}):`, or choose one of 'i3d', 'centre', 'bank'."
        )
    for path, layer in convolutions.items():
        if isinstance(layer, OUR_LAYERS) and not fills(method, layer):
            raise ValueError(
                f"method {method!r} does not fill {path}, a {type(layer).__name__}: build the network without "
                f"use_conv, or choose method {layer_of(layer)!r}."
            )
        if isinstance(layer, CrossDConv3d) and spatial_axis(layer.depth_axis) != spatial_axis(depth_axis):
            raise ValueError(
                f"{path} was built with depth_axis={layer.depth_axis}, not {depth_axis}: build the network inside "
                f"`with monai_crossd.use_conv('crossd', depth_axis={depth_axis}):`."
            )


def _source_only_reason(key: str, state: dict[str, Tensor], method: str) -> str:
    if ".predictor." in f".{key}" or key.endswith("running_shift"):
        return f"method {method!r} takes the kernel at the running shift and predicts none"
    return "the 3D network has no such parameter"


def load_values(
    net: nn.Module, values: Mapping[str, Tensor], report: TransferReport, missing: Sequence[str], strict: bool
) -> None:
    """Copy values into a network, all or none of them.

    Args:
        net: to fill in place.
        values: by key.
        report: of where they came from.
        missing: keys of `net` that should have had a counterpart.
        strict: load nothing if something is missing or does not fit.

    Raises:
        TransferError: if `strict` and something does not fit, or if nothing fits.
    """
    if not report.transferred or (strict and (report.conflicts or missing)):
        raise TransferError(
            f"the source does not fill this {type(net).__name__}; nothing was loaded. Is it a checkpoint of another "
            f"network? Exclude what is meant to differ (exclude=['fc.*']) or pass strict=False.\n{report}",
            report,
        )
    target = net.state_dict()
    with torch.no_grad():
        for key, new in values.items():
            target[key].copy_(new)


def transfer_weights(
    source: nn.Module | Mapping[str, Tensor],
    net3d: nn.Module,
    method: str = "crossd",
    depth_axis: int = -1,
    *,
    exclude: Sequence[str] = (),
    strict: bool = True,
) -> TransferReport:
    """Fill a 3D network with the weights of the same network in 2D.

    Build the network twice, with spatial_dims=2 and 3 (a MONAI network, or a part of it such as `unet.encoder`); keys
    are the same, and only convolution kernels change their shape:

    - "crossd": banks go over as they are, into CrossDConv3d layers that predict one shift per volume;
    - "acs": each 2D kernel (of a bank: the one at its running shift) into ACSConv3d layers, over three views;
      "soft_acs" and "mean_acs": into SoftACSConv3d layers, in all three views;
    - "planar" and "plane_cycle": into PlanarConv3d layers, in the plane of each;
    - "i3d": repeated along depth and divided by it; "centre": in the middle slice, zeros elsewhere;
    - "bank": the raw bank as a 3D kernel, as the published Cross-D code does.

    A transposed convolution takes its kernel so that each slice of its output is a 2D output (`transposed_kernel`).
    What depends on the number of dimensions beyond a kernel (position embeddings, tables of relative positions, patch
    merging) keeps its initial value, and the report says why (`rules.DIMENSION_BOUND`).

    References:
        J. Carreira and A. Zisserman, Quo Vadis, Action Recognition?, 2017 ("i3d").
        J. Yang et al., Reinventing 2D Convolutions for 3D Images, 2021 ("acs").
        M. C. Yavuz and Y. Yang, Cross-D Conv, 2024 ("bank").

    Args:
        source: 2D network or its state_dict, plain or Cross-D; it is not changed.
        net3d: network to fill in place, built with the layers of the method (`use_conv`).
        method: one of the above.
        depth_axis: axis of the volume that runs through the slices; MONAI's is the last.
        exclude: patterns (as of a shell) of keys of `net3d` to leave alone, e.g. "fc.*" for a head of other classes.
        strict: every parameter of `net3d` that is not excluded, nor bound to its dimension, must find its counterpart,
            else nothing is loaded. Without it, what fits is loaded and the report says what did not.

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
    method = look_up_option(method, METHODS)
    state = _read_source(source)
    convolutions: dict[str, nn.Module] = {
        path: layer
        for path, layer in net3d.named_modules(remove_duplicate=False)  # a tied layer has a key under every path
        if isinstance(layer, CONVOLUTIONS_3D)
    }
    _check_layers(convolutions, method, depth_axis)
    target = net3d.state_dict()
    report = TransferReport(method, numel={key: value.numel() for key, value in target.items()})
    values: dict[str, Tensor] = {}
    used: set[str] = set()
    missing = []
    for key, value in target.items():
        path, _, name = key.rpartition(".")
        if any(fnmatchcase(key, pattern) for pattern in exclude):
            report.initial[key] = "excluded"
            if key in state:
                used.add(key)
                report.skipped[key] = "excluded"
        elif key in state:
            used.add(key)
            try:
                if path in convolutions and name == "weight":
                    shift_key = f"{path}.running_shift" if path else "running_shift"
                    new, how = convert_kernel(convolutions[path], state[key], state.get(shift_key), method, depth_axis)
                elif state[key].shape == value.shape:
                    new, how = state[key], "copied"
                else:
                    raise Misfit(f"source {tuple(state[key].shape)} does not fit {tuple(value.shape)}")
            except Misfit as error:
                if reason := dimension_bound(key):
                    report.initial[key] = report.skipped[key] = reason
                else:
                    report.conflicts[key] = str(error)
            else:
                values[key], report.transferred[key] = new, how
        elif name == "running_shift" or ".predictor." in f".{key}":
            bank = f"{path}.weight".lstrip(".") in state and state[f"{path}.weight".lstrip(".")].dim() == 5
            report.initial[key] = (
                "the source kept no running shift"
                if bank
                else "the source is a plain convolution; the angle is set to 0"
            )
            # shift (1, 1, 1): the first output is that of the 2D kernels
            if name == "running_shift":
                values[key] = torch.ones_like(value)
            elif key.endswith(("predictor.3.weight", "predictor.3.bias")):
                values[key] = value.clone()
                values[key][3] = 0
        elif name == "gate":
            report.initial[key] = "closed: an image has no slices beside it"
            values[key] = torch.zeros_like(value)
        elif name == "view_weight":
            report.initial[key] = "all views weigh the same"
            values[key] = torch.zeros_like(value)
        else:
            report.initial[key] = "the source has no such parameter"
            missing.append(key)
    report.skipped.update({k: _source_only_reason(k, state, method) for k in state if k not in used})
    load_values(net3d, values, report, missing, strict)
    return report
