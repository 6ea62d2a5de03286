# SPDX-License-Identifier: Apache-2.0
"""Every way of caching gives the same items, of files on disk, and leaves out the same ones."""

from __future__ import annotations

import logging
from itertools import chain

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset, SmartCacheDataset
from monai.transforms import Compose, LoadImaged, RandGaussianNoised, ScaleIntensityd, Spacingd
from monai.utils import set_determinism

from monai_crossd.data import CACHES, build_dataloader, build_dataset, load_datalist

KINDS = {"none": Dataset, "ram": CacheDataset, "disk": PersistentDataset, "smart": SmartCacheDataset}
DETERMINISTIC = [
    LoadImaged("image", reader="monai_crossd.data.SimpleITKReader", ensure_channel_first=True),
    ScaleIntensityd("image"),
]
NOISY = [*DETERMINISTIC, RandGaussianNoised("image", prob=1.0)]


def build(items, tmp_path, cache, transforms=DETERMINISTIC, **options):
    return build_dataset(items, Compose(transforms), cache, tmp_path / "cache", **options)


@pytest.mark.parametrize("on_error", ["raise", "skip-and-report"])
@pytest.mark.parametrize("cache", KINDS)
def test_each_cache_gives_the_same_items(volumes, tmp_path, cache, on_error):
    dataset = build(volumes, tmp_path, cache, on_error=on_error)
    assert isinstance(dataset, KINDS[cache])
    assert sorted(item["label"] for item in dataset.data) == [0, 1, 2, 3]
    assert dataset.skipped == []
    expected = {item["label"]: Compose(DETERMINISTIC)(item)["image"] for item in volumes}
    for _ in range(2):  # made, then from the cache
        for i in range(len(dataset)):
            found = dataset[i]
            image = expected[found["label"]]
            assert torch.equal(found["image"], image)
            assert torch.equal(found["image"].affine, image.affine)
            assert found["image"].meta["filename_or_obj"] == image.meta["filename_or_obj"]
            assert len(found["image"].applied_operations) == len(image.applied_operations)


