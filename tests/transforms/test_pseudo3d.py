# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, list_data_collate
from monai.transforms import (
    Compose,
    Flip,
    Flipd,
    Identity,
    Identityd,
    LoadImaged,
    RandFlip,
    RandFlipd,
    RandGaussianNoise,
    RandomizableTrait,
    RandRotated,
    Resize,
    SaveImage,
)

from monai_crossd.transforms.pseudo3d import (
    FramesToVolume,
    FramesToVolumed,
    RandVariantsToVolume,
    RandVariantsToVolumed,
    RepeatToVolume,
    RepeatToVolumed,
    VariantsToVolume,
    VariantsToVolumed,
)
from monai_crossd.transforms.volume_to_slices import VolumeToSlices, VolumeToSlicesd, slice_fractions

OBLIQUE = np.array(
    [[-0.36, 0.96, -2.4, 10], [0.8, 1.2, 0.0, -20], [-0.48, 1.28, 1.8, 30], [0, 0, 0, 1.0]]
)  # 1, 2, 3 mm


def image(shape=(2, 4, 5), affine=OBLIQUE, dtype=torch.float32) -> MetaTensor:
    meta = {"filename_or_obj": "a.mha", "spatial_shape": np.asarray(shape[1:])}
    array = torch.arange(np.prod(shape)).reshape(shape).to(dtype)
    return MetaTensor(array, affine=torch.as_tensor(affine), meta=meta)


def place(affine, *index) -> np.ndarray:
    return (np.asarray(affine) @ [*index, 1])[:3]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32, torch.float64])
def test_repeat(dtype):
    source = image(dtype=dtype)
    volume = RepeatToVolume(6)(source)
    assert volume.shape == (2, 4, 5, 6)
    assert volume.dtype == dtype
    for k in range(6):
        assert torch.equal(volume[..., k].as_tensor(), source.as_tensor())
    np.testing.assert_allclose(volume.affine, OBLIQUE)
    assert volume.meta["filename_or_obj"] == "a.mha"
    assert list(volume.meta["spatial_shape"]) == [4, 5, 6]
    np.testing.assert_allclose(volume.meta["original_affine"], OBLIQUE)
    volume[..., 0] = 0  # slices share no memory, with each other or with the image
    assert torch.equal(volume[..., 1].as_tensor(), source.as_tensor())


@pytest.mark.parametrize("affine", [OBLIQUE, np.eye(4), np.diag([-2.0, 3, 1])], ids=["oblique", "eye", "flat"])
def test_repeat_spacing(affine):
    volume = RepeatToVolume(3, depth_spacing=0.5)(image(affine=affine))
    assert volume.affine.shape == (4, 4)
    assert volume.pixdim[2] == pytest.approx(0.5)
    rows = len(affine) - 1
    np.testing.assert_allclose(volume.affine[:rows, :2], affine[:rows, :2])
    normal = np.cross(volume.affine[:3, 0], volume.affine[:3, 1])
    assert abs(normal @ volume.affine[:3, 2].numpy()) == pytest.approx(np.linalg.norm(normal) * 0.5)


def test_arrays_without_meta():
    array = np.arange(12.0).reshape(1, 3, 4)
    for make in (RepeatToVolume(2), VariantsToVolume([Identity(), Identity()])):
        volume = make(array)
        np.testing.assert_array_equal(volume, np.stack([array, array], -1))
    dictionary = RepeatToVolumed(["image", "label"], 2, allow_missing_keys=True)({"image": array, "name": "x"})
    assert dictionary["image"].shape == (1, 3, 4, 2)
    assert dictionary["name"] == "x"


