# SPDX-License-Identifier: Apache-2.0
"""All sections of a data set, or an error that names what cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_crossd.evaluate_transfer.load import load_items
from monai_crossd.evaluate_transfer.study import DataSpec

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
