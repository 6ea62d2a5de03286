# SPDX-License-Identifier: Apache-2.0
"""Images to predict on: whatever folder, file or list a user points at, as items without labels."""

from __future__ import annotations

from pathlib import Path

from monai.config import PathLike

from .datalist import DEMO_DIR, load_datalist
from .formats import SUFFIXES, has_suffix
from .headers import check_files
from .walk import find_images, group_channels

__all__ = ["list_images"]

LISTS = (".json", ".csv", ".npz")


def list_images(
    dataset: PathLike,
    task: str = "segmentation",
    demo_dir: PathLike = DEMO_DIR,
    section: str = "validation",
    spatial_dims: int | None = None,
) -> list[dict]:
    """Lists images to predict on, after their headers have been read.

    Args:
        dataset: one of

            - an image file of any format, or the folder of one DICOM series;
            - a folder of such files and folders, at any depth; of a data set with ``imagesTs`` only that part. Images
              are told by their content, each is listed once, and nnU-Net's ``_0000, _0001`` are channels of one;
            - a .json, .csv or .npz file, or a word of :func:`~monai_crossd.data.load_datalist`: the images of
              ``section``.
        task: ``"segmentation"`` or ``"classification"``, of such a list.
        demo_dir: where embedded data are kept.
        section: of such a list.
        spatial_dims: 2 or 3, that every image must have; a volume of one slice is an image. None takes any.

    Returns:
        Dictionaries with "image", an absolute path or a list of them (channels).

    Raises:
        FileNotFoundError: When ``dataset`` does not exist.
        ValueError: When it holds no image, or a file cannot be read or has other dimensions.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     Image.new("L", (8, 8)).save(f"{folder}/a.png")
        ...     [Path(item["image"]).name for item in list_images(folder)]
        ['a.png']
    """
    path = Path(str(dataset)).expanduser().absolute()  # a number on a command line is the name of a folder
    if not path.exists() or has_suffix(path, LISTS):
        items = load_datalist(str(dataset), section, task, demo_dir, spatial_dims=spatial_dims)
        return [{"image": item["image"]} for item in items]
    test = path / "imagesTs"
    found = [str(path)] if path.is_file() else group_channels(find_images(test if test.is_dir() else path))
    if not found:
        raise ValueError(
            f"{path} holds no image: give an image, a folder of images ({', '.join(SUFFIXES)}, DICOM series), "
            "a list (.json, .csv, .npz) or an embedded data set."
        )
    items = [{"image": name} for name in found]
    check_files(items, spatial_dims)
    return items
