# SPDX-License-Identifier: Apache-2.0
"""Whether 2D pretraining helps in 3D: the same folds for every initialisation, and what differs significantly."""

from .folds import draw_per_class, make_folds
from .learning import Schedule, fine_tune, fit
from .methods import METHODS, PRETRAININGS, Method, initialise
from .metrics import TABLE1_METRICS, table1_metrics
from .paired_test import holm, resampled_t
from .paper import PRESETS, LocatedDataset, paper_dataset, paper_transforms, read_published
from .paper_datasets import PAPER_DATASETS, PaperDataset
from .plot import save_plot
from .preset import PresetStudy, preset_studies
from .report import format_cost, format_report, write_report
from .runner import run_study
from .statistics import Comparison, Summary, compare_averages, compare_methods, summarise
from .study import Cell, DataSpec, Source, Study, read_study
from .tables import Table, make_tables

__all__ = [
    "METHODS",
    "PAPER_DATASETS",
    "PRESETS",
    "PRETRAININGS",
    "TABLE1_METRICS",
    "Cell",
    "Comparison",
    "DataSpec",
    "LocatedDataset",
    "Method",
    "PaperDataset",
    "PresetStudy",
    "Schedule",
    "Source",
    "Study",
    "Summary",
    "Table",
    "compare_averages",
    "compare_methods",
    "draw_per_class",
    "fine_tune",
    "fit",
    "format_cost",
    "format_report",
    "holm",
    "initialise",
    "make_folds",
    "make_tables",
    "paper_dataset",
    "paper_transforms",
    "preset_studies",
    "read_published",
    "read_study",
    "resampled_t",
    "run_study",
    "save_plot",
    "summarise",
    "table1_metrics",
    "write_report",
]
