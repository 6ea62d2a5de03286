# SPDX-License-Identifier: Apache-2.0
"""Images of several data sets in memory: which are drawn, and what random transforms see of them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from monai.data import CacheDataset, Dataset
from monai.transforms import Compose, RandFlipd, RandGaussianNoised, RandScaleIntensityd, ScaleIntensityRanged

from monai_crossd.data import ImageSets, balanced_sampler, build_dataloader, build_dataset
from monai_crossd.training.epoch_seed import seed_loader
from monai_crossd.transforms import RandByDataSet, augmentation_transforms

NOTHING = RandByDataSet({"a": [], "b": []})
SIZES = {("a", 0): 30, ("a", 1): 3, ("b", 2): 6, ("b", 3): 1, ("b", 4): 2}


def items(channels: int = 1) -> list[dict]:
    kinds = [kind for kind, count in SIZES.items() for _ in range(count)]
    return [
        {"image": torch.full((channels, 6, 4), float(n)), "label": label, "data_set": name}
        for n, (name, label) in enumerate(kinds)
    ]


def test_without_random_transforms_a_batch_is_the_prepared_items():
    scale = Compose([ScaleIntensityRanged("image", 0, 42, -1, 1)])
    data = ImageSets(Dataset(items(3), scale), NOTHING)
    indices = [41, 0, 33, 7, 34, 0]
    batch = data.__getitems__(indices)
    for item, index in zip(batch, indices, strict=True):
        assert torch.allclose(item["image"], torch.full((3, 6, 4), index / 21 - 1))
        assert item["label"] == items()[index]["label"]
    assert data[5]["label"] == 0
    assert len(data) == sum(SIZES.values())


@pytest.mark.parametrize("together", [1, 2, 3, 100])
def test_images_of_a_data_set_are_changed_by_its_transforms_in_groups(together):
    flip, scale = RandFlipd("image", prob=1.0, spatial_axis=0), RandScaleIntensityd("image", factors=0.5, prob=1.0)
    made = [{**item, "image": torch.arange(24.0).view(1, 6, 4) + 1} for item in items()]
    data = ImageSets(Dataset(made), RandByDataSet({"a": [flip], "b": [scale]}), together)
    indices = [33, 0, 34, 1, 35, 36, 2]
    changed = {index: item["image"] for index, item in zip(indices, data.__getitems__(indices), strict=True)}
    image = made[0]["image"]
    for index in (0, 1, 2):
        assert torch.equal(changed[index], image.flip(1))
    factors = []
    for index in (33, 34, 35, 36):
        ratio = changed[index] / image
        assert torch.allclose(ratio, ratio.flatten()[0].expand_as(ratio))
        factors.append(round(ratio.flatten()[0].item(), 5))
    assert len(set(factors)) == -(-4 // together)  # a factor for each group


def test_noise_is_each_images_own_and_images_in_memory_stay():
    data = ImageSets(Dataset(items()), RandByDataSet({n: [RandGaussianNoised("image", prob=1.0)] for n in "ab"}))
    first, second = data.__getitems__([0, 0])
    assert not torch.equal(first["image"], second["image"])
    assert all(torch.equal(data.images[n], items()[n]["image"]) for n in range(len(data)))


@pytest.mark.parametrize("modality", ["ct", "mr", "us", "xray"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_modalitys_augmentation_runs_on_groups(modality, channels):
    made = [{**item, "image": torch.rand(channels, 24, 20)} for item in items()]
    data = ImageSets(Dataset(made), RandByDataSet({n: augmentation_transforms(modality, 2) for n in "ab"}))
    loader = build_dataloader(data, batch_size=16, sampler=balanced_sampler(data))
    seed_loader(loader, 3)
    batches = [batch["image"] for batch in loader]
    assert batches[0].shape == (16, channels, 24, 20)
    assert all(type(batch) is torch.Tensor and batch.isfinite().all() for batch in batches)


def test_each_data_set_and_each_of_its_classes_is_drawn_alike():
    data = ImageSets(Dataset(items()), NOTHING)
    sampler = balanced_sampler(data)
    assert len(sampler) == len(data)
    drawn = Counter()
    for _ in range(400):
        drawn.update(data.labels[index] for index in sampler)
    total = sum(drawn.values())
    for label, share in {0: 1 / 4, 1: 1 / 4, 2: 1 / 6, 3: 1 / 6, 4: 1 / 6}.items():
        assert drawn[label] / total == pytest.approx(share, abs=0.015)


def test_an_epoch_is_repeated_from_its_seed():
    random = {n: [RandFlipd("image", prob=0.5), RandGaussianNoised("image", prob=0.5)] for n in "ab"}

    def epoch(seed: int) -> list[torch.Tensor]:
        data = ImageSets(Dataset(items()), RandByDataSet(random))
        loader = build_dataloader(data, batch_size=8, sampler=balanced_sampler(data))
        seed_loader(loader, seed)
        return [batch["image"] for batch in loader]

    assert all(map(torch.equal, epoch(5), epoch(5)))
    assert not all(map(torch.equal, epoch(5), epoch(6)))


@pytest.mark.parametrize(("cache", "kind"), [("ram", ImageSets), ("disk", ImageSets), ("none", Dataset)])
def test_build_dataset_takes_it_where_it_can(cache, kind, tmp_path):
    scale = ScaleIntensityRanged("image", 0, 42, -1, 1)
    flip = RandByDataSet({"a": [RandFlipd("image", prob=1.0, spatial_axis=0)], "b": []})
    made = [{**item, "image": item["image"] * torch.arange(6.0).view(6, 1)} for item in items()]
    data = build_dataset(made, Compose([scale, flip]), cache, tmp_path / "cache")
    assert type(data) is kind
    assert data.skipped == []
    for index, is_flipped in ((4, True), (41, False)):
        expected = made[index]["image"] / 21 - 1
        assert torch.allclose(data[index]["image"], expected.flip(1) if is_flipped else expected)
        assert data[index]["label"] == made[index]["label"]
    assert (tmp_path / "cache").exists() == (cache == "disk")


def test_build_dataset_leaves_other_transforms_to_monai():
    later = Compose([NOTHING, ScaleIntensityRanged("image", 0, 42, -1, 1)])
    assert isinstance(build_dataset(items(), later), CacheDataset)
    assert isinstance(build_dataset(items(), Compose([RandFlipd("image"), NOTHING])), CacheDataset)
    assert isinstance(build_dataset(items(), Compose([])), CacheDataset)


def test_items_that_cannot_be_read_are_left_out(tmp_path):
    made = [*items(), {"image": "absent", "label": 0, "data_set": "a"}]
    scale = ScaleIntensityRanged("image", 0, 42, -1, 1)
    data = build_dataset(made, Compose([scale, NOTHING]), on_error="skip-and-report")
    assert len(data) == len(data.images) == len(made) - 1
    assert [entry.item["image"] for entry in data.skipped] == ["absent"]
    with pytest.raises(RuntimeError, match="absent"):
        build_dataset(made, Compose([scale, NOTHING]))


def test_together_is_at_least_one():
    with pytest.raises(ValueError, match="together is 0"):
        ImageSets(Dataset(items()), NOTHING, together=0)
