# SPDX-License-Identifier: Apache-2.0
"""Folds: no patient on both sides, every item tested once, the same draw for every contender."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_crossd.study.load import count_folds, draw_cases, draw_per_class, make_folds

SECTIONS = ["training"] * 5 + ["validation"] * 3 + ["test"] * 2


def test_the_sections_of_the_data_set():
    ((train, test),) = make_folds("official", [0] * 10, SECTIONS, [])
    assert (train.tolist(), test.tolist()) == ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])
    first, second = make_folds("swap", [0] * 10, SECTIONS, [])
    assert [side.tolist() for side in second] == [side.tolist() for side in first[::-1]]


@given(st.integers(2, 4), st.integers(0, 3), st.integers(8, 20), st.booleans())
def test_k_folds(folds, seed, patients, named):
    labels = [p % 2 for p in range(patients) for _ in range(3)]
    names = [f"P{p}" for p in range(patients) for _ in range(3)]
    made = make_folds(folds, labels, [], names if named else [], seed)
    assert sorted(np.concatenate([test for _, test in made]).tolist()) == list(range(len(labels)))
    for train, test in made:
        assert not set(train) & set(test)
        assert {labels[i] for i in test} == {labels[i] for i in train} == {0, 1}
        if named:
            assert not {names[i] for i in train} & {names[i] for i in test}
    again = make_folds(folds, labels, [], names if named else [], seed)
    assert all((a[1] == b[1]).all() for a, b in zip(made, again, strict=True))


def test_another_seed_is_another_draw():
    labels = [0, 1] * 10
    assert make_folds(2, labels, [], [], 0)[0][1].tolist() != make_folds(2, labels, [], [], 1)[0][1].tolist()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: count_folds(1), 'folds is 1; expected "official", "swap" or a number from 2'),
        (lambda: count_folds(True), "folds is True"),
        (lambda: count_folds("random"), "folds is 'random'"),
        (lambda: make_folds("official", [0, 1], ["training"] * 2, []), r"to test on; got \[2, 0\]"),
        (lambda: make_folds(3, [0, 0, 0, 1, 1], [], []), "class 1 has 2 items, fewer than the 3 folds"),
        (lambda: make_folds(2, [0, 0, 1, 1], [], ["a", "b", "c", "c"]), "class 1 has 1 patients, fewer than the 2"),
    ],
)
def test_what_cannot_be_split_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_items_per_class():
    labels = [0] * 6 + [1] * 4 + [2]
    drawn = draw_per_class(np.arange(1, 11), labels, 3, seed=1)
    assert np.bincount(np.array(labels)[drawn]).tolist() == [3, 3, 1]
    assert set(drawn) <= set(range(1, 11))
    assert drawn.tolist() != draw_per_class(np.arange(1, 11), labels, 3, seed=2).tolist()
    assert draw_per_class(np.arange(4), labels, None, seed=0).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (2, [90, 10], [1, 1]),
        (10, [90, 10], [5, 5]),
        (9, [89, 11], [5, 4]),
        (8, [5, 3], [5, 3]),
        (6, [98, 1, 1], [4, 1, 1]),
        (7, [50, 20, 30], [3, 2, 2]),
        (30, [90, 10], [20, 10]),
        (99, [90, 10], [89, 10]),
        (100, [90, 10], [90, 10]),
        ("all", [90, 10], [90, 10]),
    ],
)
def test_as_many_of_each_class_while_it_has_them(count, sizes, expected):
    classes = np.repeat(np.arange(len(sizes)), sizes)
    pool = np.arange(len(classes))
    drawn = draw_cases(pool, count, 3, classes)
    assert len(set(drawn)) == len(drawn)
    assert np.bincount(classes[drawn]).tolist() == expected
    assert draw_cases(pool, count, 3, classes).tolist() == drawn.tolist()


def test_few_volumes_are_among_more_and_seeds_differ():
    pool = np.arange(5, 60)
    for classes in (None, [0] * 40 + [1] * 13 + [2] * 7):
        draws = [set(draw_cases(pool, count, 1, classes)) for count in (3, 4, 8, 30, 55)]
        assert all(few < more for few, more in pairwise(draws))
        assert draws[-1] == set(pool)
    assert draws[0] != set(draw_cases(pool, 2, 2))


@pytest.mark.parametrize(
    ("count", "classes", "says"), [(9, None, "has 9, and the data set 8 volumes"), (1, [0, 1] * 4, "2 classes: each")]
)
def test_more_volumes_than_there_are_and_fewer_than_classes(count, classes, says):
    with pytest.raises(ValueError, match=says):
        draw_cases(np.arange(8), count, 0, classes)
