# SPDX-License-Identifier: Apache-2.0
"""Names that published checkpoints give to the parameters of a ResNet, as data."""

from __future__ import annotations

import re
from collections.abc import Collection
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

    def rename(self, key: str) -> str:
        """The name in MONAI."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


FORMATS = (
    CheckpointFormat(
        "published Cross-D-Conv",
        r"weights_3d$",
        ((r"weights_3d$", "weight"), (r"(^|\.)rotation_params\.", r"\1predictor.")),
        bank=True,
    ),
    CheckpointFormat(
        "RadImageNet (the children of torchvision's ResNet in an nn.Sequential)",
        r"^backbone\.4\.0\.conv1\.weight$",
        (
            (r"^backbone\.0\.", "conv1."),
            (r"^backbone\.1\.", "bn1."),
            (r"^backbone\.4\.", "layer1."),
            (r"^backbone\.5\.", "layer2."),
            (r"^backbone\.6\.", "layer3."),
            (r"^backbone\.7\.", "layer4."),
        ),
    ),
    CheckpointFormat("monai_crossd", r"(^|\.)(running_shift|predictor\.0\.weight)$", (), bank=True),
    # all have MONAI's names
    CheckpointFormat("torchvision, timm, MedicalNet or MONAI ResNet", r"^layer1\.0\.conv1\.weight$", ()),
)
STEM = "conv1."  # what reads the image


def recognise(state: Collection[str]) -> CheckpointFormat | None:
    """Format of a checkpoint's keys, without prefixes of wrappers; None if it is not known."""
    return next((known for known in FORMATS if any(re.search(known.mark, key) for key in state)), None)


def to_monai_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a checkpoint's keys to MONAI's ResNet, if the format is known."""
    known = recognise(state)
    return state if known is None else {known.rename(key): value for key, value in state.items()}
