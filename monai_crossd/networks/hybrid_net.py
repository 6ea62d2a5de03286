# SPDX-License-Identifier: Apache-2.0
"""One network for images and volumes: a 2D and a 3D form that share their weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ..conv import CrossDConv2d, CrossDConv3d
from ..transfer.names import as_patterns, fits

logger = logging.getLogger(__name__)

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)  # the first: batch and instance norm


def _head_of(net: nn.Module) -> list[str]:
    """Pattern of the keys of the last linear layer."""
    linear = [path for path, module in net.named_modules() if isinstance(module, nn.Linear)]
    return [f"{linear[-1]}.*".removeprefix(".")] if linear else []


def _owner(net: nn.Module, key: str) -> tuple[nn.Module, str]:
    path, _, name = key.rpartition(".")
    return net.get_submodule(path), name


def _why_apart(layer2d: nn.Module | None, layer3d: nn.Module, name: str) -> str | None:
    """Why two layers cannot share a parameter; None if they can."""
    if isinstance(layer3d, NORMS):
        return "a norm"
    value2d = None if layer2d is None else layer2d._parameters.get(name)
    if value2d is None:
        return "3D only"
    if isinstance(layer2d, CrossDConv2d) != isinstance(layer3d, CrossDConv3d):
        return f"of a {type(layer2d).__name__} and of a {type(layer3d).__name__}"
    shape2d, shape3d = tuple(value2d.shape), tuple(layer3d.get_parameter(name).shape)
    if shape2d != shape3d:
        return f"{shape2d} in 2D, {shape3d} in 3D"
    return None


def _retie(net: nn.Module, _: Any) -> None:
    """What follows a load_state_dict; a function here, so that it pickles."""
    assert isinstance(net, HybridNet)
    net._tie()


class HybridNet(nn.Module):
    """A 2D and a 3D network with one set of weights, for training on images and volumes at once.

    Parameters of the same path and shape are the same objects in both: the banks, biases and predictors of Cross-D
    layers, the 2D kernels of plain 2D layers with their ACS and planar forms, linear layers. Each dimension keeps norms
    of its own, with their statistics, those in the predictors included, and each source of data its own head. Running
    shifts are apart, but for static Cross-D layers, which have nothing else than the shift that is learned in 2D.

    References:
        M. C. Yavuz and Y. Yang, Cross-D Conv, 2024 (training on both at once is its future work).

    Args:
        net2d: 2D network; it becomes a part of this one, and its shared weights take the values of `net3d`.
        net3d: its 3D form, `to_3d(net2d, "crossd")`, or a MONAI network built with spatial_dims=3, filled by
            `load_2d`. It stays a network of its own: save `net.net3d.state_dict()` to use it alone.
        separate: pattern or patterns (as of a shell) of keys that each network has its own of; by default the last
            linear layer, [] for a common head.

    Attributes:
        tied: keys of what is shared.
        apart: reason by key, for the parameters of `net3d` that are not.

    Shape:
        (B, C, H, W) goes through the 2D form, (B, C, H, W, D) through the 3D one, and a list of such batches through
        both, in one call (which DistributedDataParallel needs): a list of outputs.

    Raises:
        ValueError: if the networks share no weight, with shapes, or a pattern fits nothing; in a forward, if the input
            is neither a batch of images nor one of volumes.

    Example:
        >>> import torch
        >>> from monai_crossd.transfer import to_3d
        >>> from monai_crossd.networks import build_resnet
        >>> net2d = build_resnet("resnet10", widen_factor=0.125, num_classes=3)
        >>> net = HybridNet(net2d, to_3d(net2d, "crossd"))
        >>> [out.shape for out in net([torch.randn(2, 1, 16, 16), torch.randn(2, 1, 16, 16, 8)])]
        [torch.Size([2, 3]), torch.Size([2, 3])]
        >>> net.net2d.conv1.weight is net.net3d.conv1.weight
        True
    """

    def __init__(self, net2d: nn.Module, net3d: nn.Module, separate: str | Sequence[str] | None = None) -> None:
        super().__init__()
        self.net2d, self.net3d = net2d, net3d
        self.tied: list[str] = []
        self.apart: dict[str, str] = {}
        head = _head_of(net3d)
        keys = [key for key, _ in net3d.named_parameters(remove_duplicate=False)]
        patterns = as_patterns(head if separate is None else separate, keys, "separate")
        layers2d = dict(net2d.named_modules(remove_duplicate=False))
        for key in keys:
            layer, name = _owner(net3d, key)
            reason = _why_apart(layers2d.get(key.rpartition(".")[0]), layer, name)
            if reason is None and fits(patterns, key):
                reason = "separate"
            if reason is None:
                self.tied.append(key)
                if isinstance(layer, CrossDConv3d) and layer.mode == "static" and name == "weight":
                    self.tied.append(f"{key.removesuffix('weight')}running_shift")
            else:
                self.apart[key] = reason
        if not any(net3d.get_parameter(key).dim() > 1 for key in keys if key in self.tied and not fits(head, key)):
            raise ValueError(
                f"the networks have no weight to share ({self._first_reason()}): build both with Cross-D convolutions, "
                "e.g. net3d = monai_crossd.to_3d(net2d, 'crossd'), or a plain 2D one and a 3D one with ACS or planar "
                "convolutions."
            )
        self._tie()
        self.register_load_state_dict_post_hook(_retie)
        logger.info("%s", self.extra_repr())

    def _first_reason(self) -> str:
        reasons = (f"{key}: {why}" for key, why in self.apart.items() if why not in ("a norm", "separate"))
        return next(reasons, "nothing but norms and what is separate")

    def _tie(self) -> None:
        for key in self.tied:
            layer, name = _owner(self.net3d, key)
            setattr(_owner(self.net2d, key)[0], name, getattr(layer, name))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HybridNet:
        """What moves and casts: torch makes new tensors for some, which would part what is tied."""
        super()._apply(fn, recurse)
        self._tie()
        return self

    def forward(self, x: Tensor | Sequence[Tensor]) -> Any:
        """Run images, volumes, or both."""
        if not isinstance(x, Tensor):
            return [self(part) for part in x]
        if x.dim() not in (4, 5):
            raise ValueError(
                f"a batch of images has shape (B, C, H, W) and one of volumes (B, C, H, W, D), but this has "
                f"{tuple(x.shape)}."
            )
        return self.net2d(x) if x.dim() == 4 else self.net3d(x)

    def extra_repr(self) -> str:
        """Show how much is shared."""
        values = {key: value.numel() for key, value in self.net3d.named_parameters(remove_duplicate=False)}
        tied = sum(values.get(key, 0) for key in self.tied)
        return f"tied={tied:,} of {sum(values.values()):,} values of the 3D form"
