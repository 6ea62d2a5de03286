# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from monai.data import (
    CacheDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    DistributedWeightedRandomSampler,
    PersistentDataset,
    SmartCacheDataset,
    ThreadDataLoader,
)
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, EnsureTyped, RandGaussianNoised, RandRotated
from torch.utils.data import RandomSampler, WeightedRandomSampler

from monai_crossd.training import EpochSeed
from monai_crossd.training.epoch_seed import epoch_seed

ITEMS = [{"image": torch.full((1, 6, 6), float(i)), "label": torch.zeros(1, 6, 6)} for i in range(6)]
WEIGHTS = [1, 2, 3, 4, 5, 6]


class Record:
    """Keeps what each iteration was trained on, and draws from every generator that a program may use."""

    def __init__(self):
        self.seen = {}

    def attach(self, trainer):
        trainer.add_event_handler("ITERATION_COMPLETED", self._add)

    def _add(self, trainer):
        drawn = [torch.rand(1).item(), np.random.rand(), random.random()]  # noqa: NPY002
        images = torch.stack([item["image"] for item in trainer.state.batch]).flatten().tolist()
        self.seen.setdefault(trainer.state.epoch, []).append((images, trainer.state.output[0]["loss"], drawn))


def run(make_loader, folder=None, first=1, last=3, seed=0, epoch_length=None, dataset=CacheDataset):
    """Batches by epoch, from the first to the last, of a trainer made in a process of any random state."""
    torch.manual_seed(first)
    transform = Compose([EnsureTyped("image"), RandGaussianNoised("image", 0.9), RandRotated("image", 0.5, prob=0.5)])
    options = {"cache_dir": folder} if dataset is PersistentDataset else {}
    record = Record()
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Dropout(0.5))
    for parameter in net.parameters():
        torch.nn.init.ones_(parameter)
    trainer = SupervisedTrainer(
        "cpu",
        last,
        make_loader(dataset(ITEMS, transform, **options)),
        net,
        torch.optim.SGD(net.parameters(), 0.0),
        torch.nn.MSELoss(),
        epoch_length,
        train_handlers=[EpochSeed(seed), record],
    )
    trainer.add_event_handler("STARTED", lambda engine: setattr(engine.state, "epoch", first - 1))
    trainer.run()
    return record.seen


LOADERS = {
    "shuffled": lambda d: DataLoader(d, batch_size=2, shuffle=True),
    "two workers": lambda d: DataLoader(d, num_workers=2, batch_size=2, shuffle=True),
    "thread": lambda d: ThreadDataLoader(d, batch_size=2, shuffle=True),
    "thread with repeats": lambda d: ThreadDataLoader(d, repeats=2, batch_size=2, shuffle=True),
    "weighted": lambda d: DataLoader(d, batch_size=2, sampler=WeightedRandomSampler(WEIGHTS, 6)),
    "generator of the loader": lambda d: DataLoader(d, batch_size=2, shuffle=True, generator=torch.Generator()),
    "generator of the sampler": lambda d: DataLoader(
        d, batch_size=2, sampler=RandomSampler(d, generator=torch.Generator())
    ),
    "distributed": lambda d: DataLoader(
        d, batch_size=1, sampler=DistributedSampler(d, shuffle=True, num_replicas=2, rank=1)
    ),
    "distributed weighted": lambda d: DataLoader(
        d, batch_size=1, sampler=DistributedWeightedRandomSampler(d, WEIGHTS, 4, num_replicas=2, rank=1)
    ),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_epoch_is_the_same_whenever_it_is_run(loader):
    whole = run(LOADERS[loader])
    assert list(whole) == [1, 2, 3]
    assert run(LOADERS[loader], first=2) == {epoch: whole[epoch] for epoch in (2, 3)}
    batches = [[images for images, *_ in epoch] for epoch in whole.values()]
    assert batches[0] != batches[1] != batches[2] != batches[0]
    assert run(LOADERS[loader], last=1, seed=1)[1] != whole[1]


@pytest.mark.parametrize("dataset", [Dataset, PersistentDataset])
def test_every_data_set(tmp_path, dataset):
    loader = LOADERS["shuffled"]
    expected = {3: run(loader)[3]}
    assert run(loader, tmp_path, first=3, dataset=dataset) == expected


def test_transforms_of_a_data_set_that_draws_itself():
    """MONAI's set_rnd stops at a SmartCacheDataset and leaves its transforms as they are."""

    def loader(dataset):
        return DataLoader(dataset, batch_size=2, shuffle=True)

    assert run(loader, dataset=SmartCacheDataset)[3] == run(loader, dataset=SmartCacheDataset, first=3)[3]


@pytest.mark.parametrize("workers", [0, 2])
def test_epoch_shorter_than_the_loader(workers):
    """The next epoch starts a new pass, in place of what is left of the one before."""

    def loader(dataset):
        return DataLoader(dataset, num_workers=workers, batch_size=2, shuffle=True)

    whole = run(loader, epoch_length=2)
    assert [len(epoch) for epoch in whole.values()] == [2, 2, 2]
    assert run(loader, first=3, epoch_length=2) == {3: whole[3]}


def test_without_it_epochs_differ(monkeypatch):
    monkeypatch.setattr(EpochSeed, "attach", lambda *_: None)
    assert run(LOADERS["shuffled"])[3] != run(LOADERS["shuffled"], first=3)[3]


def test_seeds_of_epochs_and_processes_are_all_different():
    seeds = [epoch_seed(seed, epoch, rank) for seed in range(4) for epoch in range(16) for rank in range(16)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("seed", [None, -1, 0.5, "0"])
def test_wrong_seed(seed):
    with pytest.raises(ValueError, match=r"seed is .+; expected a whole number, 0 or larger"):
        EpochSeed(seed)


def test_workers_that_stay():
    with pytest.raises(ValueError, match=r"give the loader persistent_workers=False"):
        run(lambda d: DataLoader(d, num_workers=1, persistent_workers=True))
