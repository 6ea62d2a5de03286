# SPDX-License-Identifier: Apache-2.0
"""Data sets: their lists, checked, and how their images are read, prepared and kept.

A bundle asks its user for one word, ``dataset``; :func:`load_datalist` turns it into checked items, :func:`load_labels`
into the names of the structures and :func:`class_weights` into weights for a loss.
"""

from ..demo import EMBEDDED as EMBEDDED
from ..demo import make_phantom as make_phantom
from ..demo import prepare_demo as prepare_demo
from ..demo import prepare_embedded as prepare_embedded
from ..demo import prepare_phantoms as prepare_phantoms
from .cache import CACHES, build_dataloader, build_dataset
from .class_weights import class_weights
from .datalist import DEMO_DIR, load_datalist, load_heads, load_labels
from .folder import image_folder_datalist as image_folder_datalist
from .headers import check_files, check_pairs, read_shape
from .image_sets import ImageSets, balanced_sampler
from .images import list_images
from .medmnist import MedMNIST
from .medmnist_info import MEDMNIST
from .npz_reader import NpzReader, register_npz_reader
from .output_names import output_key, output_names
from .sampler import EvaluationSampler
from .sitk_reader import SimpleITKReader, register_sitk_reader
from .sitk_writer import SimpleITKWriter, register_sitk_writer

register_npz_reader()
register_sitk_reader()
register_sitk_writer()

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
