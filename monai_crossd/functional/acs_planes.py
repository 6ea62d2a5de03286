# SPDX-License-Identifier: Apache-2.0
"""How a 2D kernel stands in the three views of a 3D kernel, and which output channels belong to which view."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ._geometry import constants


def view_channels(out_channels: int) -> list[int]:
    """Output channels of the three views: as equal as possible, the remainder to the earlier ones.

    Example:
        >>> view_channels(64)
        [22, 21, 21]
    """
    return [(out_channels + 2 - view) // 3 for view in range(3)]


def plane_shape(kernel_size: Sequence[int]) -> tuple[int, int]:
    """Shape of the 2D kernel that serves the three views of a (k1, k2, k3) kernel.

    The views of a cube share one k×k shape. Otherwise the 2D kernel is as large as any view needs, and a smaller view
    uses its centre.
    """
    k1, k2, k3 = kernel_size
    return max(k1, k2), max(k2, k3)


def _centre(weight: Tensor, height: int, width: int) -> Tensor:
    shape = constants(list(weight.shape))
    top, left = shape[2] // 2 - height // 2, shape[3] // 2 - width // 2
    return weight[:, :, top : top + height, left : left + width]


def fit_plane(kernel: Tensor, kernel_size: Sequence[int]) -> Tensor:
    """A 2D kernel (O, I, kh, kw) as the weight for a 3D kernel size: zeros around it where that has a larger plane.

    Raises:
        ValueError: if the kernel is larger than the plane.
    """
    height, width = plane_shape(kernel_size)
    if kernel.shape[2] > height or kernel.shape[3] > width:
        raise ValueError(
            f"a {kernel.shape[2]}×{kernel.shape[3]} kernel does not fit the {height}×{width} plane of a kernel of size "
            f"{tuple(kernel_size)}."
        )
    top, left = height // 2 - kernel.shape[2] // 2, width // 2 - kernel.shape[3] // 2
    return F.pad(kernel, [left, width - left - kernel.shape[3], top, height - top - kernel.shape[2]])


def view_kernel(weight: Tensor, view: int, kernel_size: list[int]) -> Tensor:
    """2D kernels (O, I, kh, kw) as 3D kernels that are flat across axis `view`."""
    size = kernel_size[:view] + kernel_size[view + 1 :]
    return _centre(weight, size[0], size[1]).unsqueeze(view + 2)


def view_pads(pads: list[int], view: int, kernel_size: list[int], dilation: list[int]) -> list[int]:
    """Padding for a kernel that is flat across axis `view` and stands at k // 2 of a kernel of size k there."""
    k, d = kernel_size[view], dilation[view]
    out = pads.copy()
    out[2 * view] -= d * (k // 2)
    out[2 * view + 1] -= d * (k - 1 - k // 2)
    return out
