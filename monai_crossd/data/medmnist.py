# SPDX-License-Identifier: Apache-2.0
"""MedMNIST: 2D and 3D sets in .npz files, as items, as names of classes, and as MONAI datasets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from monai.apps.utils import check_hash, download_url
from monai.config import PathLike
from monai.data import CacheDataset, Dataset
from monai.transforms import LoadImaged
from monai.utils import look_up_option

from .readers.npz import list_npz_arrays, npz_path, read_npz_array, read_npz_shape
from .simpleitk import NpzReader

__all__ = ["MEDMNIST", "MedMNIST", "MedMNISTSet", "find_set", "list_medmnist", "read_medmnist"]

_KEYS = {"training": "train", "validation": "val", "test": "test"}
_RECORD = "https://zenodo.org/records/10519652/files"


@dataclass(frozen=True)
class MedMNISTSet:
    """One set of MedMNIST.

    Attributes:
        name: of its files.
        task: "multi-class", "binary-class", "ordinal-regression" or "multi-label, binary-class".
        labels: names of the classes, by number.
        channels: of an image, 1 or 3.
        samples: how many images "training", "validation" and "test" hold.
        md5: hash of the file by size of its images in pixels.
        license: of the data.
    """

    name: str
    task: str
    labels: tuple[str, ...]
    channels: int
    samples: dict[str, int]
    md5: dict[int, str]
    license: str

    @property
    def spatial_dims(self) -> int:
        """2, or 3 for volumes."""
        return 3 if self.name.endswith("3d") else 2

    def file_name(self, size: int) -> str:
        """Name of the file with images of `size` pixels, like organmnist3d_64.npz."""
        return f"{self.name}.npz" if size == 28 else f"{self.name}_{size}.npz"

    def url(self, size: int) -> str:
        """Where the file is published."""
        return f"{_RECORD}/{self.file_name(size)}?download=1"


def _read_sets() -> dict[str, MedMNISTSet]:
    """Facts of the published sets, taken from info.py of the package medmnist 3.0.2 (Apache-2.0)."""
    rows = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    return {
        row["name"]: MedMNISTSet(
            **row | {"labels": tuple(row["labels"]), "md5": {int(size): digest for size, digest in row["md5"].items()}}
        )
        for row in rows
    }


MEDMNIST = _read_sets()


def find_set(file_name: str) -> MedMNISTSet | None:
    """The set that a file name belongs to, or None.

    Example:
        >>> find_set("organmnist3d_64.npz").labels[0]
        'liver'
    """
    files = {entry.file_name(size): entry for entry in MEDMNIST.values() for size in entry.md5}
    return files.get(file_name)


def list_medmnist(path: PathLike, section: str) -> list[dict]:
    """Lists a section of an .npz file in MedMNIST's format; its labels are read, its images are not.

    Args:
        path: the file.
        section: "training", "validation" or "test".

    Returns:
        Dictionaries with "image", a path for :class:`NpzReader`, and "label", a class number; where an image
        has several labels a float32 array of 0 and 1.

    Raises:
        FileNotFoundError: When the file does not exist.
        ValueError: When the section is unknown, or the file is damaged or not of the format.
    """
    key = look_up_option(section, _KEYS)
    labels = read_npz_array(path, f"{key}_labels")
    if labels.ndim not in (1, 2) or not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        raise ValueError(
            f"{path}: {key}_labels is {labels.dtype} of shape {labels.shape}; expected class numbers from 0, "
            "(images, 1), or 0 and 1, (images, classes)."
        )
    if (number := read_npz_shape(path, f"{key}_images")[:1]) != (len(labels),):
        raise ValueError(f"{path}: {key}_images has {number[0]} images, but {key}_labels {len(labels)} labels.")
    images = [npz_path(path, f"{key}_images", index) for index in range(len(labels))]
    if labels[:1].size > 1:
        return [{"image": image, "label": row} for image, row in zip(images, labels.astype(np.float32), strict=True)]
    return [{"image": image, "label": int(number)} for image, number in zip(images, labels.ravel(), strict=True)]


def read_medmnist(path: Path) -> tuple[dict[str, list[dict]], dict[int, str]]:
    """Reads all sections of a file with one class per image.

    Args:
        path: the file, absolute. The names of the classes are known where it has the name of a published set.

    Returns:
        Items by section, and names of the classes by number.

    Raises:
        FileNotFoundError: When the file does not exist.
        ValueError: When the file is damaged or not of the format, or an image has several labels.
    """
    found = list_npz_arrays(path)
    sections = {
        section: list_medmnist(path, section)
        for section, key in _KEYS.items()
        if section == "training" or {f"{key}_labels", f"{key}_images"} & set(found)
    }
    labels = [item["label"] for items in sections.values() for item in items]
    if any(isinstance(label, np.ndarray) for label in labels):
        raise ValueError(
            f"{path} has several labels per image (multi-label), but this needs one class. Use "
            "monai_crossd.data.MedMNIST with a multi-label loss, or choose another set."
        )
    entry = find_set(path.name)
    highest = max(labels, default=-1)
    names = entry.labels if entry else tuple(f"class {number}" for number in range(highest + 1))
    if highest >= len(names):
        raise ValueError(
            f"{path} has the label {highest}; expected 0 to {len(names) - 1}, the classes of the published "
            f"{path.name}. Rename the file if it is another set."
        )
    return sections, dict(enumerate(names))


@lru_cache
def _has_md5(path: Path, md5: str, changed: int) -> bool:
    """`changed`, the file's time stamp, makes a new file under the old name another one."""
    return check_hash(path, md5, "md5")


