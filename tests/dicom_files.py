# SPDX-License-Identifier: Apache-2.0
"""DICOM files made by pydicom, and the volume that they mean, put together from what pydicom reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut, apply_rescale

CT, MR, PET, XRAY = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "4", "128", "1.1"))
ENHANCED_CT, ENHANCED_MR, CINE = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2.1", "4.1", "7.2"))
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (0.36, -0.8, 0.48, 0.48, 0.6, 0.64)


def item(**values) -> pydicom.Sequence:
    one = pydicom.Dataset()
    for key, value in values.items():
        setattr(one, key, value)
    return pydicom.Sequence([one])


def new(stored: np.ndarray, sop: str, bits: int | None = None, **tags) -> pydicom.Dataset:
    """A data set with the pixels of `stored` (rows, columns) or (frames, rows, columns)."""
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = pydicom.uid.generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3.9", "1.2.3.1", "1.2.3.8"
    ds.Modality, ds.PatientID, ds.PatientName, ds.InstanceNumber, ds.SeriesNumber = "CT", "x", "x", 1, 1
    ds.Rows, ds.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        ds.NumberOfFrames = len(stored)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    allocated = stored.dtype.itemsize * 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, bits or allocated, (bits or allocated) - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    mask = (1 << ds.BitsStored) - 1
    ds.PixelData = (stored.astype(np.int64) & mask).astype(f"<u{allocated // 8}").tobytes()
    for key, value in tags.items():
        setattr(ds, key, value)
    return ds


def save(ds: pydicom.Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def new_slice(stored, position, orientation=AXIAL, spacing=(0.5, 0.75), sop=CT, **tags) -> pydicom.Dataset:
    places = {"ImagePositionPatient": list(map(float, position)), "ImageOrientationPatient": list(orientation)}
    return new(np.asarray(stored), sop, **places, PixelSpacing=list(spacing), SliceThickness=2, **tags)


def write_stack(folder: Path, frames, positions, names=None, **tags) -> Path:
    """A folder of slices; a tag given as a list has a value for each."""
    for i, (frame, position) in enumerate(zip(frames, positions, strict=True)):
        own = {key: value[i] if isinstance(value, list) else value for key, value in tags.items()}
        ds = new_slice(frame, position, **{"InstanceNumber": i + 1} | own)
        save(ds, folder / (names[i] if names else f"{i:03d}.dcm"))
    return folder


def new_enhanced(
    frames, positions, rescale=((1, -1024),), orientations=(AXIAL,), spacings=((0.5, 0.75),), sop=ENHANCED_CT, **tags
) -> pydicom.Dataset:
    """An enhanced file; what is given once is shared, what is given per frame is the frame's."""
    ds = new(np.asarray(frames), sop, **tags)
    groups = {
        "PixelMeasuresSequence": [{"PixelSpacing": list(s), "SliceThickness": 2} for s in spacings],
        "PlaneOrientationSequence": [{"ImageOrientationPatient": list(o)} for o in orientations],
        "PixelValueTransformationSequence": [
            {"RescaleSlope": a, "RescaleIntercept": b, "RescaleType": "US"} for a, b in rescale
        ],
        "PlanePositionSequence": [{"ImagePositionPatient": list(map(float, p))} for p in positions],
    }
    shared, own = pydicom.Dataset(), [pydicom.Dataset() for _ in frames]
    for name, values in groups.items():
        for i, value in enumerate(values):
            setattr(shared if len(values) == 1 else own[i], name, item(**value))
    ds.SharedFunctionalGroupsSequence = pydicom.Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = pydicom.Sequence(own)
    return ds


def _group(ds, index, sequence):
    for groups in (ds.PerFrameFunctionalGroupsSequence[index], ds.SharedFunctionalGroupsSequence[0]):
        if sequence in groups:
            return groups[sequence][0]
    return None


def frames_of(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """(values (rows, columns), affine (4, 4) of the frame in RAS) of each frame, by pydicom."""
    ds = pydicom.dcmread(path)
    if "PerFrameFunctionalGroupsSequence" not in ds:
        return [(apply_modality_lut(ds.pixel_array, ds), _plane(ds, ds, ds))]
    found = []
    for i, stored in enumerate(ds.pixel_array):
        rescale = _group(ds, i, "PixelValueTransformationSequence")
        measures, orientation = _group(ds, i, "PixelMeasuresSequence"), _group(ds, i, "PlaneOrientationSequence")
        place = _group(ds, i, "PlanePositionSequence")
        values = stored if rescale is None else apply_rescale(stored, rescale)
        found.append((values, _plane(place, orientation, measures)))
    return found


def _plane(place, orientation, measures) -> np.ndarray:
    row, column = np.reshape(np.array(orientation.ImageOrientationPatient, float), (2, 3))
    down, right = map(float, measures.PixelSpacing)
    columns = [row * right, column * down, np.cross(row, column), np.array(place.ImagePositionPatient, float)]
    return np.diag([-1.0, -1, 1, 1]) @ np.vstack([np.column_stack(columns), [0, 0, 0, 1]])


def stack_of(paths) -> tuple[np.ndarray, list[np.ndarray]]:
    """Volume (x, y, z) in the order of the places along the normal, and the affine of each slice."""
    frames = [frame for path in paths for frame in frames_of(path)]
    normal = frames[0][1][:3, 2]
    frames.sort(key=lambda frame: normal @ frame[1][:3, 3])
    return np.stack([values.T for values, _ in frames], axis=-1), [affine for _, affine in frames]
