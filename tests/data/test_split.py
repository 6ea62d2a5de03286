# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_crossd.data import load_datalist
from monai_crossd.data.split import complete_sections, draw_patients, find_patients

PATIENT = r"(P\d+)_"


def items_of(*pairs: tuple[str, int]) -> list[dict]:
    """An item per (patient, class)."""
    return [{"image": f"/data/{p}_{i}.png", "label": c, "patient": p} for i, (p, c) in enumerate(pairs)]


def split(items, val_fraction=0.3, seed=0, pattern=None, task="classification"):
    sections = complete_sections({"training": items}, task, val_fraction, seed, pattern)
    return sections["training"], sections["validation"]


def covers(pairs: list[tuple[str, int]]) -> bool:
    """Whether any way to part the patients leaves each class on both sides: all ways are tried."""
    patients = sorted({patient for patient, _ in pairs})
    classes = {number for _, number in pairs}
    for sides in product((False, True), repeat=len(patients)):
        held = {patient for patient, side in zip(patients, sides, strict=True) if side}
        if all({number for patient, number in pairs if (patient in held) is side} == classes for side in (True, False)):
            return True
    return False


PAIRS = st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(0, 3)), min_size=2, max_size=30)


@settings(max_examples=150, deadline=None)
@given(PAIRS, st.floats(0.1, 0.5), st.integers(0, 9))
def test_patients_are_on_one_side_and_classes_on_both_where_that_can_be(pairs, fraction, seed):
    items = items_of(*pairs)
    owners = Counter(number for _, number in set(pairs))
    if all(any(owners[number] == 1 for owner, number in pairs if owner == patient) for patient, _ in pairs):
        with pytest.raises(ValueError, match="cannot be split into training and validation"):
            split(items, fraction, seed)  # each patient is the only one of some class
        return
    training, validation = split(items, fraction, seed)
    assert sorted(map(str, training + validation)) == sorted(map(str, items))
    assert not {i["patient"] for i in training} & {i["patient"] for i in validation}
    classes = {number for _, number in pairs}
    assert {i["label"] for i in training} == classes
    assert ({i["label"] for i in validation} == classes) == covers(pairs)
    assert (training, validation) == split(items, fraction, seed)


def test_shares_of_the_classes_are_near_the_fraction():
    # 60 patients of 1 to 6 slices, each of one class out of three
    items = items_of(*[(f"P{n}", n % 3) for n in range(60) for _ in range(n % 6 + 1)])
    for seed in range(5):
        _, validation = split(items, 0.25, seed)
        held, total = Counter(i["label"] for i in validation), Counter(i["label"] for i in items)
        assert all(abs(held[c] / total[c] - 0.25) < 0.03 for c in range(3))


def test_seed_chooses_the_patients():
    items = items_of(*[(f"P{n}", n % 2) for n in range(20)])
    assert len({tuple(i["image"] for i in split(items, seed=seed)[1]) for seed in range(6)}) > 1


def test_segmentation_is_split_by_number_of_items():
    items = [{"image": f"{n}.nii", "label": f"l{n}.nii", "patient": n // 4} for n in range(40)]  # numbers as names
    training, validation = split(items, 0.2, task="segmentation")
    assert len(validation) == 8
    assert not {i["patient"] for i in training} & {i["patient"] for i in validation}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (None, ["A", "B"]),  # the key
        (PATIENT, ["P1", "P22"]),
        (r"P\d+", ["P1", "P22"]),  # no group: the whole match
        (r"/([^/]+)/P", ["x", "y"]),
    ],
)
def test_patient_of_an_item(pattern, expected):
    items = [
        {"image": "/d/x/P1_0.png", "patient": "A"},
        {"image": ["/d/y/P22_0.nii", "/d/y/P22_1.nii"], "patient": "B"},
    ]
    assert find_patients(items, pattern) == expected


def test_no_patients():
    assert find_patients([{"image": "a.png"}]) == []


@pytest.mark.parametrize(
    ("pattern", "items", "message"),
    [
        ("(", [{"image": "a"}], r"patient_pattern '\(' is no regular expression"),
        (PATIENT, [{"image": "P1_a"}, {"image": "Q_b"}], r"Q_b: patient_pattern .* finds no patient"),
        (r"a(P\d)?", [{"image": "a"}], "a: patient_pattern .* finds no patient"),
        (None, [{"image": "a", "patient": "x"}, {"image": "b"}], 'b: it has no "patient", other items have'),
        (None, [{"image": "a", "patient": "x"}, {"image": "b", "patient": ""}], 'b: it has no "patient"'),
    ],
)
def test_patients_that_cannot_be_told(pattern, items, message):
    with pytest.raises(ValueError, match=message):
        find_patients(items, pattern)


def test_one_patient_cannot_be_split():
    with pytest.raises(ValueError, match=r"1 patient\(s\), \['a'\], cannot be split .*: add patients"):
        split(items_of(("a", 0), ("a", 1)))


def test_a_class_of_one_patient_stays_in_training():
    training, validation = split(items_of(("a", 0), ("b", 0), ("c", 1), ("d", 0)))
    assert "c" in {i["patient"] for i in training}
    assert {i["label"] for i in validation} == {0}


def test_draw_is_of_names():
    assert draw_patients(["x"] * 9 + ["y"], [0] * 10, 0.1) == {"y"}


@pytest.mark.parametrize("other", ["validation", "test"])
def test_patient_in_two_sections_of_a_data_set(other):
    sections = {"training": items_of(("a", 0), ("b", 0)), other: items_of(("b", 0))}
    with pytest.raises(ValueError, match=f'Patient \'b\' is in the sections "training" and "{other}"'):
        complete_sections(sections, "classification")


def test_load_datalist_splits_by_the_pattern(tmp_path):
    """Five patients of four slices each, in two class folders."""
    for patient, number in product(range(5), range(4)):
        folder = tmp_path / ("ab"[number % 2])
        folder.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(folder / f"P{patient}_{number}.png")
    sides = [
        load_datalist(tmp_path, section, "classification", patient_pattern=PATIENT)
        for section in ("training", "validation")
    ]
    patients = [set(find_patients(items, PATIENT)) for items in sides]
    assert [len(names) for names in patients] == [4, 1]
    assert not patients[0] & patients[1]


def test_load_datalist_splits_by_the_key(tmp_path):
    for n in range(20):
        Image.new("L", (4, 4)).save(tmp_path / f"{n}.png")
    (tmp_path / "p1").mkdir()  # a folder of the patient's name must not change the name's meaning
    items = [{"image": f"{n}.png", "label": n % 2, "patient": f"p{n // 4}"} for n in range(20)]
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    sides = [load_datalist(tmp_path / "list.json", s, "classification") for s in ("training", "validation")]
    patients = [{item["patient"] for item in items} for items in sides]
    assert [len(items) for items in sides] == [16, 4]
    assert not patients[0] & patients[1]
