# SPDX-License-Identifier: Apache-2.0
"""Every way of caching gives the same items, on files on disk; and what happens to disks and files that fail."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from itertools import chain

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset, SmartCacheDataset, ThreadDataLoader
from monai.transforms import Compose, Lambdad, LoadImaged, RandGaussianNoised, Resized, ScaleIntensityd
from monai.utils import set_determinism
from PIL import Image

from monai_crossd.data import CACHES, build_dataloader, build_dataset
from monai_crossd.data.disk_cache import DiskCacheDataset, hash_item
from monai_crossd.data.skip import cause_of

KINDS = {"none": Dataset, "ram": CacheDataset, "disk": PersistentDataset, "smart": SmartCacheDataset}
READ = LoadImaged("image", reader="monai_crossd.data.SimpleITKReader", ensure_channel_first=True)


def deterministic(scale=1.0):
    return [READ, ScaleIntensityd("image", maxv=scale)]


@pytest.fixture
def items(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        volume = rng.integers(0, 999, (6, 5, 4)).astype(np.int16)
        nib.save(nib.Nifti1Image(volume, np.diag([1, 2, 3, 1])), tmp_path / f"{i}.nii.gz")
    Image.fromarray(rng.integers(0, 255, (7, 8), dtype=np.uint8)).save(tmp_path / "3.png")
    names = ["0.nii.gz", "1.nii.gz", "2.nii.gz", "3.png"]
    return [{"image": str(tmp_path / name), "label": i} for i, name in enumerate(names)]


def build(items, tmp_path, cache, transforms=None, **options):
    return build_dataset(items, Compose(transforms or deterministic()), cache, tmp_path / "cache", **options)


@pytest.mark.parametrize("cache", KINDS)
def test_each_cache_gives_the_same_items(items, tmp_path, cache):
    dataset = build(items, tmp_path, cache)
    assert isinstance(dataset, KINDS[cache])
    assert sorted(item["label"] for item in dataset.data) == [0, 1, 2, 3]
    expected = {item["label"]: Compose(deterministic())(item)["image"] for item in items}
    for _ in range(2):  # made, then from the cache
        for i in range(len(dataset)):
            found = dataset[i]
            image = expected[found["label"]]
            assert torch.equal(found["image"], image)
            assert torch.equal(found["image"].affine, image.affine)
            assert found["image"].meta["filename_or_obj"] == image.meta["filename_or_obj"]
            assert len(found["image"].applied_operations) == len(image.applied_operations)
    assert not getattr(dataset, "skipped", None)


@pytest.mark.parametrize("cache", KINDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_random_stays_random_and_repeats_with_the_seed(items, tmp_path, cache, workers):
    def epochs():
        set_determinism(0)
        noisy = [*deterministic(), RandGaussianNoised("image", prob=1.0)]
        loader = build_dataloader(build(items[:3], tmp_path, cache, noisy), num_workers=workers, batch_size=1)
        runs = [[batch["image"] for batch in loader] for _ in range(2)]
        set_determinism(None)
        return runs

    first, second = epochs(), epochs()
    assert all(torch.equal(a, b) for a, b in zip(chain(*first), chain(*second), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(*first, strict=False))


def test_a_smart_cache_turns_over(items, tmp_path, monkeypatch):
    many = [dict(items[i % 3], label=i) for i in range(12)]
    dataset = build(many, tmp_path, "smart")
    loader = build_dataloader(dataset, batch_size=1)
    seen = [tuple(int(batch["label"]) for batch in loader) for _ in range(5)]
    assert {len(epoch) for epoch in seen} == {6}
    assert len(set(seen)) > 1
    dataset.shutdown()


@pytest.mark.parametrize("change", ["file", "argument", "nothing"])
def test_a_cache_on_disk_belongs_to_file_and_transforms(items, tmp_path, change, monkeypatch):
    before = [item["image"].clone() for item in build(items[:2], tmp_path, "disk")]
    files = set(os.listdir(tmp_path / "cache"))
    assert len(files) == 2
    if change == "file":
        image = nib.load(items[0]["image"])
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine), items[0]["image"])
    scale = 2.0 if change == "argument" else 1.0
    dataset = build(items[:2], tmp_path, "disk", deterministic(scale))
    if change == "nothing":  # read from the cache alone
        monkeypatch.setattr(dataset, "_pre_transform", None)
    expected = [Compose(deterministic(scale))(item)["image"] for item in items[:2]]
    assert all(torch.equal(found["image"], image) for found, image in zip(dataset, expected, strict=True))
    assert [torch.equal(a, b) for a, b in zip(before, expected, strict=True)] == {
        "file": [False, True], "argument": [False, False], "nothing": [True, True],
    }[change]  # fmt: skip
    assert len(set(os.listdir(tmp_path / "cache")) - files) == {"file": 1, "argument": 2, "nothing": 0}[change]


def test_another_process_finds_the_cache(items, tmp_path):
    dataset = build(items, tmp_path, "disk")
    names = sorted(f"{hash_item(item).decode()}{dataset.transform_hash}" for item in items)
    code = f"""
