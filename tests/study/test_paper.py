# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from monai_crossd.data import load_datalist
from monai_crossd.data.medmnist import MEDMNIST
from monai_crossd.study.paper import PRESETS, paper_dataset, paper_transforms, read_published
from monai_crossd.study.paper_datasets import PAPER_DATASETS
from monai_crossd.training import FINETUNE_MODES

# Tables IV and V as printed: name, modality, samples, dimensions, range, labels, type
PRINTED = """
Blood | Microscope | 17,092 | (224, 224, 3) | 0 – 255 | 8 | Multi-class
Brain | MRI | 1,600 | (224, 224, 3) | 0 – 255 | 23 | Multi-class
Brain Tumor | MRI | 3,064 | (224, 224, 3) | 0 – 255 | 3 | Multi-class
Breast Cancer | US | 1,875 | (224, 224, 3) | 0 – 255 | 2 | Binary
Breast | US | 780 | (224, 224, 1) | 0 – 255 | 2 | Binary
Derma | Dermatology | 10,015 | (224, 224, 3) | 0 – 255 | 7 | Multi-class
OrganC | CT | 23,582 | (224, 224, 1) | 0 – 255 | 11 | Multi-class
OrganS | CT | 25,211 | (224, 224, 1) | 0 – 255 | 11 | Multi-class
Pneumonia | XR | 5,856 | (224, 224, 1) | 0 – 255 | 2 | Binary
BraTS21 | MRI | 585 | (3, 96, 96, 96) | 0 – 22,016 | 2 | Binary
BUSV | US | 186 | (1, 96, 96, 96) | 0 – 255 | 2 | Binary
Fracture | CT | 1,370 | (1, 64, 64, 64) | 0 – 255 | 3 | Multi-class
Lung Adenocarcinoma | CT | 1,050 | (1, 128, 128, 128) | -1,450 – 3,879 | 3 | Multi-class
Mosmed | CT | 200 | (1, 128, 128, 64) | 0 – 1 | 2 | Binary
Synapse | Microscope | 1,759 | (1, 64, 64, 64) | 0 – 255 | 2 | Binary
Vessel | MRA | 1,908 | (1, 64, 64, 64) | 0 – 255 | 2 | Binary
IXI (Gender) | MRI | 561 | (2, 160, 192, 224) | 0 – 255 | 2 | Binary
"""
ALL, MED = list(PAPER_DATASETS), [name for name, entry in PAPER_DATASETS.items() if entry.medmnist]


def write_npz(path, shape, classes, each=4):
    """A file in MedMNIST's format, `each` images per class and section."""
    rng = np.random.default_rng(0)
    arrays = {}
    for section in ("train", "val", "test"):
        labels = np.repeat(np.arange(classes), each)[:, None].astype(np.uint8)
        arrays[f"{section}_images"] = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
        arrays[f"{section}_labels"] = labels
    np.savez(path, **arrays)


def test_entries_are_those_of_the_printed_tables():
    entries = {entry.title: entry for entry in PAPER_DATASETS.values()}
    lines = [[cell.strip() for cell in line.split("|")] for line in PRINTED.strip().splitlines()]
    assert sorted(line[0] for line in lines) == sorted(entries)
    for title, modality, samples, dimensions, values, labels, kind in lines:
        entry = entries[title]
        numbers = tuple(int(n) for n in re.findall(r"\d+", dimensions))
        table = 4 if len(numbers) == 3 else 5
        shape = (*entry.size, entry.channels) if table == 4 else (entry.channels, *entry.size)
        low, high = (int(n.replace(",", "")) for n in values.split(" – "))
        assert (entry.modality, entry.samples, shape) == (modality, int(samples.replace(",", "")), numbers)
        assert (entry.pixel_range, entry.classes, entry.label_type) == ((low, high), int(labels), kind.lower())
        assert (entry.table, entry.spatial_dims) == (table, table - 2)


@pytest.mark.parametrize("name", MED)
def test_medmnist_sets_are_the_published_ones(name):
    entry, published = PAPER_DATASETS[name], MEDMNIST[PAPER_DATASETS[name].medmnist]
    assert abs(entry.samples - sum(published.samples.values())) <= (name == "organc")  # which its note says
    assert entry.classes == len(published.labels)
    assert (entry.channels, entry.spatial_dims) == (published.channels, published.spatial_dims)
    assert entry.size[0] in published.md5


@pytest.mark.parametrize("name", ALL)
def test_every_entry_says_where_its_data_are(name):
    entry = PAPER_DATASETS[name]
    assert entry.citation
    assert entry.form
    assert entry.homepage.startswith("https://") or "no address" in entry.note


@pytest.mark.parametrize("name", ["organc", "derma", "vessel"])
def test_medmnist_file_loads_and_its_preset_gives_the_papers_size(name, tmp_path):
    entry = PAPER_DATASETS[name]
    shape = (16, 16, 16) if entry.spatial_dims == 3 else (28, 28, 3)[: 2 if entry.channels == 1 else 3]
    file = tmp_path / MEDMNIST[entry.medmnist].file_name(entry.size[0])
    write_npz(file, shape, entry.classes)
    path, missing = paper_dataset(name, tmp_path)
    assert (path, missing) == (file, "")
    items = load_datalist(path, "training", "classification")
    assert sorted({item["label"] for item in items}) == list(range(entry.classes))
    for stage in ("validate", "train"):
        image = Compose(paper_transforms(name, stage))(items[0])["image"]
        assert image.shape == (entry.channels, *entry.size)
        assert image.isfinite().all()
        assert image.std() > 0.05
    assert -1 <= Compose(paper_transforms(name))(items[0])["image"].min() < -0.5


