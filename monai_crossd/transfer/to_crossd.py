# SPDX-License-Identifier: Apache-2.0
"""A 2D network with Cross-D layers in place of its plain convolutions."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..conv.crossd import CrossDConv2d
from .tree import Ties, check_copies, check_plain, map_modules


def to_crossd(net2d: nn.Module, init: str = "preserve", **options: Any) -> nn.Module:
    """Copy of a 2D network with every Conv2d a CrossDConv2d; transposed convolutions stay plain.

    Args:
        net2d: any network, e.g. one of MONAI's built with spatial_dims=2; it is not changed.
        init: "preserve" fills each bank with the kernel that was there and keeps the network's output, "repeat" fills
            banks only (a fresh predictor shifts them a little), "paper" draws new random banks.
        **options: `hidden_channels` and `max_angle` of CrossDConv2d.

    Returns:
        The copy, in the same mode, on the same device and of the same dtype, with the hooks of the network. Tied
        modules and parameters stay tied.

    Raises:
        TypeError: if a convolution is a subclass of Conv2d, makes its weight in a hook, has a forward or modules of its
            own, or shares its weight with what is no convolution; or if a parameter has a hook; with the path.
        ValueError: if there is no Conv2d, or for an unknown `init`.

    Example:
        >>> import torch
        >>> from monai.networks.nets import resnet18
        >>> net = resnet18(spatial_dims=2, n_input_channels=1, num_classes=3).eval()
        >>> x = torch.randn(1, 1, 64, 64)
        >>> bool(torch.allclose(to_crossd(net)(x), net(x), atol=1e-4))
        True
    """
    count, ties = 0, Ties()
    check_copies(net2d)

    def convert(path: str, module: nn.Module) -> nn.Module | None:
        nonlocal count
        if isinstance(module, CrossDConv2d):
            return module
        if not isinstance(module, nn.Conv2d):
            return None
        check_plain(path, module, nn.Conv2d)
        count += 1
        new = CrossDConv2d.from_conv(module, init=init, **options)
        ties.keep(path, module, new)
        return new

    out = map_modules(net2d, convert)
    ties.check(out)
    if count == 0:
        raise ValueError(f"{type(net2d).__name__} has no nn.Conv2d to convert.")
    return out
