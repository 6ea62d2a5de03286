# SPDX-License-Identifier: Apache-2.0
"""Networks that the bundles name: MONAI's ResNet with our convolutions, and a U-Net around it."""

from .resnet import CrossDResNetEncoder, build_resnet, register_backbones
from .segmentation import ResNetUNet

__all__ = ["CrossDResNetEncoder", "ResNetUNet", "build_resnet", "register_backbones"]