@pytest.mark.parametrize("name", ALL)
def test_presets_bring_images_of_the_papers_range_to_the_networks(name):
    """All but the reading, on an image of the entry's range that is small before it is resized."""
    entry = PAPER_DATASETS[name]
    low, high = entry.pixel_range if name != "mosmed" else (-1000, 400)  # its preset is for files in HU
    image = low + (high - low) * torch.rand(entry.channels, *[12] * entry.spatial_dims)
    out = Compose([t for t in paper_transforms(name) if type(t).__name__ not in ("LoadImaged", "Orientationd")])(
        {"image": image}
    )["image"]
    assert out.shape == (entry.channels, *entry.size)
    assert out.abs().max() < 5
    assert out.std() > 0.1
    assert any(type(t).__name__.startswith("Rand") for t in paper_transforms(name, "train"))
    assert not any(type(t).__name__.startswith("Rand") for t in paper_transforms(name, "validate"))


def make_class_folders(folder, name):
    for label in ("a", "b"):
        for number in range(3):
            path = folder / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 40 * number, np.uint8)).save(path)


def make_listing(folder, name):
    make_class_folders(folder, name)
    items = [{"image": f"{c}/{n}.png", "label": i} for i, c in enumerate("ab") for n in range(3)]
    (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "a", "1": "b"}, "training": items}))


def make_npz(folder, name):
    write_npz(folder.with_suffix(".npz"), (8, 8), 2)


def make_csv(folder, name):
    make_class_folders(folder, name)
    lines = ["image,label", *(f"{name}/{c}/{n}.png,{c}" for c in "ab" for n in range(3))]
    folder.with_suffix(".csv").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("make", "found"),
    [(make_class_folders, "breast_cancer"), (make_listing, "breast_cancer"), (make_npz, "breast_cancer.npz"),
     (make_csv, "breast_cancer.csv")],
)  # fmt: skip
def test_other_forms_load(make, found, tmp_path):
    make(tmp_path / "breast_cancer", "breast_cancer")
    path, missing = paper_dataset("breast_cancer", tmp_path)
    assert (path, missing) == (tmp_path / found, "")
    assert {item["label"] for item in load_datalist(path, "training", "classification")} == {0, 1}


def test_sequences_in_several_files_become_channels(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"{sequence}.nii.gz" for sequence in ("t1", "t2", "flair")]
    (tmp_path / "brats21").mkdir()
    items = []
    for patient in range(4):
        (tmp_path / "brats21" / str(patient)).mkdir()
        for at, name in enumerate(names):
            volume = rng.integers(1, 100 * 10**at, (10, 12, 14)).astype(np.float32)
            nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "brats21" / str(patient) / name)
        items.append({"image": [f"{patient}/{name}" for name in names], "label": patient % 2})
    content = {"labels": {"0": "unmethylated", "1": "methylated"}, "training": items}
    (tmp_path / "brats21" / "dataset.json").write_text(json.dumps(content))
    path, _ = paper_dataset("brats21", tmp_path)
    (item, *_) = load_datalist(path, "training", "classification")
    image = Compose(paper_transforms("brats21"))(item)["image"]
    assert image.shape == (3, 96, 96, 96)
    assert image.mean((1, 2, 3)).abs().max() < 0.1  # each channel by itself


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("empty", [False, True])
def test_missing_ones_are_reported(name, empty, tmp_path):
    if empty:
        (tmp_path / name).mkdir()
        (tmp_path / name / "readme.txt").write_text("download me")
    entry = PAPER_DATASETS[name]
    path, missing = paper_dataset(name, tmp_path)
    assert path is None
    assert missing.startswith(f"{entry.title} is missing: put ")
    assert str(tmp_path) in missing
    assert entry.citation.rstrip(".") in missing
    assert (MEDMNIST[entry.medmnist].url(entry.size[0]) if entry.medmnist else entry.form) in missing
    assert "\n" not in missing


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="organx"):
        paper_dataset("organx", tmp_path)
    with pytest.raises(ValueError, match="predict"):
        paper_transforms("organc", "predict")


def test_presets_are_plain_data_of_known_names():
    assert json.loads(json.dumps(PRESETS)) == PRESETS
    assert list(PRESETS) == ["table1", "table2", "table4", "table5"]
    for name, preset in PRESETS.items():
        assert set(preset["modes"]) <= {*FINETUNE_MODES, "pretraining"}
        for group in preset["groups"]:
            assert group["reference"] in group["methods"]
            if name != "table1":
                assert {PAPER_DATASETS[d].spatial_dims for d in group["datasets"]} == {group["spatial_dims"]}
    listed = [d for group in PRESETS["table2"]["groups"] for d in group["datasets"]]
    assert sorted(listed) == sorted(ALL)


def test_published_averages_are_those_of_the_published_means():
    """A slip of the pen in the transcription would break one of the sixteen sums."""
    rows = read_published()
    for group in PRESETS["table2"]["groups"]:
        for source in PRESETS["table2"]["sources"]:
            for method in group["methods"]:
                name = (group["title"], source, method)
                chosen = [row for row in rows if (row["group"], row["source"], row["method"]) == name]
                assert [row["dataset"] for row in chosen] == [*group["datasets"], "Average"]
                assert np.mean([row["mean"] for row in chosen[:-1]]) == pytest.approx(chosen[-1]["mean"], abs=6e-4)
                assert all(0 < row["std"] < 0.11 for row in chosen[:-1])
    marked = [(row["group"], row["source"]) for row in rows if row["significant"]]
    assert marked == [(t, "ImageNet") for t in ("Image Datasets", "Volumetric Datasets", "Other Image Datasets")]
