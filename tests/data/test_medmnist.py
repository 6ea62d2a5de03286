# SPDX-License-Identifier: Apache-2.0
"""MedMNIST files are built here in the published format; nothing is downloaded but from this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pickle
import threading
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset, SmartCacheDataset
from monai.transforms import Compose, LoadImage, LoadImaged, Resized
from PIL import Image

from monai_crossd.data import MEDMNIST, MedMNIST, NpzReader, check_files, load_datalist, load_labels, read_shape
from monai_crossd.data.readers.npz import npz_path

COUNTS = {"train": 12, "val": 4, "test": 3}
SHAPES = {"pneumoniamnist": (28, 28), "pathmnist": (28, 28, 3), "organmnist3d": (28, 28, 28), "chestmnist": (28, 28)}
QUIET = {
    CacheDataset: {"progress": False},
    SmartCacheDataset: {"progress": False, "cache_num": 4, "shuffle": False},
    Dataset: {},
}


def write_set(folder: Path, name: str, file_name: str = "", shape: tuple[int, ...] = (), **replace) -> Path:
    """A file as MedMNIST publishes it: compressed, uint8 images, labels (images, 1) or (images, 14)."""
    rng, entry = np.random.default_rng(0), MEDMNIST[name]
    arrays = {}
    for part, number in COUNTS.items():
        arrays[f"{part}_images"] = rng.integers(0, 256, (number, *(shape or SHAPES[name])), np.uint8)
        if name == "chestmnist":
            arrays[f"{part}_labels"] = rng.integers(0, 2, (number, len(entry.labels)), np.uint8)
        else:
            arrays[f"{part}_labels"] = (np.arange(number, dtype=np.uint8) % len(entry.labels))[:, None]
    path = folder / (file_name or f"{name}.npz")
    np.savez_compressed(path, **{key: array for key, array in (arrays | replace).items() if array is not None})
    return path


def hash_of(path: Path) -> str:
    return md5(path.read_bytes()).hexdigest()


@pytest.fixture(params=list(SHAPES))
def published(request, tmp_path) -> Path:
    return write_set(tmp_path, request.param)


def as_monai(image: np.ndarray) -> np.ndarray:
    """Element by element: first axis x, then y, then z; pictures are stored row by row, volumes slice by slice."""
    colour = image.shape[-1] == 3
    size = image.shape[1::-1] if colour else image.shape[::-1]
    out = np.empty((*size, 3) if colour else size, image.dtype)
    for index in np.ndindex(*size):
        out[index] = image[index[::-1]]
    return out


# ---- table


def test_table_is_that_of_the_package_medmnist(tmp_path, monkeypatch):
    spec = importlib.util.find_spec("medmnist")
    if spec is None:
        pytest.skip("pip install --no-deps medmnist, to compare with its info.py")
    monkeypatch.setenv("HOME", str(tmp_path))  # it makes a folder there
    location = Path(spec.submodule_search_locations[0], "info.py")
    source = importlib.util.spec_from_file_location("info", location)
    info = importlib.util.module_from_spec(source)
    source.loader.exec_module(info)
    assert list(MEDMNIST) == list(info.INFO)
    for name, entry in MEDMNIST.items():
        facts = info.INFO[name]
        assert dict(enumerate(entry.labels)) == {int(key): label for key, label in facts["label"].items()}
        assert list(entry.samples.values()) == [facts["n_samples"][part] for part in ("train", "val", "test")]
        assert (entry.task, entry.channels, entry.license) == (facts["task"], facts["n_channels"], facts["license"])
        assert {key for key in facts if key.startswith("MD5")} == {
            "MD5" if size == 28 else f"MD5_{size}" for size in entry.md5
        }
        for size, digest in entry.md5.items():
            end = "" if size == 28 else f"_{size}"
            assert (digest, entry.url(size)) == (facts[f"MD5{end}"], facts[f"url{end}"])


@pytest.mark.parametrize(
    ("name", "size", "file_name", "dims", "sizes"),
    [
        ("pathmnist", 28, "pathmnist.npz", 2, [28, 64, 128, 224]),
        ("pathmnist", 64, "pathmnist_64.npz", 2, [28, 64, 128, 224]),
        ("organmnist3d", 64, "organmnist3d_64.npz", 3, [28, 64]),
    ],
)
def test_file_names(name, size, file_name, dims, sizes):
    entry = MEDMNIST[name]
    assert (entry.file_name(size), entry.spatial_dims, list(entry.md5)) == (file_name, dims, sizes)


# ---- reader


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (4, 5, 7)])
@pytest.mark.parametrize("reader", [NpzReader, "monai_crossd.data.NpzReader", "monai_crossd.data.SimpleITKReader"])
def test_axes(tmp_path, shape, reader):
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    image = LoadImage(reader=reader)(npz_path(tmp_path / "a.npz", "images", 1))
    np.testing.assert_array_equal(image.numpy(), as_monai(images[1]))
    first = LoadImage(reader=reader, ensure_channel_first=True)(npz_path(tmp_path / "a.npz", "images", 1))
    assert first.shape == ((3, 7, 5) if shape[-1] == 3 else (1, *shape[::-1]))
    assert torch.equal(first.affine, torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_picture_is_read_like_its_png(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    Image.fromarray(images[1]).save(tmp_path / "a.png")
    path = npz_path(tmp_path / "a.npz", "images", 1)
    for first in (False, True):
        image = LoadImage(reader=NpzReader, ensure_channel_first=first)(path)
        assert torch.equal(image, LoadImage(ensure_channel_first=first)(tmp_path / "a.png"))
    assert read_shape(path) == read_shape(tmp_path / "a.png") == (7, 5)


def test_slice_of_a_volume_is_read_like_its_png(tmp_path):
    volumes = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 7), np.uint8)
    np.savez(tmp_path / "a.npz", images=volumes)
    Image.fromarray(volumes[0, 2]).save(tmp_path / "a.png")
    volume = LoadImage(reader=NpzReader)(npz_path(tmp_path / "a.npz", "images", 0))
    assert torch.equal(volume[:, :, 2], LoadImage()(tmp_path / "a.png"))
    assert read_shape(npz_path(tmp_path / "a.npz", "images", 0)) == (7, 5, 4)


def test_several_paths_are_channels(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, colour=np.zeros((1, 5, 7, 3), np.uint8))
    paths = [npz_path(tmp_path / "a.npz", "images", i) for i in (2, 0)]
    stacked = LoadImage(reader=NpzReader, ensure_channel_first=True)(paths)
    np.testing.assert_array_equal(stacked, images[[2, 0]].transpose(0, 2, 1))
    with pytest.raises(ValueError, match=r"cannot be channels of one .* \(7, 5\) and \(7, 5, 3\)"):
        LoadImage(reader=NpzReader)([npz_path(tmp_path / "a.npz", "colour", 0), paths[0]])


def test_an_image_may_be_changed_in_place_and_a_file_replaced(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((2, 4, 4), np.uint8))
    for dtype in (None, np.float32):
        LoadImage(reader=NpzReader, dtype=dtype)(npz_path(path, "images", 0)).add_(1)
        assert LoadImage(reader=NpzReader)(npz_path(path, "images", 0)).max() == 0
    np.savez(path, images=np.full((2, 4, 4), 9, np.uint8))
    assert LoadImage(reader=NpzReader)(npz_path(path, "images", 0)).max() == 9


@pytest.mark.parametrize(
    "name", ["a.png", "a.nii.gz", "a.npz", "a.npy", "a.nrrd", "a.dcm", "a.npz#images", "x#y/1.png"]
)
def test_other_files_are_not_taken(name):
    assert not NpzReader().verify_suffix(name)
    assert NpzReader().verify_suffix(npz_path("a.npz", "images", 0))


@pytest.mark.parametrize(
    ("tail", "error", "message"),
    [
        ("a.npz#images/2", ValueError, r"a\.npz#images/2 does not exist: images has the shape \(2, 4, 4\)"),
        ("a.npz#flat/0", ValueError, r"flat has the shape \(3,\); expected"),
        ("a.npz#picture/0", ValueError, r"has no array 'picture' \(found: \['images', 'flat'\]\)"),
        ("b.npz#images/0", FileNotFoundError, r"b\.npz does not exist"),
        ("text.npz#images/0", ValueError, r"text\.npz cannot be read as \.npz \(no zip archive, or cut off\)"),
    ],
)
def test_bad_paths(tmp_path, tail, error, message):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4), np.uint8), flat=np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    for read in (read_shape, LoadImage(reader=NpzReader), lambda path: check_files([{"image": path}])):
        with pytest.raises(error, match=message):
            read(str(tmp_path / tail))


@pytest.mark.parametrize("damage", ["cut off", "bit"])
def test_damaged_file_is_found_before_training(tmp_path, damage):
    path = write_set(tmp_path, "pneumoniamnist")
    content = bytearray(path.read_bytes())
    if damage == "cut off":
        del content[len(content) // 2 :]
    else:
        content[2000] ^= 255  # in the training images
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"pneumoniamnist\.npz cannot be read as \.npz \(.+\): get the file again"):
        load_datalist(path, "training", "classification")


def test_objects_are_not_unpickled(tmp_path):
    path = write_set(tmp_path, "pneumoniamnist", train_labels=np.array([[{}]] * 12, object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_datalist(path, "training", "classification")


# ---- load_datalist and load_labels


@pytest.mark.parametrize("name", ["pneumoniamnist", "pathmnist", "organmnist3d"])
def test_load_datalist(tmp_path, name):
    path = write_set(tmp_path, name)
    arrays = np.load(path)
    for section, part in (("training", "train"), ("validation", "val"), ("test", "test")):
        items = load_datalist(path, section, "classification")
        assert [item["label"] for item in items] == arrays[f"{part}_labels"][:, 0].tolist()
        assert json.loads(json.dumps(items)) == items
        for index in (0, len(items) - 1):
            expected = as_monai(arrays[f"{part}_images"][index])
            np.testing.assert_array_equal(LoadImage(reader=NpzReader)(items[index]["image"]), expected)
    assert load_labels(path, "classification") == dict(enumerate(MEDMNIST[name].labels))


def test_a_file_of_another_name_has_numbered_classes(tmp_path):
    path = write_set(tmp_path, "organmnist3d", "mine.npz", (6, 8, 8))
    assert load_labels(path, "classification") == {n: f"class {n}" for n in range(11)}


def test_sections_that_are_missing(tmp_path):
    gone = {f"{part}_{what}": None for part in ("val", "test") for what in ("images", "labels")}
    path = write_set(tmp_path, "pneumoniamnist", **gone)
    sides = [load_datalist(path, section, "classification") for section in ("training", "validation")]
    assert [len(side) for side in sides] == [10, 2]
    with pytest.raises(ValueError, match='no item for section "test"'):
        load_datalist(path, "test", "classification")


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        ({"train_labels": None}, "has no array 'train_labels'"),
        ({"train_images": None}, "has no array 'train_images'"),
        ({"train_labels": np.zeros((12, 1))}, "train_labels is float64 of shape .*; expected class numbers"),
        ({"train_labels": np.zeros((12, 1, 1), int)}, r"of shape \(12, 1, 1\); expected"),
        ({"train_labels": np.full((12, 1), -1)}, "expected class numbers from 0"),
        ({"train_labels": np.full((12, 1), 2)}, r"has the label 2; expected 0 to 1, the classes of the published"),
        ({"train_labels": np.zeros((13, 1), int)}, "train_images has 12 images, but train_labels 13 labels"),
        ({"train_labels": np.zeros((11, 1), int)}, "12 images, but train_labels 11 labels"),
        ({"train_images": np.zeros((12, 9), np.uint8)}, r"has the shape \(12, 9\); expected"),
    ],
)
def test_bad_format(tmp_path, replace, message):
    path = write_set(tmp_path, "pneumoniamnist", **replace)
    with pytest.raises(ValueError, match=message) as caught:
        load_datalist(path, "training", "classification")
    assert str(path) in str(caught.value)


def test_tasks_that_it_is_not_for(tmp_path):
    with pytest.raises(ValueError, match="for classification"):
        load_datalist(write_set(tmp_path, "pneumoniamnist"), "training", "segmentation")
    with pytest.raises(ValueError, match=r"has several labels per image .* Use monai_crossd\.data\.MedMNIST"):
        load_datalist(write_set(tmp_path, "chestmnist"), "training", "classification")


# ---- dataset


@pytest.mark.parametrize("dataset_class", [Dataset, CacheDataset, SmartCacheDataset, PersistentDataset])
def test_datasets_of_every_class(published, dataset_class, tmp_path):
    name, arrays = published.stem, np.load(published)
    options = QUIET.get(dataset_class, {"cache_dir": tmp_path / "cache"})
    make = partial(MedMNIST, name, tmp_path, md5=hash_of(published), dataset_class=dataset_class, **options)
    data = make("validation")
    assert isinstance(data, dataset_class)
    for index in range(4):
        image = as_monai(arrays["val_images"][index])
        np.testing.assert_array_equal(
            data[index]["image"], np.moveaxis(image, -1, 0) if name == "pathmnist" else image[None]
        )
    batch = next(iter(DataLoader(make("test"), batch_size=3)))
    labels = batch["label"]
    if name == "chestmnist":
        assert (labels.dtype, labels.shape) == (torch.float32, (3, 14))
    np.testing.assert_array_equal(
        labels, arrays["test_labels"].squeeze(-1) if labels.ndim == 1 else arrays["test_labels"]
    )
    assert len(make("training")) == (4 if dataset_class is SmartCacheDataset else 12)


def test_disk_cache_is_used_again(tmp_path):
    path = write_set(tmp_path, "chestmnist")
    for _ in range(2):
        data = MedMNIST(
            "chestmnist", tmp_path, md5=hash_of(path), dataset_class=PersistentDataset, cache_dir=tmp_path / "cache"
        )
        assert len([data[i] for i in range(12)]) == 12
        assert len(list((tmp_path / "cache").iterdir())) == 12


def test_own_transform_and_workers(tmp_path):
    path = write_set(tmp_path, "organmnist3d")
    transform = Compose(
        [LoadImaged("image", reader=NpzReader, ensure_channel_first=True), Resized("image", (16, 16, 8))]
    )
    data = MedMNIST("organmnist3d", tmp_path, md5=hash_of(path), transform=transform, dataset_class=Dataset)
    batches = list(DataLoader(pickle.loads(pickle.dumps(data)), batch_size=6, num_workers=2))
    assert [batch["image"].shape for batch in batches] == [(6, 1, 16, 16, 8)] * 2


# ---- files


@contextlib.contextmanager
def serve(folder: Path):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_download(tmp_path):
    source = tmp_path / "server"
    source.mkdir()
    path = write_set(source, "pneumoniamnist", "pneumoniamnist_64.npz", (64, 64))
    arguments = {"size": 64, "download": True, "md5": hash_of(path), **QUIET[CacheDataset]}
    with serve(source) as url:
        for root in (tmp_path / "new" / "root", tmp_path / "bad"):
            if root.name == "bad":
                arguments["md5"] = "0" * 32
                with pytest.raises((ValueError, RuntimeError), match="md5"):
                    MedMNIST("pneumoniamnist", root, url=f"{url}/{path.name}", **arguments)
                assert not root.exists()
            else:
                data = MedMNIST("pneumoniamnist", root, url=f"{url}/{path.name}", **arguments)
                assert data[0]["image"].shape == (1, 64, 64)
                assert hash_of(root / path.name) == hash_of(path)
    arguments["md5"] = hash_of(path)
    MedMNIST("pneumoniamnist", tmp_path / "new" / "root", url="http://127.0.0.1:9/gone", **arguments)  # is there
    with pytest.raises(ConnectionError, match=r"gone cannot be downloaded to .*pneumoniamnist_64\.npz"):
        MedMNIST("pneumoniamnist", tmp_path / "other", url="http://127.0.0.1:9/gone", **arguments)


def test_existing_file_is_checked(tmp_path):
    path = write_set(tmp_path, "pneumoniamnist")
    for download in (False, True):
        with pytest.raises(
            ValueError, match=r"pneumoniamnist\.npz is damaged or another file: expected the MD5 28209e"
        ):
            MedMNIST("pneumoniamnist", tmp_path, download=download)
    digest = hash_of(path)
    MedMNIST("pneumoniamnist", tmp_path, md5=digest, **QUIET[CacheDataset])
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match="is damaged or another file"):
        MedMNIST("pneumoniamnist", tmp_path, md5=digest)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "pathmnst"}, ValueError, "did you mean 'pathmnist'"),
        ({"section": "train"}, ValueError, "training"),
        ({"size": 32}, ValueError, r"size is 32; organmnist3d is published in the sizes \[28, 64\]"),
        (
            {},
            FileNotFoundError,
            r"organmnist3d\.npz does not exist: pass download=True, or put the file there from http",
        ),
    ],
)
def test_bad_arguments(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        MedMNIST(**{"name": "organmnist3d", "root": tmp_path} | arguments)
