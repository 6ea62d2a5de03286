# SPDX-License-Identifier: Apache-2.0
"""Replace layers of a network: in a copy, at any depth, the root included, tied layers once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from ..layers.crossd import CrossDConv2d


def map_modules(net: nn.Module, convert: Callable[[str, nn.Module], nn.Module | None]) -> nn.Module:
    """Copy of a network in which every module that `convert` answers for is replaced.

    Args:
        net: it is not changed.
        convert: gets path and module; returns its replacement, or None to go on inside it.
    """
    replaced: dict[nn.Module, nn.Module] = {}

    def visit(path: str, module: nn.Module) -> nn.Module:
        if module not in replaced:
            new = convert(path, module)
            replaced[module] = module if new is None else new
            if new is None:
                for name, child in list(module._modules.items()):
                    if child is not None:
                        module._modules[name] = visit(f"{path}.{name}" if path else name, child)
        return replaced[module]

    return visit("", copy.deepcopy(net))


def check_plain(path: str, module: nn.Module, kind: type[nn.Module]) -> None:
    """Check that a layer is of the class itself, whose behaviour we know.

    Raises:
        TypeError: if it is of a subclass or makes its weight in a hook, with its path.
    """
    # weight_norm, spectral_norm and pruning of the older kind keep the type and make the weight in a hook
    made = [name for name in module._parameters if name not in ("weight", "bias")]
    if type(module) is not kind or made:
        name = f"{type(module).__name__} with {made[0]}" if made else type(module).__name__
        raise TypeError(
            f"{path or 'the network'} is a {name}, a {kind.__name__} with a behaviour of its own: "
            f"replace it by a plain nn.{kind.__name__} (remove its parametrization, run a lazy layer once) and convert "
            "again."
        )


def to_crossd(net2d: nn.Module, init: str = "repeat", **options: Any) -> nn.Module:
    """Copy of a 2D network with every Conv2d a CrossDConv2d; transposed convolutions stay plain.

    Args:
        net2d: any network, e.g. one of MONAI's built with spatial_dims=2; it is not changed.
        init: "repeat" fills each bank with the kernel that was there, "preserve" also keeps the network's output,
            "paper" draws new random banks.
        **options: `hidden_channels` and `max_angle` of CrossDConv2d.

    Returns:
        The copy, in the same mode, on the same device and of the same dtype.

    Raises:
        TypeError: if a convolution is a subclass of Conv2d or makes its weight in a hook, with its path.
        ValueError: if there is no Conv2d, or for an unknown `init`.

    Example:
        >>> import torch
        >>> from monai.networks.nets import resnet18
        >>> net = resnet18(spatial_dims=2, n_input_channels=1, num_classes=3).eval()
        >>> x = torch.randn(1, 1, 64, 64)
        >>> bool(torch.allclose(to_crossd(net, init="preserve")(x), net(x), atol=1e-4))
        True
    """
    count = 0

    def convert(path: str, module: nn.Module) -> nn.Module | None:
        nonlocal count
        if isinstance(module, CrossDConv2d):
            return module
        if not isinstance(module, nn.Conv2d):
            return None
        check_plain(path, module, nn.Conv2d)
        count += 1
        return CrossDConv2d.from_conv(module, init=init, **options)

    out = map_modules(net2d, convert)
    if count == 0:
        raise ValueError(f"{type(net2d).__name__} has no nn.Conv2d to convert.")
    return out
