# SPDX-License-Identifier: Apache-2.0
"""Label maps: a file for each image, on the image's grid, whatever the images are called."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted, Compose, Invertd, Spacingd

from monai_crossd.data import SimpleITKReader
from monai_crossd.training import LabelMapsHandler, OverlayHandler, PredictionsHandler
from monai_crossd.transforms import load_transforms

AFFINE = np.array([[-2.0, 0, 0, 5], [0, 3, 0.5, 6], [0, -0.4, 4, 7], [0, 0, 0, 1]])


class Threshold(torch.nn.Module):
    """Two logits: the label is 1 where the image, of numbers of its own, is above half."""

    def forward(self, x):
        x = x[:, :1]
        return torch.cat([torch.full_like(x, 0.5), x], 1)


def volume(path, shape=(6, 5, 4), affine=AFFINE, seed=None):
    """An image of 0 and 1, another for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, str(path))) if seed is None else seed
    array = (np.random.default_rng(seed).random(shape) > 0.5).astype(np.float32)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, affine), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array.T), str(path))
    return array


def predict(items, folder, rank=3, transforms=(), data=Dataset, handlers=None, batch_size=1, channels=1):
    preprocessing = Compose([*load_transforms(rank, channels=channels), *transforms])
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(data(items, preprocessing), batch_size=batch_size),
        network=Threshold(),
        postprocessing=Compose(
            [Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False), AsDiscreted("pred", argmax=True)]
        ),
        val_handlers=handlers or [LabelMapsHandler(folder)],
    ).run()


NAMES = {
    "folders": (["p1/image.nii.gz", "p2/image.nii.gz"], ["p1/image_pred.nii.gz", "p2/image_pred.nii.gz"]),
    "suffixes": (["a.nii.gz", "a.mha", "a.nii"], ["a.nii.gz_pred.nii.gz", "a.mha_pred.nii.gz", "a.nii_pred.nii.gz"]),
    "dots": (["1.2.840.1.nii.gz", "1.2.840.2.nii.gz"], ["1.2.840.1_pred.nii.gz", "1.2.840.2_pred.nii.gz"]),
    "letters": (["Müller #1/s 1.nii", "日本/b.nii"], ["s 1_pred.nii.gz", "b_pred.nii.gz"]),
}


@pytest.mark.parametrize("case", NAMES)
def test_every_image_has_its_prediction(tmp_path, capsys, case):
    images, expected = NAMES[case]
    arrays = [volume(tmp_path / "in" / image) for image in images]
    predict([{"image": str(tmp_path / "in" / image)} for image in images], tmp_path / "out")
    found = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in found) == sorted(expected)
    for name, array in zip(expected, arrays, strict=True):
        np.testing.assert_array_equal(nib.load(tmp_path / "out" / name).dataobj, array)
    assert f"{len(images)} label maps: {tmp_path / 'out'}" in capsys.readouterr().out


@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 1), (1, 5, 4), (1, 1, 1)])
@pytest.mark.parametrize("resampled", [False, True])
def test_the_grid_is_the_images(tmp_path, shape, resampled):
    array = volume(tmp_path / "ct.nii.gz", shape, seed=1)
    transforms = [Spacingd("image", (2.0, 3.0, 4.0), mode="nearest")] if resampled else ()
    affine = np.diag([-2.0, 3, 4, 1]) if resampled else AFFINE
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "ct.nii.gz")
    predict([{"image": str(tmp_path / "ct.nii.gz")}], tmp_path / "out", transforms=transforms)
    found = nib.load(tmp_path / "out" / "ct_pred.nii.gz")
    assert found.shape == shape
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(found.dataobj, array)


def test_flat_images_stay_flat(tmp_path):
    array = volume(tmp_path / "x.nii.gz", (6, 5), np.diag([2.0, 3, 1, 1]))
    predict([{"image": str(tmp_path / "x.nii.gz")}], tmp_path / "out", rank=2)
    assert nib.load(tmp_path / "out" / "x_pred.nii.gz").shape == (6, 5)
    np.testing.assert_array_equal(nib.load(tmp_path / "out" / "x_pred.nii.gz").dataobj, array)


