# SPDX-License-Identifier: Apache-2.0
"""Names that published checkpoints give to the parameters of a ResNet, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class CheckpointFormat:
    """How one publisher names the parameters of a ResNet.

    Attributes:
        name: for messages.
        mark: a key that only this format has (regular expression).
        renames: regular expressions and what stands for them in MONAI's names, applied in order.
        bank: 5D kernels are Cross-D banks, not 3D kernels.
    """

    name: str
    mark: str
    renames: tuple[tuple[str, str], ...]
    bank: bool = False


FORMATS = (
    CheckpointFormat(
        "published Cross-D-Conv",
        r"weights_3d$",
        ((r"^module\.", ""), (r"weights_3d$", "weight"), (r"(^|\.)rotation_params\.", r"\1predictor.")),
        bank=True,
    ),
    CheckpointFormat(
        "RadImageNet (the children of torchvision's ResNet in an nn.Sequential)",
        r"^(module\.)?backbone\.4\.0\.conv1\.weight$",
        (
            (r"^module\.", ""),
            (r"^backbone\.0\.", "conv1."),
            (r"^backbone\.1\.", "bn1."),
            (r"^backbone\.4\.", "layer1."),
            (r"^backbone\.5\.", "layer2."),
            (r"^backbone\.6\.", "layer3."),
            (r"^backbone\.7\.", "layer4."),
        ),
    ),
    CheckpointFormat("monai_crossd", r"(^|\.)running_shift$", ((r"^module\.", ""),), bank=True),
    # torchvision and timm have MONAI's names, MedicalNet's are wrapped by DataParallel
    CheckpointFormat(
        "torchvision, timm, MedicalNet or MONAI ResNet", r"^(module\.)?layer1\.0\.conv1\.weight$", ((r"^module\.", ""),)
    ),
)

STEM = "conv1."  # what reads the image


def to_monai_names(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], CheckpointFormat]:
    """Rename a checkpoint's keys to MONAI's ResNet.

    Raises:
        ValueError: if no format is recognised, with those that are known.
    """
    for known in FORMATS:
        if any(re.search(known.mark, key) for key in state):
            renamed = {}
            for key, value in state.items():
                for pattern, replacement in known.renames:
                    key = re.sub(pattern, replacement, key)
                renamed[key] = value
            return renamed, known
    raise ValueError(
        f"no known checkpoint has keys like {next(iter(state))!r}; known are: {'; '.join(f.name for f in FORMATS)}. "
        "For another network of MONAI use transfer_weights."
    )


def adapt_channels(kernel: Tensor, channels: int) -> Tensor:
    """Kernel (O, I, ...) for images of another number of channels: each takes the sum over the old ones / channels.

    An image whose channels are equal, as a grey image shown in colour, gives the output that it gave before.

    Example:
        >>> import torch
        >>> adapt_channels(torch.ones(1, 3, 1, 1), 2).flatten()
        tensor([1.5000, 1.5000])
    """
    return kernel.sum(dim=1, keepdim=True).repeat_interleave(channels, dim=1) / channels
