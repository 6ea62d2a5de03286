# SPDX-License-Identifier: Apache-2.0
"""Whether 2D pretraining helps in 3D: scores by number of labelled volumes, or on many data sets as in the paper."""

from .comparisons import compare_averages, compare_methods, make_tables, resampled_t, summarize
from .curve import CurveStudy, Initialization, read_curve
from .curve_report import compare_curves, curve_points, save_curve, write_curve_report
from .curve_runner import run_curve
from .methods import METHODS, Method, initialize
from .paper import PRESETS, paper_dataset, paper_transforms, preset_studies, read_published
from .paper_datasets import PAPER_DATASETS, PaperDataset
from .plot import save_plot
from .report import write_report
from .runner import run_study
from .scores import table1_metrics, weighted_score
from .study import DataSpec, Source, Study, read_study

__all__ = [
    "METHODS",
    "PAPER_DATASETS",
    "PRESETS",
    "CurveStudy",
    "DataSpec",
    "Initialization",
    "Method",
    "PaperDataset",
    "Source",
    "Study",
    "compare_averages",
    "compare_curves",
    "compare_methods",
    "curve_points",
    "initialize",
    "make_tables",
    "paper_dataset",
    "paper_transforms",
    "preset_studies",
    "read_curve",
    "read_published",
    "read_study",
    "resampled_t",
    "run_curve",
    "run_study",
    "save_curve",
    "save_plot",
    "summarize",
    "table1_metrics",
    "weighted_score",
    "write_curve_report",
    "write_report",
]
