# SPDX-License-Identifier: Apache-2.0
"""Pictures of every kind are what Pillow reads, upright."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from monai.transforms import LoadImage
from PIL import Image, TiffImagePlugin
from PIL.Image import Transpose as Turn

from monai_crossd.data import SimpleITKReader, load_datalist, read_shape


def load(path):
    return LoadImage(reader=SimpleITKReader, dtype=None)(path)


def draw(mode: str, opaque: bool = True, size=(8, 5)) -> Image.Image:
    """A picture of noise of any mode of Pillow."""
    rng = np.random.default_rng(0)
    shape = size[::-1]
    if mode in ("1", "L", "P"):
        image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
        return image.point(lambda v: 255 * (v > 99), "1") if mode == "1" else image.convert(mode, palette=1)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, shape, np.uint16))
    if mode == "I":
        return Image.fromarray(rng.integers(-(2**31), 2**31, shape, np.int64).astype(np.int32))
    if mode == "F":
        return Image.fromarray(rng.normal(size=shape).astype(np.float32))
    channels = len(Image.new(mode, (1, 1)).getbands())
    array = rng.integers(0, 256, (*shape, channels), np.uint8)
    if opaque and mode in ("LA", "RGBA"):
        array[..., -1] = 255
    return Image.frombytes(mode, size, array.tobytes())


def xy(image: Image.Image) -> np.ndarray:
    return np.asarray(image).swapaxes(0, 1)


SAME = [
    *[(suffix, mode) for suffix in ("png", "tif") for mode in ("1", "L", "RGB", "I;16")],
    *[("tif", mode) for mode in ("F", "I")],
    *[("bmp", mode) for mode in ("1", "L", "RGB")],
    *[("jpg", mode) for mode in ("L", "RGB")],
    ("gif", "L"),
]


@pytest.mark.parametrize(("suffix", "mode"), SAME)
def test_values_are_pillows(tmp_path, suffix, mode):
    path = tmp_path / f"a.{suffix}"
    draw(mode).save(path)
    with Image.open(path) as image:
        expected = xy(image.convert("L") if suffix == "gif" else image)
    np.testing.assert_array_equal(load(path).numpy()[..., 0] if suffix == "gif" else load(path).numpy(), expected)
    assert read_shape(path) == (8, 5)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("mode", "channels"), [("LA", 1), ("RGBA", 3)])
def test_opaque_alpha_is_dropped_and_another_kept(tmp_path, suffix, mode, channels):
    for opaque in (True, False):
        image = draw(mode, opaque)
        image.save(tmp_path / f"a.{suffix}")
        expected = xy(image)
        if opaque:
            expected = expected[..., 0] if channels == 1 else expected[..., :3]
        np.testing.assert_array_equal(load(tmp_path / f"a.{suffix}"), expected)


@pytest.mark.parametrize("suffix", ["png", "tif", "gif", "bmp"])
def test_palettes_are_colors(tmp_path, suffix):
    image = draw("RGB").quantize(7)
    image.save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(load(tmp_path / f"a.{suffix}"), xy(image.convert("RGB")))


def test_palette_with_transparency(tmp_path):
    image = draw("RGB").quantize(7)
    image.save(tmp_path / "used.png", transparency=int(np.asarray(image)[0, 0]))
    image.save(tmp_path / "unused.png", transparency=200)
    assert load(tmp_path / "used.png").shape == (8, 5, 4)
    assert load(tmp_path / "used.png")[0, 0, 3] == 0
    np.testing.assert_array_equal(load(tmp_path / "unused.png"), xy(image.convert("RGB")))


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", "jpg"), ("CMYK", "tif"), ("YCbCr", "tif"), ("LAB", "tif")])
def test_colors_of_printers_are_rgb(tmp_path, mode, suffix):
    path = tmp_path / f"a.{suffix}"
    draw(mode).save(path)
    with Image.open(path) as image:
        expected = xy(image.convert("RGB"))
    np.testing.assert_array_equal(load(path), expected)
    assert expected.shape == (8, 5, 3)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_min_is_white(tmp_path, mode):
    image = draw(mode)
    image.save(tmp_path / "a.tif", tiffinfo={TiffImagePlugin.PHOTOMETRIC_INTERPRETATION: 0})
    with Image.open(tmp_path / "a.tif") as read:
        assert read.tag_v2[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] == 0
        expected = xy(read)
    np.testing.assert_array_equal(expected, xy(image))  # Pillow inverts on both ways
    np.testing.assert_array_equal(load(tmp_path / "a.tif"), expected)


TURNS = {2: Turn.FLIP_LEFT_RIGHT, 3: Turn.ROTATE_180, 4: Turn.FLIP_TOP_BOTTOM, 5: Turn.TRANSPOSE}
TURNS |= {6: Turn.ROTATE_270, 7: Turn.TRANSVERSE, 8: Turn.ROTATE_90}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["tif", "jpg", "png"])
def test_pictures_are_upright(tmp_path, suffix, orientation):
    image, path = draw("L"), tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    image.save(tmp_path / f"plain.{suffix}")
    with Image.open(tmp_path / f"plain.{suffix}") as plain:
        turn = TURNS.get(orientation)
        expected = xy(plain if turn is None else plain.transpose(turn))
    np.testing.assert_array_equal(load(path), expected)
    assert read_shape(path) == load(path).shape == ((8, 5) if orientation < 5 else (5, 8))


def test_spacing_turns_with_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    info = {"resolution_unit": "cm", "x_resolution": 20.0, "y_resolution": 40.0}
    for name, tags in (("a", {}), ("b", {"exif": exif})):
        draw("L").save(tmp_path / f"{name}.tif", **info, **tags)
    np.testing.assert_allclose(load(tmp_path / "a.tif").affine.diag(), [0.5, 0.25, 1, 1])
    np.testing.assert_allclose(load(tmp_path / "b.tif").affine.diag(), [0.25, 0.5, 1, 1])


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "F"])
def test_pages_are_a_volume(tmp_path, mode):
    pages = [draw(mode).transpose(turn) for turn in (0, 1, 3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    expected = np.stack([xy(page) for page in pages], axis=2)
    np.testing.assert_array_equal(load(tmp_path / "a.tif"), expected)
    assert read_shape(tmp_path / "a.tif") == (8, 5, 3)
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=[pages[1].resize((4, 4))])
    with pytest.raises(ValueError, match=r"b\.tif has pages of the shapes"):
        load(tmp_path / "b.tif")


@pytest.mark.parametrize("dtype", ["uint16", "float32", "uint32"])
@pytest.mark.parametrize("colors", [False, True])
def test_numbers_that_pillow_has_no_type_for(tmp_path, dtype, colors):
    array = np.random.default_rng(0).integers(0, 2**16, (5, 8, 3) if colors else (5, 8)).astype(dtype)
    array *= 65535 if dtype == "uint32" else 1
    image = sitk.GetImageFromArray(array, isVector=colors)
    sitk.WriteImage(image, str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(load(tmp_path / "a.tif"), array.swapaxes(0, 1))
    assert read_shape(tmp_path / "a.tif") == (8, 5)


def test_damaged_png_fails_its_checksum(tmp_path):
    draw("L", size=(64, 64)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for place in range(50, len(content) - 20, len(content) // 20):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        (tmp_path / "b.png").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"b\.png cannot be read as an image"):
            load(tmp_path / "b.png")


def test_what_is_no_picture_is_no_item(tmp_path):
    """Windows and macOS leave files in folders of pictures."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("L", (8, 5), ord(name[0]) + i).save(tmp_path / name / f"{i}.png")
        for junk in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", "labels.txt", "BMW.txt"):
            (tmp_path / name / junk).write_bytes(b"BM no picture" + bytes(20))
    items = [i for s in ("training", "validation") for i in load_datalist(tmp_path, s, "classification")]
    assert sorted(i["image"][-5:] for i in items) == sorted(["0.png", "1.png", "2.png"] * 2)
