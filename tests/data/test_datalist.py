# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from monai_crossd.data import check_pairs, load_datalist, load_labels, read_shape


def write_png(path: Path, size=(8, 9)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.Image(*size, sitk.sitkUInt8), str(path))
    return path


def write_json(path: Path, **content) -> Path:
    path.write_text(json.dumps(content))
    return path


def load_both(path: Path, task: str) -> list[list[dict]]:
    return [load_datalist(path, section, task, val_fraction=0.5) for section in ("training", "validation")]


@pytest.fixture
def pairs(tmp_path, write_nifti):
    """Folder of five segmentation cases."""
    for case in "abcde":
        write_nifti(tmp_path / "imagesTr" / f"{case}.nii.gz")
        write_nifti(tmp_path / "labelsTr" / f"{case}.nii.gz")
    (tmp_path / "imagesTr" / "._a.nii.gz").write_bytes(b"macOS")
    return tmp_path


@pytest.fixture
def classes(tmp_path):
    """Class folders: 10 cats, 5 dogs."""
    for name, count in (("cat", 10), ("dog", 5)):
        for i in range(count):
            write_png(tmp_path / name / f"{i}.png")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("task", "counts"), [("segmentation", (3, 2)), ("classification", (2401, 602))])
def test_demo(demo_dir, task, counts):
    for section, count in zip(("training", "validation"), counts, strict=True):
        items = load_datalist("demo", section, task, demo_dir)
        assert len(items) == count
        assert all(Path(i["image"]).is_absolute() for i in items)
        named = json.loads((demo_dir / task / "dataset.json").read_text())[section]
        assert [demo_dir / task / i["image"] for i in named] == [Path(i["image"]) for i in items]
    labels = load_labels("demo", task, demo_dir)
    assert (labels[0], len(labels)) == (("background", 8) if task == "segmentation" else ("ribs", 7))


@pytest.mark.parametrize("form", ["file", "folder", "relative"])
def test_json(demo_dir, form, monkeypatch):
    monkeypatch.chdir(demo_dir)
    folder = demo_dir / "segmentation"
    dataset = {"file": folder / "dataset.json", "folder": folder, "relative": "segmentation/dataset.json"}[form]
    assert load_datalist(dataset) == load_datalist("demo", demo_dir=demo_dir)
    assert load_labels(dataset)[7] == "tissue"


def test_pairs_are_split_by_seed(pairs):
    training, validation = load_datalist(pairs), load_datalist(pairs, "validation")
    assert (len(training), len(validation)) == (4, 1)
    assert {Path(i["image"]).name[0] for i in training + validation} == set("abcde")
    assert all(Path(i["image"]).name == Path(i["label"]).name for i in training)
    assert load_datalist(pairs) == training
    assert {load_datalist(pairs, "validation", seed=s)[0]["image"] for s in range(8)} != {validation[0]["image"]}
    assert len(load_datalist(pairs, "validation", val_fraction=0.4)) == 2


def test_json_without_validation_is_split(pairs):
    items = [{"image": f"imagesTr/{c}.nii.gz", "label": f"labelsTr/{c}.nii.gz"} for c in "abcde"]
    path = write_json(pairs / "mine.json", training=items, labels={"0": "background", "1": "liver"})
    assert len(load_datalist(path)) == 4
    assert len(load_datalist(path, "validation")) == 1
    assert load_labels(path) == {0: "background", 1: "liver"}


def test_class_folders_are_split_per_class(classes):
    training = load_datalist(classes, "training", "classification")
    validation = load_datalist(classes, "validation", "classification")
    assert Counter(i["label"] for i in training) == {0: 8, 1: 4}
    assert Counter(i["label"] for i in validation) == {0: 2, 1: 1}
    assert not {i["image"] for i in training} & {i["image"] for i in validation}
    assert load_labels(classes, "classification") == {0: "cat", 1: "dog"}


