# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import ITKReader, MetaTensor, NibabelReader, NrrdReader, NumpyReader, PILReader, PydicomReader
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImage,
    LoadImaged,
    Orientationd,
    SaveImaged,
    Spacingd,
)
from monai.transforms.io.array import SUPPORTED_READERS
from PIL import Image

from monai_crossd.data import SimpleITKReader

# oblique, mirrored in x, 1 x 2 x 3 mm
ROTATION = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
OBLIQUE = np.eye(4)
OBLIQUE[:3] = np.column_stack([ROTATION @ np.diag([-1.0, 2.0, 3.0]), [10.0, -20.0, 30.0]])
SHEARED = OBLIQUE @ np.array([[1, 0, 0.2, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def numbers(shape=(4, 5, 6), dtype=np.int16) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) % 251).astype(dtype)


def load(path, **kwargs) -> MetaTensor:
    """Reads with the dtype of the file, without the help of another reader."""
    return LoadImage(reader=SimpleITKReader(**kwargs), dtype=None)(path)


def assert_same(image: MetaTensor, expected: MetaTensor) -> None:
    assert image.dtype == expected.dtype
    torch.testing.assert_close(image.as_tensor(), expected.as_tensor(), rtol=0, atol=0)
    torch.testing.assert_close(image.affine, expected.affine, rtol=0, atol=1e-5, check_dtype=False)
    torch.testing.assert_close(
        torch.as_tensor(image.meta["original_affine"]), image.affine.cpu(), rtol=0, atol=0, check_dtype=False
    )
    assert list(image.meta["spatial_shape"]) == list(expected.meta["spatial_shape"])
    assert str(image.meta["original_channel_dim"]) == str(expected.meta["original_channel_dim"])
    assert image.meta["space"] == expected.meta["space"]
    assert image.meta["filename_or_obj"] == expected.meta["filename_or_obj"]


def write_series(folder: Path, places, uid="1.2.3.4", step=(0.0, 0.0, 2.5), rows="1\\0\\0\\0\\1\\0"):
    """Writes slices in the order of `places`, in units of `step`, and returns their HU (x, y, slice)."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    slices = []
    for i, place in enumerate(places):
        hu = np.random.default_rng(i).integers(-1000, 1000, (6, 5)).astype(np.int16)
        image = sitk.GetImageFromArray(hu)  # stored with the intercept taken off
        image.SetSpacing((0.7, 0.8))
        origin = np.array([-5.0, 6.0, 7.0]) + np.array(step) * place
        tags = {"0008|0060": "CT", "0020|000d": "1.2.3", "0020|000e": uid, "0008|0018": f"{uid}.{i + 1}"}
        tags |= {"0020|0032": "\\".join(map(str, origin)), "0020|0037": rows}
        tags |= {"0020|0013": str(i + 1), "0028|1052": "-1024", "0028|1053": "1", "0008|103e": f"chest {uid[-1]}"}
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid}_{i}.dcm"))
        writer.Execute(image)
        slices.append(hu.T)
    return np.stack(slices, axis=-1)


@pytest.mark.parametrize("affine", [np.diag([2.0, 3, 4, 1]), OBLIQUE, SHEARED], ids=["plain", "oblique", "sheared"])
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (0, 0)], ids=str)
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5), (4, 5, 1), (4, 5, 6, 3), (4, 5, 1, 3)], ids=str)
def test_nifti_is_nibabels(tmp_path, affine, codes, shape):
    image = nib.Nifti1Image(numbers(shape), affine)
    sform, qform = codes
    image.set_sform(affine if sform else None, code=sform)
    image.set_qform(affine if qform else None, code=qform)
    nib.save(image, tmp_path / "image.nii.gz")
    expected = LoadImage(reader=NibabelReader, dtype=None)(tmp_path / "image.nii.gz")
    assert_same(load(tmp_path / "image.nii.gz"), expected)
    if sform and len(shape) > 2:
        np.testing.assert_allclose(load(tmp_path / "image.nii.gz").affine, affine, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_nifti_types(tmp_path, dtype):
    nib.save(nib.Nifti1Image(numbers(dtype=dtype), OBLIQUE), tmp_path / "image.nii")
    image = load(tmp_path / "image.nii")
    np.testing.assert_array_equal(image.numpy(), numbers(dtype=dtype))


def test_nifti_slope(tmp_path):
    image = nib.Nifti1Image(numbers(dtype=np.float32) * 0.5 - 3, OBLIQUE)
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "image.nii")
    assert nib.load(tmp_path / "image.nii").dataobj.slope != 1
    np.testing.assert_allclose(load(tmp_path / "image.nii"), numbers() * 0.5 - 3, atol=1e-2)


def test_nifti_of_five_axes_and_of_colours(tmp_path):
    five = numbers((4, 5, 6, 2, 3))
    nib.save(nib.Nifti1Image(five, OBLIQUE), tmp_path / "five.nii")
    np.testing.assert_array_equal(load(tmp_path / "five.nii"), five.reshape(4, 5, 6, 6))
    sitk.WriteImage(sitk.GetImageFromArray(numbers((6, 5, 4, 3), np.uint8), isVector=True), str(tmp_path / "rgb.nii"))
    for name in ("five.nii", "rgb.nii"):
        image = LoadImage(reader=SimpleITKReader, ensure_channel_first=True)(tmp_path / name)
        assert image.shape[1:] == (4, 5, 6)
        assert list(image.meta["spatial_shape"]) == [4, 5, 6]
    colours = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"], colours["G"], colours["B"] = numbers(dtype=np.uint8), 7, 9
    nib.save(nib.Nifti1Image(colours, OBLIQUE), tmp_path / "rgb24.nii")
    expected = np.stack([colours["R"], colours["G"], colours["B"]], axis=-1)
    np.testing.assert_array_equal(load(tmp_path / "rgb24.nii"), expected)


def test_real_ct_in_every_format_is_the_same(demo_dir, tmp_path):
    source = sorted((demo_dir / "segmentation" / "imagesTr").glob("*.nii.gz"))[0]
    expected = LoadImage(reader=NibabelReader, dtype=None)(source)
    assert_same(load(source), expected)
    for suffix in (".nrrd", ".mha", ".mhd", ".nhdr"):
        path = tmp_path / f"ct{suffix}"
        sitk.WriteImage(sitk.ReadImage(str(source)), str(path))
        image = load(path)
        np.testing.assert_array_equal(image.numpy(), expected.numpy())
        np.testing.assert_allclose(image.affine, expected.affine, atol=1e-4)


def test_nrrd_of_slicer_is_pynrrds():
    slicerio = pytest.importorskip("slicerio")
    nrrd = pytest.importorskip("nrrd")
    path = Path(slicerio.__file__).parent / "data" / "CTChest4.nrrd"
    expected = LoadImage(reader=NrrdReader)(path)
    image = LoadImage(reader="monai_crossd.data.SimpleITKReader")(path)
    assert type(image) is MetaTensor
    np.testing.assert_array_equal(image.numpy(), expected.numpy())
    np.testing.assert_allclose(image.affine, expected.affine, atol=1e-5)
    directions = np.linalg.norm(nrrd.read_header(str(path))["space directions"], axis=1)
    np.testing.assert_allclose(image.meta["spacing"], directions)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (5, 4, 3), (2, 6, 5, 4, 3)], ids=["vectors", "flat vectors", "film"])
def test_components_and_time_are_channels(tmp_path, suffix, shape):
    array = numbers(shape)
    image = sitk.GetImageFromArray(array, isVector=True)
    image.SetSpacing([2.0, 3.0, 4.0, 5.0][: len(shape) - 1])
    sitk.WriteImage(image, str(tmp_path / f"image{suffix}"))
    expected = np.moveaxis(array.T, 0, -1)  # x, y, z, t, component
    spatial = shape[-2:-5:-1]
    expected = np.moveaxis(expected.reshape(*spatial, -1), -1, 0)
    image = LoadImage(reader=SimpleITKReader, dtype=None, ensure_channel_first=True)(tmp_path / f"image{suffix}")
    np.testing.assert_array_equal(image.numpy(), expected)
    assert list(image.meta["spatial_shape"]) == list(spatial)
    assert image.affine.shape == (4, 4)
    np.testing.assert_allclose(image.pixdim[: len(spatial)], [2.0, 3.0, 4.0][: len(spatial)])


@pytest.mark.parametrize(
    ("suffix", "mode"), [("png", "L"), ("png", "RGB"), ("png", "RGBA"), ("jpg", "L"), ("jpg", "RGB"), ("bmp", "RGB")]
)
def test_photos_are_pillows(tmp_path, suffix, mode):
    path = tmp_path / f"image.{suffix}"
    channels = () if mode == "L" else (len(mode),)
    Image.fromarray(numbers((5, 8, *channels), np.uint8), mode).save(path, dpi=(72, 72))
    expected = LoadImage(reader=PILReader, dtype=None)(path)
    image = load(path)
    np.testing.assert_array_equal(image.numpy(), expected.numpy())
    assert torch.equal(image.affine, expected.affine)
    assert str(image.meta["original_channel_dim"]) == str(expected.meta["original_channel_dim"])
    assert image.shape[:2] == (8, 5)


def test_photos_of_other_kinds(tmp_path):
    sixteen = numbers((5, 8, 3), np.uint16) * 257
    sitk.WriteImage(sitk.GetImageFromArray(sixteen, isVector=True), str(tmp_path / "sixteen.png"))
    np.testing.assert_array_equal(load(tmp_path / "sixteen.png"), sixteen.transpose(1, 0, 2))
    colours = Image.fromarray(numbers((5, 8, 3), np.uint8)).convert("P", palette=Image.Palette.ADAPTIVE)
    for suffix in ("png", "bmp"):
        colours.save(tmp_path / f"palette.{suffix}")
        expected = np.asarray(colours.convert("RGB")).transpose(1, 0, 2)
        np.testing.assert_array_equal(load(tmp_path / f"palette.{suffix}"), expected)
    tiff = sitk.GetImageFromArray(numbers((5, 8), np.uint16))
    tiff.SetSpacing((0.25, 0.5))
    sitk.WriteImage(tiff, str(tmp_path / "image.tif"))
    image = load(tmp_path / "image.tif")
    np.testing.assert_array_equal(image, numbers((5, 8), np.uint16).T)
    np.testing.assert_allclose(image.affine.diag(), [0.25, 0.5, 1, 1], rtol=1e-3)


def test_list_of_files_is_channels(tmp_path):
    paths = []
    for i in range(3):
        paths.append(tmp_path / f"{i}.mha")
        sitk.WriteImage(sitk.GetImageFromArray(numbers((6, 5, 4)) + i), str(paths[-1]))
    image = LoadImage(reader=SimpleITKReader, dtype=None, ensure_channel_first=True)(paths)
    np.testing.assert_array_equal(image, np.stack([numbers((6, 5, 4)).T + i for i in range(3)]))
    vectors = tmp_path / "vectors.mha"
    sitk.WriteImage(sitk.GetImageFromArray(numbers((6, 5, 4, 2)), isVector=True), str(vectors))
    assert LoadImage(reader=SimpleITKReader, ensure_channel_first=True)([vectors, vectors]).shape == (4, 4, 5, 6)
    moved = sitk.GetImageFromArray(numbers((6, 5, 4)))
    moved.SetOrigin((1, 0, 0))
    sitk.WriteImage(moved, str(tmp_path / "moved.mha"))
    for other in (tmp_path / "moved.mha", vectors):
        with pytest.raises(ValueError, match=f"{other.name} and .*0.mha cannot be channels"):
            load([paths[0], other])


def test_lps(tmp_path):
    nib.save(nib.Nifti1Image(numbers(), OBLIQUE), tmp_path / "image.nii")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "image.nii")), str(tmp_path / "image.mha"))
    for suffix in ("nii", "mha"):
        image = load(tmp_path / f"image.{suffix}", affine_lps_to_ras=False)
        np.testing.assert_allclose(image.affine, np.diag([-1, -1, 1, 1]) @ OBLIQUE, atol=1e-5)
        assert image.meta["space"] == "LPS"


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]], ids=str)
def test_series(tmp_path, order):
    voxels = write_series(tmp_path / "ct", order)
    image = load(tmp_path / "ct")
    np.testing.assert_array_equal(image, voxels[:, :, np.argsort(order)])
    expected = np.array([[-0.7, 0, 0, 5], [0, -0.8, 0, -6], [0, 0, 2.5, 7], [0, 0, 0, 1]])
    np.testing.assert_allclose(image.affine, expected, atol=1e-6)
    assert list(image.meta["spatial_shape"]) == [5, 6, 4]


def test_series_is_pydicoms(tmp_path):
    pytest.importorskip("pydicom")
    write_series(tmp_path / "ct", range(4), rows="0\\1\\0\\0\\0\\-1", step=(-1.5, 0, 0))
    expected = LoadImage(reader=PydicomReader)(tmp_path / "ct")
    image = LoadImage(reader=SimpleITKReader)(tmp_path / "ct")

    # the two may count the slices from either end: a voxel has to lie at the same place with the same value
    def by_place(image):
        index = np.indices(image.shape).reshape(3, -1)
        places = (image.affine.numpy() @ np.vstack([index, np.ones(index.shape[1])]))[:3].T.round(3)
        return {tuple(place): value for place, value in zip(places + 0.0, image.numpy().ravel(), strict=True)}

    assert by_place(image) == by_place(expected)


def test_tilted_gantry_keeps_its_shear(tmp_path):
    write_series(tmp_path / "ct", range(4), step=(0.0, 0.5, 2.5))
    image = load(tmp_path / "ct")
    np.testing.assert_allclose(image.affine[:3, 2], [0, -0.5, 2.5], atol=1e-6)


def test_one_slice_and_film_folders(tmp_path):
    write_series(tmp_path / "one", [0])
    assert load(tmp_path / "one").shape == (5, 6, 1)
    assert load(tmp_path / "one" / "1.2.3.4_0.dcm").shape == (5, 6)
    (tmp_path / "film").mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    frames = numbers((3, 5, 6), np.uint8)
    for i, frame in enumerate(frames):  # ultrasound has no place in the patient
        image = sitk.GetImageFromArray(frame)
        tags = {"0008|0060": "US", "0008|0018": f"1.2.{i}", "0020|000d": "1", "0020|000e": "1.2", "0020|0013": str(i)}
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(tmp_path / "film" / f"{i}.dcm"))
        writer.Execute(image)
    image = load(tmp_path / "film")
    np.testing.assert_array_equal(image, frames.T)
    assert torch.equal(image.affine, torch.eye(4, dtype=image.affine.dtype))


@pytest.mark.parametrize(
    ("places", "step"), [([0, 1, 2, 4, 5], 2.5), ([0, 0, 1, 1], 2.5), ([0, 0], 2.5), ([0, 1, 2, 3.2], 2.5)], ids=str
)
def test_incomplete_series_raises(tmp_path, places, step):
    write_series(tmp_path / "ct", places, step=(0, 0, step))
    with pytest.raises(
        ValueError, match=rf"ct: the {len(places)} slices are not evenly spaced, .* mm\. Add the missing"
    ):
        load(tmp_path / "ct")


def test_rounded_positions_are_no_gap(tmp_path):
    write_series(tmp_path / "ct", [0, 1.02, 1.98, 3], step=(0, 0, 0.6))
    assert load(tmp_path / "ct").affine[2, 2] == pytest.approx(0.6)


def test_several_series(tmp_path):
    first = write_series(tmp_path, range(3), uid="1.2.3.6")
    second = write_series(tmp_path, range(4), uid="1.2.3.7")
    for uid, voxels in (("1.2.3.6", first), ("1.2.3.7", second)):
        np.testing.assert_array_equal(load(tmp_path, series_uid=uid), voxels)
    # by name: neither pydicom nor any other reader may quietly take one of them
    with pytest.raises(ValueError, match=r"2 series: 1\.2\.3\.6 \(chest 6, 3 files\); 1\.2\.3\.7 .*series_uid"):
        LoadImage(reader="monai_crossd.data.SimpleITKReader")(tmp_path)
    with pytest.raises(ValueError, match=r"no series '9\.9'; it holds 1\.2\.3\.6"):
        load(tmp_path, series_uid="9.9")


def test_truncated_slice_at_the_end_is_told(tmp_path):
    write_series(tmp_path, range(4))
    last = tmp_path / "1.2.3.4_3.dcm"
    last.write_bytes(last.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"1.2.3.4_3.dcm cannot be .* \(20 of 30 pixels\): it is truncated"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["ct", "mr"])
def test_real_dicom_slices(name):
    examples = pytest.importorskip("pydicom.examples")
    pixels = pytest.importorskip("pydicom.pixels")
    path = examples.get_path(name)
    dataset = getattr(examples, name)
    image = load(path)
    np.testing.assert_array_equal(image, pixels.apply_modality_lut(dataset.pixel_array, dataset).T)
    expected = LoadImage(reader=PydicomReader)(path)
    # the third column is the normal; its length is the slice thickness here, which pydicom's reader leaves out
    np.testing.assert_allclose(image.affine[:, [0, 1, 3]], expected.affine[:, [0, 1, 3]], atol=1e-4)
    np.testing.assert_allclose(image.affine[:3, 2], [0, 0, dataset.SliceThickness if name == "ct" else 1])
    assert image.shape == expected.shape


def test_real_cine_has_pydicoms_colours():
    examples = pytest.importorskip("pydicom.examples")
    frames = examples.ybr_color.pixel_array  # 30 x 240 x 320 x RGB
    image = load(examples.get_path("ybr_color"))
    np.testing.assert_array_equal(image, frames.transpose(2, 1, 0, 3))
    assert image.meta["original_channel_dim"] == -1
    assert torch.equal(image.affine, torch.eye(4, dtype=torch.float64))
    colours = load(examples.get_path("rgb_color"))
    np.testing.assert_array_equal(colours, examples.rgb_color.pixel_array.transpose(1, 0, 2))


IMAGES = [
    "a.nii",
    "a.nii.gz",
    "a.nrrd",
    "c.nrrd",
    "a.mha",
    "c.mha",
    "a.mhd",
    "a.png",
    "a.jpg",
    "a.bmp",
    "a.tif",
    "a.dcm",
]


def write_any(path: Path) -> Path:
    """Writes an image and returns the file with its voxels."""
    flat = path.suffix in (".png", ".jpg", ".bmp", ".tif")
    array = np.random.default_rng(0).integers(0, 255, (32, 32) if flat else (8, 32, 32)).astype(np.uint8)
    if path.suffix == ".tif":  # pillow writes the header first, where a truncated file is hardest to tell
        Image.fromarray(array).save(path)
    else:
        image = sitk.GetImageFromArray(array[0] if path.suffix == ".dcm" else array)
        sitk.WriteImage(image, str(path), useCompression=path.name[0] == "c")
    return path.with_suffix(".raw") if path.suffix == ".mhd" else path


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", IMAGES)
def test_truncated_files_raise(tmp_path, name, part):
    path = tmp_path / name
    voxels = write_any(path)
    assert load(path).shape[0] == 32
    content = voxels.read_bytes()
    voxels.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match=rf"{name} cannot be read as an image \(.+\)"):
        LoadImage(reader="monai_crossd.data.SimpleITKReader")(path)


def test_neighbour_of_the_same_stem_is_not_read(tmp_path):
    """ITK opens image.nii when it is asked for image.nii.gz."""
    nib.save(nib.Nifti1Image(numbers(), np.eye(4)), tmp_path / "image.nii")
    nib.save(nib.Nifti1Image(numbers() + 1, np.eye(4)), tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(load(tmp_path / "image.nii.gz"), numbers() + 1)


def test_absent_and_foreign_files(tmp_path):
    reader = SimpleITKReader()
    with pytest.raises(FileNotFoundError, match=r"absent\.nrrd does not exist"):
        reader.read(tmp_path / "absent.nrrd")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no DICOM image"):
        reader.read(tmp_path / "empty")
    for name in ("notes.mha", "notes"):
        (tmp_path / name).write_text("no image")
        with pytest.raises(ValueError, match=rf"{name} cannot be read as an image \((sitk::|ITK )ERROR"):
            reader.get_data(reader.read(tmp_path / name))
    for name in ("absent.nrrd", "empty", "notes"):
        with pytest.raises(RuntimeError, match=name):  # MONAI's list of what each reader said
            LoadImage(reader="monai_crossd.data.SimpleITKReader")(tmp_path / name)


@pytest.mark.parametrize(
    "reader",
    [
        "monai_crossd.data.SimpleITKReader",
        "monai_crossd.data.simpleitk.SimpleITKReader",
        SimpleITKReader,
        SimpleITKReader(),
    ],
    ids=["public name", "name", "class", "instance"],
)
def test_by_name_class_and_instance(tmp_path, reader):
    sitk.WriteImage(sitk.GetImageFromArray(numbers((6, 5, 4))), str(tmp_path / "image.mha"))
    transform = pickle.loads(pickle.dumps(LoadImaged("image", reader=reader, ensure_channel_first=True)))
    image = transform({"image": tmp_path / "image.mha"})["image"]
    np.testing.assert_array_equal(image[0], numbers((6, 5, 4)).T)
    assert image.dtype == torch.float32


def test_arguments_by_name(tmp_path):
    nib.save(nib.Nifti1Image(numbers(), OBLIQUE), tmp_path / "image.nii")
    image = LoadImage(reader="monai_crossd.data.SimpleITKReader", affine_lps_to_ras=False)(tmp_path / "image.nii")
    assert image.meta["space"] == "LPS"


def test_default_readers_stay(tmp_path, monkeypatch):
    taken = []
    for cls in (NibabelReader, PILReader, NumpyReader, NrrdReader, PydicomReader, ITKReader, SimpleITKReader):
        base = cls if isinstance(cls, type) else None
        if base is not None and hasattr(base, "get_data"):
            name = base.__name__
            original = base.read
            monkeypatch.setattr(
                base, "read", lambda self, *a, _n=name, _o=original, **k: taken.append(_n) or _o(self, *a, **k)
            )
    nib.save(nib.Nifti1Image(numbers(), OBLIQUE), tmp_path / "a.nii.gz")
    Image.fromarray(numbers((5, 8), np.uint8)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", numbers())
    sitk.WriteImage(sitk.GetImageFromArray(numbers()), str(tmp_path / "a.nrrd"))
    for name in ("a.nii.gz", "a.png", "a.npy", "a.nrrd"):
        LoadImage()(tmp_path / name)
    assert taken == ["NibabelReader", "PILReader", "NumpyReader", "NrrdReader"]
    assert "simpleitkreader" not in SUPPORTED_READERS


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_there_and_back_through_a_pipeline(tmp_path, suffix):
    """What Orientationd and Spacingd did is undone, and the file written lies on the one that was read."""
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.random((12, 14, 10)), 0), 1).astype(np.float32)
    nib.save(nib.Nifti1Image(smooth, OBLIQUE), tmp_path / "source.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "source.nii.gz")), str(tmp_path / f"image{suffix}"))
    before = Compose(
        [
            LoadImaged("image", reader="monai_crossd.data.SimpleITKReader"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=(1.0, 1.0, 1.5)),
        ]
    )
    after = Compose(
        [
            Invertd("image", transform=before, orig_keys="image", nearest_interp=False),
            SaveImaged(
                "image",
                output_dir=tmp_path / "out",
                output_ext=suffix,
                writer="monai_crossd.data.SimpleITKWriter",
                separate_folder=False,
                print_log=False,
            ),
        ]
    )
    after(before({"image": tmp_path / f"image{suffix}"}))
    image = load(tmp_path / "out" / f"image_trans{suffix}")
    expected = LoadImage(reader=NibabelReader)(tmp_path / "source.nii.gz")
    np.testing.assert_allclose(image.affine, expected.affine, atol=1e-4)
    assert image.shape == expected.shape
    inner = (slice(2, -2),) * 3  # the border was extrapolated
    assert np.abs(image - expected)[inner].max() < 0.02 * smooth.max()