FILM = image((2, 4, 5, 7))
FRAMES = FILM.as_tensor()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6]),
        ({"num_frames": 7, "mode": "center"}, [0, 1, 2, 3, 4, 5, 6]),
        ({"num_frames": 1}, [3]),
        ({"num_frames": 3}, [1, 3, 5]),
        ({"num_frames": 14}, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]),
        ({"num_frames": 3, "mode": "center"}, [2, 3, 4]),
        ({"num_frames": 4, "mode": "center"}, [1, 2, 3, 4]),
        ({"num_frames": 3, "mode": "start"}, [0, 1, 2]),
        ({"num_frames": 10, "mode": "center"}, [0, 0, 0, 1, 2, 3, 4, 5, 6, 6]),
        ({"num_frames": 9, "mode": "start"}, [0, 1, 2, 3, 4, 5, 6, 6, 6]),
        ({"num_frames": 9, "mode": "start", "padding": "zeros"}, [0, 1, 2, 3, 4, 5, 6, None, None]),
        ({"num_frames": 10, "mode": "center", "padding": "zeros"}, [None, None, 0, 1, 2, 3, 4, 5, 6, None]),
        ({"num_frames": 10, "mode": "center", "padding": "circular"}, [5, 6, 0, 1, 2, 3, 4, 5, 6, 0]),
        ({"num_frames": 16, "mode": "start", "padding": "circular"}, [0, 1, 2, 3, 4, 5, 6] * 2 + [0, 1]),
    ],
)
def test_frames(arguments, expected):
    volume = FramesToVolume(**arguments)(FILM)
    assert volume.shape == (2, 4, 5, len(expected))
    for k, frame in enumerate(expected):
        wanted = torch.zeros(2, 4, 5) if frame is None else FRAMES[..., frame]
        assert torch.equal(volume[..., k].as_tensor(), wanted)
    if arguments.get("mode") in ("center", "start") and arguments.get("padding") != "circular":
        for k, frame in enumerate(expected):
            # a frame lies where it was; what replicates one lies beyond the end
            if frame is not None and expected.count(frame) == 1:
                np.testing.assert_allclose(place(volume.affine, 1, 2, k), place(OBLIQUE, 1, 2, frame))


@pytest.mark.parametrize("num_frames", [1, 3, 7, 14, 20])
def test_uniform_frames_cover_the_film(num_frames):
    """The outer faces of the first and last slice are those of the film's."""
    volume = FramesToVolume(num_frames)(FILM)
    np.testing.assert_allclose(place(volume.affine, 0, 0, -0.5), place(OBLIQUE, 0, 0, -0.5))
    np.testing.assert_allclose(place(volume.affine, 0, 0, num_frames - 0.5), place(OBLIQUE, 0, 0, 6.5))


