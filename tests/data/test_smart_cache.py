# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
from itertools import chain

import pytest
import torch
from monai.data import DistributedWeightedRandomSampler
from monai.transforms import Compose, LoadImaged
from torch.utils.data import WeightedRandomSampler

from monai_crossd.data import build_dataloader, build_dataset


@pytest.fixture
def many(volumes):
    return [dict(volumes[i % 3], label=i) for i in range(12)]


def build(items):
    return build_dataset(items, Compose(LoadImaged("image")), "smart")


def labels(loader):
    return [int(batch["label"]) for batch in loader]


@pytest.mark.parametrize("workers", [0, 1])
def test_items_take_turns(many, workers):
    dataset = build(many)
    order = [item["label"] for item in dataset.data]
    loader = build_dataloader(dataset, num_workers=workers, batch_size=1)
    for epoch in range(14 if workers == 0 else 2):  # once around and on
        assert labels(loader) == [order[(epoch + i) % 12] for i in range(6)]
        assert dataset.held().tolist() == [(epoch + i) % 12 for i in range(6)]


@pytest.mark.parametrize("kind", ["plain", "distributed"])
def test_weights_are_those_of_the_items(many, kind):
    dataset = build(many)
    weights = [float(item["label"] % 2) for item in dataset.data]  # odd labels only
    if kind == "plain":
        sampler = WeightedRandomSampler(weights, 20)
    else:
        sampler = DistributedWeightedRandomSampler(
            dataset, weights, num_samples_per_rank=20, even_divisible=True, num_replicas=1, rank=0
        )
    loader = build_dataloader(dataset, batch_size=1, sampler=sampler)
    seen = [labels(loader) for _ in range(12)]
    assert {len(epoch) for epoch in seen} == {20}
    assert set(chain(*seen)) == {1, 3, 5, 7, 9, 11}


def test_weights_of_other_items_are_refused(many):
    dataset = build(many)
    with pytest.raises(ValueError, match="6 weights; expected 12"):
        build_dataloader(dataset, sampler=WeightedRandomSampler([1.0] * 6, 4))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_items(volumes, count, recwarn):
    loader = build_dataloader(build(volumes[:count]), batch_size=1, shuffle=True)
    seen = [labels(loader) for _ in range(4)]
    assert {len(epoch) for epoch in seen} == {(count + 1) // 2}
    assert set(chain(*seen)) == set(range(count))


def test_a_replacement_that_cannot_be_read_raises_between_epochs(many, cut_off):
    """MONAI's own data set would wait for it for ever."""
    dataset = build(many)
    dataset.data[6] = cut_off
    loader = build_dataloader(dataset, batch_size=1)
    assert len(labels(loader)) == 6
    with pytest.raises(RuntimeError, match=r"short\.nii\.gz, label 9 cannot be prepared"):
        next(iter(loader))


def test_the_thread_ends_with_the_loader(many):
    dataset = build(many)
    loader = build_dataloader(dataset, batch_size=1)
    labels(loader)
    assert dataset.is_started()
    del loader
    gc.collect()
    assert not dataset.is_started()


def test_an_iterator_that_is_not_used_changes_nothing(many):
    dataset = build(many)
    loader = build_dataloader(dataset, batch_size=1)
    first = labels(loader)
    iter(loader)
    assert labels(loader)[:5] == first[1:]


def test_workers_must_not_keep_old_items(many):
    with pytest.raises(ValueError, match="persistent_workers is true; expected false"):
        build_dataloader(build(many), num_workers=1, persistent_workers=True)


def test_sampling_repeats_with_the_seed(many):
    def epochs():
        torch.manual_seed(0)
        loader = build_dataloader(build(many), batch_size=1, shuffle=True)
        return [labels(loader) for _ in range(3)]

    assert epochs() == epochs()