def test_train_and_val_folders(tmp_path):
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            write_png(tmp_path / part / name / "0.png")
    for section, part in (("training", "train"), ("validation", "val")):
        items = load_datalist(tmp_path, section, "classification")
        assert [(Path(i["image"]).relative_to(tmp_path).as_posix(), i["label"]) for i in items] == [
            (f"{part}/cat/0.png", 0),
            (f"{part}/dog/0.png", 1),
        ]


def test_read_shape_of_other_formats(tmp_path):
    image = sitk.Image(4, 5, 6, sitk.sitkInt16)
    for name in ("a.nrrd", "a.mha", "a.nii"):
        sitk.WriteImage(image, str(tmp_path / name))
        assert read_shape(tmp_path / name) == (4, 5, 6)
    np.save(tmp_path / "a.npy", np.zeros((4, 5, 6)))
    assert read_shape(tmp_path / "a.npy") == (4, 5, 6)
    (tmp_path / "series").mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in range(6):
        plane = image[:, :, z : z + 1]
        for tag, value in (
            ("0020|000e", "1.2.3"),
            ("0020|000d", "1.2"),
            ("0020|0032", f"0\\0\\{z}"),
            ("0008|0060", "CT"),
        ):
            plane.SetMetaData(tag, value)
        writer.SetFileName(str(tmp_path / "series" / f"{z}.dcm"))
        writer.Execute(plane)
    assert read_shape(tmp_path / "series") == (4, 5, 6)


def test_channels_of_an_image_are_no_mismatch(tmp_path, write_nifti):
    image, label = write_nifti(tmp_path / "i.nii", (6, 5, 4, 2)), write_nifti(tmp_path / "l.nii")
    check_pairs([{"image": str(image), "label": str(label)}])


ITEM = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
BAD_JSON = {
    "no training": ("segmentation", {"labels": {}}, 'mine.json has no section "training"'),
    "no image": ("segmentation", {"training": [ITEM, {"label": "x"}]}, 'item 1 has no "image"'),
    "no label": ("segmentation", {"training": [{"image": "x"}]}, 'item 0 has no "label"'),
    "no object": ("segmentation", {"training": ["x"]}, "item 0 is 'x'; expected an object"),
    "no list": ("segmentation", {"training": ITEM}, "is a dict; expected a list"),
    "no file": ("segmentation", {"training": [ITEM, ITEM | {"image": "b/no.nii"}]}, r"no\.nii does not exist"),
    "number": ("segmentation", {"training": [ITEM | {"label": 1}]}, "label 1 is no path"),
    "path": ("classification", {"training": [ITEM]}, "is no class number"),
    "negative": ("classification", {"training": [ITEM | {"label": -1}]}, "label -1 is no class number"),
    "unnamed": ("classification", {"training": [ITEM | {"label": 2}], "labels": {"0": "a"}}, "label 2 is not among"),
    "names": ("segmentation", {"training": [ITEM], "labels": ["a"]}, "\"labels\" is \\['a'\\]; expected numbers"),
    "one case": ("segmentation", {"training": [ITEM]}, "needs at least two items"),
    "empty": ("segmentation", {"training": [ITEM], "validation": []}, None),
    "half a test": ("segmentation", {"training": [ITEM], "test": [ITEM, "x"]}, "section \"test\", item 1 is 'x'"),
    "half labelled": ("segmentation", {"training": [ITEM], "test": [ITEM, {"image": "x"}]}, 'item 1 has no "label"'),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_json(pairs, case):
    task, content, message = BAD_JSON[case]
    path = write_json(pairs / "mine.json", **content)
    if message is None:  # an empty section asks for no split, and the other one stays whole
        assert len(load_datalist(path)) == 1
        message = 'no item for section "validation"'
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_both(path, task)
    assert str(pairs) in str(caught.value)


def test_invalid_json(tmp_path):
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(ValueError, match=r"mine\.json is no valid JSON"):
        load_datalist(tmp_path / "mine.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"dataset": "nowhere"},
            r"nowhere does not exist: give a folder, a \.json, \.csv or \.npz file, or one of the words",
        ),
        ({"task": "segmentaton"}, "did you mean 'segmentation'"),
        ({"section": "validaton"}, "did you mean 'validation'"),
        ({"task": "classification"}, "is no classification data set"),
        ({"val_fraction": 1.0}, r"val_fraction is 1\.0; expected"),
    ],
)
def test_bad_arguments(pairs, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_datalist(**{"dataset": pairs} | arguments)


def test_labels_without_names_are_those_of_the_maps(pairs, demo_dir):
    """Numbers of the label maps, once all of them could be read."""
    for path in (pairs / "labelsTr").iterdir():
        (pairs / "imagesTr" / path.name).unlink()
        path.unlink()
    for kind in ("imagesTr", "labelsTr"):
        shutil.copy(demo_dir / "segmentation" / kind / "chest_00-06.nii.gz", pairs / kind)
    labels = load_labels(pairs)
    assert labels == {0: "background", **{n: f"label {n}" for n in range(1, 8)}}
    (pairs / "labelsTr" / "chest_00-06.nii.gz").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"chest_00-06\.nii\.gz cannot be read"):
        load_labels(pairs)


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_case_without_partner(pairs, write_nifti, folder):
    write_nifti(pairs / folder / "lonely.nii.gz")
    with pytest.raises(ValueError, match=r"lonely\.nii\.gz has no partner in"):
        load_datalist(pairs)


