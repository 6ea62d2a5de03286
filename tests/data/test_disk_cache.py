# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import monai.transforms as mt
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import set_track_meta
from monai.transforms import Compose, Lambdad, LoadImaged, MapTransform, RandGaussianNoised, Resized, ScaleIntensityd
from processes import run_code

from monai_crossd.data import build_dataloader, build_dataset
from monai_crossd.data.disk_cache import hash_item
from monai_crossd.transforms import intensity_transforms, load_transforms

SHIFT = 1
READ = LoadImaged("image", reader="monai_crossd.data.SimpleITKReader", ensure_channel_first=True)


def deterministic(scale=1.0):
    return [READ, ScaleIntensityd("image", maxv=scale)]


def build(items, folder, transforms=None, **options):
    return build_dataset(items, Compose(transforms or deterministic()), "disk", folder, **options)


@pytest.mark.parametrize("change", ["file", "argument", "nothing"])
def test_a_cache_belongs_to_file_and_transforms(volumes, tmp_path, change, monkeypatch):
    items, folder = volumes[:2], tmp_path / "cache"
    before = [item["image"].clone() for item in build(items, folder)]
    files = set(folder.glob("*.pt"))
    assert len(files) == 2
    if change == "file":
        image = nib.load(items[0]["image"])
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine), items[0]["image"])
    scale = 2.0 if change == "argument" else 1.0
    dataset = build(items, folder, deterministic(scale))
    if change == "nothing":  # read from the cache alone
        monkeypatch.setattr(dataset, "_pre_transform", None)
    expected = [Compose(deterministic(scale))(item)["image"] for item in items]
    assert all(torch.equal(found["image"], image) for found, image in zip(dataset, expected, strict=True))
    assert [torch.equal(a, b) for a, b in zip(before, expected, strict=True)] == {
        "file": [False, True], "argument": [False, False], "nothing": [True, True],
    }[change]  # fmt: skip
    assert len(set(folder.glob("*.pt")) - files) == {"file": 1, "argument": 2, "nothing": 0}[change]


