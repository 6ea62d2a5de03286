# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandAffined, RandFlipd
from monai.utils import set_determinism

from monai_crossd.transforms import augmentation_transforms

MODALITIES = ["ct", "mr", "us"]


def item(shape=(1, 20, 18, 6)) -> dict:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return {"image": MetaTensor(image), "label": MetaTensor((image > 0).float()), "name": "x"}


def moves(transforms: list) -> Compose:
    """The spatial part alone."""
    return Compose([t for t in transforms if isinstance(t, RandFlipd | RandAffined)])


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("shape", [(1, 20, 18), (2, 20, 1), (1, 20, 18, 6), (1, 20, 18, 1), (2, 9, 8, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16, torch.uint8])
def test_finite_float32_of_the_same_shape(modality, shape, dtype):
    compose = Compose(augmentation_transforms(modality, len(shape) - 1, ["image", "label"]))
    for constant in (False, True):
        data = item(shape)
        data["image"] = torch.zeros(shape, dtype=dtype) if constant else data["image"].to(dtype)
        for seed in range(4):
            result = compose.set_random_state(seed)(data)
            assert result["image"].shape == result["label"].shape == shape
            assert result["image"].dtype == torch.float32
            assert result["image"].isfinite().all()
            assert set(result["label"].unique().tolist()) <= {0.0, 1.0}
            assert result["name"] == "x"


@pytest.mark.parametrize("modality", MODALITIES)
def test_random_state(modality):
    def draw(seed):
        compose = pickle.loads(pickle.dumps(Compose(augmentation_transforms(modality, 3, ["image", "label"]))))
        compose.set_random_state(seed)
        return [compose(item()) for _ in range(4)]

    first, again, other = draw(0), draw(0), draw(1)
    assert all(torch.equal(a[k], b[k]) for a, b in zip(first, again, strict=True) for k in ("image", "label"))
    assert not any(torch.equal(a["image"], b["image"]) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0]["image"], first[1]["image"])


@pytest.mark.parametrize("modality", MODALITIES)
def test_set_determinism(modality):
    results = []
    try:
        for _ in range(2):
            set_determinism(5)
            results.append(Compose(augmentation_transforms(modality, 2))({"image": item((1, 16, 16))["image"]}))
    finally:
        set_determinism(None)
    assert torch.equal(results[0]["image"], results[1]["image"])


@pytest.mark.parametrize(("spatial_dims", "shape"), [(2, (1, 40, 40)), (3, (1, 40, 40, 8))])
def test_label_moves_with_the_image(spatial_dims, shape):
    blob = torch.zeros(shape)
    blob[:, 8:25, 12:20] = 1
    compose = moves(augmentation_transforms("us", spatial_dims, ["image", "label"], rotation=0.5))
    moved = 0
    for seed in range(6):
        result = compose.set_random_state(seed)({"image": blob, "label": blob})
        assert ((result["image"] > 0.5) == (result["label"] > 0.5)).float().mean() > 0.99
        moved += not torch.equal(result["label"], blob)
    assert moved >= 4


def slices(depth_axis: int) -> torch.Tensor:
    """Volume whose slices across `depth_axis` are each of one value."""
    ramp = torch.arange(10.0).view([10 if axis == depth_axis else 1 for axis in range(3)])
    return ramp.expand(10, 10, 10).clone()[None]


@pytest.mark.parametrize("depth_axis", [0, 1, 2, -1, None])
def test_thick_slices_do_not_mix(depth_axis):
    """Rotation and scaling stay within the slices: a volume that is constant in each of them is not changed."""
    compose = moves(augmentation_transforms("ct", 3, depth_axis=depth_axis, rotation=0.6, scaling=0.3))
    for axis in range(3):
        volume, kept = slices(axis), True
        for seed in range(4):
            result = compose.set_random_state(seed)({"image": volume})["image"]
            kept &= torch.allclose(result.as_tensor(), volume, atol=1e-3)
        assert kept == (depth_axis is not None and axis == depth_axis % 3)


def test_only_ultrasound_is_flipped_by_default():
    flips = {m: [t for t in augmentation_transforms(m, 3) if isinstance(t, RandFlipd)] for m in MODALITIES}
    assert {m: len(found) for m, found in flips.items()} == {"ct": 0, "mr": 0, "us": 1}


@pytest.mark.parametrize(
    ("modality", "flip_axes", "expected"),
    [("us", None, [0]), ("ct", [0, 1], [0, 1]), ("mr", [-1], [-1]), ("us", [], [])],
)
def test_flips(modality, flip_axes, expected):
    """Each of the combinations of flips comes up, and nothing else."""
    image = item((1, 5, 6, 4))["image"].as_tensor()
    compose = moves(augmentation_transforms(modality, 3, flip_axes=flip_axes, rotation=0, scaling=0))
    compose.set_random_state(0)
    variants = [image]
    for axis in expected:
        variants += [v.flip(axis + 1 if axis >= 0 else axis) for v in variants]
    found = set()
    for _ in range(24):
        result = compose({"image": image})["image"].as_tensor()
        matches = [i for i, v in enumerate(variants) if torch.allclose(result, v, atol=1e-4)]
        assert len(matches) == 1
        found.add(matches[0])
    assert found == set(range(len(variants)))


def test_labels_get_no_intensity_change():
    label = torch.full((1, 12, 12), 3.0)
    for modality in MODALITIES:
        compose = Compose(augmentation_transforms(modality, 2, ["image", "seg"], label_keys=["seg"]))
        for seed in range(5):
            assert (compose.set_random_state(seed)({"image": label - 3, "seg": label})["seg"] == 3).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modality": "pet"}, "pet"),
        ({"spatial_dims": 4}, "spatial_dims is 4; expected 2 or 3"),
        ({"flip_axes": [3]}, r"flip_axes is \[3\]; expected axes of 3 dimensions"),
        ({"spatial_dims": 2, "flip_axes": [2]}, "expected axes of 2 dimensions"),
        ({"depth_axis": 3}, "depth_axis is 3"),
        ({"spatial_dims": 2, "depth_axis": None}, "depth_axis is None"),
        ({"rotation": -0.1}, r"rotation is -0\.1"),
        ({"scaling": 1}, "scaling 1; expected"),
        ({"keys": "label"}, r"keys \('label',\) are all label_keys"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        augmentation_transforms(**{"modality": "ct", "spatial_dims": 3} | arguments)
