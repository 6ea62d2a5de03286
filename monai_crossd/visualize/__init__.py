# SPDX-License-Identifier: Apache-2.0
"""Pictures of what a network learned, as PNG: overlays, curves, confusion matrices, Cross-D banks, shifts and features.

They are made by matplotlib, which is imported when one is drawn.
"""

from .bank import draw_bank
from .confusion import save_confusion
from .curves import save_curves
from .features import draw_features
from .overlay import overlay_figure, save_overlay
from .shifts import draw_shifts, read_shifts

__all__ = [
    "draw_bank",
    "draw_features",
    "draw_shifts",
    "overlay_figure",
    "read_shifts",
    "save_confusion",
    "save_curves",
    "save_overlay",
]
