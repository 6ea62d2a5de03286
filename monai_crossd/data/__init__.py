# SPDX-License-Identifier: Apache-2.0
"""Lists of data sets and the embedded demo data.

A bundle asks its user for one word, ``dataset``; :func:`load_datalist` turns it into checked items, :func:`load_labels`
into the names of the structures and :func:`class_weights` into weights for a loss. :func:`prepare_demo` writes the real
chest CT (one patient) that everything here runs on when no other data set is named.
"""

from .cache import CACHES, build_dataloader, build_dataset
from .class_weights import class_weights
from .datalist import DEMO_DIR, load_datalist, load_labels
from .demo import DEMO_SLICES, EMBEDDED, prepare_demo, prepare_embedded
from .folder import image_folder_datalist
from .headers import check_files, check_pairs, read_shape
from .images import list_images
from .medmnist import MedMNIST
from .medmnist_info import MEDMNIST
from .npz_reader import NpzReader, register_npz_reader
from .output_names import output_key, output_names
from .phantoms import make_phantom, prepare_phantoms
from .sampler import EvaluationSampler
from .sitk_reader import SimpleITKReader, register_sitk_reader
from .sitk_writer import SimpleITKWriter, register_sitk_writer

register_npz_reader()
register_sitk_reader()
register_sitk_writer()

__all__ = [
    "CACHES",
    "DEMO_DIR",
    "DEMO_SLICES",
    "EMBEDDED",
    "MEDMNIST",
    "EvaluationSampler",
    "MedMNIST",
    "NpzReader",
    "SimpleITKReader",
    "SimpleITKWriter",
    "build_dataloader",
    "build_dataset",
    "check_files",
    "check_pairs",
    "class_weights",
    "image_folder_datalist",
    "list_images",
    "load_datalist",
    "load_labels",
    "make_phantom",
    "output_key",
    "output_names",
    "prepare_demo",
    "prepare_embedded",
    "prepare_phantoms",
    "read_shape",
]
