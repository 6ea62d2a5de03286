# SPDX-License-Identifier: Apache-2.0
"""MONAI's way to our formats: a reader for LoadImage and a writer for SaveImage that need neither itk nor pydicom."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.config import DtypeLike, NdarrayOrTensor, PathLike
from monai.data import ImageReader, ImageWriter, NibabelWriter, orientation_ras_lps
from monai.data.utils import to_affine_nd
from monai.utils import MetaKeys, SpaceKeys, convert_data_type, ensure_tuple, get_equivalent_dtype
from PIL import Image

from .readers.formats import NIFTI, find_format, has_suffix
from .readers.image_file import Loaded, open_image
from .readers.npz import is_npz_path

__all__ = ["SUFFIXES", "NpzReader", "SimpleITKReader", "SimpleITKWriter"]

VOLUMES = (".nrrd", ".nhdr", ".mha", ".mhd")
TIFF = (".tif", ".tiff")
PICTURES = (".png", *TIFF)
SUFFIXES = (*NIFTI, *VOLUMES, *PICTURES)
SCALES = {255: np.uint8, 65535: np.uint16}


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
    """Reads medical images and photos for MONAI: ``LoadImage(reader="monai_crossd.data.SimpleITKReader")``.

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
            open_image(path).check()
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
            array, header = open_image(path, self.series_uid).load()
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


