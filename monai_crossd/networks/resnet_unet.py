# SPDX-License-Identifier: Apache-2.0
"""U-Net whose encoder is MONAI's ResNet, key by key, so that a pretrained classifier fills it; can be scripted.

References:
    O. Ronneberger, P. Fischer and T. Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.layers import Conv
from monai.networks.nets.basic_unet import TwoConv
from torch import Tensor, nn

from .resnet import build_resnet


class ResNetUNet(nn.Module):
    """U-Net with a ResNet encoder: skips from the image, the stem and the first three stages.

    Because the decoder resizes to the encoder's own sizes, images of any size and strides that differ by axis work
    (thick slices: `conv1_t_stride=(2, 2, 1)`). `encoder` has the keys of MONAI's ResNet; the decoder is of plain
    convolutions.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: channels of the output, one per class with the background.
        model_name: ResNet of the encoder.
        conv: convolution of the encoder, "crossd", "acs" or "conv".
        widen_factor: scales the encoder's width.
        conv1_t_size: kernel of the encoder's first convolution.
        conv1_t_stride: stride of the encoder's first convolution.
        no_max_pool: leave out the encoder's max pooling.
        decoder_channels: widths of the decoder, deepest first: one for each of four skips and one at full size.
        act: activation of the decoder.
        norm: norm of the decoder.
        dropout: of the decoder, 0 to 1.
        conv_options: further arguments of the encoder's layer.

    Shape:
        (B, in_channels, *spatial) to (B, out_channels, *spatial).

    Raises:
        ValueError: if `decoder_channels` has not five entries, or for an unknown name.

    Example:
        >>> net = ResNetUNet(3, 1, 4, widen_factor=0.125, decoder_channels=(16, 16, 8, 8, 8), conv1_t_stride=(2, 2, 1))
        >>> net(torch.randn(1, 1, 33, 32, 7)).shape
        torch.Size([1, 4, 33, 32, 7])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        model_name: str = "resnet18",
        conv: str = "crossd",
        *,
        widen_factor: float = 1.0,
        conv1_t_size: int | Sequence[int] = 7,
        conv1_t_stride: int | Sequence[int] = 2,
        no_max_pool: bool = False,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        act: str | tuple = ("relu", {"inplace": True}),
        norm: str | tuple = "batch",
        dropout: float | tuple = 0.0,
        conv_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(decoder_channels) != 5:
            raise ValueError(f"decoder_channels needs five widths, deepest first, got {tuple(decoder_channels)}.")
        self.encoder = build_resnet(
            model_name, conv, spatial_dims, in_channels, 1, widen_factor=widen_factor, conv1_t_size=conv1_t_size,
            conv1_t_stride=conv1_t_stride, no_max_pool=no_max_pool, feed_forward=False, conv_options=conv_options,
        )  # fmt: skip
        stages = [self.encoder.layer1, self.encoder.layer2, self.encoder.layer3, self.encoder.layer4]
        widths = [self.encoder.conv1.out_channels] + [
            stage[-1].conv1.out_channels * stage[-1].expansion for stage in stages
        ]
        skips = [*widths[-2::-1], in_channels]
        inputs = [widths[-1], *decoder_channels[:-1]]
        self.decoder = nn.ModuleList(
            TwoConv(spatial_dims, i + s, o, act, norm, bias=False, dropout=dropout)
            for i, s, o in zip(inputs, skips, decoder_channels, strict=True)
        )
        self.head = Conv[Conv.CONV, spatial_dims](decoder_channels[-1], out_channels, kernel_size=1)
        self.interpolation = "trilinear" if spatial_dims == 3 else "bilinear"

    def features(self, x: Tensor) -> list[Tensor]:
        """The image itself and the encoder's features, of the stem and of the four stages, deepest last."""
        stem = self.encoder.act(self.encoder.bn1(self.encoder.conv1(x)))
        first = self.encoder.layer1(stem if self.encoder.no_max_pool else self.encoder.maxpool(stem))
        second = self.encoder.layer2(first)
        third = self.encoder.layer3(second)
        return [x, stem, first, second, third, self.encoder.layer4(third)]

    def forward(self, x: Tensor) -> Tensor:
        """Segment: logits at the size of the image."""
        skips = self.features(x)
        y = skips[5]
        level = 4
        for block in self.decoder:
            skip = skips[level]
            y = F.interpolate(y, size=skip.shape[2:], mode=self.interpolation, align_corners=False)
            y = block(torch.cat([skip, y], dim=1))
            level -= 1
        return self.head(y)
