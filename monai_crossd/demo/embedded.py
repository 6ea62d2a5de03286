# SPDX-License-Identifier: Apache-2.0
"""The embedded data as data sets: one real patient, cut along an axis, or phantoms; and the words that name them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monai.config import PathLike
from monai.utils import look_up_option

from .patient import BLOCK_DEPTH, DEMO_SOURCES, PATCH_SIZE, DemoSource, sample_blocks, sample_patches, to_isotropic
from .phantoms import MODALITIES, prepare_phantoms
from .prepared import prepare_once

__all__ = ["EMBEDDED", "prepare_demo", "prepare_embedded"]

SEED = 0
BLOCK_FRACTION = 4  # of the 2D patches: neighbouring blocks share most of their voxels
_SPLIT = (
    "Training and validation are different slices of the same patient, at least one slice apart: good for trying the "
    "software, says nothing about other patients."
)

logger = logging.getLogger(__name__)


def _cut(image: sitk.Image, axis: int, start: int, stop: int) -> sitk.Image:
    """Slices from ``start`` to before ``stop``; SimpleITK keeps the origin right."""
    return image[tuple(slice(start, stop) if a == axis else slice(None) for a in range(3))]


def _write_segmentation(folder: Path, source: DemoSource) -> dict:
    """Writes the sub-volumes as NIfTI and returns the content of dataset.json."""
    image, label, names = source.read()
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    sections: dict[str, list[dict]] = {}
    for section, ranges in source.slices.items():
        sections[section] = []
        for start, stop in ranges:
            item = {key: f"{key}sTr/{source.stem}_{start:02d}-{stop - 1:02d}.nii.gz" for key in ("image", "label")}
            # SimpleITK turns its LPS into NIfTI's RAS while writing
            sitk.WriteImage(_cut(image, source.axis, start, stop), str(folder / item["image"]))
            sitk.WriteImage(_cut(label, source.axis, start, stop), str(folder / item["label"]))
            sections[section].append(item)
    return {
        "name": source.name,
        "description": f"{source.origin} {_SPLIT}",
        "tensorImageSize": "3D",
        "modality": {"0": source.modality},
        "labels": {"0": "background"} | {str(value): name for value, name in names.items()},
        "numTraining": len(sections["training"]),
        **sections,
    }


def _write_picture(patch: np.ndarray, path: Path, source: DemoSource) -> None:
    # transposed, so that MONAI's readers give back the axis order of the volume
    sitk.WriteImage(sitk.GetImageFromArray(patch.T), str(path))


def _write_block(block: np.ndarray, path: Path, source: DemoSource) -> None:
    low, high = source.window
    values = np.rint(block / 255 * (high - low) + low).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([source.voxel] * 3 + [1])), path)


def _write_classification(folder: Path, source: DemoSource, blocks: bool = False) -> dict:
    """Writes 2D patches as PNG or 3D blocks as NIfTI in class folders and returns the content of dataset.json."""
    image, label, names = source.read()
    groups = source.classes or {name: (name,) for name in names.values()}
    class_of = {structure: number for number, group in enumerate(groups.values(), start=1) for structure in group}
    label = sitk.ChangeLabel(label, {value: class_of.get(name, 0) for value, name in names.items()})
    sample, write, suffix = (
        (sample_blocks, _write_block, ".nii.gz") if blocks else (sample_patches, _write_picture, ".png")
    )
    sections: dict[str, list[dict]] = {}
    for seed, (section, ranges) in enumerate(source.slices.items(), start=SEED):
        # each sub-volume is resampled alone, so no interpolation reaches across the margin
        pieces = [(_cut(image, source.axis, *limits), _cut(label, source.axis, *limits)) for limits in ranges]
        volumes = [to_isotropic(*piece, source.voxel, source.window) for piece in pieces]
        sections[section] = []
        counts = [0] * len(groups)
        number = source.patches[section] // (BLOCK_FRACTION if blocks else 1)
        for patch, value in sample(volumes, range(1, len(groups) + 1), number, seed):
            index = value - 1
            path = Path("images", section, list(groups)[index].replace(" ", "_"), f"{counts[index]:04d}{suffix}")
            counts[index] += 1
            (folder / path.parent).mkdir(parents=True, exist_ok=True)
            write(patch, folder / path, source)
            sections[section].append({"image": path.as_posix(), "label": index})
    low, high = source.window
    unit = "HU " if source.modality == "CT" else ""
    what = (
        f"Blocks of {PATCH_SIZE}x{PATCH_SIZE}x{BLOCK_DEPTH} voxels of {source.voxel:g} mm, {unit}{low:g}..{high:g}"
        if blocks
        else f"2D patches of {PATCH_SIZE}x{PATCH_SIZE} pixels of {source.voxel:g} mm in three slice orientations, "
        f"{unit}{low:g}..{high:g} as grey 0..255"
    )
    return {
        "name": f"{source.name} {'blocks' if blocks else 'patches'}",
        "description": f"{source.origin} {_SPLIT} {what}, labelled by the dominant structure at the center.",
        "tensorImageSize": "3D" if blocks else "2D",
        "modality": {"0": source.modality},
        "labels": {str(index): name for index, name in enumerate(groups)},
        "numTraining": len(sections["training"]),
        **sections,
    }


_WRITERS: dict[str, Callable[..., dict]] = {
    "segmentation": _write_segmentation,
    "classification": _write_classification,
    "classification_3d": partial(_write_classification, blocks=True),
}


@cache
def _announce(dataset: str) -> None:
    """Says it once, though a run asks for the labels and each section of its data."""
    logger.info("Embedded demo data, ONE patient, split by slices: %s", dataset)


def prepare_demo(task: str, root: PathLike, source: str = "chest_ct") -> Path:
    """Writes a real volume of one patient as a data set below ``root``, or reuses the one that is there.

    ``"segmentation"`` gives NIfTI sub-volumes with all structures; ``"classification"`` gives class-balanced 2D patches
    (PNG) of the same training and validation slices, so that a network pretrained on them has never seen a validation
    slice; ``"classification_3d"`` 3D blocks (NIfTI) of them. The classes are the structures (of vertebrae: groups of
    them); background is no class. All are the same at each call. Validation slices are of the same patient as
    the training slices: a high score there shows that the software works, and nothing more.

    - ``"chest_ct"``: the CT of the package slicerio, seven structures, 10 mm slices.
    - ``"vertebrae_ct"``, ``"vertebrae_mr"``: CT and T2-weighted MR of three vertebrae each, of the package TPTBox, with
      its subregions of a vertebra, 1.5 mm voxels, axes to the back, down and to the right.

    Args:
        task: ``"segmentation"``, ``"classification"`` or ``"classification_3d"``.
        root: folder that receives ``<task>/dataset.json`` and the files it names, for vertebrae
            ``<source>/<task>/dataset.json``. The set is made under a temporary name and moved into place when complete.
        source: which volume.

    Returns:
        The path of dataset.json, in MONAI's decathlon form with the sections "training" and "validation".

    Raises:
        ValueError: When ``task`` or ``source`` is unknown.
        FileExistsError: When the folder of the set is there and holds no dataset.json.
        OptionalImportError: When the package that holds the volume is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     prepare_demo("segmentation", folder).relative_to(folder).as_posix()
        'segmentation/dataset.json'
    """
    write, volume = look_up_option(task, _WRITERS), look_up_option(source, DEMO_SOURCES)
    folder = Path(root) if source == "chest_ct" else Path(root, source)
    dataset = prepare_once(folder / task, partial(write, source=volume))
    _announce(str(dataset))
    return dataset


def _phantoms(task: str, root: PathLike, modality: str, flat: bool) -> Path:
    folder = Path(root, f"phantom_{modality}_{'2d' if flat else '3d'}", task)
    if flat:  # one slice says less than a volume
        return prepare_phantoms(modality, folder, task, subjects=240, size=(64, 64), file_format="png")
    return prepare_phantoms(modality, folder, task)


def _blocks(task: str, root: PathLike, source: str) -> Path:
    look_up_option(task, ("classification",))
    return prepare_demo("classification_3d", root, source)


EMBEDDED: dict[str, Callable[[str, PathLike], Path]] = {
    "demo": prepare_demo,
    **{f"demo:{source}": partial(prepare_demo, source=source) for source in DEMO_SOURCES},
    **{f"demo:{source}:3d": partial(_blocks, source=source) for source in DEMO_SOURCES},
    **{f"phantom:{modality}": partial(_phantoms, modality=modality, flat=False) for modality in MODALITIES},
    **{f"phantom:{modality}:2d": partial(_phantoms, modality=modality, flat=True) for modality in MODALITIES},
}


def prepare_embedded(word: str, task: str, root: PathLike) -> Path:
    """Writes the data set that a word names below ``root``, or reuses it.

    - ``"demo"`` or ``"demo:chest_ct"``, ``"demo:vertebrae_ct"``, ``"demo:vertebrae_mr"``: ONE real patient each, see
      :func:`prepare_demo`; with ``":3d"`` behind it, for classification, blocks of volumes in place of 2D patches.
    - ``"phantom:ct"``, ``"phantom:mr"``, ``"phantom:mr_t1"``, ``"phantom:us"``: 24 synthetic subjects, volumes of
      64x64x32 as NIfTI; with ``":2d"`` behind it, 240 of one slice of 64x64 as PNG; see
      :func:`~monai_crossd.demo.prepare_phantoms`.

    Args:
        word: one of these, the keys of ``EMBEDDED``.
        task: ``"segmentation"`` or ``"classification"``.
        root: folder that receives the set; sets do not touch each other.

    Returns:
        The path of dataset.json.

    Raises:
        ValueError: When ``word`` or ``task`` is unknown.
        OptionalImportError: When the package that holds a real volume is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = prepare_embedded("phantom:ct", "segmentation", folder)
        ...     path.relative_to(folder).as_posix()
        'phantom_ct_3d/segmentation/dataset.json'
    """
    return look_up_option(word, EMBEDDED)(task, root)
