# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_crossd.data import load_datalist, split
from monai_crossd.data.split import find_copies


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 9), dtype=np.uint8)).save(path)
    return path


def write_list(folder: Path, **sections) -> Path:
    items = {
        name: [dict(zip(("image", "label", "patient"), row, strict=False)) for row in rows]
        for name, rows in sections.items()
    }
    (folder / "list.json").write_text(json.dumps(items))
    return folder / "list.json"


@pytest.mark.parametrize("make", [os.link, os.symlink, shutil.copy])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by_patient", [False, True])
def test_copies_stay_together(tmp_path, make, seed, by_patient):
    rows = []
    for number in range(12):
        name = f"{number}.png"
        picture(tmp_path / name, number)
        if number % 3 == 0:
            make(tmp_path / name, tmp_path / f"copy{number}.png")
            rows.append((f"copy{number}.png", number % 2, f"other{number}"))
        rows.append((name, number % 2, f"p{number}"))
    path = write_list(tmp_path, training=[row[: 2 + by_patient] for row in rows])
    sides = [load_datalist(path, s, "classification", val_fraction=0.4, seed=seed) for s in ("training", "validation")]
    contents = [{Path(item["image"]).read_bytes() for item in side} for side in sides]
    assert all(sides)
    assert not contents[0] & contents[1]
    assert sum(map(len, sides)) == 16


@pytest.mark.parametrize("make", [os.link, os.symlink, shutil.copy])
@pytest.mark.parametrize("sections", [("training", "validation"), ("training", "test"), ("validation", "test")])
def test_copies_in_two_sections(tmp_path, make, sections):
    make(picture(tmp_path / "a.png", 0), tmp_path / "b.png")
    rows = {name: [(f"{name}{k}.png", k) for k in range(2)] for name in ("training", "validation", "test")}
    for number, name in enumerate(rows):
        for k in range(2):
            picture(tmp_path / f"{name}{k}.png", 10 + 2 * number + k)
    for name, image in zip(sections, ("a.png", "b.png"), strict=True):
        rows[name].append((image, 0))
    message = f'a.png and .*b.png are the same image, in the sections "{sections[0]}" and "{sections[1]}"'
    with pytest.raises(ValueError, match=message):
        load_datalist(write_list(tmp_path, **rows), "training", "classification")


@pytest.mark.parametrize("make", [os.link, os.symlink, shutil.copy, None])
def test_contradicting_labels(tmp_path, make):
    other = tmp_path / ("b.png" if make else "a.png")
    picture(tmp_path / "a.png", 0)
    if make:
        make(tmp_path / "a.png", other)
    rows = [("a.png", 0), (other.name, 1)]
    with pytest.raises(ValueError, match=rf"a\.png and .*{other.name} are the same image, with the labels 0 and 1"):
        load_datalist(write_list(tmp_path, training=rows), "training", "classification")


@pytest.mark.parametrize("same", [True, False])
def test_label_maps_of_copies(tmp_path, same):
    for name in "ab":
        picture(tmp_path / f"{name}.png", 0)
        Image.fromarray(np.full((8, 9), 1 if same else "ab".index(name), np.uint8)).save(tmp_path / f"{name}_l.png")
    picture(tmp_path / "c.png", 3)
    shutil.copy(tmp_path / "a_l.png", tmp_path / "c_l.png")
    path = write_list(tmp_path, training=[(f"{name}.png", f"{name}_l.png") for name in "abc"])
    if not same:
        with pytest.raises(ValueError, match=r"with the labels .*a_l\.png and .*b_l\.png"):
            load_datalist(path)
        return
    sides = [{Path(item["image"]).stem for item in load_datalist(path, s)} for s in ("training", "validation")]
    assert sorted(map(sorted, sides)) == [["a", "b"], ["c"]]


def test_folders_and_channels(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        for number in range(3):
            picture(tmp_path / name / f"{number}.png", 10 * seed + number)
    os.symlink(tmp_path / "c", tmp_path / "d")
    images: list = [str(tmp_path / name) for name in "abcd"]
    images += [[f"{tmp_path}/{name}/0.png", f"{tmp_path}/{name}/1.png"] for name in "abc"]
    blank = split._is_blank
    split._is_blank = lambda image: False  # a folder of PNG is no series
    try:
        assert find_copies(images) == [[0, 1], [2, 3], [4, 5]]
    finally:
        split._is_blank = blank


def test_blank_images_are_no_copies_but_one_file_is(tmp_path):
    for name in "ab":
        Image.new("L", (8, 9)).save(tmp_path / f"{name}.png")
    os.link(tmp_path / "a.png", tmp_path / "c.png")
    assert find_copies([str(tmp_path / f"{name}.png") for name in "abc"]) == [[0, 2]]


def test_absent_files_and_arrays_are_passed_over(tmp_path):
    picture(tmp_path / "a.png", 0)
    assert find_copies([str(tmp_path / "a.png"), str(tmp_path / "no.png"), "x.npz#a/0", "x.npz#a/0"]) == []


def test_little_is_read(tmp_path, monkeypatch):
    """Of large files of one size a few pieces; whole only what is alike in them."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, 1 << 20, dtype=np.uint8) for _ in range(4)]
    arrays.append(arrays[0].copy())
    changed = arrays[1].copy()
    changed[70_000] ^= 1  # between the pieces
    arrays.append(changed)
    for number, array in enumerate(arrays):
        array.tofile(tmp_path / f"{number}.raw")
    whole = []
    content = split._content
    monkeypatch.setattr(split, "_content", lambda image: whole.append(Path(image).stem) or content(image))
    monkeypatch.setattr(split, "_is_blank", lambda image: False)
    assert find_copies([str(tmp_path / f"{number}.raw") for number in range(6)]) == [[0, 4]]
    assert sorted(whole) == ["0", "1", "4", "5"]


@pytest.mark.parametrize("alike", [True, False])
def test_headers_beside_other_voxels_are_no_copies(tmp_path, alike):
    """The header of a MetaImage names its file without the folder, so that all headers of a data set may be equal."""
    text = "NDims = 2\nDimSize = 8 8\nElementType = MET_UCHAR\nElementDataFile = voxels.raw\n"
    paths = []
    for seed, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.mhd").write_text(text)
        voxels = np.random.default_rng(0 if alike else seed).integers(0, 256, 64, dtype=np.uint8)
        (tmp_path / name / "voxels.raw").write_bytes(voxels.tobytes())
        paths.append(str(tmp_path / name / "image.mhd"))
    assert find_copies(paths) == ([[0, 1]] if alike else [])
