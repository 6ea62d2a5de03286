# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import slicerio
from monai.data import PILReader

from monai_crossd.data import load_datalist
from monai_crossd.demo import DEMO_SLICES, EMBEDDED, embedded, patient, prepare_demo, prepare_embedded
from monai_crossd.demo.patient import DEMO_SOURCES

SOURCE = Path(slicerio.__file__).parent / "data"


def read(root: Path, task: str) -> dict:
    return json.loads((root / task / "dataset.json").read_text())


def digests(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*.png")}


def replace_chest(monkeypatch, read) -> None:
    monkeypatch.setitem(DEMO_SOURCES, "chest_ct", DEMO_SOURCES["chest_ct"]._replace(read=read))


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
    image, label, _ = DEMO_SOURCES["chest_ct"].read()
    a, b = DEMO_SLICES["training"][0]
    volume = patient.to_isotropic(image[:, :, a:b], label[:, :, a:b])
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


def test_a_block_is_a_piece_of_the_volume_labelled_by_its_center(demo_root):
    path = prepare_demo("classification_3d", demo_root)
    content = json.loads(path.read_text())
    assert Counter(item["label"] for item in content["training"]) == dict.fromkeys(range(7), 85)
    assert Counter(item["label"] for item in content["validation"]) == dict.fromkeys(range(7), 21)
    image, label, _ = DEMO_SOURCES["chest_ct"].read()
    lumbar = 3
    a, b = DEMO_SLICES["training"][0]  # the one training sub-volume with lumbar spine
    grey, labels = patient.to_isotropic(image[:, :, a:b], label[:, :, a:b])
    edges = ((24, 24), (24, 24), (6, 6))
    grey, labels = (np.pad(volume.astype(float), edges) for volume in (grey, labels))
    starts = {}  # of blocks, by a few of their voxels
    for start in np.ndindex(*(n - m + 1 for n, m in zip(grey.shape, (48, 48, 12), strict=True))):
        i, j, k = start
        starts.setdefault(grey[i + 20 : i + 28, j + 24, k + 6].tobytes(), []).append(start)
    for item in [item for item in content["training"] if item["label"] == lumbar][::8]:
        block = nib.load(path.parent / item["image"])
        np.testing.assert_allclose(block.header.get_zooms(), (3, 3, 3))
        values = np.rint((np.asarray(block.dataobj, float) + 1000) / 2000 * 255)
        near = [tuple(slice(s, s + n) for s, n in zip(start, (48, 48, 12), strict=True))
                for start in starts.get(values[20:28, 24, 6].tobytes(), [])]  # fmt: skip
        cuts = [cut for cut in near if (grey[cut] == values).all()]
        assert cuts, item
        counts = Counter(labels[cuts[0]][21:28, 21:28, 6].ravel().tolist())
        assert counts.most_common(1)[0][0] == lumbar + 1


@pytest.mark.slow
def test_patches_do_not_depend_on_the_other_sections_or_margins(demo_dir, tmp_path, monkeypatch):
    image, label, names = DEMO_SOURCES["chest_ct"].read()
    values = sitk.GetArrayFromImage(image)
    kept = [z for a, b in DEMO_SLICES["training"] for z in range(a, b)]
    values[[z for z in range(34) if z not in kept]] = 777
    spoiled = sitk.GetImageFromArray(values)
    spoiled.CopyInformation(image)
    replace_chest(monkeypatch, lambda: (spoiled, label, names))
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
    grey, labels = patient.to_isotropic(image, label)
    assert grey.shape == labels.shape == (30, 20, 40)
    position = ((np.arange(40) + 0.5) * 3 / 10 - 0.5).clip(0, 11)  # in slices
    np.testing.assert_allclose(grey[5, 5], (position * 50 + 1000) / 2000 * 255, atol=0.51)
    np.testing.assert_array_equal(labels[5, 5], position > 5.5)


def test_dominant_label_against_a_loop():
    label = np.random.default_rng(0).integers(0, 4, (2, 12, 9)).astype(np.uint8)
    padded = np.pad(label, ((0, 0), (3, 3), (3, 3)))
    for s, i, j in np.ndindex(label.shape):
        counts = np.bincount(padded[s, i : i + 7, j : j + 7].ravel())
        assert patient.dominant_label(label)[s, i, j] == counts.argmax()


@pytest.mark.slow
def test_two_preparations_are_the_same(demo_dir, tmp_path):
    prepare_demo("classification", tmp_path)
    assert digests(tmp_path / "classification") == digests(demo_dir / "classification")


def test_a_complete_set_is_reused(demo_dir, monkeypatch, caplog):
    replace_chest(monkeypatch, lambda: pytest.fail("read again"))
    embedded._announce.cache_clear()
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


@pytest.fixture
def tptbox() -> Path:
    """The folder of TPTBox's samples, where it is installed."""
    try:
        package = distribution("TPTBox")
    except PackageNotFoundError:
        pytest.skip("needs `pip install --no-deps TPTBox==1.1.0`")
    return Path(str(package.locate_file("TPTBox/tests")))


SAMPLES = {
    "vertebrae_ct": ("sample_ct/sub-ct_label-22_ct.nii.gz", "sample_ct/sub-ct_seg-subreg_label-22_msk.nii.gz", 10),
    "vertebrae_mr": ("sample_mri/sub-mri_label-6_T2w.nii.gz", "sample_mri/sub-mri_seg-subreg_label-6_msk.nii.gz", 13),
}


@pytest.mark.parametrize("source", SAMPLES)
def test_vertebrae_are_the_packages_own_voxels_at_their_place(tptbox, tmp_path, source):
    path = prepare_demo("segmentation", tmp_path, source)
    assert path == tmp_path / source / "segmentation" / "dataset.json"
    content = json.loads(path.read_text())
    image, label = (nib.load(tptbox / name) for name in SAMPLES[source][:2])
    values = sorted(np.unique(np.asarray(label.dataobj)).tolist())
    assert len(content["labels"]) == len(values) == SAMPLES[source][2] + 1
    assert content["labels"]["1"] == "arcus vertebrae"  # 41
    assert content["labels"]["9"] == "vertebra corpus border"  # 49
    for section, ranges in DEMO_SOURCES[source].slices.items():
        for item, (start, stop) in zip(content[section], ranges, strict=True):
            for key, original in (("image", image), ("label", label)):
                written = nib.load(path.parent / item[key])
                expected = np.asarray(original.dataobj)[:, start:stop]
                if key == "label":
                    expected = np.searchsorted(values, expected)
                    assert sorted(np.unique(expected)) == list(range(len(values)))  # every structure in each section
                np.testing.assert_array_equal(np.asarray(written.dataobj), expected)
                assert nib.aff2axcodes(written.affine) == ("P", "I", "R")
                np.testing.assert_allclose(written.affine @ [0, 0, 0, 1], original.affine @ [0, start, 0, 1], atol=1e-3)
    assert len(load_datalist(path, "training")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("source", SAMPLES)
def test_vertebrae_patches_are_balanced(tptbox, tmp_path, source):
    content = json.loads(prepare_demo("classification", tmp_path, source).read_text())
    for section, count in (("training", 300), ("validation", 100)):
        numbers = range(len(content["labels"]))
        assert Counter(item["label"] for item in content[section]) == dict.fromkeys(numbers, count)
    assert "vertebral body" in content["labels"].values()
    assert "ONE patient" in content["description"]
    assert content["modality"] == {"0": source[-2:].upper()}


@pytest.mark.parametrize("source", SAMPLES)
def test_vertebrae_sections_are_apart(source):
    slices = DEMO_SOURCES[source].slices
    used = {s: {z for a, b in ranges for z in range(a, b)} for s, ranges in slices.items()}
    assert min(abs(t - v) for t in used["training"] for v in used["validation"]) == 3


def test_missing_tptbox_names_the_remedy(tmp_path, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(patient, "distribution", missing)
    with pytest.raises(ImportError, match=r"pip install --no-deps TPTBox==1\.1\.0"):
        prepare_demo("segmentation", tmp_path, "vertebrae_ct")
    assert list((tmp_path / "vertebrae_ct").iterdir()) == []


def test_tptbox_without_its_samples_names_the_remedy(tmp_path, monkeypatch):
    information = tmp_path / "tptbox-9.9.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: TPTBox\nVersion: 9.9\n")
    monkeypatch.setattr(patient, "distribution", lambda name: Distribution.at(information))
    with pytest.raises(FileNotFoundError, match=r"not in TPTBox 9\.9: `pip install --no-deps TPTBox==1\.1\.0`"):
        prepare_demo("segmentation", tmp_path / "root", "vertebrae_mr")


def test_every_word_is_known():
    phantoms = [f"phantom:{m}{end}" for m in ("ct", "mr", "mr_t1", "us") for end in ("", ":2d")]
    real = [f"demo:{s}{end}" for s in ("chest_ct", "vertebrae_ct", "vertebrae_mr") for end in ("", ":3d")]
    assert set(EMBEDDED) == {"demo", *real, *phantoms}


def test_blocks_are_for_classification(tmp_path):
    with pytest.raises(ValueError, match="classification"):
        prepare_embedded("demo:chest_ct:3d", "segmentation", tmp_path)
    assert not list(tmp_path.iterdir())


def test_both_words_of_the_chest_are_one_set(demo_dir):
    paths = {prepare_embedded(word, "segmentation", demo_dir) for word in ("demo", "demo:chest_ct")}
    assert paths == {demo_dir / "segmentation" / "dataset.json"}


@pytest.mark.parametrize(
    ("word", "task", "shape", "subjects"),
    [("phantom:us", "segmentation", "3D", 24), ("phantom:mr:2d", "classification", "2D", 240)],
)
def test_words_of_phantoms(demo_root, caplog, word, task, shape, subjects):
    with caplog.at_level(logging.INFO, "monai_crossd"):
        path = prepare_embedded(word, task, demo_root)
    assert f"Phantoms (synthetic), {subjects} subjects" in caplog.text
    content = json.loads(path.read_text())
    assert (content["tensorImageSize"], len(content["training"] + content["validation"])) == (shape, subjects)
    assert len(load_datalist(path, "validation", task)) == subjects // 4


@pytest.mark.parametrize("word", ["phantom", "phantom:pet", "demo:spine"])
def test_unknown_word(tmp_path, word):
    with pytest.raises(ValueError, match="phantom:ct"):
        prepare_embedded(word, "segmentation", tmp_path)
    with pytest.raises(ValueError, match="segmentation"):
        prepare_embedded("phantom:ct", "detection", tmp_path)


def test_unknown_source(tmp_path):
    with pytest.raises(ValueError, match="vertebrae_ct"):
        prepare_demo("segmentation", tmp_path, "vertebrae")
