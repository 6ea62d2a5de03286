# SPDX-License-Identifier: Apache-2.0
"""Whether 2D pretraining helps in 3D: scores by number of labelled volumes, or on many data sets as in the paper."""

from .curve import CurveStudy, read_curve, run_curve
from .curve_report import write_curve_report
from .methods import METHODS
from .paper_datasets import PAPER_DATASETS
from .report import write_report
from .study import Study, preset_studies, read_study, run_study

__all__ = [
    "METHODS",
    "PAPER_DATASETS",
    "CurveStudy",
    "Study",
    "preset_studies",
    "read_curve",
    "read_study",
    "run_curve",
    "run_study",
    "write_curve_report",
    "write_report",
]
