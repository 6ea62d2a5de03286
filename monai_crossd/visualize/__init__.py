# SPDX-License-Identifier: Apache-2.0
"""Pictures of what a network learned, as PNG: overlays of label maps and training curves.

They need matplotlib, which comes with the extra ``demo``.
"""

from .curves import save_curves
from .overlay import overlay_figure, save_overlay

__all__ = ["overlay_figure", "save_curves", "save_overlay"]
