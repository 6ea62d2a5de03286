# SPDX-License-Identifier: Apache-2.0
"""A MONAI image reader for NIfTI, NRRD, MetaImage, DICOM, PNG, JPEG and TIFF that needs neither itk nor pydicom."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader, orientation_ras_lps
from monai.transforms.io.array import SUPPORTED_READERS
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from .dicom_series import list_series, read_header
from .formats import find_format
from .image_files import Loaded, load_image, naming
from .npz_reader import is_npz_path

__all__ = ["SimpleITKReader", "register_sitk_reader"]


def _check_same_grid(path: str, array: np.ndarray, header: dict, path0: str, array0: np.ndarray, header0: dict) -> None:
    rank = len(header0[MetaKeys.SPATIAL_SHAPE])
    affine, affine0 = header[MetaKeys.AFFINE], header0[MetaKeys.AFFINE]
    if (
        array.ndim != array0.ndim
        or array.shape[:rank] != array0.shape[:rank]
        or not np.allclose(affine, affine0, rtol=0, atol=1e-3)
    ):
        raise ValueError(
            f"{path} and {path0} cannot be channels of one image: their shapes are {array.shape} and {array0.shape}, "
            f"their affines {affine.tolist()} and {affine0.tolist()}. Resample one to the grid of the other."
        )


class SimpleITKReader(ImageReader):
    """Reads medical images and photos for MONAI's LoadImage: ``LoadImage(reader="SimpleITKReader")``.

    Formats: NIfTI and Analyze, NRRD, MetaImage, a DICOM file (also multi-frame), a folder with a DICOM series, PNG,
    JPEG, BMP, GIF, TIFF, .npy and whatever else SimpleITK knows; what a file is, its content says. Arrays
    have the axes (x, y, z) and after them one channel axis where the file has components (color, vectors) or time
    points; ``EnsureChannelFirst`` moves it. The affine is (4, 4), in RAS and mm, and equal to NibabelReader's.

    DICOM: slices and frames are ordered by their place along the normal, and each has its own slope and intercept, so
    that CT is in HU; MONOCHROME1 changes no value. One file of one frame is a 2D image with the affine of its plane, a
    folder is always a volume. What forms no grid is refused with the places: gaps, two slices at one place (time
    points), other sizes, spacings or directions. A tilted gantry keeps its shear.

    Pictures are Pillow's, turned upright by their orientation tag. Palettes and CMYK become RGB, one bit 0 and 1,
    an alpha channel is dropped where it is opaque and kept where it is not; the pages of a TIFF or GIF are a volume.
    What knows no patient axes (pictures, ultrasound without a position) is not flipped from LPS to RAS: its affine is
    the pixel spacing of a TIFF or DICOM file, or else the identity, as the resolution is that of a printer.

    Compressed voxels (.nii.gz, .nrrd, .mha) and PNG are read to their checksum. NIfTI is read by nibabel, as SimpleITK
    refuses shear and reads ``a.nii`` where it is asked for ``a.nii.gz``.

    Args:
        series_uid: series instance UID of the DICOM series to read from a folder with several.
        affine_lps_to_ras: whether the affine is in RAS, as MONAI's transforms expect; otherwise in ITK's LPS.

    Example:
        >>> import tempfile
        >>> import SimpleITK as sitk
        >>> from monai.transforms import LoadImage
        >>> from monai_crossd.data import SimpleITKReader
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sitk.WriteImage(sitk.Image(6, 5, 4, sitk.sitkInt16), f"{folder}/image.mha")
        ...     image = LoadImage(reader=SimpleITKReader, ensure_channel_first=True)(f"{folder}/image.mha")
        >>> image.shape, image.affine.diag().tolist()
        (torch.Size([1, 6, 5, 4]), [-1.0, -1.0, 1.0, 1.0])
    """

    def __init__(self, *, series_uid: str = "", affine_lps_to_ras: bool = True):
        super().__init__()
        self.series_uid = series_uid
        self.affine_lps_to_ras = affine_lps_to_ras

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Tells whether all are folders or files whose content, or else name, is of a known format.

        Args:
            filename: path, or several.
        """
        paths = [Path(name) for name in ensure_tuple(filename)]
        return all(path.is_dir() or (path.is_file() and bool(find_format(path))) for path in paths)

    def read(self, data: Sequence[PathLike] | PathLike) -> list[str]:
        """Checks that the paths are there and may be images.

        The reading is left to ``get_data``, because LoadImage goes on to other readers after an error here: a format
        that is not ours should reach them, a broken file or a folder with several series should not.

        Args:
            data: path of a file or of a folder with a DICOM series, or several, which become channels.

        Returns:
            The paths: the argument of ``get_data``.

        Raises:
            FileNotFoundError: When a path does not exist.
            ValueError: When a file of no known format is no image, or a folder holds no DICOM image.
        """
        paths = [str(path) for path in ensure_tuple(data)]
        for path in paths:
            if is_npz_path(path):
                continue
            if not Path(path).exists():
                raise FileNotFoundError(f"{path} does not exist: correct the data list or put the file there.")
            if Path(path).is_dir():
                list_series(path)
            elif not find_format(path):
                with naming(path):
                    read_header(path)
        return paths

    def get_data(self, img: list[str]) -> Loaded:
        """Reads the images; several are stacked as channels, the meta is that of the first.

        Args:
            img: what ``read`` returned.

        Returns:
            The array, and its meta: "affine", "original_affine", "spacing", "spatial_shape", "original_channel_dim",
            "space" and the fields of the file's header.

        Raises:
            ValueError: When a file is broken, a series is not a complete grid of slices or is one of several, or
                images to stack differ in shape or affine.
        """
        arrays, headers = [], []
        for path in img:
            array, header = load_image(path, self.series_uid)
            arrays.append(array)
            headers.append(header)
            _check_same_grid(path, array, header, img[0], arrays[0], headers[0])
        array, first = arrays[0], headers[0]
        if len(arrays) > 1 and first[MetaKeys.ORIGINAL_CHANNEL_DIM] == -1:
            array = np.concatenate(arrays, axis=-1)
        elif len(arrays) > 1:
            array = np.stack(arrays, axis=0)
            first[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0
        if not self.affine_lps_to_ras:
            first[MetaKeys.AFFINE] = orientation_ras_lps(first[MetaKeys.AFFINE])
        first[MetaKeys.SPACE] = SpaceKeys.RAS if self.affine_lps_to_ras else SpaceKeys.LPS
        first[MetaKeys.ORIGINAL_AFFINE] = first[MetaKeys.AFFINE].copy()
        first["spacing"] = np.linalg.norm(first[MetaKeys.AFFINE][:3, : len(first[MetaKeys.SPATIAL_SHAPE])], axis=0)
        return array, first


def register_sitk_reader() -> None:
    """Makes ``LoadImage(reader="SimpleITKReader")`` known to MONAI; done when monai_crossd is imported.

    LoadImage without a reader takes the last entry that knows a file name. Ours becomes the first one, so that it gets
    only files that no other reader takes. An entry of this name that somebody else has made stays theirs, with
    a warning.
    """
    name = SimpleITKReader.__name__.lower()
    taken = SUPPORTED_READERS.get(name)
    if taken is not None and taken.__module__ != __name__:
        warnings.warn(
            f"MONAI has a reader {name!r} that is not monai_crossd's ({taken!r}); it was left alone. "
            "Use LoadImage(reader=monai_crossd.data.SimpleITKReader) instead of the name.",
            stacklevel=2,
        )
        return
    others = {key: reader for key, reader in SUPPORTED_READERS.items() if key != name}
    SUPPORTED_READERS.clear()
    SUPPORTED_READERS.update({name: SimpleITKReader, **others})
