# SPDX-License-Identifier: Apache-2.0
"""A network without our layers: each becomes the plain torch convolution it is equal to."""

from __future__ import annotations

from torch import nn

from ..conv.base import ConvBase
from .tree import map_modules


def to_plain(net: nn.Module) -> nn.Module:
    """Copy of a network with plain torch convolutions, for use where monai_crossd is not installed.

    ACS, soft ACS, planar and static Cross-D layers keep their output. A Cross-D layer that predicts its shift gets the
    kernel at its running shift, so the output changes as far as the shift varies from sample to sample: evaluate the
    frozen network before you use it. What pickles without monai_crossd is a network whose own class is not of this
    package (MONAI's, torchvision's); of others, save the state_dict or the scripted network.

    Args:
        net: any network, 2D or 3D; it is not changed.

    Returns:
        The copy, in the same mode, on the same device and of the same dtype.

    Example:
        >>> import torch
        >>> from monai_crossd import ACSConv3d
        >>> net, x = nn.Sequential(ACSConv3d(1, 6, 3), nn.ReLU()), torch.randn(1, 1, 5, 5, 5)
        >>> frozen = to_plain(net)
        >>> type(frozen[0]).__name__, bool(torch.allclose(frozen(x), net(x), atol=1e-6))
        ('Conv3d', True)
    """
    return map_modules(net, lambda path, module: module.to_plain() if isinstance(module, ConvBase) else None)
