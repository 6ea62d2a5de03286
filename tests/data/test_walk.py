# SPDX-License-Identifier: Apache-2.0
"""What a folder holds is told by content, a volume is one image, and each is found once."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from monai.transforms import LoadImage
from PIL import Image

from monai_crossd.data import SimpleITKReader, list_images, load_datalist, read_shape
from monai_crossd.data.lists import group_channels
from monai_crossd.data.readers.formats import find_format, image_format
from monai_crossd.data.readers.npz import npz_path
from monai_crossd.data.sources import image_folder_datalist
from monai_crossd.data.walk import find_images, images_by_folder

pydicom = pytest.importorskip("pydicom")

from dicom_files import new_enhanced, new_slice, save, write_stack  # noqa: E402

VOXELS = np.arange(6 * 5 * 4).reshape(6, 5, 4).astype(np.int16)


def series(folder: Path, uid="1.2.3", names=None, count=3) -> Path:
    frames = np.arange(count * 20).reshape(count, 4, 5).astype(np.uint16)
    return write_stack(folder, frames, [(0, 0, z) for z in range(count)], names, SeriesInstanceUID=uid)


def nifti(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(VOXELS, np.eye(4)), path)
    return path


def relative(folder, images):
    return [Path(image).relative_to(folder).as_posix() for image in images]


@pytest.mark.parametrize(
    "names",
    [("IM_0001", "IM_0002", "IM_0003"), ("MR.1.3.12.2.11", "MR.1.3.12.2.9", "MR.1.3.12.2.10"), ("1", "2", "3.img")],
)
@pytest.mark.parametrize("preamble", [True, False])
def test_a_series_is_one_image_whatever_its_files_are_called(tmp_path, names, preamble):
    folder = series(tmp_path / "patient.1.2", names=list(names))
    for path in [] if preamble else folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    for junk in ("069.xml", "LICENSE", "notes.txt", ".DS_Store", "._IM_0001", "Thumbs.db", "VERSION"):
        (folder / junk).write_bytes(b"<a/> BM II* text, no image" * 9)
    shutil.copy(pydicom.data.get_testdata_file("DICOMDIR", download=False), folder / "DICOMDIR")
    save(_report(), folder / "report.dcm")
    for start in (tmp_path, folder):
        assert [item["image"] for item in list_images(start)] == [str(folder)]
    assert read_shape(folder) == LoadImage(reader=SimpleITKReader)(folder).shape == (5, 4, 3)
    assert not image_format(folder / "DICOMDIR") or str(folder / "DICOMDIR") not in find_images(folder)


def _report():
    ds = new_slice(np.zeros((4, 5), np.uint16), (0, 0, 0))
    for name in ("PixelData", "Rows", "Columns"):
        delattr(ds, name)
    return ds


def test_files_that_are_each_a_series_are_an_image_each(tmp_path):
    for i in range(3):  # X-rays
        save(new_slice(np.zeros((4, 5), np.uint16), (0, 0, 0), SeriesInstanceUID=f"1.{i}"), tmp_path / "x" / f"{i}")
    frames = np.zeros((3, 4, 5), np.uint16)
    save(new_enhanced(frames, [(0, 0, z) for z in range(3)]), tmp_path / "many" / "a")
    assert relative(tmp_path, find_images(tmp_path)) == ["many/a", "x/0", "x/1", "x/2"]
    assert [read_shape(path) for path in find_images(tmp_path)] == [(5, 4, 3), (5, 4), (5, 4), (5, 4)]


def test_two_series_in_a_folder_are_refused_by_name(tmp_path):
    series(tmp_path / "p", "1.2.3")
    series(tmp_path / "p", "1.2.4", names=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"p holds 2 series: 1\.2\.3 .*, 3 files\); 1\.2\.4 .* folder of its own"):
        list_images(tmp_path)


def formats(folder: Path) -> dict[str, tuple[Path, str]]:
    image = sitk.GetImageFromArray(VOXELS.T)
    written = {"nifti": nifti(folder / "w.nii"), "gzip": nifti(folder / "w.nii.gz")}
    nib.save(nib.Nifti2Image(VOXELS, np.eye(4)), folder / "w2.nii")
    written["nifti2"] = folder / "w2.nii"
    for kind, name in {"nrrd": "w.nrrd", "meta": "w.mha"}.items():
        sitk.WriteImage(image, str(folder / name))
        written[kind] = folder / name
    np.save(folder / "w.npy", VOXELS)
    written["numpy"] = folder / "w.npy"
    frames = [(0, 0, z) for z in range(4)]
    written["dicom"] = save(new_enhanced(VOXELS.T, frames, rescale=((1, 0),)), folder / "w.dcm")
    for suffix in ("png", "tif", "bmp", "gif"):
        Image.fromarray(VOXELS[..., 0].T.astype(np.uint8)).save(folder / f"w.{suffix}")
        written[suffix] = folder / f"w.{suffix}"
    return written


def test_formats_by_content(tmp_path):
    """Read under another name: with the suffix of another format, without one, and inside odd folders."""
    for kind, path in formats(tmp_path).items():
        expected = LoadImage(reader=SimpleITKReader)(path)
        for name in (
            "x",
            "x.bin",
            "scan.v1.2",
            "y.dcm",
            "y.nii.gz",
            "y.png",
            "y.mha",
            "a b#c,é 12/2024/z.nrrd",
            "q.gz",
        ):
            other = tmp_path / kind / name
            other.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, other)
            image = LoadImage(reader=SimpleITKReader)(other)
            np.testing.assert_array_equal(image, expected)
            np.testing.assert_allclose(image.affine, expected.affine)
            assert read_shape(other) == read_shape(path)
            assert SimpleITKReader().verify_suffix(other)
        assert len(find_images(tmp_path / kind)) == (2 if kind == "dicom" else 9)  # eight copies in one folder


NO_IMAGES = {
    "text": b"BM II* MM\0 NRRD is a format, NDims too" * 30,
    "xml": b"<?xml version='1.0'?><a/>" * 40,
    "zip": b"PK\3\4" + bytes(600),
    "gzip of text": gzip.compress(b"a,b\n" * 400),
    "ole": b"\xd0\xcf\x11\xe0" + bytes(600),
    "empty": b"",
    "zeros": bytes(600),
    "pdf": b"%PDF-1.4\n" + bytes(600),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image(tmp_path, name):
    path = tmp_path / "file"
    path.write_bytes(NO_IMAGES[name])
    assert find_format(path) == ""
    assert find_images(tmp_path) == []
    claim = tmp_path / "file.nii.gz"  # but what claims to be one is listed, and its reading fails
    path.rename(claim)
    assert find_images(tmp_path) == [str(claim)]
    with pytest.raises(ValueError, match=r"file\.nii\.gz cannot be read as an image"):
        list_images(tmp_path)


def test_images_of_two_files_are_one(tmp_path):
    image = sitk.GetImageFromArray(VOXELS.T)
    for name, compress in (("a.mhd", False), ("b.mhd", True), ("c.nhdr", False), ("d.nhdr", True)):
        sitk.WriteImage(image, str(tmp_path / name), useCompression=compress)
    nib.save(nib.Nifti1Pair(VOXELS, np.eye(4)), tmp_path / "e.hdr")
    nib.save(nib.AnalyzeImage(VOXELS, np.eye(4)), tmp_path / "f.hdr")
    assert len(list(tmp_path.iterdir())) == 12
    names = ["a.mhd", "b.mhd", "c.nhdr", "d.nhdr", "e.hdr", "f.hdr"]
    assert relative(tmp_path, [item["image"] for item in list_images(tmp_path)]) == names
    for name in (*names, "e.img", "f.img"):
        np.testing.assert_array_equal(LoadImage(reader=SimpleITKReader)(tmp_path / name), VOXELS)
        assert read_shape(tmp_path / name) == VOXELS.shape


def test_each_image_is_found_once(tmp_path):
    nifti(tmp_path / "x" / "a.nii.gz")
    series(tmp_path / "y" / "s")
    links = {
        "x/up": "..", "x/self": ".", "x/deep/up": "../..", "y/s/loop": "../../y", "copy": "x", "0": "y/s",
        "x/a2.nii.gz": "a.nii.gz", "x/nowhere.nii": "absent", "z/one": "../y", "y/two": "../z",
    }  # fmt: skip
    for link, target in links.items():
        (tmp_path / link).parent.mkdir(exist_ok=True)
        os.symlink(target, tmp_path / link)
    assert relative(tmp_path, find_images(tmp_path)) == ["x/a.nii.gz", "y/s"]
    os.symlink(tmp_path, tmp_path.parent / f"{tmp_path.name}-link")  # a data set may be a link itself
    assert len(list_images(tmp_path.parent / f"{tmp_path.name}-link")) == 2


def test_linked_slices_are_a_series(tmp_path):
    folder = series(tmp_path / "store")
    (tmp_path / "links").mkdir()
    for path in folder.iterdir():
        os.symlink(path, tmp_path / "links" / path.stem)
    os.symlink(folder / "000.dcm", tmp_path / "links" / "again")
    assert read_shape(tmp_path / "links") == (5, 4, 3)


def test_names_that_mean_something_elsewhere(tmp_path, monkeypatch):
    names = ["2024", "a#b", "c d", "é", "1.2.840", "x.npz#y", "data.csv", "~", "%20", "[0-9]"]
    for name in names:
        nifti(tmp_path / name / "a.nii.gz")
    assert relative(tmp_path, find_images(tmp_path)) == sorted(f"{name}/a.nii.gz" for name in names)
    monkeypatch.chdir(tmp_path)
    assert [item["image"] for item in list_images(2024)] == [str(tmp_path / "2024" / "a.nii.gz")]
    for name in set(names) - {"data.csv", "~"}:
        assert len(list_images(tmp_path / name)) == 1


@pytest.mark.parametrize("nested", [False, True])
def test_class_folders_hold_volumes(tmp_path, nested):
    for label in ("benign", "malignant"):
        for patient in range(3):
            folder = series(tmp_path / label / f"P{patient}", f"1.{len(label)}.{patient}", ["IM0", "IM1", "IM2"])
            (folder / "069.xml").write_text("<a/>")
    items = [i for s in ("training", "validation") for i in image_folder_datalist(tmp_path, s, nested=nested)]
    assert sorted(i["image"] for i in items) == sorted(map(str, tmp_path.glob("*/P*")))
    assert {i["label"] for i in items} == {0, 1}
    assert len(load_datalist(tmp_path, "training", "classification", nested=nested)) == 4


def test_images_by_folder(tmp_path):
    nifti(tmp_path / "a" / "b" / "c.nii")
    (tmp_path / "empty").mkdir()
    series(tmp_path / "s")
    found = images_by_folder(tmp_path)
    assert relative(tmp_path, found) == ["a/b", "empty", "s"]
    assert list(found.values()) == [[str(tmp_path / "a" / "b" / "c.nii")], [], [str(tmp_path / "s")]]


CHANNELS = {
    "two cases": (["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"], [2, 2]),
    "one channel": (["a_0000.nii.gz", "b_0000.nii.gz"], [1, 1]),
    "one case outside of nnU-Net": (["a_0000.nii.gz", "a_0001.nii.gz"], [1, 1]),
    "one case of nnU-Net": (["imagesTs/a_0000.mha", "imagesTs/a_0001.mha", "imagesTs/a_0002.mha"], [3]),
    "numbered cases": (["amos_0008.nii.gz", "amos_0009.nii.gz", "case_0001.nii"], [1, 1, 1]),
    "years": (["scan_2023.nii", "scan_2024.nii", "other_2024.nii"], [1, 1, 1]),
    "frames": (["a_0000.png", "a_0001.png", "b_0000.png", "b_0001.png"], [1, 1, 1, 1]),
    "pictures of nnU-Net": (["imagesTs/a_0000.png", "imagesTs/a_0001.png"], [2]),
    "others beside": (["imagesTs/a_0000.nii", "imagesTs/a_0001.nii", "imagesTs/x.nii"], [2, 1]),
    "in two folders": (["p/a_0000.nii", "p/b_0000.nii", "q/a_0001.nii", "q/b_0001.nii"], [1, 1, 1, 1]),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_channels(name):
    paths, expected = CHANNELS[name]
    grouped = group_channels(paths)
    assert [1 if isinstance(image, str) else len(image) for image in grouped] == expected
    assert sorted(path for image in grouped for path in ([image] if isinstance(image, str) else image)) == sorted(paths)


@pytest.mark.parametrize(
    "paths",
    [
        ["a_0000.nii", "a_0001.nii", "b_0000.nii"],
        ["a_0000.nii", "a_0001.nii", "b_0001.nii"],
        ["imagesTs/a_0000.nii", "imagesTs/a_0001.nii", "imagesTs/b_0000.nii", "imagesTs/b_0002.nii"],
    ],
)
def test_lacking_channels_are_told(paths):
    with pytest.raises(ValueError, match=r"b has the channels \[.*\], other cases of the folder have 2: add b_000"):
        group_channels(paths)


def test_images_of_nnunet_are_read_as_channels(tmp_path):
    for case in range(2):
        for channel in range(2):
            voxels = np.full((4, 4, 4), 10 * case + channel, np.int16)
            path = tmp_path / "imagesTs" / f"case{case}_{channel:04d}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    items = list_images(tmp_path)
    images = [LoadImage(reader=SimpleITKReader)(item["image"]) for item in items]
    assert [[int(channel.mean()) for channel in image] for image in images] == [[0, 1], [10, 11]]


def test_npz_images_are_read_without_a_message(tmp_path, caplog):
    array = np.random.default_rng(0).integers(0, 255, (3, 4, 5)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", val_images=array)
    np.save(tmp_path / "b.npy", array)
    caplog.set_level("INFO")
    path = npz_path(tmp_path / "a.npz", "val_images", 1)
    np.testing.assert_array_equal(LoadImage(reader=SimpleITKReader)(path), array[1].T)
    np.testing.assert_array_equal(LoadImage(reader=SimpleITKReader)(tmp_path / "b.npy"), array)
    assert "unable to load" not in caplog.text
