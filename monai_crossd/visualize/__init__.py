# SPDX-License-Identifier: Apache-2.0
"""Pictures of what a network learned, as PNG: overlays, training curves, confusion matrices.

They need matplotlib, which comes with the extra ``demo``.
"""

from .confusion import save_confusion
from .curves import save_curves
from .overlay import overlay_figure, save_overlay

__all__ = ["overlay_figure", "save_confusion", "save_curves", "save_overlay"]
