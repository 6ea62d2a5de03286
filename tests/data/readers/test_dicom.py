# SPDX-License-Identifier: Apache-2.0
"""Voxels and grids of DICOM are those that pydicom and the positions in the files say."""

from __future__ import annotations

import numpy as np
import pytest
from monai.transforms import LoadImage

pydicom = pytest.importorskip("pydicom")

from dicom_files import (  # noqa: E402
    AXIAL,
    CINE,
    CT,
    ENHANCED_MR,
    MR,
    OBLIQUE,
    PET,
    XRAY,
    frames_of,
    new,
    new_enhanced,
    new_slice,
    save,
    stack_of,
    write_stack,
)

from monai_crossd.data import SimpleITKReader, check_pairs, read_shape  # noqa: E402

NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])


def load(path):
    return LoadImage(reader=SimpleITKReader, dtype=None)(path)


def stored(count=4, low=0, high=1000, dtype=np.uint16, seed=0):
    return np.random.default_rng(seed).integers(low, high, (count, 4, 5)).astype(dtype)


def along(places, step=(0.0, 0.0, 2.5), start=(10.0, 20.0, 30.0)):
    return [np.array(start) + place * np.array(step) for place in places]


def assert_is(path, files):
    """The image at `path` has the values of `files` where their positions are."""
    image = load(path)
    volume, planes = stack_of(files)
    np.testing.assert_allclose(image.numpy(), volume, rtol=1e-12, atol=0)
    affine = image.affine.numpy()
    for k, plane in enumerate(planes):
        np.testing.assert_allclose((affine @ [0, 0, k, 1])[:3], plane[:3, 3], atol=0.2)
        np.testing.assert_allclose(affine[:3, :2], plane[:3, :2], atol=1e-6)
    assert read_shape(path) == image.shape == volume.shape
    assert image.numpy().dtype.kind in ("f" if (volume % 1).any() else "iuf")


RESCALES = {
    "one": [(1, -1024)] * 4,
    "none": [(1, 0)] * 4,
    "PET": [(1, 0), (0.37, 0), (0.0013, 0), (2.5e-7, 0)],
    "intercepts": [(1, 0), (1, -1024), (1, -1024), (1, 7)],
    "both": [(2, -1024), (1, 0.5), (-1, 3), (3, 0)],
    "negative": [(-1, 0)] * 4,
}


@pytest.mark.parametrize("sop", [CT, MR, PET], ids=["ct", "mr", "pet"])
@pytest.mark.parametrize("name", RESCALES)
def test_slices_are_rescaled_each_by_its_own(tmp_path, name, sop):
    slopes, intercepts = map(list, zip(*RESCALES[name], strict=True))
    write_stack(tmp_path, stored(), along(range(4)), RescaleSlope=slopes, RescaleIntercept=intercepts, sop=sop)
    assert_is(tmp_path, tmp_path.iterdir())


@pytest.mark.parametrize("name", RESCALES)
def test_frames_are_rescaled_each_by_its_own(tmp_path, name):
    for rescale in (RESCALES[name], RESCALES[name][:1]):  # per frame, and shared
        path = save(new_enhanced(stored(), along(range(4)), rescale=rescale), tmp_path / "a.dcm")
        assert_is(path, [path])


