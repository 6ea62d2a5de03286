# SPDX-License-Identifier: Apache-2.0
"""Published checkpoints into MONAI's ResNets, in 2D and in 3D."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor, nn

from ..conv.base import ConvBase
from .checkpoint import read_checkpoint
from .fill import adapt_images, copied, fill
from .formats import FORMATS, STEM, recognise, to_monai_names
from .names import fit_names, misfit_advice, unwrapped, without_compiled
from .report import TransferReport
from .rules import is_convolution3d
from .weights import transfer_weights


def _make(layer: nn.Module, path: str, name: str, source: Tensor, value: Tensor) -> tuple[Tensor, str]:
    """A value for a network of the same number of dimensions."""
    if isinstance(layer, ConvBase) and len(layer.kernel_size) == 2 and name == "weight" and source.dim() == 4:
        return layer.kernel_from_2d(source)
    return copied(source, value)


def load_checkpoint(
    path: str | os.PathLike,
    net: nn.Module,
    method: str | None = None,
    depth_axis: int = -1,
    *,
    exclude: str | Sequence[str] = (),
    strict: bool = True,
) -> TransferReport:
    """Fill a MONAI ResNet, in 2D or 3D, from a published checkpoint.

    Understood are files of torchvision's and timm's ResNets, RadImageNet's PyTorch release, MedicalNet (3D), the
    published Cross-D-Conv code, and MONAI's and our own ResNets (`formats.FORMATS` has their keys). A stem for another
    number of image channels is adapted. What wraps the state_dict in the file and prefixes of its names are taken off
    (`read_checkpoint`, `transfer_weights`). Read with `weights_only=True`.

    Args:
        path: of the file.
        net: MONAI ResNet or what has its keys, such as `unet.encoder`; filled in place.
        method: how 2D kernels become 3D, needed for a 3D network and a 2D file only; see `transfer_weights`.
        depth_axis: axis of the volume that runs through the slices, for the same case.
        exclude: pattern or patterns (as of a shell, for the whole name) of keys to leave alone, in `net` and in the
            file, e.g. "fc.*" for a head of other classes; each must fit a key.
        strict: every parameter of `net` must be in the file, and every one of the file in `net`, unless excluded or
            what `transfer_weights` says may differ (a missing bias of a convolution is 0, as in the shortcuts that
            MONAI's ResNets have by default; the file's classifier may be left over where `net` has none), else nothing
            is loaded.

    Returns:
        What was transferred, skipped and left at its initial value, key by key.

    Raises:
        FileNotFoundError: if there is no such file.
        TransferError: (a ValueError) if `strict` and something does not fit; nothing is loaded, the report is in it.
        ValueError: if the file or its format is not understood, a method is needed, or one is given for nothing.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from monai.networks.nets import resnet10
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/resnet10.pth"
        ...     torch.save(resnet10(spatial_dims=2, n_input_channels=1, num_classes=7).state_dict(), path)
        ...     net3d = resnet10(spatial_dims=3, n_input_channels=1, num_classes=2)
        ...     report = load_checkpoint(path, net3d, method="i3d", exclude="fc.*")
        >>> sorted(report.initial)
        ['fc.bias', 'fc.weight']
    """
    net = unwrapped(net)
    file = read_checkpoint(path)
    target = without_compiled(net.state_dict())
    state, prefix = fit_names(file, target, to_monai_names)
    known = recognise([key.removeprefix(prefix) for key in without_compiled(file)])
    if known is None:
        raise ValueError(
            f"{os.fspath(path)!r}: no known checkpoint has keys like {next(iter(file))!r}; known are: "
            f"{'; '.join(f.name for f in FORMATS)}.{misfit_advice(list(file), list(target))} For another network use "
            f"transfer_weights(monai_crossd.transfer.read_checkpoint({os.fspath(path)!r}), net3d, ...)."
        )
    adapted = adapt_images(state, net, ())
    in_3d = any(is_convolution3d(layer) for layer in net.modules())
    kernel = state.get(f"{STEM}weight")
    file_3d = kernel is not None and kernel.dim() == 5 and not known.bank
    if in_3d and not file_3d:
        if method is None:
            raise ValueError(
                f"{os.fspath(path)!r} ({known.name}) holds 2D weights and the network is 3D: say how they go over, "
                "e.g. method='i3d' for plain 3D convolutions."
            )
        report = transfer_weights(state, net, method, depth_axis, exclude=exclude, strict=strict)
    elif method is not None or depth_axis != -1:
        raise ValueError(
            f"{os.fspath(path)!r} ({known.name}) is as 2D or 3D as the network: method ({method!r}) and depth_axis "
            f"({depth_axis}) have no meaning here."
        )
    else:
        report = fill(net, state, "copy", _make, exclude=exclude, strict=strict)
    for key, text in adapted.items():
        if key in report.transferred:
            report.transferred[key] += text
    if prefix:
        report.notes.append(f"without the prefix {prefix!r} of the file")
    return report
