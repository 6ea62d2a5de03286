# SPDX-License-Identifier: Apache-2.0
"""Images of every format, opened one way: :func:`open_image` gives the grid from the header, or the voxels."""

from .image_file import ImageFile, open_image, read_shape

__all__ = ["ImageFile", "open_image", "read_shape"]
