# SPDX-License-Identifier: Apache-2.0
"""Networks that the bundles name: MONAI's ResNet with our convolutions, a U-Net around it, and a pair in 2D and 3D."""

from .hybrid_net import HybridNet
from .resnet import CrossDResNetEncoder, build_resnet, register_backbones
from .resnet_unet import ResNetUNet

__all__ = ["CrossDResNetEncoder", "HybridNet", "ResNetUNet", "build_resnet", "register_backbones"]
