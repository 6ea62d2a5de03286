# SPDX-License-Identifier: Apache-2.0
"""Phantoms: synthetic subjects for CT, MR and ultrasound, one at a time and as a data set on disk."""

from __future__ import annotations

import locale
import logging
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from monai.config import PathLike
from monai.utils import look_up_option

from .acquisition import SEQUENCES, acquire_ct, acquire_mr, acquire_us
from .anatomy import CLASSES, LIVER_NAMES, TORSO_NAMES, liver, torso
from .prepared import prepare_once

__all__ = [
    "CLASSES",
    "FORMATS",
    "MODALITIES",
    "Phantom",
    "make_phantom",
    "prepare_phantoms",
    "write_dicom",
    "write_image",
]

logger = logging.getLogger(__name__)


class _Modality(NamedTuple):
    anatomy: Callable
    acquire: Callable
    names: tuple[str, ...]
    extent: tuple[float, float, float]  # usual field of view in mm


_TORSO_EXTENT = (360.0, 360.0, 200.0)
_MODALITIES = {
    "ct": _Modality(torso, acquire_ct, TORSO_NAMES, _TORSO_EXTENT),
    **{name: _Modality(torso, partial(acquire_mr, sequence=name), TORSO_NAMES, _TORSO_EXTENT) for name in SEQUENCES},
    "us": _Modality(liver, acquire_us, LIVER_NAMES, (120.0, 120.0, 70.0)),
}
MODALITIES = tuple(_MODALITIES)
SMALLEST = 16  # pixels along an axis of a slice: a lesion is then two or three pixels wide
MOST_POINTS = 5  # through one thick slice


class Phantom(NamedTuple):
    """A synthetic subject.

    Attributes:
        image: (X, Y, Z) or (X, Y); x to the left, y to the back (ultrasound: into depth), z to the head. CT: HU, int16;
            MR: int16; ultrasound: uint8.
        label: uint8, same shape, numbers of ``names``.
        class_number: index into :data:`CLASSES`.
        names: of the labels.
        spacing: in mm.
    """

    image: np.ndarray
    label: np.ndarray
    class_number: int
    names: tuple[str, ...]
    spacing: tuple[float, ...]


def _spacing(size: Sequence[int], extent: Sequence[float], generator: np.random.Generator) -> tuple[float, ...]:
    pixel = extent[0] / max(size[:2])
    usual = (pixel, pixel, *(extent[2] / n for n in size[2:]))
    return tuple(
        round(s * f, 4) for s, f in zip(usual, np.repeat(generator.uniform(0.9, 1.1, 2), (2, 1)), strict=False)
    )


def make_phantom(
    modality: str,
    subject: int,
    size: Sequence[int] = (64, 64, 32),
    spacing: Sequence[float] | None = None,
    seed: int = 0,
    num_classes: int = 3,
) -> Phantom:
    """Makes one synthetic subject; the same arguments give the same voxels, whatever else is made.

    The anatomy fills the field of view, so that any size shows all of it. Organs are deformed superellipsoids. What
    decides the class of a subject is its lesion, all else has the same distribution in every class:

    - 0, no lesion: vessels alone;
    - 1, solid lesion: a sphere;
    - 2, shell lesion: a sphere with a core of healthy tissue;
    - 3, lobulated lesion: five spheres grown together.

    Vessels and lesion are one tissue, and in class 0 one more vessel stands in the lesion's place with about as much of
    it. So neither mean intensity nor the amount of that tissue tells; a vessel cut across is as round as a lesion and
    differs by going on through the slices. In a phantom of one slice the vessels run within it.

    - CT: Hounsfield units, partial volume, thick slices, blur and grainy noise.
    - MR (T2-weighted ``"mr"``, T1-weighted ``"mr_t1"``): spin-echo signal, bias field, Rician noise, arbitrary scale.
    - Ultrasound: Rayleigh speckle of an anisotropic point spread, attenuation, a rib with its shadow, log compression,
      a fan or a rectangle as field of view.

    Subject i has the same torso in CT and both kinds of MR.

    Args:
        modality: ``"ct"``, ``"mr"``, ``"mr_t1"`` or ``"us"``.
        subject: number from 0; ``subject % num_classes`` is its class.
        size: (X, Y, Z), or (X, Y) for one slice; X and Y at least 16.
        spacing: of the voxels in mm, one number per axis. By default the one at which the anatomy has a human's size,
            a little different in each subject.
        seed: of the whole set.
        num_classes: 2 to 4, the first so many of :data:`CLASSES`.

    Raises:
        ValueError: When an argument is out of its range.

    Example:
        >>> phantom = make_phantom("ct", subject=4, size=(32, 32, 8))
        >>> phantom.image.shape, phantom.image.dtype, CLASSES[phantom.class_number]
        ((32, 32, 8), dtype('int16'), 'solid lesion')
        >>> phantom.names[phantom.label[0, 0, 0]], bool(phantom.image[0, 0, 0] < -900)
        ('background', True)
    """
    recipe = look_up_option(modality, _MODALITIES)
    if len(size) not in (2, 3) or min(size[:2]) < SMALLEST or size[-1] < 1:
        raise ValueError(f"size is {tuple(size)}; expected (X, Y) or (X, Y, Z) with X and Y at least {SMALLEST}.")
    if subject < 0 or seed < 0:
        raise ValueError(f"subject is {subject} and seed {seed}; expected integers from 0.")
    if not 2 <= num_classes <= len(CLASSES):
        raise ValueError(f"num_classes is {num_classes}; expected 2 to {len(CLASSES)}: {CLASSES}.")
    anatomy, focus, physics = (np.random.default_rng(s) for s in np.random.SeedSequence([seed, subject]).spawn(3))
    usual = _spacing(size, recipe.extent, anatomy)
    if spacing is None:
        spacing = usual
    if len(spacing) != len(size) or min(spacing) <= 0:
        raise ValueError(f"spacing is {tuple(spacing)}; expected {len(size)} positive numbers, in mm.")
    # one slice is as thick as a pixel is wide
    grid, step = ((*a, *b)[:3] for a, b in ((size, (1,)), (spacing, (spacing[0],))))
    half = np.array([n * s / 2 for n, s in zip(grid, step, strict=True)])
    flat = grid[2] == 1
    if flat:
        half[2] = half[0]  # of the organs that the slice is cut from
    through = 1 if flat else min(MOST_POINTS, 2 * max(0, round((step[2] / step[0] - 1) / 2)) + 1)
    counts = np.array(grid) * (1, 1, through)
    steps = np.array(step) / (1, 1, through)
    x, y, z = (((np.arange(n) + 0.5 - n / 2) * s).astype(np.float32) for n, s in zip(counts, steps, strict=True))
    points = (x[:, None, None], y[None, :, None], z[None, None, :])
    kind = CLASSES[subject % num_classes]
    scene = recipe.anatomy(half, flat, kind, anatomy, focus)
    image, label = recipe.acquire(scene, points, step, grid[2], physics)
    shape = tuple(size)
    return Phantom(image.reshape(shape), label.reshape(shape), subject % num_classes, recipe.names, tuple(spacing))