@pytest.mark.parametrize("cache", KINDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_random_stays_random_and_repeats_with_the_seed(volumes, tmp_path, cache, workers):
    def epochs():
        set_determinism(0)
        loader = build_dataloader(build(volumes[:3], tmp_path, cache, NOISY), num_workers=workers, batch_size=1)
        runs = [[batch["image"] for batch in loader] for _ in range(2)]
        set_determinism(None)
        return runs

    first, second = epochs(), epochs()
    assert all(torch.equal(a, b) for a, b in zip(chain(*first), chain(*second), strict=True))
    assert not any(torch.equal(a, b) for a in first[0] for b in first[1])


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_cache_is_made_once(volumes, cut_off, tmp_path, cache):
    """Files may go once they are cached, in the pass that looks for bad files too."""
    for on_error in ("raise", "skip-and-report"):
        items = volumes if on_error == "raise" else [*volumes, cut_off]
        dataset = build(items, tmp_path / on_error, cache, on_error=on_error)
        expected = [item["image"].clone() for item in dataset]
        dataset.transform.transforms[0].keys = ("missing",)  # from now on whatever reads a file fails
        assert all(torch.equal(a["image"], b) for a, b in zip(dataset, expected, strict=True))
        dataset.transform.transforms[0].keys = ("image",)


@pytest.mark.parametrize("cache", KINDS)
def test_a_bad_file_is_skipped_and_reported(volumes, cut_off, tmp_path, cache, caplog):
    with caplog.at_level(logging.WARNING, "monai_crossd"):
        dataset = build([*volumes[:2], cut_off, *volumes[2:]], tmp_path, cache, on_error="skip-and-report")
    ((item, cause),) = dataset.skipped
    assert item is cut_off
    assert "short.nii.gz" in cause
    (line,) = [line for line in caplog.text.splitlines() if "skipped" in line]
    assert "short.nii.gz" in line
    assert sorted(item["label"] for item in dataset.data) == [0, 1, 2, 3]
    assert len(list(build_dataloader(dataset, batch_size=1))) == (2 if cache == "smart" else 4)


@pytest.mark.parametrize("cache", KINDS)
def test_a_bad_file_raises_by_its_name(cut_off, tmp_path, cache):
    def read_all():
        dataset = build([cut_off] * 2, tmp_path, cache)
        return [dataset[i] for i in range(len(dataset))]

    with pytest.raises(RuntimeError, match=r"^image .*short\.nii\.gz, label 9 cannot be prepared: .*skip-and-report"):
        read_all()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_has_its_name_in_the_loader_too(volumes, cut_off, tmp_path, workers):
    loader = build_dataloader(build([volumes[0], cut_off], tmp_path, "none"), num_workers=workers, batch_size=1)
    with pytest.raises(RuntimeError, match=r"short\.nii\.gz, label 9 cannot be prepared"):
        list(loader)


@pytest.mark.parametrize("cache", KINDS)
def test_a_label_map_that_does_not_fit_after_resampling(volumes, tmp_path, cache):
    """Equal shapes in the files, other voxel sizes in the headers: what a crop would cut at another place."""
    for name, voxel in (("good", (1, 2, 3)), ("bad", (1, 1, 1))):
        nib.save(nib.Nifti1Image(np.zeros((6, 5, 4), np.uint8), np.diag([*voxel, 1])), tmp_path / f"{name}.nii.gz")
    items = [{"image": volumes[0]["image"], "label": str(tmp_path / f"{name}.nii.gz")} for name in ("good", "bad")]
    keys = ["image", "label"]
    transforms = [LoadImaged(keys, ensure_channel_first=True), Spacingd(keys, (1, 1, 1))]
    dataset = build(items, tmp_path, cache, transforms, on_error="skip-and-report")
    ((item, cause),) = dataset.skipped
    assert item == items[1]
    assert "shapes (6, 9, 10) and (6, 5, 4)" in cause
    with pytest.raises(RuntimeError, match=r"label .*bad\.nii\.gz cannot be prepared: .*shapes \(6, 9, 10\)"):
        list(build_dataloader(build(items[1:], tmp_path, cache, transforms), batch_size=1))


def test_what_the_list_left_out_is_reported_too(volumes, cut_off, tmp_path):
    (tmp_path / "text.nii.gz").write_text("no image")
    names = [*(item["image"] for item in volumes[:3]), cut_off["image"], str(tmp_path / "text.nii.gz")]
    lines = ["image,label,section", *(f"{name},0,training" for name in names), f"{volumes[3]['image']},0,validation"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    items = load_datalist(tmp_path / "list.csv", task="classification", on_error="skip-and-report")
    dataset = build(items, tmp_path, "ram", on_error="skip-and-report")
    assert len(dataset) == 3
    assert [entry.item["image"] for entry in dataset.skipped] == [names[4], names[3]]  # by its header, by its voxels


def test_nothing_readable(cut_off, tmp_path):
    for cache in KINDS:
        with pytest.raises(ValueError, match=r"None of 1 items can be read; the first: .*short"):
            build([cut_off], tmp_path, cache, on_error="skip-and-report")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"cache": "disc"}, "disk"),
        ({"on_error": "skip"}, "skip-and-report"),
        ({"cache": "gpu"}, 'cache is "gpu" and the device cpu: .*"ram"'),
        ({"cache": "disk"}, "without a cache_dir"),
    ],
)
def test_wrong_arguments(volumes, arguments, says):
    with pytest.raises(ValueError, match=says):
        build_dataset(volumes, Compose(DETERMINISTIC), **arguments)


def test_new_data_make_a_new_cache(volumes, tmp_path):
    dataset = build(volumes[:2], tmp_path, "ram", on_error="skip-and-report")
    dataset.set_data(volumes[2:])
    assert [item["label"] for item in dataset] == [2, 3]


def test_every_word_is_tested():
    assert {*KINDS, "gpu"} == set(CACHES)
