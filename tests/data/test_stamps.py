# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from monai_crossd.data import list_images
from monai_crossd.data.fingerprint import stamp_file, stamp_image
from monai_crossd.data.readers.formats import is_cache, mark_cache
from monai_crossd.data.sources import image_folder_datalist

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
MHD = "ObjectType = Image\nNDims = 3\nDimSize = 5 4 3\nElementType = MET_SHORT\nElementDataFile = {}\n"
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nencoding: raw\nendian: little\ndata file: {}\n"


def write(folder: Path, header: str, text: str | None, *others: str) -> str:
    """An image of a header and the files with its voxels, a slice each where they are several."""
    path = folder / header
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path))
    else:
        path.write_text(text)
        for name, part in zip(others, np.array_split(VOXELS, len(others)), strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(part.tobytes())
    return str(path)


SLICES = ("s0.raw", "s1.raw", "s2.raw")
# header, its text (None: SimpleITK writes it), the files with voxels
IMAGES = {
    "mhd": ("a.mhd", None, ("a.raw",)),
    "mhd, other name": ("a.mhd", MHD.format("voxels.bin"), ("voxels.bin",)),
    "mhd, other folder": ("a.mhd", MHD.format("sub/v.raw"), ("sub/v.raw",)),
    "mhd, space": ("a b.mhd", MHD.format("v w.raw"), ("v w.raw",)),
    "mhd, list": ("a.mhd", MHD.format("LIST\n" + "\n".join(SLICES)), SLICES),
    "mhd, pattern": ("a.mhd", MHD.format("s%d.raw 0 2 1"), SLICES),
    "upper case": ("A.MHD", MHD.format("A.RAW"), ("A.RAW",)),
    "nhdr": ("a.nhdr", None, ("a.raw",)),
    "nhdr, other name": ("a.nhdr", NRRD.format("voxels.bin"), ("voxels.bin",)),
    "nhdr, list": ("a.nhdr", NRRD.format("LIST\n" + "\n".join(SLICES)), SLICES),
    "nhdr, pattern": ("a.nhdr", NRRD.format("s%d.raw 0 2 1"), SLICES),
    "hdr": ("a.hdr", None, ("a.img",)),
    "img": ("a.img", None, ("a.hdr",)),
    "hdr, compressed": ("a.hdr", "", ("a.img.gz",)),
    "par": ("a.PAR", "", ("a.REC",)),
    "head": ("a+orig.HEAD", "", ("a+orig.BRIK.gz",)),
}


@pytest.mark.parametrize("case", IMAGES)
def test_files_beside_a_header_count(tmp_path, case):
    header, text, others = IMAGES[case]
    path = write(tmp_path, header, text, *others)
    before = stamp_image(path)
    assert stamp_image(path) == before
    for name in others:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[::-1] + b" ")
        after = stamp_image(path)
        assert after != before, name
        before = after


@pytest.mark.parametrize("name", ["a.nii.gz", "a.png", "a.mha", "a.nrrd", "local.mhd", "empty.mhd"])
def test_other_files_do_not_count(tmp_path, name):
    path = tmp_path / name
    if name.endswith("mhd"):
        path.write_text(MHD.format("LOCAL") if name.startswith("local") else "")
    else:
        sitk.WriteImage(sitk.GetImageFromArray(VOXELS.astype(np.uint8)[0] if "png" in name else VOXELS), str(path))
    before = stamp_image(str(path))
    for other in ("a.raw", "a.img", "a.hdr", "a.json", "b.nii.gz", "local.raw"):
        (tmp_path / other).write_text("1")
    assert stamp_image(str(path)) == before


def test_a_change_that_keeps_size_and_time_counts(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    before, stat = stamp_image(str(path)), path.stat()
    while stamp_image(str(path)) == before:  # the system's clock ticks every few ms
        path.write_bytes(b"2")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns


def add(folder):
    (folder / "new").write_text("")


def rename(folder):
    (folder / "1").rename(folder / "3")


def grow(folder):
    (folder / "sub" / "2").write_text("22")


def swap_link(folder):
    (folder / "link").unlink()
    (folder / "link").symlink_to(folder / "1")


def touch_target(folder):
    (folder.parent / "target").write_text("other")


@pytest.mark.parametrize("change", [add, rename, grow, swap_link, touch_target])
def test_every_file_of_a_folder_counts(tmp_path, change):
    folder = tmp_path / "series"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "target").write_text("0")
    for name in ("1", "sub/2"):
        (folder / name).write_text(name)
    (folder / "link").symlink_to(tmp_path / "target")
    before = stamp_image(str(folder))
    (tmp_path / "beside").write_text("")
    (folder / "cache").mkdir()
    mark_cache(folder / "cache")
    (folder / "cache" / "0.pt").write_text("")
    assert stamp_image(str(folder)) == before
    change(folder)
    assert stamp_image(str(folder)) != before


def test_two_files_of_one_relative_name_differ(tmp_path, monkeypatch):
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "x.png"
        path.write_bytes(b"1")
        os.utime(path, ns=(0, 0))
        monkeypatch.chdir(path.parent)
        found.append(stamp_image("x.png"))
    assert found[0] != found[1]


@pytest.mark.parametrize("text", ["", "benign", "a\0b", "x" * 5000, "no/such.png", "no.npz#a/1", "#"])
def test_a_text_has_no_stamp(text):
    assert stamp_image(text) is None
    assert stamp_file(text) is None


def test_lists_of_images_leave_caches_out(tmp_path):
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for i in range(3):  # no two alike, which would be copies with two labels
            sitk.WriteImage(sitk.GetImageFromArray(VOXELS + 100 * number + i + 1), tmp_path / name / f"{i}.nii.gz")
    expected = list_images(tmp_path), image_folder_datalist(tmp_path), image_folder_datalist(tmp_path, nested=True)
    for folder in (tmp_path / "cache", tmp_path / "a" / "cache"):
        write(folder, "0.nii.gz", None)
        assert len(list_images(tmp_path)) == 7
        mark_cache(folder)
        assert is_cache(folder)
        assert expected == (
            list_images(tmp_path),
            image_folder_datalist(tmp_path),
            image_folder_datalist(tmp_path, nested=True),
        )
    assert not is_cache(tmp_path)
    (tmp_path / "CACHEDIR.TAG").write_text("something else")
    assert not is_cache(tmp_path)
