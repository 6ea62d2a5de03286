# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import slicerio
from monai.data import PILReader

from monai_crossd.data import DEMO_SLICES, demo, patches, prepare_demo

SOURCE = Path(slicerio.__file__).parent / "data"


def read(root: Path, task: str) -> dict:
    return json.loads((root / task / "dataset.json").read_text())


def digests(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*.png")}


def test_slices_are_disjoint_with_a_margin():
    used = {s: [z for a, b in ranges for z in range(a, b)] for s, ranges in DEMO_SLICES.items()}
    gaps = [abs(t - v) for t in used["training"] for v in used["validation"]]
    assert min(gaps) == 2
    assert set(range(34)) - set(used["training"]) - set(used["validation"]) == {7, 12, 25, 30}


def test_every_section_holds_all_seven_structures(demo_dir):
    content = read(demo_dir, "segmentation")
    assert list(content["labels"].values()) == [
        "background",
        "ribs",
        "cervical vertebral column",
        "thoracic vertebral column",
        "lumbar vertebral column",
        "right lung",
        "left lung",
        "tissue",
    ]
    for section in ("training", "validation"):
        maps = [np.asarray(nib.load(demo_dir / "segmentation" / i["label"]).dataobj) for i in content[section]]
        counts = Counter(np.concatenate([m.ravel() for m in maps]).tolist())
        assert sorted(counts) == list(range(8))
        assert min(counts.values()) > 150


@pytest.mark.parametrize("key", ["image", "label"])
@pytest.mark.parametrize("section", ["training", "validation"])
def test_sub_volumes_stand_at_their_place_in_the_patient(demo_dir, key, section):
    # the original, by SimpleITK, in LPS; the written file, by nibabel, in RAS
    original = sitk.ReadImage(str(SOURCE / {"image": "CTChest4.nrrd", "label": "Segmentation.seg.nrrd"}[key]))
    for item, (start, stop) in zip(read(demo_dir, "segmentation")[section], DEMO_SLICES[section], strict=True):
        written = nib.load(demo_dir / "segmentation" / item[key])
        voxels = np.asarray(written.dataobj)
        assert voxels.shape == (128, 128, stop - start)
        assert nib.aff2axcodes(written.affine) == ("R", "A", "S")
        for i, j, k in [(0, 0, 0), (127, 0, 0), (0, 127, stop - start - 1), (64, 40, 1), (30, 70, 2)]:
            lps = original.TransformIndexToPhysicalPoint((i, j, start + k))
            np.testing.assert_allclose(written.affine @ [i, j, k, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-3)
            assert voxels[i, j, k] == max(original[i, j, start + k], -1024)


def test_right_lung_is_on_the_right(demo_dir):
    item = read(demo_dir, "segmentation")["training"][1]
    label = nib.load(demo_dir / "segmentation" / item["label"])
    voxels = np.asarray(label.dataobj)
    x = {value: (label.affine @ np.append(np.argwhere(voxels == value).mean(0), 1))[0] for value in (5, 6)}
    assert x[5] > 20 > -20 > x[6]  # RAS: right is positive


def test_patches_are_balanced_and_sized(demo_dir):
    content = read(demo_dir, "classification")
    for section, count in (("training", 343), ("validation", 86)):
        assert Counter(i["label"] for i in content[section]) == dict.fromkeys(range(7), count)
        for item in content[section][::97]:
            image = sitk.ReadImage(str(demo_dir / "classification" / item["image"]))
            assert (image.GetSize(), image.GetPixelID()) == ((48, 48), sitk.sitkUInt8)
            name = content["labels"][str(item["label"])].replace(" ", "_")
            assert Path(item["image"]).parts[:3] == ("images", section, name)
    assert len(digests(demo_dir / "classification")) == 7 * (343 + 86)


def test_a_patch_is_a_piece_of_the_volume_in_its_axis_order(demo_dir):
    image, label, _ = demo._read_chest_ct()
    a, b = DEMO_SLICES["training"][0]
    volume = patches.to_isotropic(image[:, :, a:b], label[:, :, a:b])
    reader = PILReader()
    folder = demo_dir / "classification" / "images" / "training" / "lumbar_vertebral_column"
    padded = np.pad(volume[0], ((24, 24), (24, 24), (0, 0)))
    found = 0
    for path in sorted(folder.iterdir())[::6]:
        patch, _ = reader.get_data(reader.read(path))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (48, 48), axis=(0, 1))
        # compare a row of few pixels first: the whole comparison is large
        near = np.argwhere((windows[..., 20:28, 24] == patch[20:28, 24]).all(-1))
        found += any((windows[tuple(place)] == patch).all() for place in near)
    assert found > 5  # the axial ones among the patches, and lumbar spine comes only from this sub-volume


def test_patches_do_not_depend_on_the_other_sections_or_margins(demo_dir, tmp_path, monkeypatch):
    image, label, names = demo._read_chest_ct()
    values = sitk.GetArrayFromImage(image)
    kept = [z for a, b in DEMO_SLICES["training"] for z in range(a, b)]
    values[[z for z in range(34) if z not in kept]] = 777
    spoiled = sitk.GetImageFromArray(values)
    spoiled.CopyInformation(image)
    monkeypatch.setattr(demo, "_read_chest_ct", lambda: (spoiled, label, names))
    prepare_demo("classification", tmp_path)
    before, after = digests(demo_dir / "classification"), digests(tmp_path / "classification")
    training = [p for p in before if "training" in p]
    assert [p for p in training if before[p] != after[p]] == []
    assert sum(before[p] != after[p] for p in before) > 500  # the validation patches did change


def test_isotropic_grid_covers_the_sub_volume():
    z, _, _ = np.meshgrid(np.arange(12.0), np.arange(20), np.arange(30), indexing="ij")
    image = sitk.GetImageFromArray((z * 50).astype(np.float32))  # a ramp along the slices
    image.SetSpacing((3, 3, 10))
    label = sitk.Cast(image > 275, sitk.sitkUInt8)
    grey, labels = patches.to_isotropic(image, label)
    assert grey.shape == labels.shape == (30, 20, 40)
    position = ((np.arange(40) + 0.5) * 3 / 10 - 0.5).clip(0, 11)  # in slices
    np.testing.assert_allclose(grey[5, 5], (position * 50 + 1000) / 2000 * 255, atol=0.51)
    np.testing.assert_array_equal(labels[5, 5], position > 5.5)


def test_dominant_label_against_a_loop():
    label = np.random.default_rng(0).integers(0, 4, (2, 12, 9)).astype(np.uint8)
    padded = np.pad(label, ((0, 0), (3, 3), (3, 3)))
    for s, i, j in np.ndindex(label.shape):
        counts = np.bincount(padded[s, i : i + 7, j : j + 7].ravel())
        assert patches.dominant_label(label)[s, i, j] == counts.argmax()


def test_two_preparations_are_the_same(demo_dir, tmp_path):
    prepare_demo("classification", tmp_path)
    assert digests(tmp_path / "classification") == digests(demo_dir / "classification")


def test_a_complete_set_is_reused(demo_dir, monkeypatch, caplog):
    monkeypatch.setattr(demo, "_read_chest_ct", lambda: pytest.fail("read again"))
    with caplog.at_level(logging.INFO, "monai_crossd"):
        assert prepare_demo("segmentation", demo_dir) == demo_dir / "segmentation" / "dataset.json"
    assert "ONE patient" in caplog.text
    assert "ONE patient" in read(demo_dir, "segmentation")["description"]


def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    written = []

    def interrupt(image, path, write=sitk.WriteImage):
        if len(written) == 3:
            raise KeyboardInterrupt
        write(image, path)
        written.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(sitk, "WriteImage", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare_demo("segmentation", tmp_path)
    assert written
    assert list(tmp_path.iterdir()) == []
    assert prepare_demo("segmentation", tmp_path).is_file()


def test_foreign_folder_is_left_alone(tmp_path):
    mine = tmp_path / "segmentation" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(FileExistsError, match=r"segmentation is there but holds no dataset\.json"):
        prepare_demo("segmentation", tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["segmentation", "mine.txt"]


def test_unknown_task(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'segmentation'"):
        prepare_demo("segmentaton", tmp_path)


def test_missing_package_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "slicerio", None)
    with pytest.raises(ImportError, match=r'pip install "monai-crossd\[demo\]"'):
        prepare_demo("segmentation", tmp_path)
    assert list(tmp_path.iterdir()) == []
