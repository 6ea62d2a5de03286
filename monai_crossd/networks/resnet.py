# SPDX-License-Identifier: Apache-2.0
"""MONAI's ResNet with Cross-D, ACS or plain convolutions, alone and as a backbone of MONAI's FlexibleUNet."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from monai.networks import nets
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from monai.networks.nets.resnet import ResNet, ResNetEncoder

from .._options import look_up_option
from ..conv.factory import CONVOLUTIONS, use_conv
from .onnx_extra import check_onnx_export

RESNETS = tuple(ResNetEncoder.backbone_names)


def conv_context(conv: str, **options: Any) -> Any:
    """Context in which MONAI builds with the convolution `conv`: "conv" is torch's own.

    Raises:
        ValueError: for an unknown name, with a suggestion.
    """
    name = look_up_option(conv, ("conv", *CONVOLUTIONS))
    return nullcontext() if name == "conv" else use_conv(name, **options)


def build_resnet(
    model_name: str = "resnet18",
    conv: str = "crossd",
    spatial_dims: int = 2,
    n_input_channels: int = 1,
    num_classes: int = 2,
    *,
    widen_factor: float = 1.0,
    conv1_t_size: int | Sequence[int] = 7,
    conv1_t_stride: int | Sequence[int] = 2,
    no_max_pool: bool = False,
    feed_forward: bool = True,
    conv_options: dict[str, Any] | None = None,
) -> ResNet:
    """MONAI ResNet whose convolutions are Cross-D, ACS or plain; with the defaults, the paper's ResNet-18.

    Shortcuts are 1×1 convolutions without bias, as in torchvision, so that the network can be scripted and takes
    torchvision's weights.

    Args:
        model_name: "resnet10", "resnet18", ..., "resnet200".
        conv: "crossd", "acs" or "conv" (plain).
        spatial_dims: 2 or 3.
        n_input_channels: channels of the image.
        num_classes: outputs of the last layer.
        widen_factor: scales the width of every stage; 0.25 is 16 to 128 channels.
        conv1_t_size: kernel of the first convolution.
        conv1_t_stride: stride of the first convolution.
        no_max_pool: leave out the max pooling after it.
        feed_forward: end in a linear layer; without it the network gives pooled features.
        conv_options: further arguments of the layer, e.g. {"mode": "static"} for Cross-D in 3D.

    Raises:
        ValueError: for an unknown name, with a suggestion.
        OptionalImportError: If MONAI's onnx_export builds it and lacks its packages.

    Example:
        >>> import torch
        >>> build_resnet(widen_factor=0.25, num_classes=3)(torch.randn(2, 1, 64, 64)).shape
        torch.Size([2, 3])
    """
    check_onnx_export()
    builder = getattr(nets, look_up_option(model_name, RESNETS))
    with conv_context(conv, **(conv_options or {})):
        net: ResNet = builder(
            spatial_dims=spatial_dims,
            n_input_channels=n_input_channels,
            num_classes=num_classes,
            widen_factor=widen_factor,
            conv1_t_size=conv1_t_size,
            conv1_t_stride=conv1_t_stride,
            no_max_pool=no_max_pool,
            feed_forward=feed_forward,
            shortcut_type="B",
            bias_downsample=False,
        )
    return net


class CrossDResNetEncoder(ResNetEncoder):
    """MONAI's ResNet encoder with Cross-D convolutions: `FlexibleUNet(backbone="crossd_resnet18", ...)`.

    Args:
        model_name: "crossd_resnet10", ..., "crossd_resnet200".
        pretrained: must be False; weights come from a 2D network by `load_2d`.
        spatial_dims: 2 or 3.
        in_channels: channels of the image.

    Raises:
        ValueError: if `pretrained` is True.

    Example:
        >>> from monai.networks.nets import FlexibleUNet
        >>> net = FlexibleUNet(1, 2, "crossd_resnet10", spatial_dims=3, decoder_channels=(16, 8, 8, 4, 4))
        >>> type(net.encoder.layer1[0].conv1).__name__
        'CrossDConv3d'
    """

    backbone_names = tuple(f"crossd_{name}" for name in RESNETS)

    def __init__(self, model_name: str, pretrained: bool = False, spatial_dims: int = 3, in_channels: int = 1) -> None:
        if pretrained:
            raise ValueError(
                f"there are no pretrained weights of {model_name!r} to download: build it with pretrained=False and "
                "fill it by monai_crossd.load_2d(net.encoder, net2d)."
            )
        name = look_up_option(model_name, self.backbone_names).removeprefix("crossd_")
        with use_conv("crossd"):
            super().__init__(name, pretrained=False, spatial_dims=spatial_dims, in_channels=in_channels)

    @classmethod
    def get_encoder_parameters(cls) -> list[dict]:
        """Arguments that FlexibleUNet builds each backbone with."""
        return [
            {"model_name": name, "pretrained": False, "spatial_dims": 3, "in_channels": 1}
            for name in cls.backbone_names
        ]

    @classmethod
    def get_encoder_names(cls) -> list[str]:
        """Names to ask FlexibleUNet for."""
        return list(cls.backbone_names)


def register_backbones() -> None:
    """Put the Cross-D ResNets into MONAI's FLEXUNET_BACKBONE; done when monai_crossd is imported.

    A name that somebody else has taken stays theirs, with a warning.

    Example:
        >>> register_backbones()
        >>> "crossd_resnet18" in FLEXUNET_BACKBONE.register_dict
        True
    """
    before = dict(FLEXUNET_BACKBONE.register_dict)
    FLEXUNET_BACKBONE.register_class(CrossDResNetEncoder)
    for name in CrossDResNetEncoder.backbone_names:
        taken = before.get(name)
        if taken is not None and taken["type"].__qualname__ != CrossDResNetEncoder.__qualname__:
            FLEXUNET_BACKBONE.register_dict[name] = taken
            warnings.warn(
                f"FLEXUNET_BACKBONE has a {name!r} that is not monai_crossd's ({taken['type']!r}); it was left alone.",
                stacklevel=2,
            )
