# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import locale
import logging
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from monai_crossd.data import load_datalist, load_labels
from monai_crossd.demo import make_phantom, phantoms, prepare_phantoms

SIZE = (24, 20, 6)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def read_nifti(path):
    image = nib.load(path)
    return np.asarray(image.dataobj), image.affine


def read_nrrd(path):
    values, header = nrrd.read(str(path))
    assert header["space"] == "left-posterior-superior"
    affine = np.eye(4)
    affine[:3, :3] = header["space directions"].T
    affine[:3, 3] = header["space origin"]
    return values, np.diag([-1, -1, 1, 1]) @ affine


def read_mha(path):
    """By hand: a text header, then zlib's bytes."""
    import zlib

    head, data = path.read_bytes().split(b"ElementDataFile = LOCAL\n")
    fields = dict(line.split(" = ") for line in head.decode().strip().split("\n"))
    dtype = {"MET_SHORT": "<i2", "MET_UCHAR": "u1"}[fields["ElementType"]]
    shape = tuple(map(int, fields["DimSize"].split()))
    numbers = {k: np.array(fields[k].split(), float) for k in ("TransformMatrix", "Offset", "ElementSpacing")}
    affine = np.eye(4)
    affine[:3, :3] = numbers["TransformMatrix"].reshape(3, 3).T * numbers["ElementSpacing"]
    affine[:3, 3] = numbers["Offset"]
    return np.frombuffer(zlib.decompress(data), dtype).reshape(shape, order="F"), np.diag([-1, -1, 1, 1]) @ affine


def read_series(path):
    """Slice by slice with pydicom, in the order of their positions."""
    pydicom = pytest.importorskip("pydicom")
    slices = [pydicom.dcmread(p) for p in path.iterdir()]
    rows = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    slices.sort(key=lambda s: np.dot(np.cross(*rows), np.array(s.ImagePositionPatient, float)))
    values = np.stack(
        [s.pixel_array.T * float(s.get("RescaleSlope", 1)) + float(s.get("RescaleIntercept", 0)) for s in slices], -1
    )
    first, second = (np.array(s.ImagePositionPatient, float) for s in slices[:2])
    affine = np.eye(4)
    affine[:3, :3] = np.stack([*(rows * np.array(slices[0].PixelSpacing, float)[::-1, None]), second - first], 1)
    affine[:3, 3] = first
    return values, np.diag([-1, -1, 1, 1]) @ affine


READERS = {"nifti": read_nifti, "nrrd": read_nrrd, "mha": read_mha, "dicom": read_series}


@pytest.mark.parametrize("tilt", [0.0, 25.0])
@pytest.mark.parametrize("file_format", READERS)
@pytest.mark.parametrize("modality", ["ct", "mr", "us"])
def test_every_format_holds_the_voxels_at_their_place(tmp_path, modality, file_format, tilt):
    path = prepare_phantoms(
        modality, tmp_path / "set", subjects=4, size=SIZE, file_format=file_format, num_classes=2, tilt=tilt
    )
    content = read(path)
    affines = []
    for item in content["training"] + content["validation"]:
        phantom = make_phantom(modality, int(item["patient"][-4:]), SIZE, num_classes=2)
        values, affine = READERS[file_format](path.parent / item["image"])
        np.testing.assert_array_equal(values, phantom.image)
        np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), phantom.spacing, rtol=1e-5)
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        assert np.linalg.det(axes) == pytest.approx(1)
        # x to the left and y to the back are -1 in RAS; a turn by tilt has the trace 1 + 2 cos
        turn = np.trace(np.diag([-1, -1, 1]) @ axes)
        assert turn == pytest.approx(1 + 2 * np.cos(np.radians(tilt)), abs=1e-5)
        label_reader = read_nifti if file_format == "dicom" else READERS[file_format]
        label, label_affine = label_reader(path.parent / item["label"])
        np.testing.assert_array_equal(label, phantom.label)
        np.testing.assert_allclose(label_affine, affine, atol=1e-3)
        affines.append(affine)
    assert len(np.unique(np.round(affines, 3), axis=0)) == 4  # no two subjects at the same place


