# SPDX-License-Identifier: Apache-2.0
"""What goes into a layer of a network and what comes out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["find_layer", "run_layer"]


def find_layer(net: nn.Module, name: str) -> nn.Module:
    """A layer of a network by its path.

    Args:
        net: the network.
        name: path as in ``named_modules``, such as "layer1.0.conv1"; "" is the network itself.

    Raises:
        ValueError: When there is no such layer, with the names next to it.
    """
    inside, path = net, ""
    for part in name.split(".") if name else []:
        children = dict(inside.named_children())
        if part not in children:
            where = f"{path!r} of {type(net).__name__}" if path else type(net).__name__
            raise ValueError(f"There is no layer {name!r}: {where} holds {', '.join(children) or 'no layers'}.")
        inside, path = children[part], f"{path}.{part}" if path else part
    return inside


def run_layer(net: nn.Module, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Runs a network in eval mode and gives input and output of one of its layers; its modes stay as they were.

    Args:
        net: the network.
        name: of the layer, see :func:`find_layer`.
        x: input of the network; it is moved to the device of its weights.

    Returns:
        Input and output of the layer, on the CPU. Of a layer that runs several times, those of the last.

    Raises:
        ValueError: When there is no such layer, or the network does not run it, or it gives no tensor.
    """
    found: list[tuple[Any, Any]] = []
    handle = find_layer(net, name).register_forward_hook(lambda _, args, out: found.append((args[0].clone(), out)))
    modes = {module: module.training for module in net.modules()}
    parameter = next(net.parameters(), None)
    try:
        net.eval()
        with torch.no_grad():
            net(x if parameter is None else x.to(parameter))
    finally:
        handle.remove()
        for module, training in modes.items():
            module.training = training
    if not found or not isinstance(found[-1][1], Tensor):
        raise ValueError(f"Layer {name!r} {'gives no tensor' if found else 'does not run'} in {type(net).__name__}.")
    return found[-1][0].cpu(), found[-1][1].cpu()
