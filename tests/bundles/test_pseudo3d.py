# SPDX-License-Identifier: Apache-2.0
"""The overlay that trains a 3D network on images repeated along the depth, and validates it on volumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from monai_crossd.data import load_datalist
from monai_crossd.demo import prepare_phantoms
from monai_crossd.transforms import RepeatToVolumed

BUNDLE = Path(__file__).parents[2] / "bundles" / "crossd_3d_classification"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    options = {"task": "classification", "subjects": 9, "val_fraction": 0.4}
    three = prepare_phantoms("us", folder / "3d", size=(16, 16, 8), file_format="nifti", **options)
    two = prepare_phantoms("us", folder / "2d", size=(20, 20), file_format="png", **options)
    return {"dataset_dir": str(three), "dataset_dir_2d": str(two)}


@pytest.fixture
def parser(tmp_path, data) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / f"{name}.yaml") for name in ("train", "pseudo3d")])
    parser.update({
        "bundle_root": str(BUNDLE), "output_dir": str(tmp_path), "modality": "us", "spatial_size": [16, 12, 6],
        "batch_size": 2, "max_epochs": 1, "network_def#widen_factor": 0.125, "device": torch.device("cpu"), **data,
    })  # fmt: skip
    return parser


def test_items_are_images_repeated_and_validation_is_on_volumes(parser, data):
    transforms = parser.get_parsed_content("train#preprocessing").transforms
    repeats = [type(t) for t in transforms].index(RepeatToVolumed)
    item = parser.get_parsed_content("train#dataset#data")[0]
    image = Compose(transforms[:repeats])(item)["image"]
    volume = Compose(transforms[: repeats + 1])(item)["image"]
    assert tuple(image.shape) == (1, 16, 12)
    assert volume.shape[-1] == 6
    for depth in range(6):
        assert torch.equal(volume[..., depth].as_tensor(), image.as_tensor())
    assert image.min() >= -1
    assert image.max() <= 1
    assert tuple(parser.get_parsed_content("train#dataset")[0]["image"].shape) == (1, 16, 12, 6)
    validated = [entry["image"] for entry in parser.get_parsed_content("validate#dataset#data")]
    assert validated == [entry["image"] for entry in load_datalist(data["dataset_dir"], "validation", "classification")]


def test_classes_go_by_their_names(parser, data):
    names = parser.get_parsed_content("labels_2d")
    images = load_datalist(data["dataset_dir_2d"], "training", "classification")
    parser["labels"] = {number: names[len(names) - 1 - number] for number in names}  # in the other order
    parser.parse(True)
    found = parser.get_parsed_content("train#dataset#data")
    assert [entry["image"] for entry in found] == [entry["image"] for entry in images]
    assert [entry["label"] for entry in found] == [len(names) - 1 - entry["label"] for entry in images]
    parser["labels"] = {0: "another"}
    parser.parse(True)
    with pytest.raises(RuntimeError) as raised:
        parser.get_parsed_content("train#dataset#data")
    assert isinstance(raised.value.__cause__, KeyError)


def test_it_trains(parser, train_parsed, tmp_path):
    row = train_parsed(parser)
    assert float(row["train_loss"]) > 0
    assert row["val_balanced_accuracy"]
    assert (tmp_path / "model.pt").is_file()
