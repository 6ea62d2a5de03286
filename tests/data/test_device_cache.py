# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import chain

import pytest
import torch
from monai.data import ThreadDataLoader
from monai.transforms import Compose, LoadImaged, RandFlipd, RandGaussianNoised, RandLambdad
from monai.utils import set_determinism

from monai_crossd.data import build_dataloader, build_dataset

READ = LoadImaged("image", ensure_channel_first=True)


def refuse(image):
    raise ValueError(f"an image of shape {tuple(image.shape)}")


def test_tensors_are_on_the_device_from_the_cache_on(volumes):
    """The device without memory stands for a GPU: shapes and places are real, voxels are not."""
    for on_error in ("raise", "skip-and-report"):
        random = [RandFlipd("image", prob=0.0)]
        dataset = build_dataset(volumes[:3], Compose([READ, *random]), "gpu", device="meta", on_error=on_error)
        loader = build_dataloader(dataset, num_workers=4, batch_size=1)
        assert isinstance(loader, ThreadDataLoader)
        assert loader.num_workers == 0
        batches = list(loader)
        assert [batch["label"].item() for batch in batches] == [0, 1, 2]
        assert all(batch["image"].is_meta and batch["image"].shape == (1, 1, 6, 5, 4) for batch in batches)


def test_an_error_in_the_thread_is_raised(volumes):
    """MONAI's loader would end the epoch early."""
    transforms = Compose([READ, RandLambdad("image", refuse, prob=1.0)])
    loader = build_dataloader(build_dataset(volumes, transforms, "gpu", device="meta"), batch_size=1)
    with pytest.raises(RuntimeError, match=r"image .*0\.nii\.gz, label 0 cannot be prepared: .*shape \(1, 6, 5, 4\)"):
        list(loader)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_no_gpu(volumes):
    with pytest.raises(ValueError, match='device cuda: give a GPU as device, or choose cache "ram"'):
        build_dataset(volumes, Compose(READ), "gpu", device="cuda")


@pytest.mark.gpu
def test_a_cache_on_the_gpu(volumes):
    def epochs():
        set_determinism(0)
        noisy = Compose([READ, RandGaussianNoised("image", prob=1.0)])
        loader = build_dataloader(build_dataset(volumes[:3], noisy, "gpu", device="cuda"), batch_size=1)
        runs = [[batch["image"] for batch in loader] for _ in range(2)]
        set_determinism(None)
        return runs

    first, second = epochs(), epochs()
    assert all(image.is_cuda for epoch in first for image in epoch)
    assert all(torch.equal(a, b) for a, b in zip(chain(*first), chain(*second), strict=True))
    assert not torch.equal(first[0][0], first[1][0])
