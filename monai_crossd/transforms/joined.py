# SPDX-License-Identifier: Apache-2.0
"""A Compose from a list in which some entries are lists themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai.transforms import Compose

__all__ = ["join_transforms"]


def join_transforms(transforms: Sequence[Callable[[Any], Any] | Sequence]) -> Compose:
    """MONAI's Compose, for a config whose list of transforms names helpers that give lists.

    :func:`intensity_transforms` is such a helper. A Compose within a Compose would count as random, and cached data
    sets would stop caching before it.

    Args:
        transforms: Transforms, and lists of them.

    Returns:
        A Compose of all in their order.

    Example:
        .. code-block:: yaml

            preprocessing:
              _target_: monai_crossd.transforms.join_transforms
              transforms:
              - {_target_: LoadImaged, keys: image, ensure_channel_first: true}
              - {_target_: monai_crossd.transforms.intensity_transforms, modality: ct, window: lung}
    """
    joined: list[Callable[[Any], Any]] = []
    for entry in transforms:
        if isinstance(entry, Sequence):
            joined.extend(entry)
        else:
            joined.append(entry)
    return Compose(joined)