def test_empty_class_folder(classes):
    (classes / "eel").mkdir()
    with pytest.raises(ValueError, match="eel holds no image"):
        load_datalist(classes, "training", "classification")


def test_no_class_folders(tmp_path):
    with pytest.raises(ValueError, match="holds no class folders"):
        load_datalist(tmp_path, "training", "classification")


def test_class_only_in_validation(tmp_path):
    for name in ("train/cat", "val/cat", "val/dog"):
        write_png(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match="dog is a class without training images"):
        load_datalist(tmp_path, "training", "classification")


def test_shapes_differ(pairs, write_nifti):
    write_nifti(pairs / "labelsTr" / "c.nii.gz", (6, 5, 3))
    with pytest.raises(ValueError, match=r"imagesTr/c\.nii\.gz is \(6, 5, 4\), .*labelsTr/c\.nii\.gz is \(6, 5, 3\)"):
        load_datalist(pairs, seed=1, val_fraction=0.2) and load_datalist(pairs, "validation", seed=1)


@pytest.mark.parametrize("content", [b"", b"no image", "half"], ids=["empty", "text", "truncated"])
@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.png", "x.nrrd", "x.npy"])
def test_unreadable_image(tmp_path, name, content, write_nifti):
    path = tmp_path / name
    if content == "half":
        if name.startswith("x.nii"):
            write_nifti(path)
        elif name == "x.npy":
            np.save(path, np.zeros(9))
        else:
            sitk.WriteImage(sitk.Image(4, 5, sitk.sitkUInt8), str(path))
        content = path.read_bytes()[:30]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} cannot be read as an image \(.+\): replace the file"):
        read_shape(path)


def test_test_section(pairs):
    items = [{"image": f"imagesTr/{c}.nii.gz", "label": f"labelsTr/{c}.nii.gz"} for c in "abc"]
    path = write_json(pairs / "mine.json", training=items[:2], test=items[2:])
    assert load_datalist(path, "test")[0]["image"] == str(pairs / "imagesTr" / "c.nii.gz")
    for unlabelled in ("imagesTs/x.nii.gz", {"image": "imagesTs/x.nii.gz"}):  # the decathlon's, MONAI's
        write_json(path, training=items[:2], test=[unlabelled])
        assert len(load_datalist(path)) == 1
        with pytest.raises(ValueError, match=r"no item for section \"test\" \(it has \['training'\]\)"):
            load_datalist(path, "test")