TYPES = {
    "8": (np.uint8, 8, 0, 256),
    "8 signed": (np.int8, 8, -128, 128),
    "12": (np.uint16, 12, 0, 4096),
    "12 signed": (np.int16, 12, -2048, 2048),
    "10 signed": (np.int16, 10, -512, 512),
    "16": (np.uint16, 16, 0, 65536),
    "16 signed": (np.int16, 16, -32768, 32768),
    "32": (np.uint32, 32, 0, 2**32),
    "32 signed": (np.int32, 32, -(2**31), 2**31),
}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("kind", TYPES)
def test_stored_types(tmp_path, kind, photometric):
    """MONOCHROME1 says how to show an image, and changes no value."""
    dtype, bits, low, high = TYPES[kind]
    frames = stored(3, low, high, dtype)
    frames[0, 0, :2] = low, high - 1
    tags = {"bits": bits, "PhotometricInterpretation": photometric}
    write_stack(tmp_path / "slices", frames, along(range(3)), RescaleSlope=1, RescaleIntercept=-1024, **tags)
    assert_is(tmp_path / "slices", (tmp_path / "slices").iterdir())
    np.testing.assert_array_equal(load(tmp_path / "slices"), frames.astype(np.int64).T - 1024)
    path = save(new_enhanced(frames, along(range(3)), **tags), tmp_path / "many.dcm")
    assert_is(path, [path])
    one = save(new_slice(frames[0], (0, 0, 0), **tags), tmp_path / "one.dcm")
    np.testing.assert_array_equal(load(one), frames_of(one)[0][0].T)
    assert read_shape(one) == load(one).shape == (5, 4)


def test_sign_may_change_between_slices(tmp_path):
    for i, dtype in enumerate((np.uint16, np.int16, np.uint16)):
        frame = np.array([[65535, 1], [0, 2]]).astype(dtype)
        save(new_slice(frame, (0, 0, i)), tmp_path / f"{i}.dcm")
    assert_is(tmp_path, tmp_path.iterdir())
    assert load(tmp_path)[0, 0].tolist() == [65535, -1, 65535]


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian", "RLELossless"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_transfer_syntaxes(tmp_path, syntax, photometric):
    tags = {"bits": 12, "PhotometricInterpretation": photometric}
    frames = stored().repeat(4, 1).repeat(4, 2)  # GDCM refuses run lengths of tiny images
    for name, ds in {
        "slice": new_slice(frames[0], (1, 2, 3), RescaleSlope=2, RescaleIntercept=-7, **tags),
        "frames": new_enhanced(frames, along([3, 1, 0, 2]), rescale=RESCALES["intercepts"], **tags),
    }.items():
        if syntax == "RLELossless":
            ds.compress(pydicom.uid.RLELossless)
        else:
            ds.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
        path = save(ds, tmp_path / f"{name}.dcm")
        if name == "frames":
            assert_is(path, [path])
        else:
            np.testing.assert_array_equal(load(path), frames_of(path)[0][0].T)


def test_modality_table(tmp_path):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [6, 2, 16], [500, 400, 300, 200, 100, 7]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    ds = new_slice(np.arange(20, dtype=np.uint16).reshape(4, 5), (0, 0, 0), sop=XRAY)
    ds.ModalityLUTSequence = pydicom.Sequence([table])
    path = save(ds, tmp_path / "a.dcm")
    np.testing.assert_array_equal(load(path), frames_of(path)[0][0].T)
    assert load(path)[:, 0].tolist() == [500, 500, 500, 400, 300]


def test_segmentation_of_one_bit(tmp_path):
    mask = stored(3, 0, 2, np.uint8)
    ds = new_enhanced(mask, along(range(3)), rescale=())
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 1, 1, 0
    ds.PixelData = np.packbits(mask.ravel(), bitorder="little").tobytes()
    path = save(ds, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(load(path), pydicom.dcmread(path).pixel_array.T)


GRIDS = {
    "ascending": along(range(5)),
    "descending": along([4, 3, 2, 1, 0]),
    "out of order": along([3, 0, 4, 1, 2]),
    "two": along([1, 0]),
    "one": along([0]),
    "rounded": along([0, 1.03, 1.98, 3.0, 4.0]),
    "tilted": along([2, 0, 1, 3], step=(0.0, 0.7, 2.5)),
    "negative": along([0, 1, 2], step=(0, 0, -2.5), start=(0, 0, -100)),
}


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE, (0, 1, 0, 0, 0, -1)], ids=["axial", "oblique", "sagittal"])
@pytest.mark.parametrize("name", GRIDS)
def test_slices_lie_where_their_positions_are(tmp_path, name, orientation):
    frame = np.column_stack([orientation[:3], orientation[3:], np.cross(orientation[:3], orientation[3:])])
    positions = [frame @ position for position in GRIDS[name]]
    count = len(positions)
    write_stack(tmp_path / "slices", stored(count), positions, orientation=orientation)
    assert_is(tmp_path / "slices", (tmp_path / "slices").iterdir())
    if count > 1:
        ds = new_enhanced(stored(count), positions, orientations=(orientation,))
        path = save(ds, tmp_path / "frames" / "a.dcm")
        assert_is(path, [path])
        assert_is(path.parent, [path])  # a folder of one file