@pytest.mark.parametrize("modality", ["ct", "mr_t1", "us"])
def test_dicom_says_what_it_is(tmp_path, modality):
    pydicom = pytest.importorskip("pydicom")
    path = prepare_phantoms(modality, tmp_path / "set", "classification", 4, SIZE, file_format="dicom", num_classes=2)
    uids, series = set(), set()
    for item in read(path)["training"] + read(path)["validation"]:
        for index, name in enumerate(sorted((path.parent / item["image"]).iterdir())):
            header = pydicom.dcmread(name)
            assert header.Modality == modality[:2].upper()
            assert header.SOPClassUID.name.startswith({"ct": "CT", "mr_t1": "MR", "us": "Ultrasound"}[modality])
            assert header.PatientID == item["patient"]
            assert "Phantom" in str(header.PatientName)
            assert header.InstanceNumber == index + 1
            assert float(header.SliceThickness) > 0
            assert all(uid.is_valid for uid in (header.SOPInstanceUID, header.SeriesInstanceUID))
            if modality == "ct":
                assert (header.RescaleIntercept, header.RescaleType) == (-1024, "HU")
                assert header.pixel_array.min() >= 0
            uids.add(header.SOPInstanceUID)
            series.add(header.SeriesInstanceUID)
    assert (len(uids), len(series)) == (4 * SIZE[2], 4)


@pytest.mark.parametrize("modality", ["ct", "mr", "us"])
def test_png_is_the_picture_in_8_bit(tmp_path, modality):
    path = prepare_phantoms(modality, tmp_path / "set", subjects=4, size=(40, 32), file_format="png", num_classes=2)
    item = read(path)["training"][0]
    phantom = make_phantom(modality, int(item["patient"][-4:]), (40, 32), num_classes=2)
    picture, label = (np.asarray(Image.open(path.parent / item[k])) for k in ("image", "label"))
    np.testing.assert_array_equal(label.T, phantom.label)
    assert picture.shape == (32, 40)
    low, high = {"ct": (-160, 240), "mr": (0, np.percentile(phantom.image, 99.5)), "us": (0, 255)}[modality]
    np.testing.assert_allclose(picture.T, ((phantom.image - low) / (high - low)).clip(0, 1) * 255, atol=0.51)


@pytest.mark.parametrize("file_format", phantoms.FORMATS)
@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_one_slice_in_every_format(tmp_path, task, file_format):
    path = prepare_phantoms("us", tmp_path / "set", task, 4, (24, 20), file_format=file_format, num_classes=2)
    for item in read(path)["training"]:
        phantom = make_phantom("us", int(item["patient"][-4:]), (24, 20), num_classes=2)
        values = np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(str(path.parent / item["image"])))).T
        np.testing.assert_array_equal(values, phantom.image)
        if task == "segmentation":
            values = np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(str(path.parent / item["label"])))).T
            np.testing.assert_array_equal(values, phantom.label)


@pytest.mark.parametrize("file_format", ["nifti", "nrrd", "mha", "dicom"])
@pytest.mark.parametrize("size", [SIZE, (24, 20)], ids=["3d", "2d"])
def test_the_datalist_accepts_it(tmp_path, file_format, size):
    prepare_phantoms("ct", tmp_path / "set", subjects=4, size=size, file_format=file_format, num_classes=2)
    items = load_datalist(tmp_path / "set", "training")
    assert all(Path(item[key]).exists() for item in items for key in ("image", "label"))
    assert load_labels(tmp_path / "set")[8] == "lesion"