@pytest.mark.parametrize(
    ("word", "task", "subjects"), [("phantom:us", "segmentation", 24), ("phantom:mr:2d", "classification", 240)]
)
def test_embedded_words(demo_root, word, task, subjects):
    sides = [load_datalist(word, section, task, demo_root) for section in ("training", "validation")]
    assert sum(map(len, sides)) == subjects
    assert not {i["patient"] for i in sides[0]} & {i["patient"] for i in sides[1]}
    assert len(load_labels(word, task, demo_root)) >= 3


def test_a_file_that_is_no_list(tmp_path):
    (tmp_path / "list.xlsx").touch()
    with pytest.raises(
        ValueError, match=r"list\.xlsx is no list of a data set: expected a \.json, \.csv or \.npz file"
    ):
        load_datalist(tmp_path / "list.xlsx")


@pytest.fixture
def broken(pairs, write_nifti):
    """Of the five cases b is cut off, c has no label map, d one of another shape."""
    items = [{"image": f"imagesTr/{c}.nii.gz", "label": f"labelsTr/{c}.nii.gz"} for c in "abcde"]
    for kind in ("imagesTr", "labelsTr"):
        write_nifti(pairs / kind / "f.nii.gz")
    held = {"image": "imagesTr/f.nii.gz", "label": "labelsTr/f.nii.gz"}
    path = write_json(pairs / "mine.json", training=items, validation=[held])
    (pairs / "imagesTr" / "b.nii.gz").write_bytes((pairs / "imagesTr" / "b.nii.gz").read_bytes()[:20])
    (pairs / "labelsTr" / "c.nii.gz").unlink()
    write_nifti(pairs / "labelsTr" / "d.nii.gz", (6, 5, 3))
    return path


def test_skip_and_report(broken, caplog):
    items = load_datalist(broken, on_error="skip-and-report")
    assert [Path(item["image"]).name for item in items] == ["a.nii.gz", "e.nii.gz"]
    (record,) = [record for record in caplog.records if record.name.startswith("monai_crossd")]
    assert record.levelname == "WARNING"
    first, *lines = record.getMessage().splitlines()
    assert first == f"{broken}: 3 of 5 items are left out:"
    causes = (r"b\.nii\.gz cannot be read as an image", r"c\.nii\.gz does not exist", "Shapes differ")
    for number, (line, cause) in enumerate(zip(lines, causes, strict=True), start=1):
        assert re.search(rf'mine\.json, section "training", item {number}: .*{cause}', line)
    assert load_labels(broken, on_error="skip-and-report") == {0: "background"}


def test_nothing_to_report(pairs, caplog):
    assert load_datalist(pairs, on_error="skip-and-report") == load_datalist(pairs)
    assert not caplog.records


def test_raise_names_the_item(broken):
    for read in (load_datalist, load_labels):
        with pytest.raises(ValueError, match=r'mine\.json, section "training", item 1: .*b\.nii\.gz cannot be read'):
            read(broken)


def test_skipping_leaves_the_split_as_it_is(classes):
    before = load_datalist(classes, "validation", "classification")
    Path(load_datalist(classes, "training", "classification")[0]["image"]).write_bytes(b"no image")
    assert load_datalist(classes, "validation", "classification", on_error="skip-and-report") == before
    assert len(load_datalist(classes, "training", "classification", on_error="skip-and-report")) == 11


def test_nothing_can_be_read(pairs):
    for path in (pairs / "imagesTr").iterdir():
        path.write_bytes(b"no image")
    for read in (load_datalist, load_labels):
        with pytest.raises(ValueError, match=r"none of \d items can be read; the first: .*cannot be read as an image"):
            read(pairs, on_error="skip-and-report")
        with pytest.raises(ValueError, match="skip-and-report"):
            read(pairs, on_error="skip")
