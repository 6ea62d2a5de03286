# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from monai_crossd.data import load_datalist, load_labels


@pytest.fixture
def folder(tmp_path):
    """Four pictures and two volumes with label maps."""
    for name in "abcd":
        Image.new("L", (8, 9)).save(tmp_path / f"{name}.png")
    return tmp_path


def write(folder: Path, text: str, encoding="utf-8") -> Path:
    path = folder / "list.csv"
    path.write_text(text, encoding)
    return path


def both(path, task="classification", **options):
    return [load_datalist(path, section, task, **options) for section in ("training", "validation")]


SECTIONS = "image,label,section\na.png,{},training\nb.png,{},train\nc.png,{},val\nd.png,{},test\n"


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        (("0", "2", "0", "2"), [0, 2, 0, 2], {0: "class 0", 1: "class 1", 2: "class 2"}),
        (("dog", "cat", "dog", "cat"), [1, 0, 1, 0], {0: "cat", 1: "dog"}),
        (("3", "4a", "3", "4a"), [0, 1, 0, 1], {0: "3", 1: "4a"}),  # BI-RADS
    ],
)
def test_classes_and_sections(folder, labels, numbers, names):
    path = write(folder, SECTIONS.format(*labels))
    items = [*load_datalist(path, "training", "classification"), *load_datalist(path, "validation", "classification")]
    items += load_datalist(path, "test", "classification")
    assert items == [
        {"image": str(folder / f"{name}.png"), "label": number} for name, number in zip("abcd", numbers, strict=True)
    ]
    assert load_labels(path, "classification") == names


def test_spreadsheet_habits(folder):
    """Byte order mark, capitals, spaces, blank lines, columns of other names, Windows line ends, quoted commas."""
    Image.new("L", (8, 9)).save(folder / "e,f.png")
    text = 'Age , Image,Label\r\n7, a.png ,x\r\n\r\n8,b.png,y\r\n9,c.png,x\r\n10,"e,f.png",y\r\n'
    training, validation = both(write(folder, text, "utf-8-sig"))
    assert {Path(i["image"]).name for i in training + validation} == {"a.png", "b.png", "c.png", "e,f.png"}
    assert all(set(i) == {"image", "label"} for i in training + validation)
    assert [i["label"] for i in validation] == [0, 1]  # one of each class


def test_patient_column(folder):
    text = "image,label,patient\na.png,x,7\nb.png,x,7\nc.png,x,8\nd.png,x,8\n"
    training, validation = both(write(folder, text), val_fraction=0.5)
    assert {i["patient"] for i in training} ^ {i["patient"] for i in validation} == {"7", "8"}
    assert len(training) == len(validation) == 2


def test_segmentation(tmp_path, write_nifti):
    elsewhere = write_nifti(tmp_path / "other" / "b.nii")
    write_nifti(tmp_path / "images" / "a.nii")
    write_nifti(tmp_path / "labels" / "a.nii")
    text = f"image,label,section\nimages/a.nii,labels/a.nii,training\n{elsewhere},{elsewhere},validation\n"
    training, validation = both(write(tmp_path, text), "segmentation")
    assert training == [{"image": str(tmp_path / "images/a.nii"), "label": str(tmp_path / "labels/a.nii")}]
    assert validation == [{"image": str(elsewhere), "label": str(elsewhere)}]
    assert load_labels(tmp_path / "list.csv") == {0: "background"}


