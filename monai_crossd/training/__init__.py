# SPDX-License-Identifier: Apache-2.0
"""Handlers for MONAI's trainers and evaluators, to be named in a bundle's YAML by ``_target_``.

- :class:`BestCheckpoint` keeps the best weights;
- :class:`ClassificationReport` and :class:`MetricsReport` write scores with confidence intervals;
- :class:`EarlyStop` ends a training that no longer gets better;
- :class:`EpochSeed` makes an epoch the same whenever it is run;
- :class:`HistoryHandler` prints a line per epoch and writes its table and curves;
- :class:`LabelMapsHandler` writes the label maps that a segmentation predicts;
- :class:`OverlayHandler` draws validation cases;
- :class:`PredictionsHandler` writes what a classifier says;
- :class:`ResumeHandler` writes a checkpoint after every epoch and goes on from there;
- :class:`ShiftHandler` records the shifts that Cross-D layers predict;
- :class:`SkippedReport` lists the items that were left out;
- :class:`StopOnNaN` ends a training whose loss has become nan.

:class:`HybridTrainer` is a trainer, for images and volumes in the same run; :class:`BalancedAccuracy` is a metric.
:class:`HeadsLoss` and :class:`HeadScores` are for classifiers of several data sets, with a head for each.

:class:`RepeatedOneCycleLR` is a learning-rate schedule that a federated client does not come to the end of.

:func:`compare_runs` sets the tables of several runs beside each other, :func:`save_run_config` keeps a run's config,
:func:`start_from` fills a network from 2D weights, :func:`set_trainable` freezes what does not learn,
:func:`claim_folders` keeps other runs out of a run's folders, :func:`report_sections` says what a classifier trains on.
"""

from .checkpoint import BestCheckpoint
from .classification import BalancedAccuracy, classification_scores, confusion_counts
from .compare import compare_runs, print_best
from .data_report import SkippedReport, report_sections
from .epoch_seed import EpochSeed
from .finetune import FINETUNE_MODES, set_trainable
from .heads import HeadScores, HeadsLoss, by_head, head_labels, head_scores, head_slice, pick_head
from .history import HistoryHandler
from .messages import begin_run
from .metrics_report import ClassificationReport, MetricsReport
from .options import check_options
from .predictions import LabelMapsHandler, OverlayHandler, PredictionsHandler
from .resume import ResumeHandler
from .run_config import save_run_config
from .run_lock import claim_folders, release_folders
from .shift_handler import ShiftHandler
from .start import start_from
from .stopping import EarlyStop, StopOnNaN
from .trained import check_trained, describe_run, find_weights, trained, trained_network
from .trainer import HybridTrainer, RepeatedOneCycleLR, prepare_plain_batch

__all__ = [
    "FINETUNE_MODES",
    "BalancedAccuracy",
    "BestCheckpoint",
    "ClassificationReport",
    "EarlyStop",
    "EpochSeed",
    "HeadScores",
    "HeadsLoss",
    "HistoryHandler",
    "HybridTrainer",
    "LabelMapsHandler",
    "MetricsReport",
    "OverlayHandler",
    "PredictionsHandler",
    "RepeatedOneCycleLR",
    "ResumeHandler",
    "ShiftHandler",
    "SkippedReport",
    "StopOnNaN",
    "begin_run",
    "by_head",
    "check_options",
    "check_trained",
    "claim_folders",
    "classification_scores",
    "compare_runs",
    "confusion_counts",
    "describe_run",
    "find_weights",
    "head_labels",
    "head_scores",
    "head_slice",
    "pick_head",
    "prepare_plain_batch",
    "print_best",
    "release_folders",
    "report_sections",
    "save_run_config",
    "set_trainable",
    "start_from",
    "trained",
    "trained_network",
]
