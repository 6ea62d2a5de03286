# SPDX-License-Identifier: Apache-2.0
"""Kernels that were trained for long, made as large as new ones where that changes no output."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from ..conv.base import ConvBase
from ..conv.from_2d import effective_kernel
from .compare import tensors

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
TOLERANCE = 1e-2  # of the largest output: the epsilon of a norm counts for more beside a smaller variance


def rescale_kernels(net: nn.Module, example: Tensor) -> dict[str, float]:
    """Makes the kernels that a norm follows as large as new ones, in place; the network's output stays what it was.

    A norm takes the scale of a convolution out again, so that the scale decides one thing alone: how far a step of the
    optimizer turns the kernel. Kernels grow while they are trained, and of kernels twice as large a fine-tuning of few
    steps turns half as much as of new ones. With s = √(2 / fan_out) / rms(kernel), as He et al. draw new kernels,

        kernel ← s · kernel, bias ← s · bias, and of a batch norm mean ← s · mean, variance ← s² · variance.

    A convolution stays as it is where anything else reads its output too, or where it shares its weight.

    References:
        T. van Laarhoven, L2 Regularization versus Batch and Weight Normalization, 2017.
        K. He et al., Delving Deep into Rectifiers, 2015.

    Args:
        net: Network in 2D or 3D, with weights; plain convolutions and ours.
        example: (B, C, H, W) or (B, C, H, W, D), a batch that it is run on in evaluation mode, on its device.

    Returns:
        Factor s of each convolution that was rescaled, by path.

    Raises:
        ValueError: If no convolution is followed by a norm alone.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> _ = net[0].weight.data.mul_(10)
        >>> sorted(rescale_kernels(net, torch.randn(2, 1, 8, 8))), round(net[0].weight.std().item(), 1)
        (['0'], 0.2)
    """
    probe = copy.deepcopy(net).eval()  # hooks and evaluation mode stay off the network
    layers, factors = dict(probe.named_modules()), {}
    before = _run(probe, example)
    for path, norm in _followed(probe, example).items():
        factor = _factor(layers[path])
        _scale(layers[path], layers[norm], factor)
        if _equal(_run(probe, example), before):
            factors[path] = factor
            _scale(net.get_submodule(path), net.get_submodule(norm), factor)
        else:
            _scale(layers[path], layers[norm], 1 / factor)
    if not factors:
        raise ValueError(
            f"{type(net).__name__} has no convolution that a norm alone follows: there is no scale to choose."
        )
    return factors


def _run(net: nn.Module, example: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return list(tensors(net(example)))


def _equal(got: list[Tensor], expected: list[Tensor]) -> bool:
    pairs = zip(got, expected, strict=True)
    return all((a - b).abs().max() <= TOLERANCE * b.abs().max() for a, b in pairs if b.is_floating_point())


def _followed(net: nn.Module, example: Tensor) -> dict[str, str]:
    """Path of the norm that reads what a convolution gives, by path of the convolution, one to one."""
    owners = Counter(id(p) for module in net.modules() for p in module._parameters.values() if p is not None)
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors are held, so that no other gets their id
    calls, pairs, hooks = Counter[str](), Counter[tuple[str, str]](), []

    def after(path: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Tensor) -> None:
            made[id(out)] = path, out
            calls[path] += 1

        return hook

    def ahead(path: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            if args and id(args[0]) in made:
                pairs[made[id(args[0])][0], path] += 1
            calls[path] += 1

        return hook

    ours = tuple(f"{path}." for path, module in net.named_modules() if isinstance(module, ConvBase) and path)
    for path, module in net.named_modules():
        plain = isinstance(module, nn.modules.conv._ConvNd | ConvBase) and not module.transposed
        if path.startswith(ours):
            continue  # a predictor is no kernel
        if plain and owners[id(module.weight)] == 1:
            hooks.append(module.register_forward_hook(after(path)))
        elif isinstance(module, NORMS):
            hooks.append(module.register_forward_pre_hook(ahead(path)))
    _run(net, example)
    for hook in hooks:
        hook.remove()
    return {conv: norm for (conv, norm), n in pairs.items() if n == calls[conv] == calls[norm]}


def _factor(layer: nn.Module) -> float:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    kernel = weight.detach()
    if isinstance(layer, ConvBase) and kernel.dim() == 5:  # a bank is as large as the kernel that it makes
        kernel, _ = effective_kernel(kernel, getattr(layer, "running_shift", None))
    fan_out = kernel.shape[0] * kernel[0, 0].numel()
    rms = kernel.double().square().mean().sqrt().item()
    return (2 / fan_out) ** 0.5 / rms if rms > 0 else 1.0


@torch.no_grad()
def _scale(layer: nn.Module, norm: nn.Module, factor: float) -> None:
    values: list[Any] = [(layer.weight, factor), (layer.bias, factor)]
    values += [(getattr(norm, "running_mean", None), factor), (getattr(norm, "running_var", None), factor**2)]
    for value, by in values:
        if value is not None:
            value.mul_(by)
