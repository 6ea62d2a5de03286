# SPDX-License-Identifier: Apache-2.0
"""Phantoms as a data set on disk, split by subject."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.config import PathLike
from monai.utils import look_up_option

from ..prepared import prepare_once
from .files import FORMATS, write_image
from .phantom import CLASSES, MODALITIES, Phantom, make_phantom

__all__ = ["prepare_phantoms"]

_TASKS = ("segmentation", "classification")
WINDOW = (-160.0, 240.0)  # HU, of CT as PNG
_DESCRIPTION = (
    "Phantoms: {subjects} SYNTHETIC {modality} subjects made by monai_crossd, not patients. Good for trying the "
    "software; a result on them says nothing about patients. Training and validation are different subjects. "
    "A subject's class is decided by the lesion in its liver: {classes}."
)

logger = logging.getLogger(__name__)


def _rotation(degrees: float, generator: np.random.Generator) -> np.ndarray:
    """Rotation matrix (3, 3) about a random axis, by Rodrigues' formula."""
    x, y, z = (axis := generator.standard_normal(3)) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = math.radians(degrees)
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def _to_bytes(values: np.ndarray, modality: str) -> np.ndarray:
    """Grey values 0..255 for PNG: of CT a window, of MR up to the 99.5th percentile."""
    if values.dtype == np.uint8:
        return values
    low, high = WINDOW if modality == "CT" else (0.0, float(np.percentile(values, 99.5)))
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _to_image(values: np.ndarray, spacing: Sequence[float], origin: np.ndarray, direction: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing(spacing)
    image.SetOrigin(origin[: values.ndim].tolist())
    if values.ndim == 3:
        image.SetDirection(direction.ravel().tolist())
    return image


def _write_subject(phantom: Phantom, folder: Path, subject: int, arguments: dict[str, Any]) -> dict[str, Any]:
    """Writes one subject and returns its item."""
    patient, file_format = f"phantom{subject:04d}", arguments["file_format"]
    generator = np.random.default_rng([arguments["seed"], subject, 1])
    origin = generator.uniform(-200, 200, 3).round(2)
    direction = _rotation(arguments["tilt"], generator)
    modality = arguments["modality"][:2].upper()
    study = repr(sorted(arguments.items()))
    values = _to_bytes(phantom.image, modality) if file_format == "png" else phantom.image
    image, label = (_to_image(v, phantom.spacing, origin, direction) for v in (values, phantom.label))
    tags = {"modality": modality, "patient": patient, "study": study}
    item: dict[str, Any] = {"image": write_image(image, folder, f"imagesTr/{patient}", file_format, tags)}
    if arguments["task"] == "classification":
        return item | {"label": phantom.class_number, "patient": patient}
    # a series has no place for a label map; one slice stays a DICOM file, so that any reader gives both the same shape
    label_format = "nifti" if file_format == "dicom" and phantom.label.ndim == 3 else file_format
    item["label"] = write_image(label, folder, f"labelsTr/{patient}", label_format, tags | {"modality": "SEG"})
    return item | {"patient": patient}


def _held_out(subjects: int, num_classes: int, val_fraction: float, seed: int) -> set[int]:
    """Subjects for validation: of each class its share, at least one and not all."""
    held_out: set[int] = set()
    for number, generator in enumerate(np.random.default_rng([seed, subjects]).spawn(num_classes)):
        members = generator.permutation(np.arange(number, subjects, num_classes))
        count = min(max(1, round(len(members) * val_fraction)), len(members) - 1)
        held_out.update(members[:count].tolist())
    return held_out


def _write(folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    subjects, size, num_classes, seed = (arguments[key] for key in ("subjects", "size", "num_classes", "seed"))
    items = []
    for subject in range(subjects):
        phantom = make_phantom(arguments["modality"], subject, size, arguments["spacing"], seed, num_classes)
        items.append(_write_subject(phantom, folder, subject, arguments))
    held_out = _held_out(subjects, num_classes, arguments["val_fraction"], seed)
    sections = {
        "training": [item for subject, item in enumerate(items) if subject not in held_out],
        "validation": [items[subject] for subject in sorted(held_out)],
    }
    classes = CLASSES[:num_classes]
    names = phantom.names if arguments["task"] == "segmentation" else classes
    modality = arguments["modality"].upper()
    return {
        "name": f"{modality} phantoms",
        "description": _DESCRIPTION.format(subjects=subjects, modality=modality, classes=", ".join(classes)),
        "tensorImageSize": f"{len(size)}D",
        "modality": {"0": modality[:2]},
        "labels": {str(number): name for number, name in enumerate(names)},
        "numTraining": len(sections["training"]),
        **sections,
    }


def prepare_phantoms(
    modality: str,
    root: PathLike,
    task: str = "segmentation",
    subjects: int = 24,
    size: Sequence[int] = (64, 64, 32),
    spacing: Sequence[float] | None = None,
    file_format: str = "nifti",
    val_fraction: float = 0.25,
    seed: int = 0,
    num_classes: int = 3,
    tilt: float = 0.0,
) -> Path:
    """Writes phantoms as a data set in MONAI's decathlon form, or reuses it; they are synthetic, not patients.

    In "segmentation" the label is a map of organs, vessels and lesion; in "classification" it is the class of
    :func:`make_phantom`. Each item has a "patient", and no patient is in both sections; each class is in both.
    Every volume has a place of its own in space, so that its affine has to be read. Files are in DICOM's axes: x to
    the left, y to the back, z to the head.

    Args:
        modality: ``"ct"``, ``"mr"``, ``"mr_t1"`` or ``"us"``.
        root: folder that receives ``dataset.json`` and the files; it must be new, or from a call with equal arguments.
        task: ``"segmentation"`` or ``"classification"``.
        subjects: how many, at least two of each class.
        size: (X, Y, Z), or (X, Y) for one slice each.
        spacing: in mm; by default a little different in each subject.
        file_format: ``"nifti"``, ``"nrrd"``, ``"mha"``; ``"dicom"``: a folder with a series per subject (label maps are
            NIfTI on the same grid), or with (X, Y) one file; ``"png"``: (X, Y) alone, 8 bit (CT: -160 to 240 HU, MR: up
            to the 99.5th percentile).
        val_fraction: part of the subjects for validation.
        seed: of subjects and split.
        num_classes: 2 to 4.
        tilt: angle in degrees by which volumes are turned out of the patient's axes, each about another axis.

    Returns:
        The path of dataset.json.

    Raises:
        ValueError: When an argument is unknown or out of its range.
        FileExistsError: When ``root`` is there and holds something else.

    Example:
        >>> import json, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = prepare_phantoms("us", f"{folder}/us", "classification", 6, (32, 32), file_format="png")
        ...     json.loads(path.read_text())["training"][0]
        {'image': 'imagesTr/phantom0000.png', 'label': 0, 'patient': 'phantom0000'}
    """
    look_up_option(modality, MODALITIES)
    look_up_option(task, _TASKS)
    look_up_option(file_format, FORMATS)
    if file_format == "png" and len(size) != 2:
        raise ValueError(f"file_format is 'png' and size {tuple(size)}; PNG holds one slice: give (X, Y).")
    if tilt and (len(size) != 3 or file_format == "png"):
        raise ValueError(f"tilt is {tilt} and size {tuple(size)}; only a volume can be turned: give (X, Y, Z).")
    if subjects < 2 * num_classes:
        raise ValueError(f"subjects is {subjects}; expected at least {2 * num_classes}, two of each class.")
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}; expected a number between 0 and 1, both excluded.")
    arguments: dict[str, Any] = {
        "modality": modality,
        "task": task,
        "subjects": subjects,
        "size": list(size),
        "spacing": None if spacing is None else list(spacing),
        "file_format": file_format,
        "val_fraction": val_fraction,
        "seed": seed,
        "num_classes": num_classes,
        "tilt": tilt,
    }
    dataset = prepare_once(Path(root), partial(_write, arguments=arguments), arguments)
    logger.info("Phantoms (synthetic), %d subjects: %s", subjects, dataset)
    return dataset
