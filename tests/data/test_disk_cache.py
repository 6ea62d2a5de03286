# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad, LoadImaged, RandGaussianNoised, Resized, ScaleIntensityd

from monai_crossd.data import build_dataloader, build_dataset
from monai_crossd.data.disk_cache import hash_item

READ = LoadImaged("image", reader="monai_crossd.data.SimpleITKReader", ensure_channel_first=True)


def deterministic(scale=1.0):
    return [READ, ScaleIntensityd("image", maxv=scale)]


def build(items, folder, transforms=None, **options):
    return build_dataset(items, Compose(transforms or deterministic()), "disk", folder, **options)


@pytest.mark.parametrize("change", ["file", "argument", "nothing"])
def test_a_cache_belongs_to_file_and_transforms(volumes, tmp_path, change, monkeypatch):
    items, folder = volumes[:2], tmp_path / "cache"
    before = [item["image"].clone() for item in build(items, folder)]
    files = set(os.listdir(folder))
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
    assert len(set(os.listdir(folder)) - files) == {"file": 1, "argument": 2, "nothing": 0}[change]


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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == names


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_damaged_file_is_made_again(volumes, tmp_path, caplog, kept):
    folder = tmp_path / "cache"
    expected = build(volumes[:1], folder)[0]["image"]
    (path,) = folder.iterdir()
    path.write_bytes(b"no zip file" if kept < 0 else path.read_bytes()[:kept])
    assert torch.equal(build(volumes[:1], folder)[0]["image"], expected)
    assert "cannot be loaded and is made again" in caplog.text
    assert torch.load(path, weights_only=True)["label"] == 0


def test_code_in_the_cache_is_not_run(volumes, tmp_path, caplog):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    build(volumes[:1], tmp_path / "cache")[0]
    (path,) = (tmp_path / "cache").iterdir()
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
    assert (tmp_path / "log").read_text().count("takes no more") == 1
    assert [path.suffix for path in small_disk.iterdir()] == [".pt"]
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
    after = [READ, RandGaussianNoised("image"), Lambdad("image", lambda x: x + 1)]
    assert len(build(volumes, tmp_path / "cache", after)) == 4
    with pytest.raises(ValueError, match="no lambda before the first random transform"):
        build(volumes, tmp_path / "cache", [READ, Lambdad("image", lambda x: x + 1)])
