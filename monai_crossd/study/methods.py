# SPDX-License-Identifier: Apache-2.0
"""The initializations that a study compares, by name."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from monai.utils import look_up_option
from torch import nn

from ..networks import build_resnet
from ..transfer import to_3d

__all__ = ["METHODS", "PRETRAININGS", "Method", "build_2d", "initialize"]

# what is trained on images: arguments of build_resnet
PRETRAININGS: dict[str, dict[str, Any]] = {
    "conv2d": {"conv": "conv"},
    "crossd": {"conv": "crossd"},
    "crossd-paper": {"conv": "crossd", "conv_options": {"bank_init": "paper"}},
}


class Method(NamedTuple):
    """An initialization.

    Attributes:
        pretraining: one of :data:`PRETRAININGS`; None: nothing is pretrained.
        conv: 3D convolutions of the network for volumes, as in :func:`monai_crossd.to_3d`; None: it stays 2D.
        inflate: how plain 3D kernels are filled.
        options: of the convolutions.
        hybrid: in fine-tuning the 2D network learns on with the images of the source, in the same steps and with the
            same weights (:class:`monai_crossd.networks.HybridNet`).
    """

    pretraining: str | None
    conv: str | None = None
    inflate: str = "center"
    options: Mapping[str, Any] = {}
    hybrid: bool = False


METHODS = {
    # for images; "crossd" is the paper's form, like "crossd-bank"
    "random2d": Method(None),
    "conv2d": Method("conv2d"),
    "crossd": Method("crossd-paper"),
    # for volumes
    "random": Method(None, "conv"),
    "conv2d-i3d": Method("conv2d", "conv", "i3d"),
    "conv2d-center": Method("conv2d", "conv"),
    "conv2d-acs": Method("conv2d", "acs"),
    "conv2d-mean_acs": Method("conv2d", "mean_acs"),
    "conv2d-planar": Method("conv2d", "planar"),
    "crossd-bank": Method("crossd-paper", "conv", "bank"),
    "crossd-repeat-bank": Method("crossd", "conv", "bank"),
    "crossd-i3d": Method("crossd", "conv", "i3d"),
    "crossd-center": Method("crossd", "conv"),
    "crossd-acs": Method("crossd", "acs"),
    "crossd-dynamic": Method("crossd", "crossd", options={"placement": "center"}),
    "crossd-dynamic-spread": Method("crossd", "crossd", options={"placement": "spread"}),
    "crossd-hybrid": Method("crossd", "crossd", options={"placement": "center"}, hybrid=True),
}


def build_2d(pretraining: str | None, network: Mapping[str, Any], channels: int, classes: int) -> nn.Module:
    """The ResNet that is trained on images, by one of :data:`PRETRAININGS` (None is plain) and `build_resnet`."""
    kind = look_up_option(pretraining or "conv2d", PRETRAININGS)
    return build_resnet(spatial_dims=2, n_input_channels=channels, num_classes=classes, **kind, **network)


def _draw(module: nn.Module) -> None:
    """New weights, as MONAI's ResNet draws them in 3D."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm3d):
        module.reset_parameters()


def initialize(net2d: nn.Module, method: str, classes: int, keep_depth: bool = True) -> nn.Module:
    """The network that is fine-tuned: what was trained on images, made 3D or not, with a new last layer.

    Example:
        >>> import torch
        >>> net = build_2d("crossd", {"model_name": "resnet10", "widen_factor": 0.25}, 1, 5)
        >>> initialize(net, "crossd-dynamic", 3)(torch.randn(2, 1, 16, 16, 4)).shape
        torch.Size([2, 3])
    """
    recipe = look_up_option(method, METHODS)
    if recipe.conv is None:
        net = copy.deepcopy(net2d)
    else:
        net = to_3d(net2d, recipe.conv, recipe.inflate, keep_depth=keep_depth, **recipe.options)
        if recipe.pretraining is None:
            net.apply(_draw)
    assert isinstance(net.fc, nn.Linear)
    net.fc = nn.Linear(net.fc.in_features, classes)
    return net