from monai.transforms import Compose, LoadImaged, ScaleIntensityd
from monai_crossd.data import build_dataset
from monai_crossd.data.disk_cache import hash_item
read = LoadImaged("image", reader="monai_crossd.data.SimpleITKReader", ensure_channel_first=True)
items = {items!r}
dataset = build_dataset(items, Compose([read, ScaleIntensityd("image", maxv=1.0)]), "disk", {str(tmp_path / "cache")!r})
print(*sorted(f"{{hash_item(item).decode()}}{{dataset.transform_hash}}" for item in items))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == names


def test_a_damaged_cache_file_is_made_again(items, tmp_path, caplog):
    expected = build(items[:1], tmp_path, "disk")[0]["image"]
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(build(items[:1], tmp_path, "disk")[0]["image"], expected)
    assert "is damaged and made again" in caplog.text
    assert torch.load(path, weights_only=True)["label"] == 0


def test_a_cache_folder_that_cannot_be_written_is_named_at_once(items, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/cache cannot be written .*: free space or rights there"):
        build_dataset(items, Compose(deterministic()), "disk", tmp_path / "file" / "cache")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB, where the tests may make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_costs_speed_only(items, small_disk, caplog):
    transforms = [*deterministic(), Resized("image", (32, 32, 12))]
    dataset = build_dataset(items[:3], Compose(transforms), "disk", small_disk)
    for _ in range(2):
        for item, found in zip(items, dataset, strict=False):
            assert torch.equal(found["image"], Compose(transforms)(item)["image"])
    assert caplog.text.count("takes no more") == 1
    assert all(name.endswith(".pt") for name in os.listdir(small_disk))
    with pytest.raises(OSError, match="No space"):
        (small_disk / "rest").write_bytes(bytes(65536))
    with pytest.raises(OSError, match=r"cannot be written .*name another cache_dir"):
        build_dataset(items, Compose(transforms), "disk", small_disk)


def test_a_read_only_disk(items, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match="cannot be written"):
        build_dataset(items, Compose(deterministic()), "disk", small_disk)


@pytest.fixture
def with_bad(items, tmp_path):
    """Items with a file whose header is whole and whose voxels are not."""
    path = tmp_path / "short.nii.gz"
    whole = nib.Nifti1Image(np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16), np.eye(4))
    nib.save(whole, path)
    path.write_bytes(path.read_bytes()[:2000])
    assert nib.load(path).shape == (20, 20, 20)
    return [*items[:2], {"image": str(path), "label": 9}, *items[2:]]


@pytest.mark.parametrize("cache", KINDS)
def test_a_bad_file_is_skipped_and_reported(with_bad, items, tmp_path, cache, caplog):
    with caplog.at_level(logging.WARNING, "monai_crossd"):
        dataset = build(with_bad, tmp_path, cache, on_error="skip-and-report")
    ((item, cause),) = dataset.skipped
    assert item["label"] == 9
    assert "short.nii.gz" in cause
    assert "skipped" in caplog.text
    assert "short.nii.gz" in caplog.text
    assert sorted(item["label"] for item in dataset.data) == [0, 1, 2, 3]
    assert len(list(build_dataloader(dataset, batch_size=1))) == (2 if cache == "smart" else 4)


@pytest.mark.parametrize("cache", KINDS)
def test_a_bad_file_raises_by_its_name(with_bad, tmp_path, cache):
    def read_all():
        dataset = build([with_bad[2]] * 2, tmp_path, cache)
        return [dataset[i] for i in range(len(dataset))]

    with pytest.raises(RuntimeError, match="applying transform") as error:
        read_all()
    assert "short.nii.gz" in cause_of(error.value)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"cache": "disc"}, ValueError, "disk"),
        ({"on_error": "skip"}, ValueError, "skip-and-report"),
        ({"cache": "gpu"}, ValueError, 'cache is "gpu" and the device cpu: .*"ram"'),
        ({"cache": "disk"}, ValueError, "without a cache_dir"),
    ],
)
def test_wrong_arguments(items, arguments, error, says):
    with pytest.raises(error, match=says):
        build_dataset(items, Compose(deterministic()), **arguments)


def test_nothing_readable(with_bad, tmp_path):
    with pytest.raises(ValueError, match=r"None of 1 items can be read; the first: .*short"):
        build(with_bad[2:3], tmp_path, "none", on_error="skip-and-report")


def test_transforms_that_a_disk_cache_cannot_tell_apart(items, tmp_path):
    with pytest.raises(ValueError, match="no lambda before the first random transform"):
        build(items, tmp_path, "disk", [READ, Lambdad("image", lambda x: x + 1)])


@pytest.mark.gpu
def test_a_cache_on_the_gpu(items, tmp_path):
    noisy = [*deterministic(), RandGaussianNoised("image", prob=1.0)]
    dataset = build_dataset(items[:3], Compose(noisy), "gpu", device="cuda")
    loader = build_dataloader(dataset, batch_size=1, num_workers=4)
    assert isinstance(loader, ThreadDataLoader)
    assert all(batch["image"].is_cuda for batch in loader)


def test_every_word_is_tested():
    assert {*KINDS, "gpu"} == set(CACHES)
    assert issubclass(DiskCacheDataset, PersistentDataset)
