# SPDX-License-Identifier: Apache-2.0
"""Batches of plain tensors for a network."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines.utils import default_prepare_batch

__all__ = ["prepare_plain_batch"]


def prepare_plain_batch(
    batchdata: Any, device: str | torch.device | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """MONAI's way to prepare a batch, with plain tensors in place of MetaTensors.

    Each operation on a MetaTensor is a call of Python, and torch warns of the gradients of some. The meta stays
    where it is needed: in ``engine.state.batch``, and in what SlidingWindowInferer makes, which takes it off itself.

    Args:
        batchdata: as MONAI's trainers and evaluators get it.
        device: that the tensors are moved to.
        non_blocking: of ``Tensor.to``.
        **kwargs: others of ``Tensor.to``.

    Returns:
        Image, and label or None.

    Example:
        >>> from monai.data import MetaTensor
        >>> image, label = prepare_plain_batch({"image": MetaTensor(torch.zeros(1, 1, 4, 4)), "label": torch.zeros(1)})
        >>> type(image).__name__, type(label).__name__
        ('Tensor', 'Tensor')
    """
    image, label = default_prepare_batch(batchdata, device, non_blocking, **kwargs)
    return image.as_subclass(torch.Tensor), None if label is None else label.as_subclass(torch.Tensor)
