# SPDX-License-Identifier: Apache-2.0
"""Handlers for MONAI's trainers and evaluators, to be named in a bundle's YAML by ``_target_``.

- :class:`HistoryHandler` prints a line per epoch and writes its table and curves;
- :class:`OverlayHandler` draws validation cases;
- :class:`StopOnNaN` ends a training whose loss has become nan.

:func:`compare_runs` sets the tables of several runs beside each other.
"""

from .compare import best_scores, compare_runs
from .history import as_curves, read_history, write_history
from .history_handler import HistoryHandler
from .overlay_handler import OverlayHandler
from .stop_on_nan import StopOnNaN

__all__ = [
    "HistoryHandler",
    "OverlayHandler",
    "StopOnNaN",
    "as_curves",
    "best_scores",
    "compare_runs",
    "read_history",
    "write_history",
]
