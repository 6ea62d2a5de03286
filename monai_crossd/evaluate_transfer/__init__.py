# SPDX-License-Identifier: Apache-2.0
"""Whether 2D pretraining helps in 3D: the same folds for every initialisation, and what differs significantly."""

from .paired_test import holm, resampled_t
from .statistics import Comparison, Summary, compare_averages, compare_methods, summarise

__all__ = ["Comparison", "Summary", "compare_averages", "compare_methods", "holm", "resampled_t", "summarise"]
