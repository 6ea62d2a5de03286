# SPDX-License-Identifier: Apache-2.0
"""Phantoms as files: NIfTI, NRRD, MetaImage, DICOM or PNG."""

from __future__ import annotations

import locale
import uuid
from collections.abc import Mapping
from pathlib import Path

import SimpleITK as sitk

__all__ = ["FORMATS", "write_dicom", "write_image"]

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