def test_frames_in_other_places():
    expected = FramesToVolume(3)(FILM)
    first = FramesToVolume(3, frame_dim=0)(FILM.as_tensor().movedim(-1, 0))
    assert torch.equal(first.as_tensor(), expected.as_tensor())
    frames = [image() + k for k in range(7)]
    listed = FramesToVolume(3, depth_spacing=2.0)(frames)
    assert torch.equal(listed.as_tensor(), torch.stack([frames[k].as_tensor() for k in (1, 3, 5)], dim=-1))
    assert listed.pixdim[2] == pytest.approx(2.0 * 7 / 3)
    channels = FramesToVolume(frame_dim=0)(image((7, 4, 5)))
    assert torch.equal(channels.as_tensor(), image((7, 4, 5)).as_tensor().permute(1, 2, 0)[None])
    np.testing.assert_allclose(channels.affine, OBLIQUE)
    # an axis of space takes its column along
    turned = FramesToVolume(frame_dim=1)(FILM)
    assert torch.equal(turned.as_tensor(), FRAMES.permute(0, 2, 3, 1))
    np.testing.assert_allclose(place(turned.affine, 2, 3, 1), place(OBLIQUE, 1, 2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RepeatToVolume(0), "depth is 0; expected at least 1"),
        (lambda: RepeatToVolume(2, depth_spacing=0), "depth_spacing is 0; expected a length"),
        (lambda: RepeatToVolume(2)(torch.zeros(4, 5)), r"shape \(4, 5\); expected \(C, H, W\)"),
        (lambda: FramesToVolume(-1), "num_frames is -1"),
        (lambda: FramesToVolume(mode="middle"), "middle"),
        (lambda: FramesToVolume(padding="reflect"), "reflect"),
        (lambda: FramesToVolume()(torch.zeros(3, 4, 5)), r"shape \(3, 4, 5\) and frame_dim=-1; expected four axes"),
        (lambda: FramesToVolume()([torch.zeros(1, 4, 5), torch.zeros(1, 4, 6)]), r"\(1, 4, 6\)\]; expected one"),
        (lambda: VariantsToVolume([]), "transforms is empty"),
        (lambda: VariantsToVolume([Compose([RandFlip(1.0)])]), "Compose is random: use RandVariantsToVolume"),
        (lambda: VariantsToVolume([Identity(), Resize((2, 2))])(image()), r"\(2, 2, 2\)\]; expected one \(C, H, W\)"),
        (lambda: RandVariantsToVolume(RandFlip(1.0), 0), "depth is 0"),
        (lambda: VolumeToSlices(3), "axis is 3; expected a spatial axis"),
        (lambda: VolumeToSlices()(torch.zeros(3, 4, 5)), r"expected \(C, H, W, D\)"),
        (lambda: VolumeToSlices(every=0), "every is 0; expected a whole number of at least 1"),
        (lambda: VolumeToSlicesd("image", every=1.5), "every is 1.5"),
        (lambda: VolumeToSlicesd("image", label_key="label"), "go together"),
        (lambda: VolumeToSlicesd("image", skip_empty=True), "skip_empty needs them"),
        (lambda: VolumeToSlicesd("image", label_key="label", num_classes=1), "num_classes is 1"),
        (lambda: slice_fractions(torch.zeros(2, 3, 3, 3), 2), "no one-hot map"),
        (lambda: slice_fractions(torch.full((1, 3, 3, 3), 2.0), 2), "numbers from 2 to 2; expected .* 0 to 1"),
        (lambda: slice_fractions(torch.full((1, 3, 3, 3), 0.5), 2), "whole numbers"),
        (lambda: slice_fractions(torch.full((1, 3, 3, 3), -1), 2), "from -1"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_variants():
    source = image()
    volume = VariantsToVolume([Identity(), Flip(0), Flip(1)], depth_spacing=2.5)(source)
    expected = torch.stack([source.as_tensor(), source.as_tensor().flip(1), source.as_tensor().flip(2)], dim=-1)
    assert torch.equal(volume.as_tensor(), expected)
    assert volume.pixdim[2] == pytest.approx(2.5)
    np.testing.assert_allclose(volume.affine[:3, [0, 1, 3]], OBLIQUE[:3, [0, 1, 3]])  # the flipped ones have another
    assert volume.applied_operations == []
    smaller = VariantsToVolume([Resize((2, 5)), Resize((2, 5))])(source)
    assert smaller.pixdim[0] == pytest.approx(2.0)  # of the variants, which agree


def test_a_transform_may_write_into_its_image():
    def spoil(x):
        return x.mul_(2)

    source = image()
    volume = VariantsToVolume([spoil, Identity()])(source)
    assert torch.equal(source.as_tensor(), image().as_tensor())
    assert torch.equal(volume[..., 1].as_tensor(), source.as_tensor())


def test_random_variants_follow_their_seed():
    make = RandVariantsToVolume(RandGaussianNoise(prob=1.0), 4)
    first, second, third = (make.set_random_state(seed)(image()) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert not torch.equal(first[..., 0], first[..., 1])
    assert isinstance(make, RandomizableTrait)
    assert not isinstance(VariantsToVolume([Identity()]), RandomizableTrait)
    seeded = Compose([RandVariantsToVolume(RandGaussianNoise(prob=1.0), 4)]).set_random_state(3)
    again = Compose([RandVariantsToVolume(RandGaussianNoise(prob=1.0), 4)]).set_random_state(3)
    assert torch.equal(seeded(image()), again(image()))


def test_random_variants_are_not_cached():
    keys = ["image", "label"]
    flips = RandVariantsToVolumed(keys, RandFlipd(keys, prob=0.5, spatial_axis=0), 8)
    data = CacheDataset(
        [{"image": image(), "label": image()}], Compose([Identityd(keys), flips]).set_random_state(0), progress=False
    )
    items = [data[0] for _ in range(3)]
    assert len({tuple(item["image"].flatten().tolist()) for item in items}) > 1
    for item in items:  # image and label map are flipped together
        assert torch.equal(item["image"], item["label"])


def test_variants_of_dictionaries():
    keys = ["image", "label"]
    item = {"image": image(), "label": image((1, 4, 5)), "age": 60}
    made = VariantsToVolumed(keys, [Identityd(keys), Flipd(keys, 1)])(item)
    assert made["image"].shape == (2, 4, 5, 2)
    assert torch.equal(made["label"][..., 1].as_tensor(), item["label"].as_tensor().flip(2))
    assert made["age"] == 60
    assert item["image"].shape == (2, 4, 5)
    with pytest.raises(ValueError, match="RandRotated is random"):
        VariantsToVolumed(keys, [RandRotated(keys, prob=1.0)])


@pytest.mark.parametrize("axis", [-3, -2, -1, 0, 1, 2])
def test_slices(axis, tmp_path):
    volume = image((2, 4, 5, 6))
    slices = VolumeToSlices(axis)(volume)
    where = axis % 3
    assert len(slices) == volume.shape[1 + where]
    index = [1, 2, 3]
    for k, one in enumerate(slices):
        assert torch.equal(one.as_tensor(), volume.as_tensor().select(1 + where, k))
        assert one.is_contiguous()
        assert one.as_tensor().untyped_storage().nbytes() == one.numel() * 4
        index[where] = k
        in_plane = [n for i, n in enumerate(index) if i != where]
        np.testing.assert_allclose(place(one.affine, *in_plane, 0), place(OBLIQUE, *index))
        np.testing.assert_allclose(one.meta["original_affine"], one.affine)
        assert list(one.meta["spatial_shape"]) == list(one.shape[1:])
    # the slices of one volume are saved under names of their own
    for one in slices:
        writer = "monai_crossd.data.SimpleITKWriter"  # MONAI 1.6.1's fails on 2D images
        SaveImage(tmp_path, output_ext=".nii.gz", separate_folder=False, print_log=False, writer=writer)(one)
    assert len(list(tmp_path.iterdir())) == len(slices)


def test_slices_and_volume_are_inverse():
    volume = image((1, 4, 5, 6))
    slices = VolumeToSlices()(volume)
    back = FramesToVolume()(slices)
    assert torch.equal(back.as_tensor(), volume.as_tensor())
    np.testing.assert_allclose(back.affine, volume.affine)
    np.testing.assert_allclose(RepeatToVolume(6)(slices[0]).affine, volume.affine)


def test_slice_labels():
    label = torch.zeros(1, 2, 2, 5, dtype=torch.uint8)
    label[0, :, :, 1] = torch.tensor([[1, 2], [2, 0]])
    label[0, 0, 0, 2] = 3
    label[0, :, :, 4] = 1
    item = {"image": image((2, 2, 2, 5)), "label": label, "name": "a"}
    cut = VolumeToSlicesd("image", label_key="label", num_classes=4)
    items = cut(item)
    assert [one["label_dominant"] for one in items] == [0, 2, 3, 0, 1]
    assert [one["label_present"].tolist() for one in items][1:3] == [[1, 1, 1, 0], [1, 0, 0, 1]]
    assert [one["label_fractions"].tolist() for one in items][1:3] == [[0.25, 0.25, 0.5, 0], [0.75, 0, 0, 0.25]]
    assert set(items[0]) == {"image", "name", "label_fractions", "label_present", "label_dominant"}
    cut = VolumeToSlicesd(["image", "label"], label_key="label", num_classes=4, skip_empty=True)
    items = cut(item)
    assert [int(one["image"].meta["patch_index"]) for one in items] == [1, 2, 4]
    assert torch.equal(items[0]["label"].as_tensor(), label[..., 1])
    assert cut({"image": image((1, 2, 2, 5)), "label": label * 0}) == []
    with pytest.raises(ValueError, match=r"different numbers of slices, \{'image': 4, "):
        cut({**item, "image": image((1, 2, 2, 4))})


@pytest.mark.parametrize("every", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_kth_slice(every, axis):
    volume, label = image((1, 4, 5, 6)), torch.randint(0, 3, (1, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    whole = VolumeToSlicesd(["image", "label"], label_key="label", num_classes=3, axis=axis)
    cut = VolumeToSlicesd(["image", "label"], label_key="label", num_classes=3, axis=axis, every=every)
    expected = [one for k, one in enumerate(whole({"image": volume, "label": label})) if k % every == 0]
    items = cut({"image": volume, "label": label})
    assert len(items) == len(expected) == -(-volume.shape[axis + 1] // every)
    for one, other in zip(items, expected, strict=True):
        for key in ("image", "label", "label_present"):
            assert torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key]))
        assert one["image"].meta["patch_index"] == other["image"].meta["patch_index"]
        np.testing.assert_allclose(one["image"].affine, other["image"].affine)
        assert one["label_dominant"] == other["label_dominant"]
    with pytest.raises(ValueError, match="different numbers of slices"):  # also where as many are cut
        cut({"image": volume, "label": torch.cat([label, label.narrow(axis + 1, 0, 1)], axis + 1)})


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_fractions_are_counts(axis):
    label = torch.randint(0, 3, (1, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    found = slice_fractions(label, 5, axis)
    for k, row in enumerate(found):
        counts = np.bincount(label[0].select(axis, k).flatten(), minlength=5)
        np.testing.assert_allclose(row, counts / counts.sum(), rtol=1e-6)


def test_loader_flattens_the_slices():
    label = torch.zeros(1, 4, 5, 3)
    label[..., 1:] = 1
    items = [{"image": image((1, 4, 5, 3)), "label": label} for _ in range(2)]
    cut = VolumeToSlicesd("image", label_key="label", num_classes=2, skip_empty=True)
    data = CacheDataset(items, Compose([cut, Flipd("image", 0)]), progress=False)
    [batch] = DataLoader(data, batch_size=2, collate_fn=list_data_collate)
    assert batch["image"].shape == (4, 1, 4, 5)
    assert batch["label_dominant"].tolist() == [1, 1, 1, 1]
    assert batch["label_fractions"].shape == (4, 2)


@pytest.mark.parametrize(
    "transform",
    [
        RepeatToVolumed("image", 2),
        FramesToVolumed("image", 2),
        VariantsToVolumed("image", [Identityd("image")]),
        RandVariantsToVolumed("image", RandFlipd("image", prob=0.5), 2),
        VolumeToSlicesd("image"),
    ],
    ids=lambda t: type(t).__name__,
)
def test_pickles(transform):
    copied = pickle.loads(pickle.dumps(transform))
    shape = (1, 4, 5, 6) if isinstance(transform, (FramesToVolumed, VolumeToSlicesd)) else (1, 4, 5)
    made = copied({"image": image(shape)})
    assert len(made) == (6 if isinstance(transform, VolumeToSlicesd) else 1)


@pytest.mark.gpu
def test_on_the_gpu():
    label = torch.zeros(1, 4, 5, 6).cuda()
    film = image((2, 4, 5, 6)).cuda()
    assert RepeatToVolume(3)(image().cuda()).is_cuda
    assert FramesToVolume(9, mode="center", padding="zeros")(film).is_cuda
    assert RandVariantsToVolume(RandFlip(1.0), 2)(image().cuda()).is_cuda
    items = VolumeToSlicesd("image", label_key="label", num_classes=2)({"image": film, "label": label})
    assert items[0]["image"].is_cuda
    assert items[0]["label_fractions"].is_cuda


def test_real_ultrasound_cine():
    """From the DICOM file to a volume, against pydicom's decoder."""
    examples = pytest.importorskip("pydicom.examples")
    import monai_crossd  # noqa: F401  registers the reader

    frames = torch.from_numpy(examples.ybr_color.pixel_array.copy())  # 30 x 240 x 320 x RGB
    pipeline = Compose(
        [
            LoadImaged("image", reader="monai_crossd.data.SimpleITKReader", ensure_channel_first=True, dtype=np.uint8),
            FramesToVolumed("image", num_frames=10, depth_spacing=0.5),
        ]
    )
    volume = pipeline({"image": examples.get_path("ybr_color")})["image"]
    assert volume.shape == (3, 320, 240, 10)
    assert torch.equal(volume.as_tensor(), frames[1::3].permute(3, 2, 1, 0))  # floor(3 k + 1.5)
    np.testing.assert_allclose(volume.pixdim, [1, 1, 1.5])
    [first, *_] = VolumeToSlices()(volume)
    assert torch.equal(first.as_tensor(), frames[1].permute(2, 1, 0))