BAD = {
    "no column": ("image,class\na.png,1\n", r'line 1 has no column "label" \(found: \[\'image\', \'class\'\]\)'),
    "semicolons": ("image;label\na.png;1\n", "columns are separated by commas"),
    "empty file": ("", r'has no column "image"'),
    "no row": ("image,label\n", "holds no item: add a line"),
    "empty cell": ("image,label\na.png,1\nb.png,\n", r'list\.csv, line 3: the cell "label" is empty\. Fill it'),
    "few cells": ("image,label\na.png,1\nb.png\n", "line 3 has 1 cells; expected 2"),
    "many cells": ("image,label\na,b.png,1\n", "line 2 has 3 cells; expected 2, .* Put quotes around commas"),
    "after blank lines": ("image,label\n\n\na.png,\n", "line 4: the cell"),
    "absent file": ("image,label\na.png,1\nno.png,1\n", r"list\.csv, line 3: .*no\.png does not exist: correct the"),
    "section": ("image,label,section\na.png,1,trian\n", "line 2: the section is 'trian'; expected training"),
    "no training": ("image,label,section\na.png,1,val\n", 'no training row: write "training"'),
    "unknown class": (
        "image,label,section\na.png,x,train\nb.png,y,val\n",
        r"line 3: the label 'y' has no training row \(classes: \['x'\]\)",
    ),
    "negative": ("image,label\na.png,0\nb.png,-1\nc.png,0\nd.png,-1\n", None),
    "not CSV": ('image,label\n"a.png,1\n', "is no CSV in UTF-8: unexpected end of data"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_lists(folder, case):
    text, message = BAD[case]
    path = write(folder, text)
    if message is None:  # not all are class numbers, so they are names
        both(path)
        assert load_labels(path, "classification") == {0: "-1", 1: "0"}
        return
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        both(path)
    assert str(path) in str(caught.value)


def test_no_text(folder):
    path = folder / "list.csv"
    path.write_bytes("image,label\nb\xe4r.png,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="Save it as comma separated UTF-8"):
        both(path)


def test_missing_label_file(tmp_path, write_nifti):
    write_nifti(tmp_path / "a.nii")
    path = write(tmp_path, "image,label\na.nii,no.nii\na.nii,a.nii\n")
    with pytest.raises(FileNotFoundError, match=r"line \d: .*no\.nii does not exist"):
        both(path, "segmentation")


def listed(folder, labels, patients=None):
    for number in range(len(labels)):
        Image.new("L", (4, 4), number).save(folder / f"{number}.png")
    rows = [f"{number}.png,{label}" for number, label in enumerate(labels)]
    if patients:
        rows = [f"{row},{patient}" for row, patient in zip(rows, patients, strict=True)]
    return write(folder, "\n".join(["image,label" + ",patient" * bool(patients), *rows]))


@pytest.mark.parametrize(
    ("labels", "numbers", "names", "word"),
    [
        (["1", "2", "3"] * 3, [0, 1, 2] * 3, ["1", "2", "3"], True),  # BI-RADS
        (["2", "10"] * 3, [0, 1] * 3, ["2", "10"], True),
        (["0", "255"] * 3, [0, 1] * 3, ["0", "255"], True),
        (["0", "2", "7", "1000"] * 3, [0, 1, 2, 3] * 3, ["0", "2", "7", "1000"], True),
        (["True", "False"] * 3, [1, 0] * 3, ["False", "True"], False),
        (["0", "1"] * 3, [0, 1] * 3, ["class 0", "class 1"], False),
        (["00", "1"] * 3, [0, 1] * 3, ["class 0", "class 1"], False),
        (["2A", "1.5"] * 3, [1, 0] * 3, ["1.5", "2A"], False),
        (list("abcdefgh") * 2, list(range(8)) * 2, list("abcdefgh"), False),
        (["α β", "#1"] * 2, [1, 0] * 2, ["#1", "α β"], False),
    ],
)
def test_what_a_class_may_be(tmp_path, caplog, labels, numbers, names, word):
    path = listed(tmp_path, labels)
    items = [item for side in both(path, val_fraction=0.34) for item in side]
    order = {item["image"]: item["label"] for item in items}
    assert [order[str(tmp_path / f"{number}.png")] for number in range(len(labels))] == numbers
    assert load_labels(path, "classification") == dict(enumerate(names))
    assert ("are the classes" in caplog.text) is word


@pytest.mark.parametrize(
    ("labels", "patients", "message"),
    [
        ([f"P{n:03d}" for n in range(6)], None, r"\['P000', .*6 classes of 6 items: identifiers\?"),
        ([str(1000 + n) for n in range(12)], None, "12 classes of 12 items"),
        ([str(n) for n in range(12)], None, "12 classes of 12 items"),
        ([f"x{n // 3 if n < 3 else n}" for n in range(14)], None, "12 classes of 14 items"),
        (["2021-03-04", "2021-03-05"] * 2, None, r"\['2021-03-04', '2021-03-05'\], dates"),
        (["3/4/2021", "5.12.21"] * 2, None, "dates"),
        (["2021-03-04 12:30:00", "2021-03-04"] * 2, None, "dates"),
        (["0.5", "1.25"] * 2, None, "numbers with a fraction"),
        (["0.0", "1.0"] * 2, None, "numbers with a fraction, .* Give a class to each item, as a whole number"),
        (["1e-3", "2"] * 2, None, "numbers with a fraction"),
        (["0", "nan"] * 2, None, "the label 'nan' stands for a missing one"),
        ([f"P{n // 3}" for n in range(18)], [f"P{n // 3}" for n in range(18)], 'same as the column "patient"'),
    ],
)
def test_columns_that_are_no_classes(tmp_path, labels, patients, message):
    path = listed(tmp_path, labels, patients)
    for read in (load_datalist, load_labels):
        with pytest.raises(ValueError, match=message) as caught:
            read(path, task="classification")
        assert str(path) in str(caught.value)
