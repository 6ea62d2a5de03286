# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor, NibabelReader, NibabelWriter, PILReader, resolve_writer
from monai.transforms import LoadImage, SaveImage
from PIL import Image

from monai_crossd.data import SimpleITKReader, SimpleITKWriter

ROTATION = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
OBLIQUE = np.eye(4)
OBLIQUE[:3] = np.column_stack([ROTATION @ np.diag([-1.0, 2.0, 3.0]), [10.0, -20.0, 30.0]])
SHEARED = OBLIQUE @ np.array([[1, 0, 0.2, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
SAGITTAL = np.array([[0, 0, 3.0, 1], [1, 0, 0, 2], [0, 2, 0, 3], [0, 0, 0, 1]])
VOLUMES = [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"]


def image(shape=(1, 4, 5, 6), affine=OBLIQUE, dtype=torch.float32) -> MetaTensor:
    return MetaTensor(torch.arange(np.prod(shape)).reshape(shape).to(dtype), affine=torch.as_tensor(affine))


def save(data, path, output_dtype=None, **kwargs):
    suffix = "".join(path.suffixes)
    writer = SaveImage(output_ext=suffix, output_dtype=output_dtype, writer=SimpleITKWriter, print_log=False, **kwargs)
    writer(data, filename=str(path).removesuffix(suffix))
    assert path.exists()
    return path


def stored_type(path) -> np.dtype:
    """Type in the file: torch has no uint16, so LoadImage makes int32 of it."""
    if path.name.endswith((".nii", ".nii.gz")):
        return nib.load(path).get_data_dtype()
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).dtype


def load(path, ensure_channel_first=True) -> MetaTensor:
    return LoadImage(reader=SimpleITKReader(), dtype=None, ensure_channel_first=ensure_channel_first)(path)


@pytest.mark.parametrize("suffix", VOLUMES)
@pytest.mark.parametrize(
    "affine", [np.eye(4), OBLIQUE, SHEARED, SAGITTAL], ids=["eye", "oblique", "sheared", "sagittal"]
)
@pytest.mark.parametrize(
    "shape", [(1, 4, 5, 6), (3, 4, 5, 6), (1, 4, 5), (2, 4, 5), (1, 4, 5, 1), (2, 4, 5, 1)], ids=str
)
def test_there_and_back(tmp_path, suffix, affine, shape):
    data = image(shape, affine)
    back = load(save(data, tmp_path / f"image{suffix}"))
    expected = data.numpy().reshape(
        back.shape
    )  # a 2D image may come back with one slice, and NIfTI the other way round
    np.testing.assert_array_equal(back.numpy(), expected)
    np.testing.assert_allclose(back.affine, affine, atol=1e-5)
    if len(shape) == 4 and shape[-1] > 1:
        assert back.shape == shape
    elif len(shape) == 4 and not suffix.startswith(".nii"):
        assert back.shape == shape  # one slice stays a volume


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_flat_images_stay_flat_in_the_axial_plane(tmp_path, suffix):
    affine = np.array([[-2.0, 0, 0, 5], [0, 3, 0, 6], [0, 0, 1, 0], [0, 0, 0, 1]])
    back = load(save(image((1, 4, 5), affine), tmp_path / f"image{suffix}"))
    assert back.shape == (1, 4, 5)
    np.testing.assert_allclose(back.affine, affine)
    affine[2, 3] = 7  # off the origin's plane: a 2D file has no room for it
    back = load(save(image((1, 4, 5), affine), tmp_path / f"image{suffix}"))
    assert back.shape == (1, 4, 5, 1)
    np.testing.assert_allclose(back.affine, affine)


@pytest.mark.parametrize(
    ("shape", "squeeze_end_dims"),
    [((1, 4, 5, 6), True), ((3, 4, 5, 6), True), ((1, 4, 5, 6), False), ((1, 4, 5, 1), False)],
)
def test_nifti_is_nibabel_writers(tmp_path, shape, squeeze_end_dims):
    for name, writer in (("ours", SimpleITKWriter), ("monai", NibabelWriter)):
        saver = SaveImage(writer=writer, squeeze_end_dims=squeeze_end_dims, print_log=False)
        saver(image(shape), filename=tmp_path / name)
    ours, monai = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("ours", "monai"))
    np.testing.assert_array_equal(ours.get_fdata(), monai.get_fdata())
    assert ours.header == monai.header


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_types(tmp_path, suffix, dtype):
    path = save(image(), tmp_path / f"image{suffix}", output_dtype=np.dtype(dtype))
    assert stored_type(path) == dtype
    np.testing.assert_array_equal(load(path).numpy(), image().numpy())
    assert load(save(image(dtype=torch.int16), tmp_path / f"same{suffix}")).dtype == torch.int16


@pytest.mark.parametrize(("dtype", "stored"), [(torch.bool, torch.uint8), (torch.float16, torch.float32)])
def test_types_without_a_place_in_files(tmp_path, dtype, stored):
    for suffix in (".nii", ".mha"):
        back = load(save(image((1, 2, 2, 2), dtype=dtype), tmp_path / f"image{suffix}"))
        assert back.dtype == stored
        assert torch.equal(back.as_tensor(), image((1, 2, 2, 2), dtype=dtype).as_tensor().to(stored))


@pytest.mark.parametrize("value", [-1.0, 256.0, float("nan"), float("inf")])
def test_values_that_do_not_fit_raise(tmp_path, value):
    with pytest.raises(RuntimeError, match="do not fit output_dtype uint8"):
        save(image() * 0 + value, tmp_path / "image.nrrd", output_dtype=np.uint8)
    assert not list(tmp_path.iterdir())


def test_integers_are_rounded(tmp_path):
    data = MetaTensor(torch.tensor([[[0.6, 2.9999, 254.6]]]))
    assert load(save(data, tmp_path / "image.mha", output_dtype=np.uint8)).flatten().tolist() == [1, 3, 255]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("scale", "dtype"), [(None, np.uint8), (None, np.uint16), (255, np.uint8), (65535, np.uint16)])
def test_pictures(tmp_path, suffix, channels, scale, dtype):
    shape = (channels, 4, 5)
    data = image(shape, np.diag([0.25, 0.5, 1, 1]))
    expected = data.numpy()
    if scale:
        data = data / 60 - 0.5
        expected = np.rint(np.clip(data.numpy(), 0, 1).astype(np.float64) * scale)
    path = save(data, tmp_path / f"image{suffix}", output_dtype=dtype, scale=scale)
    back = load(path)
    np.testing.assert_array_equal(back.numpy(), expected)
    assert stored_type(path) == dtype
    if suffix == ".tif":
        np.testing.assert_allclose(back.affine, np.diag([0.25, 0.5, 1, 1]), rtol=1e-3)
    if suffix == ".png" and dtype == np.uint8:
        np.testing.assert_array_equal(LoadImage(reader=PILReader, ensure_channel_first=True)(path).numpy(), expected)
        with Image.open(path) as picture:
            assert picture.size == (4, 5)


def test_one_slice_is_a_picture_and_a_volume_is_none(tmp_path):
    assert load(save(image((1, 4, 5, 1)), tmp_path / "image.png", output_dtype=np.uint8)).shape == (1, 4, 5)
    with pytest.raises(RuntimeError, match="a volume of 6 slices is no 2D image"):
        save(image(), tmp_path / "volume.png", output_dtype=np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda w: w.set_data_array(np.zeros((2, 3)), channel_dim=0),
            r"shape \(2, 3\) .* 1 spatial axes; exp",
        ),
        (lambda w: w.set_data_array(np.zeros((2, 3, 4, 5, 6))), "has 4 spatial axes"),
        (lambda w: SimpleITKWriter(scale=100), "scale is 100"),
        (lambda w: (w.set_data_array(np.zeros((1, 3, 4))), w.write("image.jpg")), "image.jpg has an unknown suffix"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(SimpleITKWriter())


def test_nothing_half_written(tmp_path, monkeypatch):
    path = save(image(), tmp_path / "image.mhd")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {"image.mhd", "image.zraw"}

    def fail(image, name, **kwargs):
        (tmp_path / name).write_bytes(b"half")
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    with pytest.raises(RuntimeError, match="No space left"):
        save(image() + 1, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_arrays_without_meta(tmp_path):
    writer = SimpleITKWriter(output_dtype=np.int16)
    writer.set_data_array(np.arange(24).reshape(2, 3, 4), channel_dim=None)
    writer.set_metadata(None)
    writer.write(tmp_path / "image.nrrd")
    back = load(tmp_path / "image.nrrd", ensure_channel_first=False)
    np.testing.assert_array_equal(back, np.arange(24).reshape(2, 3, 4))
    assert torch.equal(back.affine, torch.eye(4, dtype=back.affine.dtype))


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_resampling_is_nibabel_writers(tmp_path, suffix):
    data = image((1, 8, 9, 7), np.diag([2.0, 2, 2, 1]))
    data.meta["original_affine"] = np.diag([-1.0, 1.5, 2, 1])
    data.meta["spatial_shape"] = np.array([16, 12, 7])
    kwargs = {"resample": True, "mode": "bilinear", "print_log": False}
    SaveImage(output_ext=suffix, writer=SimpleITKWriter, **kwargs)(data, filename=tmp_path / "ours")
    SaveImage(writer=NibabelWriter, **kwargs)(data, filename=tmp_path / "monai")
    expected = LoadImage(reader=NibabelReader)(tmp_path / "monai.nii.gz")
    back = load(tmp_path / f"ours{suffix}", ensure_channel_first=False)
    assert back.shape == (16, 12, 7)
    np.testing.assert_allclose(back, expected, rtol=1e-6)
    np.testing.assert_allclose(back.affine, expected.affine, atol=1e-6)


def test_lps_meta_is_honoured(tmp_path):
    for suffix in (".nii", ".mha"):
        path = save(image(), tmp_path / f"image{suffix}")
        lps = LoadImage(reader=SimpleITKReader(affine_lps_to_ras=False), ensure_channel_first=True)(path)
        back = load(save(lps, tmp_path / f"again{suffix}"))
        np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-5)


@pytest.mark.parametrize(
    "writer",
    ["monai_crossd.data.SimpleITKWriter", "monai_crossd.data.simpleitk.SimpleITKWriter"],
)
def test_by_name(tmp_path, writer):
    SaveImage(output_ext=".mha", writer=writer, print_log=False)(image(), filename=tmp_path / "image")
    np.testing.assert_array_equal(load(tmp_path / "image.mha").numpy(), image().numpy())


def test_default_writers_stay():
    names = {suffix: [w.__name__ for w in resolve_writer(suffix)] for suffix in ("nii", "nii.gz", "png", "nrrd", "mha")}
    assert names["nii"][0] == names["nii.gz"][0] == "NibabelWriter"
    assert names["png"] == ["PILWriter"]
    assert "SimpleITKWriter" not in {name for found in names.values() for name in found}