@pytest.mark.parametrize("kind", ["file", "with a hash", "array", "folder", "text", "nothing"])
def test_the_hash_follows_files_only(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ("#1" if kind == "with a hash" else "a")
    folder.mkdir()
    path = folder / ("x.npz" if kind == "array" else "x.dcm")
    path.write_text("1")
    value = {"array": f"{path}#images/3", "folder": str(folder), "text": "benign", "nothing": ""}.get(kind, str(path))
    before = hash_item({"image": value})
    assert hash_item({"image": value}) == before
    path.write_text("12")
    (tmp_path / "new").write_text("")
    assert (hash_item({"image": value}) == before) == (kind in ("text", "nothing"))


def test_another_process_finds_the_cache(volumes, tmp_path):
    dataset = build(volumes, tmp_path / "cache")
    names = sorted(f"{hash_item(item).decode()}{dataset.transform_hash}" for item in volumes)
    code = f"""
from monai.transforms import Compose, LoadImaged, ScaleIntensityd
from monai_crossd.data import build_dataset
from monai_crossd.data.disk_cache import hash_item
read = LoadImaged("image", reader="monai_crossd.data.SimpleITKReader", ensure_channel_first=True)
items = {volumes!r}
dataset = build_dataset(items, Compose([read, ScaleIntensityd("image", maxv=1.0)]), "disk", {str(tmp_path / "cache")!r})
print(*sorted(f"{{hash_item(item).decode()}}{{dataset.transform_hash}}" for item in items))
"""
    assert run_code(code).split() == names


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_damaged_file_is_made_again(volumes, tmp_path, caplog, kept):
    folder = tmp_path / "cache"
    expected = build(volumes[:1], folder)[0]["image"]
    (path,) = folder.glob("*.pt")
    path.write_bytes(b"no zip file" if kept < 0 else path.read_bytes()[:kept])
    assert torch.equal(build(volumes[:1], folder)[0]["image"], expected)
    assert "cannot be loaded and is made again" in caplog.text
    assert torch.load(path, weights_only=True)["label"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_damage_of_any_kind_is_noticed(volumes, tmp_path, caplog, seed):
    """Random content, overwritten parts, single bits: what comes out is the image as it is made anew."""
    folder = tmp_path / "cache"
    expected = build(volumes[:1], folder)[0]
    (path,) = folder.glob("*.pt")
    good, rng, dataset = path.read_bytes(), random.Random(seed), build(volumes[:1], folder)
    for i in range(30):
        damaged = bytearray(good)
        at = rng.randrange(len(good))
        if i % 3 == 0:
            damaged = bytearray(rng.randbytes(rng.choice([0, 1, 10, 1000])))
        elif i % 3 == 1:
            damaged[at : at + 512] = rng.randbytes(len(damaged[at : at + 512]))
        else:
            damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        caplog.clear()
        assert_same(dataset[0], expected)
        assert len(caplog.records) == 1
        assert str(path) in caplog.text
        assert path.read_bytes() == good


def assert_same(found, expected):
    """Values, types and meta, trace included but for the numbers of objects in it."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        # a filter rounds differently from one place in memory to another
        torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=2e-6, atol=0, equal_nan=True)
        assert_same(getattr(found, "meta", None), getattr(expected, "meta", None))
        assert_same(getattr(found, "applied_operations", None), getattr(expected, "applied_operations", None))
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected or found != found != expected != expected


def double(x):
    return x * 2


TRANSFORMS = {
    "Resized": Resized("image", (4, 4, 4)),
    "Resized, all modes": [
        Resized("image", (4, 4, 4), mode=m) for m in ("nearest", "trilinear", "area", "nearest-exact")
    ],
    "Resize of the longest": mt.Resized("image", 8, size_mode="longest"),
    "Zoomd": mt.Zoomd("image", 0.7, keep_size=False),
    "Zoomd, kept size": mt.Zoomd("image", 1.2),
    "Rotated": mt.Rotated("image", [0.3, 0, 0]),
    "Rotated, nearest": mt.Rotated("image", [0.3, 0, 0], mode="nearest", padding_mode="zeros"),
    "Affined": mt.Affined("image", rotate_params=[0.1, 0, 0], padding_mode="reflection"),
    "Affined of a tensor": mt.Affined("image", affine=torch.eye(4)),
    "Spacingd": mt.Spacingd("image", (2, 2, 2)),
    "Spacingd, of numpy": mt.Spacingd("image", np.array([2.0, 2.0, 2.0])),
    "Orientationd": mt.Orientationd("image", "LPS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
    "Flipd": mt.Flipd("image", 0),
    "Rotate90d": mt.Rotate90d("image"),
    "Transposed": mt.Transposed("image", (0, 2, 1, 3)),
    "crops": [mt.CenterSpatialCropd("image", (4, 4, 2)), mt.SpatialCropd("image", roi_slices=[slice(0, 3)] * 3)],
    "CropForegroundd": mt.CropForegroundd("image", "image"),
    "pads": [
        mt.SpatialPadd("image", (9, 9, 9), mode="reflect"),
        mt.DivisiblePadd("image", 5),
        mt.BorderPadd("image", 1),
    ],
    "ResizeWithPadOrCropd": mt.ResizeWithPadOrCropd("image", (4, 9, 4)),
    "intensities": [
        mt.NormalizeIntensityd("image"),
        mt.ScaleIntensityRanged("image", 0, 1, -1, 1),
        mt.ThresholdIntensityd("image", 0),
    ],
    "filters": [mt.GaussianSmoothd("image", 1.0), mt.MedianSmoothd("image", 1), mt.SavitzkyGolaySmoothd("image", 3, 1)],
    "types": [mt.CastToTyped("image", torch.float16), mt.EnsureTyped("image", dtype=torch.float64)],
    "plain tensor": mt.EnsureTyped("image", track_meta=False),
    "numpy": mt.ToNumpyd("image"),
    "patches": mt.Lambda(lambda item: [item, {**item, "label": 7}]),
    "several of one": mt.CopyItemsd("image", 2, ["a", "b"]),
    "without meta": mt.DeleteItemsd("label"),
    "coordinates": mt.AddCoordinateChannelsd("image", spatial_dims=(0, 1)),
    "labels": [
        mt.AsDiscreted("image", threshold=100.0),
        mt.FillHolesd("image"),
    ],
    "statistics": mt.IntensityStatsd("image", ["mean", "max"], "stats"),
    "lambda": Lambdad("image", lambda x: x + 1),
    "function": Lambdad("image", double),
    "nothing": mt.Identityd("image"),
    "volume of the bundle": load_transforms(3, channels=1, pixdim=None, spatial_size=[8, 8, 4])
    + intensity_transforms("ct"),
    "spacing of the bundle": load_transforms(3, channels=1, pixdim=[2, 2, 2], spatial_size=None)
    + intensity_transforms("mr"),
}


@pytest.mark.parametrize("case", TRANSFORMS)
def test_what_comes_from_the_cache_is_what_is_made_anew(volumes, tmp_path, case, caplog):
    steps = TRANSFORMS[case]
    steps = steps if isinstance(steps, list) else [steps]
    if not isinstance(steps[0], LoadImaged):
        steps = [READ, *steps]
    expected = build_dataset(volumes[:1], Compose(steps), "none")[0]
    mt.reset_ops_id(expected)
    build(volumes[:1], tmp_path / "cache", steps)[0]
    dataset = build(volumes[:1], tmp_path / "cache", steps)
    dataset._pre_transform = None  # read from the cache alone
    assert_same(dataset[0], expected)
    assert not caplog.records


OPTIONS = {
    "lazy": {"lazy": True},
    "overrides": {"lazy": True, "overrides": {"image": {"mode": "nearest"}}},
    "padding": {"lazy": True, "overrides": {"image": {"padding_mode": "zeros"}}},
    "items": {"map_items": False},
    "level": {"map_items": 2},
}


@pytest.mark.parametrize("first", ["nothing", *OPTIONS])
def test_options_of_the_compose_count(volumes, tmp_path, first):
    """Each after each other one, in one folder."""
    steps = [READ, mt.Rotated("image", [0.3, 0, 0], padding_mode="border"), mt.Zoomd("image", 0.7, keep_size=False)]
    build_dataset(volumes[:1], Compose(steps, **OPTIONS.get(first, {})), "disk", tmp_path / "cache")[0]
    for options in ({}, *OPTIONS.values()):
        found = build_dataset(volumes[:1], Compose(steps, **options), "disk", tmp_path / "cache")[0]
        expected = build_dataset(volumes[:1], Compose(steps, **options), "none")[0]
        torch.testing.assert_close(found["image"], expected["image"], rtol=0, atol=0)


def test_statistics_that_are_logged_do_not_count(volumes, tmp_path):
    for log_stats in (False, True):
        build_dataset(volumes[:1], Compose(deterministic(), log_stats=log_stats), "disk", tmp_path)[0]
    assert len(list(tmp_path.glob("monai_crossd_cache/*.pt"))) == 1


@pytest.mark.parametrize("what", ["track meta", "default type", "atlas", "global", "class"])
def test_what_transforms_use_counts(volumes, tmp_path, what, monkeypatch):
    atlas = tmp_path / "atlas.txt"
    atlas.write_text("1")

    def steps(value):
        class Add(MapTransform):
            def __call__(self, data):
                return {**data, "image": data["image"] + value}

        functions = {"atlas": lambda x: x + float(atlas.read_text()), "global": lambda x: x + SHIFT}
        return [READ, Add("image") if what == "class" else Lambdad("image", functions.get(what, double))]

    build(volumes[:1], tmp_path / "cache", steps(1))[0]
    if what == "track meta":
        set_track_meta(False)
    elif what == "default type":
        torch.set_default_dtype(torch.float64)
    elif what == "atlas":
        atlas.write_text("2")
    monkeypatch.setattr(sys.modules[__name__], "SHIFT", 5)
    try:
        found = build(volumes[:1], tmp_path / "cache", steps(2))[0]["image"]
        expected = build_dataset(volumes[:1], Compose(steps(2)), "none")[0]["image"]
    finally:
        set_track_meta(True)
        torch.set_default_dtype(torch.float32)
    assert type(found) is type(expected)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("cache", ["none", "ram", "disk", "smart"])
@pytest.mark.parametrize("random_after", [False, True])
def test_an_item_changed_in_place_is_whole_in_the_next_epoch(volumes, tmp_path, cache, random_after):
    steps = [*deterministic(), *([RandGaussianNoised("image", prob=0.0)] if random_after else [])]
    dataset = build_dataset(volumes[:3], Compose(steps), cache, tmp_path / "cache")
    expected = [item["image"].clone() for item in dataset]
    for item in dataset:
        item["image"].add_(1)
        item["image"].meta.clear()
        item.clear()
    assert all(torch.equal(item["image"], image) for item, image in zip(dataset, expected, strict=True))
    assert all(item["image"].meta["filename_or_obj"] for item in dataset)


@pytest.mark.parametrize("cache", ["none", "ram", "disk", "smart"])
def test_one_of_several_transforms_stays_one(volumes, tmp_path, cache):
    choose = mt.OneOf([mt.Identityd("image"), Lambdad("image", lambda x: x * 0)], weights=[1.0, 0.0])
    dataset = build_dataset(volumes[:2], Compose([READ, choose]), cache, tmp_path / "cache")
    alone = build_dataset([READ(item) for item in volumes[:2]], choose, cache, tmp_path / "cache")
    assert dataset[0]["image"].any()
    assert alone[0]["image"].any()


def test_a_cache_among_the_images_does_not_feed_on_itself(tmp_path, caplog):
    """The cache of a folder of slices, in that folder."""
    series = tmp_path / "series"
    series.mkdir()
    for i in range(3):
        (series / f"{i}.npy").write_bytes(bytes([i]))
    read = Lambdad(
        "image", lambda folder: torch.tensor([p.read_bytes()[0] for p in sorted(Path(folder).glob("*.npy"))])
    )
    for folder in (series / "cache", series):
        for values in ([0, 1, 2], [0, 1, 2], [5, 1, 2]):
            (series / "0.npy").write_bytes(bytes(values[:1]))
            assert build([{"image": str(series)}], folder, [read])[0]["image"].tolist() == values
        before = set(series.rglob("*.pt"))
        build([{"image": str(series)}], folder, [read])[0]
        assert set(series.rglob("*.pt")) == before
    assert sorted(p.name for p in series.iterdir()) == ["0.npy", "1.npy", "2.npy", "cache", "monai_crossd_cache"]


def test_other_data_leave_the_files(volumes, tmp_path):
    dataset = build(volumes[:1], tmp_path)  # the folder of the images
    dataset[0]
    dataset.set_data(volumes[1:2])
    assert torch.equal(dataset[0]["image"], Compose(deterministic())(volumes[1])["image"])
    assert Path(volumes[0]["image"]).is_file()
    assert len(list(tmp_path.glob("monai_crossd_cache/*.pt"))) == 2


def test_processes_that_fill_one_cache(volumes, tmp_path):
    expected = [Compose(deterministic())(item)["image"] for item in volumes[:3]]
    items = volumes[:3] * 8  # several processes meet at each file
    loader = build_dataloader(build(items, tmp_path / "cache"), num_workers=4, batch_size=1)
    for batch, image in zip(loader, expected * 8, strict=True):
        assert torch.equal(batch["image"][0], image)
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".TAG", ".pt", ".pt", ".pt"]


def test_what_cannot_be_read_safely_is_not_kept(volumes, tmp_path, caplog):
    steps = [READ, Lambdad("image", lambda x: (x.meta.update(where=Path("a"), how=double), x)[1])]
    for _ in range(2):
        dataset = build(volumes[:3], tmp_path / "cache", steps)
        assert [item["image"].meta["where"] for item in dataset] == [Path("a")] * 3
    assert [record.getMessage().count("cannot be kept") for record in caplog.records] == [1, 1]
    assert not list((tmp_path / "cache").glob("*.pt"))


def test_code_in_the_cache_is_not_run(volumes, tmp_path, caplog):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    build(volumes[:1], tmp_path / "cache")[0]
    (path,) = (tmp_path / "cache").glob("*.pt")
    torch.save(Evil(), path)
    assert build(volumes[:1], tmp_path / "cache")[0]["label"] == 0
    assert not (tmp_path / "harm").exists()


def test_a_folder_that_cannot_be_made_is_named_at_once(volumes, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/cache cannot be written .*: free space or rights there"):
        build(volumes, tmp_path / "file" / "cache")


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


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_fills_up_costs_speed_only(volumes, small_disk, tmp_path, workers):
    log = logging.FileHandler(tmp_path / "log")  # workers write there too
    logging.getLogger("monai_crossd").addHandler(log)
    transforms = [*deterministic(), Resized("image", (32, 32, 12))]
    expected = [Compose(transforms)(item)["image"] for item in volumes[:3]]
    loader = build_dataloader(build(volumes[:3], small_disk, transforms), num_workers=workers, batch_size=1)
    for _ in range(2):
        for batch, image in zip(loader, expected, strict=True):
            assert torch.equal(batch["image"][0], image)
    logging.getLogger("monai_crossd").removeHandler(log)
    log.close()
    said = (tmp_path / "log").read_text().count("takes no more")
    assert 1 <= said <= max(1, 2 * workers)  # once in each process, and each epoch has new ones
    assert sorted(path.suffix for path in small_disk.iterdir()) == [".TAG", ".pt"]
    (small_disk / "rest").write_bytes(bytes(1))
    with pytest.raises(OSError, match="No space"):
        (small_disk / "rest").write_bytes(bytes(65536))
    with pytest.raises(OSError, match=r"cannot be written .*name another cache_dir"):
        build(volumes, small_disk, transforms)


def test_a_read_only_disk(volumes, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=r"small cannot be written \(Read-only file system\)"):
        build(volumes, small_disk)


def test_transforms_that_cannot_be_told_apart(volumes, tmp_path):
    file = (tmp_path / "open").open("w")
    unkeyable = Lambdad("image", lambda x: file and x)
    assert len(build(volumes, tmp_path / "cache", [READ, RandGaussianNoised("image"), unkeyable])) == 4
    with pytest.raises(ValueError, match=r"told apart.*file is a TextIOWrapper.*after the first random transform"):
        build(volumes, tmp_path / "cache", [READ, unkeyable])
    file.close()