def test_neither_names_nor_numbers_order_the_slices(tmp_path):
    names = ["z.dcm", "IM_0001", "MR.1.2.3.4", "0"]
    write_stack(tmp_path, stored(), along([1, 3, 0, 2]), names, InstanceNumber=[4, 4, 1, 9])
    assert_is(tmp_path, tmp_path.iterdir())


NO_GRIDS = {
    "gap": along([0, 1, 2, 4, 5]),
    "gap at the end": along([0, 1, 2, 3, 5]),
    "gap in a long stack": along([*range(20), *range(21, 40)]),
    "twice": along([0, 1, 2, 3, 2]),
    "two at one place": along([0, 0]),
    "two time points": along([0, 0, 1, 1]),
    "five time points": along([0, 1] * 5),
    "time points one after the other": along([0, 1, 2, 3] * 2),
    "another distance in the second half": along([0, 1, 2, 3, 4.3, 5.6, 6.9]),
    "one beside the others": [*along(range(3)), np.array([14.0, 20.0, 37.5])],
    "no grid at all": along([0, 5, 6, 20]),
}


@pytest.mark.parametrize("name", NO_GRIDS)
def test_what_is_no_grid_is_refused(tmp_path, name):
    positions = NO_GRIDS[name]
    frames = stored(len(positions))
    write_stack(tmp_path / "slices", frames, positions)
    path = save(new_enhanced(frames, positions), tmp_path / "frames" / "many.dcm")
    for read in (load, read_shape):
        for source, part in (
            (tmp_path / "slices", r"\d\d\d\.dcm"),
            (path, r"many\.dcm, frame \d"),
            (path.parent, "frame"),
        ):
            with pytest.raises(
                ValueError, match=rf"{source.name}.*not evenly spaced, .*{part}.* at \(.*\) mm\. Add the"
            ):
                read(source)


@pytest.mark.parametrize(
    "tags",
    [
        {"spacing": [(0.5, 0.75), (0.5, 0.75), (0.5, 0.8)]},
        {"orientation": [AXIAL, AXIAL, (0.8, 0.6, 0, -0.6, 0.8, 0)]},
        {"orientation": [AXIAL, AXIAL, (1, 0, 0, 0, -1, 0)]},
    ],
    ids=str,
)
def test_other_planes_are_refused(tmp_path, tags):
    write_stack(tmp_path / "slices", stored(3), along(range(3)), **tags)
    names = {"spacing": "spacings", "orientation": "orientations"}
    groups = {names[key]: value for key, value in tags.items()}
    path = save(new_enhanced(stored(3), along(range(3)), **groups), tmp_path / "many.dcm")
    for source in (tmp_path / "slices", path):
        with pytest.raises(ValueError, match=r"002.dcm has another|frame 3 has another"):
            load(source)


def test_other_sizes_files_and_series_are_refused(tmp_path):
    for i, shape in enumerate(((4, 5), (4, 5), (4, 6))):
        save(new_slice(np.zeros(shape, np.uint16), (0, 0, i)), tmp_path / "sizes" / f"{i}.dcm")
    write_stack(tmp_path / "mixed", stored(2), along(range(2)))
    save(new_enhanced(stored(2), along([2, 3])), tmp_path / "mixed" / "many.dcm")
    write_stack(tmp_path / "series", stored(3), along(range(3)), SeriesInstanceUID=["1.2", "1.2", "1.3"])
    ds = new_slice(stored(1)[0], (0, 0, 5))
    del ds.ImagePositionPatient
    write_stack(tmp_path / "unplaced", stored(2), along(range(2)))
    save(ds, tmp_path / "unplaced" / "no.dcm")
    for name, says in {
        "sizes": "2.dcm has another size",
        "mixed": "3 files of one series, some of several frames",
        "series": r"2 series: 1\.2 \(no description, 2 files\); 1\.3 .* Move the files of each",
        "unplaced": "or only one of them a position",
    }.items():
        for read in (load, read_shape):
            with pytest.raises(ValueError, match=rf"{name}.*{says}"):
                read(tmp_path / name)


