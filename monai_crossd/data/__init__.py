# SPDX-License-Identifier: Apache-2.0
"""Data sets: their lists, checked, and how their images are read, prepared and kept.

A bundle asks its user for one word, ``dataset``; :func:`load_datalist` turns it into checked items, :func:`load_labels`
into the names of the structures and :func:`class_weights` into weights for a loss.
"""

from .caches import CACHES, EvaluationSampler, build_dataloader, build_dataset
from .checks import check_files, check_pairs
from .data_sets import ImageSets, balanced_sampler
from .datalist import DEMO_DIR, list_images, load_datalist, load_heads, load_labels
from .labels import class_weights
from .medmnist import MEDMNIST, MedMNIST
from .output_names import output_key, output_names
from .readers import read_shape
from .simpleitk import NpzReader, SimpleITKReader, SimpleITKWriter

__all__ = [
    "CACHES",
    "DEMO_DIR",
    "MEDMNIST",
    "EvaluationSampler",
    "ImageSets",
    "MedMNIST",
    "NpzReader",
    "SimpleITKReader",
    "SimpleITKWriter",
    "balanced_sampler",
    "build_dataloader",
    "build_dataset",
    "check_files",
    "check_pairs",
    "class_weights",
    "list_images",
    "load_datalist",
    "load_heads",
    "load_labels",
    "output_key",
    "output_names",
    "read_shape",
]
