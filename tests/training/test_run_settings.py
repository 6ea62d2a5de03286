# SPDX-License-Identifier: Apache-2.0
"""What two runs are compared by: equal for the same settings, another for each other one."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset
from monai.losses import DiceCELoss
from monai.transforms import Compose, RandAffined, RandGaussianNoised, RandRotated, ScaleIntensityRanged

from monai_crossd.training.run_settings import _data, describe, first_difference
from monai_crossd.transforms import augmentation_transforms, load_transforms


def chain(**changes):
    options = {"a_min": 0.0, "prob": 0.3, "range": 0.2, **changes}
    return Compose(
        [
            *load_transforms(3, label_key="label", pixdim=(1, 1, 2)),
            ScaleIntensityRanged("image", options["a_min"], 255, 0, 1),
            RandRotated(("image", "label"), options["range"], prob=options["prob"], mode=("bilinear", "nearest")),
            RandAffined("image", prob=1.0, translate_range=(3, 3, 3)),
            RandGaussianNoised("image", prob=1.0),
            *augmentation_transforms("ct", 3, ["image", "label"]),
        ]
    )


@pytest.mark.parametrize("change", [{"a_min": 1.0}, {"prob": 0.4}, {"range": 0.3}])
def test_transforms_differ_by_what_they_were_made_with(change):
    assert first_difference(describe(chain()), describe(chain())) is None
    assert first_difference(describe(chain()), describe(chain(**change))) is not None


def test_state_of_random_transforms_is_none_of_it():
    transforms = Compose(
        [RandRotated("image", 0.5, prob=1.0), RandGaussianNoised("image", 1.0), RandAffined("image", prob=1.0)]
    )
    before = describe(transforms)
    transforms.set_random_state(7)
    transforms({"image": torch.rand(1, 6, 6, 6)})
    assert first_difference(before, describe(transforms)) is None


LOSSES = [
    torch.nn.CrossEntropyLoss(),
    torch.nn.CrossEntropyLoss(label_smoothing=0.1),
    torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2])),
    torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3])),
    DiceCELoss(softmax=True),
    DiceCELoss(softmax=True, include_background=False),
    DiceCELoss(softmax=True, lambda_ce=0.5),
    DiceCELoss(softmax=True, weight=torch.tensor([1.0, 3])),
    torch.nn.functional.cross_entropy,
]


def test_losses_are_told_apart():
    for i, one in enumerate(LOSSES):
        for j, two in enumerate(LOSSES):
            assert (first_difference(describe(one), describe(copy.deepcopy(two))) is None) == (i == j), (i, j)


def test_values_can_be_read_back_without_code():
    value = describe([chain(), LOSSES, np.float64(1.5), np.arange(3), {"a": float("nan")}, torch.float32, slice(2)])
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    assert first_difference(value, torch.load(file, weights_only=True)) is None


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "data" / f"p{i}" / "image.bin" for i in range(3)]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(100_000) + bytes([i]) + bytes(100_000))  # only the middle differs
    return paths


def content(paths, **more):
    loader = DataLoader(Dataset([{"image": str(path), "label": i % 2, **more} for i, path in enumerate(paths)]))
    return _data(loader)["content"]


def test_files_are_known_by_what_is_in_them(files, tmp_path):
    before = content(files)
    assert content(files) == before
    assert content([files[1], files[0], files[2]]) != before  # another order, and so other labels
    assert content(files, patient="x") != before
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = [tmp_path / "moved" / path.relative_to(tmp_path / "data") for path in files]
    assert content(moved) == before
    for position in (0, 100_000, -1):
        old = moved[1].read_bytes()
        changed = bytearray(old)
        changed[position] ^= 255
        moved[1].write_bytes(bytes(changed))
        assert content(moved) != before, position
        moved[1].write_bytes(old)
    moved[2].rename(moved[2].with_name("other.bin"))
    assert content([*moved[:2], moved[2].with_name("other.bin")]) != before


def test_folders_and_arrays(tmp_path):
    for name in ("a.dcm", "b.dcm", "c.dcm"):
        (tmp_path / "series").mkdir(exist_ok=True)
        (tmp_path / "series" / name).write_bytes(name.encode())
    before = content([tmp_path / "series"])
    (tmp_path / "series" / "d.dcm").write_bytes(b"more")
    assert content([tmp_path / "series"]) != before
    np.savez(tmp_path / "x.npz", images=np.zeros(5))
    one, two = (content([f"{tmp_path}/x.npz#images/{i}"]) for i in (0, 1))
    assert one != two
    np.savez(tmp_path / "x.npz", images=np.ones(5))
    assert content([f"{tmp_path}/x.npz#images/0"]) != one


def test_transform_and_batches_of_a_loader():
    items = [{"image": torch.full((1, 2, 2), float(i))} for i in range(4)]
    noise = Compose([RandGaussianNoised("image", 0.5)])
    one = _data(DataLoader(CacheDataset(items, noise, progress=False), batch_size=2, shuffle=True))
    assert first_difference(one, _data(DataLoader(Dataset(items, noise), batch_size=2, shuffle=True))) is None
    assert first_difference(one, _data(DataLoader(Dataset(items, noise), batch_size=2))) == (
        "sampler", "RandomSampler", "SequentialSampler",
    )  # fmt: skip
    assert first_difference(one, _data(DataLoader(Dataset(items, noise), shuffle=True))) == ("batch_size", 2, 1)
    other = Compose([RandGaussianNoised("image", 0.5, std=0.2)])
    found = first_difference(one, _data(DataLoader(Dataset(items, other), batch_size=2, shuffle=True)))
    assert found[0].startswith("transform transforms 0")
