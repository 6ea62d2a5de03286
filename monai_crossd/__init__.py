# SPDX-License-Identifier: Apache-2.0
"""Carry knowledge from 2D images into 3D MONAI networks."""

from ._version import __version__

__all__ = ["__version__"]