def _fetch(path: Path, url: str, md5: str, download: bool) -> None:
    if not path.exists():
        if not download:
            raise FileNotFoundError(f"{path} does not exist: pass download=True, or put the file there from {url}.")
        try:
            download_url(url, path, hash_val=md5, hash_type="md5")
        except OSError as error:
            raise ConnectionError(f"{url} cannot be downloaded to {path} ({error}): get it by other means.") from error
        if not path.exists():  # MONAI passes over a folder that cannot be written
            raise PermissionError(f"{path} cannot be written: make its folder writable or choose another root.")
    if not _has_md5(path, md5, path.stat().st_mtime_ns):
        raise ValueError(
            f"{path} is damaged or another file: expected the MD5 {md5}. Remove it and download it again, or pass the "
            "md5 of your own file."
        )


def MedMNIST(
    name: str,
    root: PathLike,
    section: str = "training",
    size: int = 28,
    *,
    transform: Sequence[Callable] | Callable | None = None,
    dataset_class: Callable[..., Dataset] = CacheDataset,
    download: bool = False,
    url: str | None = None,
    md5: str | None = None,
    **dataset_kwargs: Any,
) -> Dataset:
    """Makes a MONAI dataset of any class from a set of MedMNIST.

    Images come out in the axes of MONAI's readers, (C, W, H), volumes as (C, W, H, D); the file's are (H, W, C) and
    (D, H, W). Intensities are those of the file, 0 to 255. The licence is in ``MEDMNIST[name].license``.

    References:
        Yang et al., MedMNIST v2 - a large-scale lightweight benchmark for 2D and 3D biomedical image
        classification, 2023.

    Args:
        name: of the set, a key of ``MEDMNIST``: ``"pathmnist"``, ``"organmnist3d"``, ...
        root: folder of the .npz files. The file's MD5 is compared once in a process.
        section: ``"training"``, ``"validation"`` or ``"test"``.
        size: of the images in pixels: 28, 64, and 128 and 224 where they are 2D.
        transform: of items {"image": path, "label": number}; it starts with LoadImaged. None loads the
            image, channel first. The label of the multi-label set is a float32 array of 0 and 1.
        dataset_class: MONAI's CacheDataset, PersistentDataset, SmartCacheDataset, Dataset, ...
        download: whether to get a file that is not there.
        url: another source of the file.
        md5: of another file in the same format, in place of the published one's.
        dataset_kwargs: arguments of the dataset's class, like ``cache_dir``.

    Returns:
        The dataset.

    Raises:
        FileNotFoundError: When the file is not there and not to be downloaded.
        ConnectionError: When the download fails.
        ValueError: When an argument is unknown, the file has another MD5, or it is not of the format.

    Example:
        >>> import tempfile
        >>> from hashlib import md5
        >>> with tempfile.TemporaryDirectory() as root:
        ...     path = Path(root, "organmnist3d.npz")
        ...     np.savez(path, train_images=np.zeros((2, 8, 8, 8), np.uint8), train_labels=np.array([[0], [5]]))
        ...     data = MedMNIST(
        ...         "organmnist3d", root, md5=md5(path.read_bytes()).hexdigest(), progress=False, num_workers=0
        ...     )
        ...     data[1]["image"].shape, MEDMNIST["organmnist3d"].labels[data[1]["label"]]
        (torch.Size([1, 8, 8, 8]), 'bladder')
    """
    entry = look_up_option(name, MEDMNIST)
    look_up_option(section, _KEYS)
    if size not in entry.md5:
        raise ValueError(f"size is {size}; {name} is published in the sizes {list(entry.md5)}.")
    path = Path(root).expanduser().absolute() / entry.file_name(size)
    _fetch(path, url or entry.url(size), md5 or entry.md5[size], download)
    if transform is None:
        transform = LoadImaged("image", reader=NpzReader, ensure_channel_first=True)
    return dataset_class(list_medmnist(path, section), transform=transform, **dataset_kwargs)