def test_films_have_no_places(tmp_path):
    frames = stored(7, 0, 256, np.uint8)
    path = save(new(frames, CINE, Modality="US"), tmp_path / "cine.dcm")
    np.testing.assert_array_equal(load(path), frames.T)
    assert read_shape(path) == (5, 4, 7)
    assert load(path).affine.tolist() == np.eye(4).tolist()


def test_a_label_map_fits_an_enhanced_file(tmp_path):
    nib = pytest.importorskip("nibabel")
    path = save(new_enhanced(stored(), along([1, 0, 3, 2]), sop=ENHANCED_MR), tmp_path / "scan" / "a.dcm")
    nib.save(nib.Nifti1Image(np.zeros((5, 4, 4), np.uint8), load(path).affine.numpy()), tmp_path / "label.nii.gz")
    for image in (path, path.parent):
        check_pairs([{"image": str(image), "label": str(tmp_path / "label.nii.gz")}])


def test_without_a_preamble(tmp_path):
    whole = save(new_slice(stored(1)[0], (1, 2, 3)), tmp_path / "whole.dcm")
    (tmp_path / "bare").write_bytes(whole.read_bytes()[132:])
    np.testing.assert_array_equal(load(tmp_path / "bare"), load(whole))
    np.testing.assert_allclose(load(tmp_path / "bare").affine, load(whole).affine)


def test_truncated_files_are_refused(tmp_path):
    whole = save(new_enhanced(stored(), along(range(4))), tmp_path / "whole.dcm").read_bytes()
    path = tmp_path / "part.dcm"
    for size in (0, 100, 140, 400, 900, len(whole) - 200, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"part\.dcm"):
            load(path)


# of pydicom's own test files those that it reads without further packages and whose values it defines
REAL = [
    "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm",
    "MR_small_implicit.dcm", "MR_small_padded.dcm", "image_dfl.dcm", "examples_overlay.dcm", "rtdose.dcm",
    "rtdose_expb.dcm", "rtdose_rle.dcm", "ExplVR_BigEnd.dcm", "SC_rgb_rle.dcm",
    "SC_rgb_small_odd.dcm", "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_rle_2frame.dcm",
]  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_files(name):
    path = pydicom.data.get_testdata_file(name, download=False)
    if path is None:
        pytest.skip("not in this release of pydicom")
    ds = pydicom.dcmread(path)
    values = ds.pixel_array if ds.SamplesPerPixel > 1 else pydicom.pixels.apply_modality_lut(ds.pixel_array, ds)
    frames = values if ds.get("NumberOfFrames", 1) > 1 else values[None]
    image = load(path).numpy()
    volume = frames.swapaxes(0, 2)
    np.testing.assert_array_equal(image, volume if len(frames) > 1 else volume[:, :, 0])


def test_frames_of_a_dose_lie_at_their_offsets():
    path = pydicom.data.get_testdata_file("rtdose.dcm", download=False)
    ds, affine = pydicom.dcmread(path), load(path).affine.numpy()
    for k, offset in enumerate(ds.GridFrameOffsetVector):
        place = np.array(ds.ImagePositionPatient, float) + [0, 0, offset]
        np.testing.assert_allclose((affine @ [0, 0, k, 1])[:3], place * [-1, -1, 1], atol=1e-3)


def test_colors_that_gdcm_mixes_up_are_refused():
    path = pydicom.data.get_testdata_file("SC_rgb_rle_16bit.dcm", download=False)
    with pytest.raises(ValueError, match=r"SC_rgb_rle_16bit\.dcm has colors of more than 8 bits"):
        load(path)
