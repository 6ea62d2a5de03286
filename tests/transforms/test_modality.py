# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose
from PIL import Image

from monai_crossd.transforms import augmentation_transforms, load_transforms, modality_transforms

MODALITIES = ["ct", "mr", "us"]
SHAPE = (16, 14, 6)


def write(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> str:
    affine = np.diag([1.0, 1.0, 10.0, 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(array, affine, dtype=array.dtype), path)
    return str(path)


def values(shape=SHAPE, dtype="int16", seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


@pytest.fixture
def item(tmp_path) -> dict:
    array = values()
    return {
        "image": write(tmp_path / "image.nii.gz", array),
        "label": write(tmp_path / "label.nii.gz", (array > 99).astype(np.uint8)),
    }


def test_real_ct():
    """The chest CT of slicerio equals SimpleITK's array windowed by hand: it is stored along RAS (-L, -P, S)."""
    pytest.importorskip("slicerio")
    folder = resources.files("slicerio") / "data"
    data = {"image": str(folder / "CTChest4.nrrd"), "label": str(folder / "Segmentation.seg.nrrd")}
    compose = modality_transforms("ct", 3, "validate", label_key="label", intensity={"window": "mediastinum"})
    result = compose(data)
    arrays = [sitk.GetArrayFromImage(sitk.ReadImage(path)).transpose(2, 1, 0) for path in data.values()]
    np.testing.assert_allclose(result["image"][0].numpy(), np.clip((arrays[0] + 125) / 175 - 1, -1, 1), atol=1e-5)
    np.testing.assert_array_equal(result["label"][0].numpy(), arrays[1])
    np.testing.assert_allclose(result["image"].pixdim.numpy(), [3.046875, 3.046875, 10], rtol=1e-6)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "float32", "float64"])
def test_dtypes_give_the_same_image(tmp_path, modality, dtype):
    compose = modality_transforms(modality, 3, "infer")
    expected = compose({"image": write(tmp_path / "a.nii", values(dtype="int32"))})["image"]
    result = compose({"image": write(tmp_path / "b.nii", values(dtype=dtype))})["image"]
    assert result.dtype == torch.float32
    assert torch.equal(result.as_tensor(), expected.as_tensor())


@pytest.mark.parametrize("modality", MODALITIES)
def test_orientation(tmp_path, modality):
    """The same anatomy stored along other axes, and in the other direction, comes out the same."""
    array, affine = values(), np.diag([1.0, 1.0, 10.0, 1.0])
    turned = array.transpose(2, 0, 1)[::-1, :, ::-1]
    other = np.zeros((4, 4))
    # columns: where one step along the stored axes leads, and where the first stored voxel is
    other[:3] = np.array([[0, 1, 0, 0], [0, 0, -1, array.shape[1] - 1], [-10, 0, 0, 10 * (array.shape[2] - 1)]])
    other[3, 3] = 1
    compose = modality_transforms(modality, 3, "validate")
    first = compose({"image": write(tmp_path / "a.nii", array, affine)})["image"]
    second = compose({"image": write(tmp_path / "b.nii", np.ascontiguousarray(turned), other)})["image"]
    assert torch.equal(first.as_tensor(), second.as_tensor())
    torch.testing.assert_close(first.affine, second.affine)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("stage", ["train", "validate", "infer"])
@pytest.mark.parametrize("kind", ["nan", "constant", "one slice", "one slice, resampled", "thick slices"])
def test_odd_volumes(tmp_path, modality, stage, kind):
    array, affine = values(dtype="float32"), np.diag([1.0, 1.0, 10.0, 1.0])
    options: dict = {"roi_size": (8, 8, 4)}
    if kind == "nan":
        array[0, 0, 0], array[1, 1, 1], array[2, 2, 2] = np.nan, np.inf, -np.inf
    elif kind == "constant":
        array[:] = 7
    elif kind.startswith("one slice"):
        array = array[:, :, :1]
    if kind.endswith("sampled") or kind == "thick slices":
        options["pixdim"] = 1.0
    data = {"image": write(tmp_path / "i.nii", array, affine), "label": write(tmp_path / "l.nii", np.ones_like(array))}
    compose = modality_transforms(modality, 3, stage, label_key="label", **options)
    if kind == "nan":
        with pytest.warns(UserWarning, match=r"i\.nii has 3 NaN or infinite voxels of 1344"):
            result = compose(data)
    else:
        result = compose(data)
    image = result["image"]
    assert image.isfinite().all()
    depth = {"one slice": 1, "one slice, resampled": 1, "thick slices": 51}.get(kind, 6)
    assert image.shape == ((1, 8, 8, 4) if stage == "train" else (1, 16, 14, depth))
    if stage == "infer":
        assert result["label"] == data["label"]
    else:
        assert result["label"].shape == image.shape
    if kind == "constant" and stage != "train":
        assert image.min() == image.max()


def test_anisotropic_ramp_is_resampled_in_millimetres(tmp_path):
    """Slices 10 mm apart whose value is their height in mm: at 1 mm each slice holds its own height."""
    ramp = np.broadcast_to(np.arange(6.0, dtype=np.float32) * 10, (8, 8, 6))
    compose = Compose(load_transforms(3, pixdim=(1, 1, 1)))
    image = compose({"image": write(tmp_path / "a.nii", ramp)})["image"]
    torch.testing.assert_close(image[0, 4, 4].as_tensor(), torch.arange(51.0), atol=1e-3, rtol=0)


def test_image_path_of_monai_label(item):
    result = modality_transforms("ct", 3, "infer", pixdim=2.0)({**item, "image_path": item["image"]})
    assert result["image_path"] == item["image"]
    torch.testing.assert_close(result["image"].pixdim, torch.full((3,), 2.0, dtype=torch.float64))


def test_cache_holds_the_deterministic_part(item):
    """What is cached equals the validation's item; what comes out of it is random, and the same for a seed."""
    compose = modality_transforms("mr", 3, "train", label_key="label", pixdim=(1, 1, 5))
    dataset = CacheDataset([item], compose, progress=False)
    expected = modality_transforms("mr", 3, "validate", label_key="label", pixdim=(1, 1, 5))(item)
    cached = dataset._cache[0]
    for key in ("image", "label"):
        assert isinstance(cached[key], MetaTensor)
        assert torch.equal(cached[key], expected[key])
        assert torch.equal(cached[key].affine, expected[key].affine)
    compose.set_random_state(0)
    first, second = dataset[0], dataset[0]
    assert not torch.equal(first["image"], second["image"])
    compose.set_random_state(0)
    assert torch.equal(dataset[0]["image"], first["image"])
    assert torch.equal(dataset._cache[0]["image"], expected["image"])


def test_lists_join_in_a_configuration(item):
    """As a bundle writes it: one flat Compose, cached up to the random part."""
    parser = ConfigParser(
        {
            "imports": ["$import monai_crossd"],
            "modality": "mr",
            "window": None,
            "deterministic": "$monai_crossd.transforms.load_transforms(3, label_key='label')"
            " + monai_crossd.transforms.intensity_transforms(@modality, keys='image', window=@window)",
            "random": "$monai_crossd.transforms.augmentation_transforms(@modality, 3, keys=['image', 'label'])",
            "both": {"_target_": "Compose", "transforms": "$@deterministic + @random"},
        }
    )
    compose, deterministic = parser.get_parsed_content("both"), parser.get_parsed_content("deterministic")
    dataset = CacheDataset([item], compose, progress=False)
    assert torch.equal(dataset._cache[0]["image"], Compose(deterministic)(item)["image"])
    assert not torch.equal(dataset[0]["image"], dataset[0]["image"])


@pytest.mark.parametrize("modality", MODALITIES)
def test_2d_classification(tmp_path, modality):
    """Colour pictures become grey, all of one size, and the class number stays."""
    data = []
    for label, shape in enumerate([(30, 40, 3), (24, 24), (50, 20)]):
        Image.fromarray(values(shape, "uint8", label)).save(tmp_path / f"{label}.png")
        data.append({"image": str(tmp_path / f"{label}.png"), "label": label})
    for stage in ("train", "validate"):
        compose = pickle.loads(pickle.dumps(modality_transforms(modality, 2, stage, spatial_size=32)))
        (batch,) = DataLoader(CacheDataset(data, compose, progress=False), batch_size=3)
        assert batch["image"].shape == (3, 1, 32, 32)
        assert batch["image"].isfinite().all()
        assert batch["label"].tolist() == [0, 1, 2]


def test_label_stays_whole_numbers(tmp_path, item):
    item["label"] = write(tmp_path / "many.nii", values() // 20)
    for options in ({"pixdim": 3.0}, {"spatial_size": (9, 20, 8)}, {"roi_size": (20, 20, 3)}):
        result = modality_transforms("ct", 3, "train", label_key="label", **options)(item)
        assert set(result["label"].unique().tolist()) <= set(range(10))
        assert result["label"].shape == result["image"].shape


def test_resize_takes_averages(tmp_path):
    array = values((8, 6, 4), "float32")
    image = Compose(load_transforms(3, spatial_size=(4, 3, 2)))({"image": write(tmp_path / "a.nii", array)})["image"]
    means = array.reshape(4, 2, 3, 2, 2, 2).mean((1, 3, 5))
    np.testing.assert_allclose(image[0].numpy(), means, rtol=1e-5)


def test_options_reach_their_part(item):
    narrow = modality_transforms("ct", 3, "infer", intensity={"window": (0, 10)})(item)["image"]
    assert (narrow == 1).float().mean() > 0.9
    names = [
        type(t).__name__ for t in modality_transforms("ct", 3, "train", augmentation={"flip_axes": [0]}).transforms
    ]
    assert names[-len(augmentation_transforms("ct", 3)) - 1] == "RandFlipd"


def test_empty_volume(tmp_path):
    """A crop that left nothing."""
    np.save(tmp_path / "a.npy", np.zeros((4, 0), np.float32))
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        modality_transforms("us", 2, "infer", reader="NumpyReader")({"image": str(tmp_path / "a.npy")})
    assert "has no voxels: its shape is" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modality": "pet"}, "pet"),
        ({"stage": "training"}, "training"),
        ({"spatial_dims": 4}, "spatial_dims is 4; expected 2 or 3"),
        ({"spatial_dims": 1}, "spatial_dims is 1"),
        ({"channels": 0}, "channels is 0"),
        ({"pixdim": (1, 1)}, r"pixdim is \(1, 1\); expected 3 numbers above 0"),
        ({"pixdim": 0}, "pixdim is 0; expected 3 numbers"),
        ({"spatial_size": (4, 4, -2)}, r"spatial_size is \(4, 4, -2\)"),
        ({"roi_size": (0, 4, 4)}, r"roi_size is \(0, 4, 4\); expected 3 numbers above 0, or -1"),
        ({"roi_size": (0, 4, 4), "stage": "validate"}, "roi_size is"),
        ({"intensity": {"window": "x"}}, "x"),
        ({"intensity": {"percentiles": (1, 99)}}, "is no option of"),
        ({"augmentation": {"rotation": -1}, "stage": "infer"}, "rotation is -1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        modality_transforms(**{"modality": "ct", "spatial_dims": 3, "stage": "train"} | arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("modality", MODALITIES)
def test_device(item, modality):
    compose = modality_transforms(modality, 3, "train", label_key="label", pixdim=2.0, roi_size=8, device="cuda")
    result = compose(item)
    for key in ("image", "label"):
        assert result[key].device.type == "cuda"
        assert result[key].shape == (1, 8, 8, 8)
        assert result[key].isfinite().all()
