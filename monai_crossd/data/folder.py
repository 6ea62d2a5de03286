# SPDX-License-Identifier: Apache-2.0
"""Class folders: the layouts of ImageNet and RadImageNet."""

from __future__ import annotations

from pathlib import Path

from monai.config import PathLike

from .._options import look_up_option
from .split import complete_sections
from .walk import find_images, images_by_folder, list_entries

__all__ = ["image_folder_datalist", "read_class_folders"]

_PARTS = {"training": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test",)}


def _leaves(folder: Path, root: Path) -> dict[str, list[str]]:
    """Images of each folder that holds images or nothing, by its path below `root`; a series lies in its parent."""
    found: dict[str, list[str]] = {}
    for place, images in images_by_folder(folder).items():
        is_series = images == [str(place)] and place != folder
        found.setdefault((place.parent if is_series else place).relative_to(root).as_posix(), []).extend(images)
    return found


def _classes(folder: Path, nested: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in list_entries(folder):
        if path.is_dir() and path.resolve() not in (folder.resolve(), *folder.resolve().parents):  # by a link
            found |= _leaves(path, folder) if nested else {path.name: find_images(path)}
    return dict(sorted(found.items()))


def read_class_folders(root: Path, nested: bool = False) -> tuple[dict[str, list[dict]], dict[int, str]]:
    """Reads a folder per class, or a train, a val and a test folder of them; classes are numbered in sorted order.

    Args:
        root: as in :func:`image_folder_datalist`, absolute.
        nested: as in :func:`image_folder_datalist`.

    Returns:
        Items by section, and names of the classes by number.

    Raises:
        ValueError: When there is no class, a class is empty, or not known from training.
    """
    parts = {
        section: root / name
        for section, names in _PARTS.items()
        for name in [next((name for name in names if (root / name).is_dir()), None)]
        if name
    }
    if "training" not in parts:
        parts = {"training": root}
    found = {section: _classes(part, nested) for section, part in parts.items()}
    classes = list(found["training"])
    if not classes:
        raise ValueError(f"{parts['training']} holds no class folders: make one folder of images per class.")
    sections: dict[str, list[dict]] = {}
    for section, images in found.items():
        if unknown := [name for name in images if name not in classes]:
            raise ValueError(
                f"{parts[section] / unknown[0]} is a class without training images (classes: {classes[:20]})."
            )
        if empty := [name for name in classes if not images.get(name)]:
            raise ValueError(
                f"{parts[section] / empty[0]} holds no image: add images of this class or remove the class."
            )
        sections[section] = [
            {"image": path, "label": number} for number, name in enumerate(classes) for path in images[name]
        ]
    return sections, dict(enumerate(classes))


def image_folder_datalist(
    root: PathLike,
    section: str = "training",
    val_fraction: float = 0.2,
    seed: int = 0,
    nested: bool = False,
    patient_pattern: str | None = None,
) -> list[dict]:
    r"""Lists a folder of class folders; :func:`~monai_crossd.data.load_datalist` reads the headers of the files too.

    ``root`` has a folder per class (ImageNet's layout), or ``train``, ``val`` and ``test`` with a folder per class in
    each. Without ``val`` the training images are split. Images are told by their content, whatever they are called; a
    folder with the slices of a DICOM series is one image.

    Args:
        root: the folder.
        section: ``"training"``, ``"validation"`` or ``"test"``.
        val_fraction: part of the training images held out, of each class, where there is no ``val``.
        seed: of that split.
        nested: False: the first folder names the class, the images lie in it at any depth. True: each folder
            that holds files is a class, named by its path (RadImageNet's ``CT/abd/normal``).
        patient_pattern: regular expression whose first group is the patient in a path, like ``r"(P\d+)_"``; the split
            is then by patient.

    Returns:
        Dictionaries with "image" (absolute path) and "label" (class number, in the order of the names).

    Raises:
        FileNotFoundError: When ``root`` does not exist.
        ValueError: When an argument is unknown or out of its range, there is no class, a class is empty, or the
            section has no image.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("CT/abd/normal/1.png", "CT/abd/normal/2.png", "US/liver/3.png", "US/liver/4.png"):
        ...         path = Path(folder, name)
        ...         path.parent.mkdir(parents=True, exist_ok=True)
        ...         path.touch()
        ...     [item["label"] for item in image_folder_datalist(folder, nested=True)]
        [0, 1]
    """
    path = Path(root).expanduser().absolute()
    look_up_option(section, _PARTS)
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: give one with a folder of images per class.")
    sections, _ = read_class_folders(path, nested)
    items = complete_sections(sections, "classification", val_fraction, seed, patient_pattern).get(section)
    if not items:
        raise ValueError(f'{path} has no image for section "{section}": make the folder, or add images to split.')
    return items