def test_channels_of_a_case_are_one_file(tmp_path):
    first = volume(tmp_path / "case_0000.nii.gz")
    volume(tmp_path / "case_0001.nii.gz")
    item = {"image": [str(tmp_path / f"case_000{c}.nii.gz") for c in (0, 1)]}
    predict([item], tmp_path / "out", channels=2)
    (found,) = (tmp_path / "out").iterdir()
    assert found.name == "case_pred.nii.gz"
    np.testing.assert_array_equal(nib.load(found).dataobj, first)


@pytest.mark.parametrize("ext", [".mha", ".nrrd", ".nii"])
def test_other_formats(tmp_path, ext):
    array = volume(tmp_path / "ct.nii.gz")
    predict([{"image": str(tmp_path / "ct.nii.gz")}], "", handlers=[LabelMapsHandler(tmp_path / "out", ext, "")])
    image, meta = SimpleITKReader().get_data(SimpleITKReader().read(str(tmp_path / "out" / f"ct{ext}")))
    np.testing.assert_array_equal(image, array)
    np.testing.assert_allclose(meta["affine"], AFFINE, atol=1e-4)


def test_batches(tmp_path):
    images = [tmp_path / f"{i}" / "x.nii" for i in range(3)]
    arrays = [volume(image) for image in images]
    predict([{"image": str(image)} for image in images], tmp_path / "out", batch_size=2)
    for i, array in enumerate(arrays):
        np.testing.assert_array_equal(nib.load(tmp_path / "out" / f"{i}" / "x_pred.nii.gz").dataobj, array)


class Unlisted(torch.utils.data.Dataset):
    """A data set that does not say what it holds."""

    def __init__(self, items, transform):
        self._items, self._transform = items, transform

    def __len__(self):
        return len(self._items)

    def __getitem__(self, number):
        return self._transform(self._items[number])


def test_of_two_that_would_meet_none_is_written(tmp_path):
    volume(tmp_path / "a.nii")
    items = [{"image": str(tmp_path / "a.nii")}] * 2
    handlers = [
        [LabelMapsHandler(tmp_path / "out")],
        [PredictionsHandler(tmp_path / "out", ["a", "b"])],
        [OverlayHandler(tmp_path / "out")],
    ]
    for handler in handlers:
        with pytest.raises(ValueError, match=r"a\.nii is listed 2 times"):
            predict(items, tmp_path / "out", handlers=handler)
    assert not (tmp_path / "out").exists()


def test_a_data_set_that_lists_nothing(tmp_path):
    images = [tmp_path / name for name in ("p/1.2.nii", "p/1.3.nii", "q/1.2.nii")]
    arrays = [volume(image) for image in images]
    predict([{"image": str(image)} for image in images[:2]], tmp_path / "out", data=Unlisted)
    for name, array in zip(("1.2", "1.3"), arrays, strict=False):
        np.testing.assert_array_equal(nib.load(tmp_path / "out" / f"{name}_pred.nii.gz").dataobj, array)
    with pytest.raises(ValueError, match=r"p/1\.2\.nii and .*q/1\.2\.nii would both be named '1\.2'"):
        predict([{"image": str(image)} for image in images], tmp_path / "out", data=Unlisted)


def test_overlays_of_one_name(tmp_path):
    images = [tmp_path / name for name in ("p1/1.2.nii.gz", "p2/1.2.nii.gz", "p2/1.3.nii.gz")]
    for image in images:
        volume(image, (16, 16, 3))
    handler = OverlayHandler(tmp_path / "out", cases=(0, 1, 2))
    predict([{"image": str(image)} for image in images], "", handlers=[handler])
    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png")}
    assert names == {"p1/1.2_overlay.png", "p2/1.2_overlay.png", "1.3_overlay.png"}


def test_suffix_of_no_format():
    with pytest.raises(ValueError, match=r"output_ext is '.jpg'; expected one of"):
        LabelMapsHandler("out", ".jpg")
