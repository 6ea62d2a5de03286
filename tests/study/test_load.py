# SPDX-License-Identifier: Apache-2.0
"""All sections of a data set, or an error that names what cannot be read."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_crossd.study.load import DataSpec, load_items, load_volumes

COUNTS = {"training": 6, "validation": 4, "test": 8}


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)


@pytest.fixture(params=["csv", "folders", "npz"])
def data(request, tmp_path):
    """A data set of three sections, and what damages one of them."""
    names = [(section, number) for section, count in COUNTS.items() for number in range(count)]
    if request.param == "npz":
        rng = np.random.default_rng(0)
        arrays = {}
        for section, count in COUNTS.items():
            key = {"training": "train", "validation": "val"}.get(section, section)
            arrays[f"{key}_images"] = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
            arrays[f"{key}_labels"] = np.arange(count)[:, None] % 2
        np.savez(tmp_path / "mine.npz", **arrays)

        def damage(section):
            key = {"training": "train", "validation": "val"}.get(section, section)
            np.savez(tmp_path / "mine.npz", **{k: v for k, v in arrays.items() if k != f"{key}_labels"})
            return rf"mine\.npz has no array '{key}_labels'"

        return tmp_path / "mine.npz", damage
    folder = "{section}/{label}" if request.param == "folders" else "."
    for seed, (section, number) in enumerate(names):
        place = folder.format(section=section, label=number % 2)
        picture(tmp_path / "set" / place / f"{section}{number}.png", seed)
    lines = [f"{section}{number}.png,{number % 2},{section}" for section, number in names]
    if request.param == "csv":
        (tmp_path / "set" / "list.csv").write_text("\n".join(["image,label,section", *lines]))

    def damage(section):
        (path,) = (tmp_path / "set").rglob(f"{section}3.png")
        path.write_bytes(b"no picture")
        return rf"{section}3\.png cannot be read"

    return tmp_path / "set" / ("list.csv" if request.param == "csv" else ""), damage


def spec(path: Path, size=(8, 8)) -> DataSpec:
    return DataSpec(path.parent.name, str(path), "us", size)


def test_every_section_is_there(data, tmp_path):
    items = load_items(spec(data[0]), 1, str(tmp_path))
    assert {name: items.sections.count(name) for name in COUNTS} == COUNTS
    assert items.images.shape == (18, 1, 8, 8)


@pytest.mark.parametrize("section", COUNTS)
def test_a_damaged_section_is_an_error(data, tmp_path, section):
    path, damage = data
    message = damage(section)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_items(spec(path), 1, str(tmp_path))


def test_volumes_are_no_images(tmp_path):
    for number in range(8):
        picture(tmp_path / "set" / "ab"[number % 2] / f"{number}.png", number)
    with pytest.raises(ValueError, match=r"\.png has 2 dimensions, shape \(8, 8\); expected 3"):
        load_items(spec(tmp_path / "set", (8, 8, 4)), 1, str(tmp_path))


def test_volumes_and_label_maps_keep_their_voxels_and_are_padded_to_the_size(tmp_path):
    """Of two sizes and spacings; RAS files, so that arrays are those of the files."""
    rng = np.random.default_rng(0)
    arrays = {}
    for number in range(8):
        size = (6, 9, 5) if number % 2 else (10, 7, 4)
        arrays[number] = rng.normal(50, 20, size).astype(np.float32), rng.integers(0, 3, size).astype(np.uint8)
        for folder, array in zip(("imagesTr", "labelsTr"), arrays[number], strict=True):
            path = tmp_path / "set" / folder / f"case{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 2, 3 + number % 2, 1])), path)
    options = {"intensity": {"window": [0, 100]}, "val_fraction": 0.5, "patient_pattern": r"case(\d)"}
    volumes = load_volumes(DataSpec("set", str(tmp_path / "set"), "ct", (8, 8, 4), **options), 1, str(tmp_path))
    assert sorted(volumes.names) == [f"case{number}.nii.gz" for number in range(8)]
    assert volumes.sections.count("validation") == 4
    assert set(volumes.structures) == {0, 1, 2}
    for name, image, label, spacing, patient in zip(
        volumes.names, volumes.images, volumes.labels, volumes.spacings, volumes.patients, strict=True
    ):
        number = int(name[4])
        grey, truth = arrays[number]
        assert patient == str(number)
        assert spacing == pytest.approx((1, 2, 3 + number % 2))
        at = tuple(slice((a - b) // 2, (a - b) // 2 + b) for a, b in zip(label.shape, truth.shape, strict=True))
        assert label.shape == image.shape[1:] == tuple(np.maximum(truth.shape, (8, 8, 4)))
        assert np.array_equal(label[at], truth)
        assert int((label > 0).sum()) == int((truth > 0).sum())  # nothing is labelled in the padding
        np.testing.assert_allclose(image[0][at], np.clip(grey / 50 - 1, -1, 1), atol=1e-5)
