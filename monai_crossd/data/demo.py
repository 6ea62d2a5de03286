# SPDX-License-Identifier: Apache-2.0
"""The embedded data: the real chest CT that ships in the package `slicerio`, one patient, cut along the slice axis."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import SimpleITK as sitk
from monai.config import PathLike
from monai.utils import look_up_option, optional_import

from .patches import PATCH_SIZE, SPACING, WINDOW, sample_patches, to_isotropic

__all__ = ["DEMO_SLICES", "prepare_demo"]

# Half-open slice ranges, caudal to cranial. Slices 7, 12, 25 and 30 belong to nobody. Interleaved because the cervical
# spine is only in slices 26-33 and the lumbar spine only in 0-12: this way both sections hold all seven structures.
DEMO_SLICES = {
    "training": ((0, 7), (13, 25), (31, 34)),
    "validation": ((8, 12), (26, 30)),
}
PATCHES_PER_CLASS = {"training": 343, "validation": 86}
SEED = 0
AIR_HU = -1024

_DESCRIPTION = (
    "One chest CT of ONE patient (CTChest4 of the package slicerio, MIT licence). Training and validation are "
    "different slices of the same patient, at least one slice apart: good for trying the software, says nothing about "
    "other patients."
)

logger = logging.getLogger(__name__)


def _read_chest_ct() -> tuple[sitk.Image, sitk.Image, dict[int, str]]:
    """Returns the CT (int16 HU, 128x128x34), its label map (uint8, same grid) and the names of the labels 1..7."""
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


def _write_segmentation(folder: Path) -> dict:
    """Writes the sub-volumes as NIfTI and returns the content of dataset.json."""
    image, label, names = _read_chest_ct()
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    sections: dict[str, list[dict]] = {}
    for section, ranges in DEMO_SLICES.items():
        sections[section] = []
        for start, stop in ranges:
            item = {key: f"{key}sTr/chest_{start:02d}-{stop - 1:02d}.nii.gz" for key in ("image", "label")}
            # SimpleITK keeps the origin right while cropping and turns its LPS into NIfTI's RAS while writing
            sitk.WriteImage(image[:, :, start:stop], str(folder / item["image"]))
            sitk.WriteImage(label[:, :, start:stop], str(folder / item["label"]))
            sections[section].append(item)
    return {
        "name": "chest CT",
        "description": _DESCRIPTION,
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background"} | {str(value): name for value, name in names.items()},
        "numTraining": len(sections["training"]),
        **sections,
    }


def _write_classification(folder: Path) -> dict:
    """Writes 2D patches as PNG in class folders and returns the content of dataset.json."""
    image, label, names = _read_chest_ct()
    classes = list(names.values())
    sections: dict[str, list[dict]] = {}
    for seed, (section, ranges) in enumerate(DEMO_SLICES.items(), start=SEED):
        # each sub-volume is resampled alone, so no interpolation reaches across the margin
        volumes = [to_isotropic(image[:, :, a:b], label[:, :, a:b]) for a, b in ranges]
        sections[section] = []
        counts = [0] * len(classes)
        for patch, value in sample_patches(volumes, list(names), PATCHES_PER_CLASS[section], seed):
            index = list(names).index(value)
            path = Path("images", section, classes[index].replace(" ", "_"), f"{counts[index]:04d}.png")
            counts[index] += 1
            (folder / path.parent).mkdir(parents=True, exist_ok=True)
            # transposed, so that MONAI's PILReader gives back the axis order of the volume
            sitk.WriteImage(sitk.GetImageFromArray(patch.T), str(folder / path))
            sections[section].append({"image": path.as_posix(), "label": index})
    return {
        "name": "chest CT patches",
        "description": f"{_DESCRIPTION} 2D patches of {PATCH_SIZE}x{PATCH_SIZE} pixels of {SPACING:g} mm in three "
        f"slice orientations, HU {WINDOW[0]}..{WINDOW[1]} as grey 0..255, labelled by the "
        "dominant structure at the centre.",
        "tensorImageSize": "2D",
        "modality": {"0": "CT"},
        "labels": {str(index): name for index, name in enumerate(classes)},
        "numTraining": len(sections["training"]),
        **sections,
    }


_WRITERS: dict[str, Callable[[Path], dict]] = {
    "segmentation": _write_segmentation,
    "classification": _write_classification,
}


def prepare_demo(task: str, root: PathLike) -> Path:
    """Writes the embedded chest CT as a data set below ``root``, or reuses the one that is there.

    ``"segmentation"`` gives five NIfTI sub-volumes with seven structures; ``"classification"`` gives class-balanced 2D
    patches (PNG) of the same training and validation slices, so that a network pretrained on them has never seen a
    validation slice. The seven classes are the structures; the background of this CT is only air and table and is no
    class. Both are the same at each call. They are one patient.

    Args:
        task: ``"segmentation"`` or ``"classification"``.
        root: folder that receives ``<task>/dataset.json`` and the files it names. The set is made under a temporary
            name and moved into place when it is complete.

    Returns:
        The path of dataset.json, in MONAI's decathlon form with the sections "training" and "validation".

    Raises:
        ValueError: When ``task`` is unknown.
        FileExistsError: When ``<root>/<task>`` is there and holds no dataset.json.
        OptionalImportError: When slicerio is not installed.
    """
    write = look_up_option(task, _WRITERS)
    root = Path(root)
    target = root / task
    dataset = target / "dataset.json"
    if not dataset.is_file():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{task}-", dir=root) as temporary:
            folder = Path(temporary, task)
            folder.mkdir()
            (folder / "dataset.json").write_text(json.dumps(write(folder), indent=2) + "\n")
            try:
                folder.rename(target)
            except OSError as error:
                if not dataset.is_file():  # else another process was faster, and its set is the same
                    raise FileExistsError(
                        f"{target} is there but holds no dataset.json: remove it or choose another root."
                    ) from error
    logger.info("Embedded demo data, ONE patient, split by slices: %s", dataset)
    return dataset