@pytest.mark.parametrize(
    ("subjects", "num_classes", "val_fraction"), [(6, 3, 0.25), (24, 3, 0.25), (13, 2, 0.4), (9, 4, 0.5)]
)
def test_sections_are_split_by_subject_and_hold_every_class(tmp_path, subjects, num_classes, val_fraction):
    path = prepare_phantoms(
        "us", tmp_path / "set", "classification", subjects, (16, 16), file_format="png", num_classes=num_classes,
        val_fraction=val_fraction,
    )  # fmt: skip
    content = read(path)
    sections = [content["training"], content["validation"]]
    patients = [{item["patient"] for item in section} for section in sections]
    assert not patients[0] & patients[1]
    assert len(patients[0] | patients[1]) == subjects
    for section in sections:
        assert {item["label"] for item in section} == set(range(num_classes))
    assert list(content["labels"].values()) == list(phantoms.CLASSES[:num_classes])
    assert len(patients[1]) == pytest.approx(subjects * val_fraction, abs=num_classes / 2 + 1)


def test_it_says_that_it_is_synthetic(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "monai_crossd"):
        path = prepare_phantoms("mr", tmp_path / "set", subjects=6, size=(16, 16))
    assert "Phantoms (synthetic), 6 subjects" in caplog.text
    content = read(path)
    assert "6 SYNTHETIC MR subjects" in content["description"]
    assert "not patients" in content["description"]
    assert content["modality"] == {"0": "MR"}


def test_equal_arguments_reuse_and_others_raise(tmp_path, monkeypatch):
    first = prepare_phantoms("ct", tmp_path / "set", subjects=6, size=(16, 16))
    with monkeypatch.context() as patch:
        patch.setattr(phantoms, "make_phantom", lambda *_: pytest.fail("made again"))
        assert prepare_phantoms("ct", tmp_path / "set", subjects=6, size=(16, 16)) == first
        with pytest.raises(FileExistsError, match=r"'seed': 0.*remove it or choose another root"):
            prepare_phantoms("ct", tmp_path / "set", subjects=6, size=(16, 16), seed=1)


def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*arguments, make=make_phantom):
        if arguments[1] == 3:
            raise KeyboardInterrupt
        return make(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(phantoms, "make_phantom", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare_phantoms("ct", tmp_path / "set", subjects=6, size=(16, 16))
    assert list(tmp_path.iterdir()) == []


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds no dataset\.json"):
        prepare_phantoms("ct", tmp_path, subjects=6, size=(16, 16))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_two_preparations_are_the_same(tmp_path):
    content = []
    for name in ("a", "b"):
        prepare_phantoms("ct", tmp_path / name, subjects=4, size=SIZE, file_format="dicom", num_classes=2)
        written = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        content.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in written})
    assert content[0] == content[1]


def test_writing_dicom_leaves_the_locale(tmp_path):
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
        current = locale.setlocale(locale.LC_ALL)
        phantoms.write_dicom(sitk.Image(8, 8, 2, sitk.sitkInt16), tmp_path / "series", "CT", "a", "b")
        assert locale.setlocale(locale.LC_ALL) == current
    finally:
        locale.setlocale(locale.LC_ALL, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modality": "pet"}, "ct"),
        ({"task": "regression"}, "segmentation"),
        ({"file_format": "jpeg"}, "nifti"),
        ({"file_format": "png"}, r"PNG holds one slice: give \(X, Y\)"),
        ({"size": (24, 24), "tilt": 5.0}, "only a volume can be turned"),
        ({"subjects": 5}, "at least 6"),
        ({"val_fraction": 0.0}, "val_fraction is 0.0"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"size": (8, 8, 8)}, "at least 16"),
        ({"spacing": (1.0, 1.0)}, "expected 3 positive numbers"),
        ({"num_classes": 7, "subjects": 14}, "expected 2 to 4"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_wrong_arguments_write_nothing(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        prepare_phantoms(**{"modality": "ct", "root": tmp_path / "set", **arguments})
    assert list(tmp_path.iterdir()) == []
