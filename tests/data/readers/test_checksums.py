# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from monai.transforms import LoadImage

from monai_crossd.data import SimpleITKReader

VOXELS = np.random.default_rng(0).integers(-1000, 1000, (16, 16, 8)).astype(np.int16)


def load(path):
    return LoadImage(reader=SimpleITKReader, dtype=None)(path)


def write(folder, name):
    """Writes the voxels, and gives the image and the file that holds them."""
    path = folder / name
    if ".nii" in name or name.endswith((".gz", "odd")):
        nifti = nib.Nifti2Image if "2" in name else nib.Nifti1Image
        path.write_bytes(gzip.compress(nifti(VOXELS, np.eye(4)).to_bytes()))
        return path, path
    if name.endswith(".hdr"):
        nib.save(nib.Nifti1Pair(VOXELS, np.eye(4)), folder / f"{name}.gz")
        return folder / f"{name}.gz", folder / f"{path.stem}.img.gz"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.T), str(path), useCompression=True)
    return path, {".mhd": path.with_suffix(".zraw"), ".nhdr": path.with_suffix(".raw.gz")}.get(path.suffix, path)


@pytest.mark.parametrize(
    "name", ["a.nii.gz", "a2.nii.gz", "a.gz", "odd", "a.hdr", "a.nrrd", "a.nhdr", "a.mha", "a.mhd"]
)
def test_flipped_bits_and_lost_ends_are_told(tmp_path, name):
    path, voxels = write(tmp_path, name)
    np.testing.assert_array_equal(load(path), VOXELS)
    content = voxels.read_bytes()
    places = [*range(1000, len(content) - 40, len(content) // 12), len(content) - 6]  # the last is in the checksum
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        voxels.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{path.name} cannot be read as an image"):
            load(path)
    for lost in (1, 4, 9, len(content) // 2):
        voxels.write_bytes(content[:-lost])
        with pytest.raises(ValueError, match=rf"{path.name} cannot be read as an image"):
            load(path)
    voxels.write_bytes(content)
    np.testing.assert_array_equal(load(path), VOXELS)


def test_slopes_and_real_numbers_are_read_to_the_end_too(tmp_path):
    image = nib.Nifti1Image(VOXELS * 0.5 - 3, np.eye(4))
    image.header.set_data_dtype(np.int16)
    path = tmp_path / "a.nii.gz"
    nib.save(image, path)
    np.testing.assert_allclose(load(path), VOXELS * 0.5 - 3, atol=0.02)
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.nii\.gz cannot be read as an image \(CRC check failed"):
        load(path)


def test_the_second_of_two_gzip_members_is_checked(tmp_path):
    raw = nib.Nifti1Image(VOXELS, np.eye(4)).to_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(raw[:2000]) + gzip.compress(raw[2000:]))
    np.testing.assert_array_equal(load(path), VOXELS)
    assert zlib.crc32(raw[2000:]).to_bytes(4, "little") == path.read_bytes()[-8:-4]
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    with pytest.raises(ValueError, match="CRC check failed"):
        load(path)
