# SPDX-License-Identifier: Apache-2.0
"""Handlers for MONAI's trainers and evaluators, to be named in a bundle's YAML by ``_target_``.

- :class:`ClassificationReport` and :class:`MetricsReport` write scores with confidence intervals;
- :class:`HistoryHandler` prints a line per epoch and writes its table and curves;
- :class:`OverlayHandler` draws validation cases;
- :class:`PredictionsHandler` writes what a classifier says;
- :class:`StopOnNaN` ends a training whose loss has become nan.

:func:`compare_runs` sets the tables of several runs beside each other, :func:`save_run_config` keeps a run's config,
:func:`set_trainable` freezes what does not learn.
"""

from .best import print_best
from .bootstrap import bootstrap_mean
from .classification import classification_scores, confusion_counts
from .classification_report import ClassificationReport
from .compare import best_scores, compare_runs
from .finetune import FINETUNE_MODES, Trainable, set_trainable
from .history import as_curves, read_history, write_history
from .history_handler import HistoryHandler
from .overlay_handler import OverlayHandler
from .predictions_handler import PredictionsHandler
from .report import MetricsReport, case_scores
from .run_config import save_run_config
from .scores import Score, format_scores, write_csv
from .stop_on_nan import StopOnNaN

__all__ = [
    "FINETUNE_MODES",
    "ClassificationReport",
    "HistoryHandler",
    "MetricsReport",
    "OverlayHandler",
    "PredictionsHandler",
    "Score",
    "StopOnNaN",
    "Trainable",
    "as_curves",
    "best_scores",
    "bootstrap_mean",
    "case_scores",
    "classification_scores",
    "compare_runs",
    "confusion_counts",
    "format_scores",
    "print_best",
    "read_history",
    "save_run_config",
    "set_trainable",
    "write_csv",
    "write_history",
]
