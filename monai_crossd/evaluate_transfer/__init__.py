# SPDX-License-Identifier: Apache-2.0
"""Whether 2D pretraining helps in 3D: the same folds for every initialisation, and what differs significantly."""

from .metrics import TABLE1_METRICS, table1_metrics
from .paired_test import holm, resampled_t
from .paper import PRESETS, LocatedDataset, paper_dataset, paper_transforms, read_published
from .paper_datasets import PAPER_DATASETS, PaperDataset
from .plot import save_plot
from .report import format_cost, format_report, write_report
from .statistics import Comparison, Summary, compare_averages, compare_methods, summarise
from .tables import Table, make_tables

__all__ = [
    "PAPER_DATASETS",
    "PRESETS",
    "TABLE1_METRICS",
    "Comparison",
    "LocatedDataset",
    "PaperDataset",
    "Summary",
    "Table",
    "compare_averages",
    "compare_methods",
    "format_cost",
    "format_report",
    "holm",
    "make_tables",
    "paper_dataset",
    "paper_transforms",
    "read_published",
    "resampled_t",
    "save_plot",
    "summarise",
    "table1_metrics",
    "write_report",
]