class NpzReader(SimpleITKReader):
    """A :class:`SimpleITKReader` of images in .npz files alone, paths like ``pathmnist.npz#train_images/12``.

    The axes come out as those of MONAI's other readers: (W, H) and (W, H, channel), what PILReader gives for the same
    picture saved as PNG, and (W, H, D) for a volume (D, H, W), its slices last. A last axis of 3 is colour.
    MedMNIST gives no voxel sizes and no directions, so the affine is the identity.

    Example:
        >>> import tempfile
        >>> from monai.transforms import LoadImage
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/a.npz", train_images=np.zeros((5, 3, 4), np.uint8))
        ...     LoadImage(reader=NpzReader)(f"{folder}/a.npz#train_images/2").shape
        torch.Size([4, 3])
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether all paths are of images in .npz files."""
        return all(is_npz_path(name) for name in ensure_tuple(filename))


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Casts to `dtype`, rounding to integers.

    Raises:
        ValueError: When a value does not fit, which numpy would wrap around.
    """
    if np.issubdtype(dtype, np.integer) and array.dtype != dtype:
        limits = np.iinfo(dtype)
        array = np.rint(array) if np.issubdtype(array.dtype, np.floating) else array
        low, high = array.min(), array.max()
        if not (limits.min <= low and high <= limits.max):  # NaN fits nowhere
            raise ValueError(
                f"values from {low} to {high} do not fit output_dtype {dtype.name}. "
                "Give a wider output_dtype, or scale the image and pass scale=255 or 65535."
            )
    return array.astype(dtype, copy=False)


def _to_image(array: np.ndarray, rank: int, affine: np.ndarray) -> sitk.Image:
    """Image of `array`, (x, y[, z]) and channels after them, with the first `rank` axes of an affine in LPS."""
    channels = array.ndim > rank
    array = np.moveaxis(array.T, 0, -1) if channels else array.T
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=channels)
    spacing = np.linalg.norm(affine[:rank, :rank], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:rank, 3].tolist())
    image.SetDirection((affine[:rank, :rank] / spacing).ravel().tolist())
    return image


class SimpleITKWriter(ImageWriter):
    """Writes images for MONAI: ``SaveImage(writer="monai_crossd.data.SimpleITKWriter", output_ext=".mha")``.

    Formats: NIfTI (by nibabel, as MONAI writes it: channels on the fourth axis), NRRD and MetaImage (channels as
    components of a voxel), and 2D images as PNG (uint8, uint16) and TIFF. The file appears under its name when it is
    complete. A volume of one slice stays a volume. NRRD and MetaImage make one of a 2D image that is not in the axial
    plane: their 2D form has no room for its place in the patient. PNG keeps no geometry, TIFF the pixel spacing.

    Args:
        output_dtype: type of the voxels in the file; None keeps that of the array. Integers are rounded.
        scale: 255 or 65535 clips to [0, 1], scales by it and makes uint8 or uint16; None leaves values alone.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> from monai.transforms import LoadImage, SaveImage
        >>> from monai_crossd.data import SimpleITKReader, SimpleITKWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save = SaveImage(folder, output_ext=".mha", writer=SimpleITKWriter, print_log=False)
        ...     _ = save(MetaTensor(torch.ones(1, 6, 5, 4)), filename=f"{folder}/image")
        ...     image = LoadImage(reader=SimpleITKReader)(f"{folder}/image.mha")
        >>> image.shape, image.affine.diag().tolist()
        (torch.Size([6, 5, 4]), [1.0, 1.0, 1.0, 1.0])
    """

    def __init__(self, output_dtype: DtypeLike | None = np.float32, scale: int | None = None):
        if scale is not None and scale not in SCALES:
            raise ValueError(f"scale is {scale}; expected None, 255 or 65535.")
        super().__init__()
        self.output_dtype = output_dtype
        self.scale = scale
        self.affine: np.ndarray = np.eye(4)
        self.flat = False

    def set_data_array(
        self, data_array: NdarrayOrTensor, channel_dim: int | None = 0, squeeze_end_dims: bool = True
    ) -> None:
        """Takes the array to write.

        Args:
            data_array: image with two or three spatial axes.
            channel_dim: its channel axis; None where it has none.
            squeeze_end_dims: whether one channel makes no axis in the file, nor in NIfTI the depth of a 2D image.

        Raises:
            ValueError: When the array has another number of axes.
        """
        rank = data_array.ndim - (channel_dim is not None)
        if rank not in (2, 3):
            raise ValueError(
                f"the array of shape {tuple(data_array.shape)} with channel_dim={channel_dim} has {rank} spatial axes; "
                "expected 2 or 3."
            )
        self.flat = rank == 2
        self.squeeze_end_dims = squeeze_end_dims
        # always (x, y, z, channel) here; what the format has no use for is dropped while writing
        self.data_obj = self.convert_to_channel_last(data_array, channel_dim, squeeze_end_dims=False, spatial_ndim=3)

    def set_metadata(self, meta_dict: Mapping | None = None, resample: bool = True, **options: Any) -> None:
        """Takes the geometry, in RAS or LPS as the meta's "space" says, and resamples the array if asked.

        Args:
            meta_dict: meta with "affine", "original_affine", "spatial_shape", each optional.
            resample: whether to bring the image back to its original affine and shape.
            options: ``mode``, ``padding_mode``, ``align_corners`` and ``dtype`` of
                :py:meth:`monai.data.ImageWriter.resample_if_needed`.
        """
        original_affine, affine, spatial_shape = self.get_meta_info(meta_dict)
        if self.output_dtype is None:
            self.output_dtype = get_equivalent_dtype(self.data_obj.dtype, np.ndarray)
        if resample and original_affine is not None:
            self.data_obj, affine = self.resample_if_needed(
                self.data_obj,
                affine=affine,
                target_affine=original_affine,
                output_spatial_shape=None if spatial_shape is None else (*np.asarray(spatial_shape).tolist(), 1)[:3],
                **options,
            )
        if affine is not None:
            self.affine = to_affine_nd(3, convert_data_type(affine, np.ndarray, dtype=np.float64)[0])
        if meta_dict and meta_dict.get(MetaKeys.SPACE) == SpaceKeys.LPS:
            self.affine = orientation_ras_lps(self.affine)

    def write(self, filename: PathLike, verbose: bool = False, compression: bool = True) -> None:
        """Writes the file under a temporary name and renames it.

        Args:
            filename: path with the suffix of a format named above.
            verbose: whether to log the name.
            compression: whether NRRD, MetaImage, PNG and TIFF are compressed, without loss; NIfTI is by its suffix.

        Raises:
            ValueError: When the suffix is unknown, values do not fit ``output_dtype``, or an image with several slices
                is to be a PNG or TIFF.
        """
        super().write(filename, verbose=verbose)
        path = Path(filename)
        if not has_suffix(path, SUFFIXES):
            raise ValueError(f"{path} has an unknown suffix; expected one of {SUFFIXES}.")
        array = self._scaled()
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            part = Path(folder, path.name)
            if has_suffix(path, NIFTI):
                self._write_nifti(array, part)
            elif has_suffix(path, TIFF) and array.dtype == np.uint8 and array.shape[2:] == (1, 4):
                self._write_rgba_tiff(array[:, :, 0], part)
            else:
                image = self._picture(array, path) if has_suffix(path, PICTURES) else self._volume(array)
                sitk.WriteImage(image, str(part), useCompression=compression)
            # .mhd and .nhdr have their voxels in a second file, which has to be there first
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):
                file.replace(path.parent / file.name)

    def _scaled(self) -> np.ndarray:
        """The array (x, y, z, channel) in the type of the file."""
        array = convert_data_type(self.data_obj, np.ndarray)[0]
        dtype = np.dtype(get_equivalent_dtype(self.output_dtype, np.ndarray))
        if self.scale is not None:
            array, dtype = np.clip(array.astype(np.float64), 0, 1) * self.scale, np.dtype(SCALES[self.scale])
        if dtype in (np.bool_, np.float16):  # no format has them
            dtype = np.dtype(np.uint8 if dtype == np.bool_ else np.float32)
        return _cast(array, dtype)

    def _write_nifti(self, array: np.ndarray, path: Path) -> None:
        if self.squeeze_end_dims and array.shape[-1] == 1:
            array = array[..., 0]
            if self.flat:
                array = array[..., 0]
        writer = NibabelWriter(output_dtype=array.dtype)
        writer.data_obj, writer.affine = array, self.affine
        writer.write(path)

    def _write_rgba_tiff(self, array: np.ndarray, path: Path) -> None:
        # ITK declares the fourth channel to be multiplied into the colors, which readers then divide by it
        per_cm = 10 / np.linalg.norm(self.affine[:3, :2], axis=0)
        Image.fromarray(array.swapaxes(0, 1)).save(
            path,
            compression="tiff_deflate",
            resolution_unit="cm",
            x_resolution=float(per_cm[0]),
            y_resolution=float(per_cm[1]),
        )

    def _volume(self, array: np.ndarray) -> sitk.Image:
        affine, rank = orientation_ras_lps(self.affine), 3
        in_axial_plane = not (affine[2, [0, 1, 3]].any() or affine[:2, 2].any())
        if self.flat and in_axial_plane:
            array, rank = array[:, :, 0], 2
        return _to_image(array[..., 0] if array.shape[-1] == 1 else array, rank, affine)

    def _picture(self, array: np.ndarray, path: Path) -> sitk.Image:
        if array.shape[2] != 1:
            raise ValueError(f"{path}: a volume of {array.shape[2]} slices is no 2D image. Write .nrrd, or each slice.")
        array = array[:, :, 0]
        spacing = np.linalg.norm(self.affine[:3, :2], axis=0)
        return _to_image(array[..., 0] if array.shape[-1] == 1 else array, 2, np.diag([*spacing, 1.0, 1.0]))