_TASKS = ("segmentation", "classification")
WINDOW = (-160.0, 240.0)  # HU, of CT as PNG
_DESCRIPTION = (
    "Phantoms: {subjects} SYNTHETIC {modality} subjects made by monai_crossd, not patients. Good for trying the "
    "software; a result on them says nothing about patients. Training and validation are different subjects. "
    "A subject's class is decided by the lesion in its liver: {classes}."
)


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
    *,
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


FORMATS = {"nifti": ".nii.gz", "nrrd": ".nrrd", "mha": ".mha", "dicom": ".dcm", "png": ".png"}
SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "SEG": "1.2.840.10008.5.1.4.1.1.7",  # a label map of one slice, as secondary capture
}


def _uid(*names: str) -> str:
    """A DICOM identifier that is the same at each call."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, '/'.join(('monai_crossd', *names))).int}"


def _tags(image: sitk.Image, index: int, modality: str, patient: str, study: str) -> dict[str, str]:
    x, y, z = image.GetSpacing()
    direction = image.GetDirection()
    tags = {
        "0008|0016": SOP_CLASSES[modality],
        "0008|0018": _uid(study, patient, modality, str(index)),
        "0008|0020": "20000101",
        "0008|0030": "120000",
        "0008|0060": "OT" if modality == "SEG" else modality,
        "0010|0010": f"Phantom^{patient}",
        "0010|0020": patient,
        "0018|0050": f"{z:.10g}",
        "0018|0088": f"{z:.10g}",
        "0020|000d": _uid(study, patient),
        "0020|000e": _uid(study, patient, modality),
        "0020|0011": "1",
        "0020|0013": str(index + 1),
        "0020|0032": "\\".join(f"{v:.10g}" for v in image.TransformIndexToPhysicalPoint((0, 0, index))),
        "0020|0037": "\\".join(f"{direction[i]:.10g}" for i in (0, 3, 6, 1, 4, 7)),
        "0020|0052": _uid(study, patient, "frame of reference"),
        "0028|0030": f"{y:.10g}\\{x:.10g}",
    }
    if modality == "CT":
        tags |= {"0028|1052": "-1024", "0028|1053": "1", "0028|1054": "HU"}
    return tags


def write_dicom(image: sitk.Image, path: Path, modality: str, patient: str, study: str) -> None:
    """Writes a volume as a series, one file per slice, or a volume of one slice as one file.

    Args:
        image: three-dimensional.
        path: a folder to make; of one slice the file.
        modality: a key of :data:`SOP_CLASSES`.
        patient: patient ID, also in the name.
        study: what else tells this patient from others, for the identifiers.
    """
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    slices = image.GetDepth()
    if slices > 1:
        path.mkdir(parents=True)
    before = locale.setlocale(locale.LC_ALL)
    try:
        for index in range(slices):
            piece = image[:, :, index]
            for key, value in _tags(image, index, modality, patient, study).items():
                piece.SetMetaData(key, value)
            writer.SetFileName(str(path / f"{index:04d}.dcm" if slices > 1 else path))
            writer.Execute(piece)
    finally:
        # GDCM leaves the C locale behind, in which torch.compile cannot read its own files
        locale.setlocale(locale.LC_ALL, before)


def write_image(image: sitk.Image, folder: Path, name: str, file_format: str, tags: Mapping[str, str]) -> str:
    """Writes one image into ``folder``.

    Args:
        image: with two axes, or three.
        folder: of the data set.
        name: path below ``folder`` without suffix.
        file_format: a key of :data:`FORMATS`.
        tags: ``modality``, ``patient`` and ``study`` of :func:`write_dicom`.

    Returns:
        The path below ``folder``; of a DICOM series that of its folder.
    """
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    if file_format != "dicom":
        sitk.WriteImage(image, str(folder / f"{name}{FORMATS[file_format]}"), useCompression=True)
        return f"{name}{FORMATS[file_format]}"
    volume = image if image.GetDimension() == 3 else sitk.JoinSeries(image)
    path = name if volume.GetDepth() > 1 else f"{name}.dcm"
    write_dicom(volume, folder / path, **tags)
    return path
