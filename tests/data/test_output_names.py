# SPDX-License-Identifier: Apache-2.0
"""Names of outputs: readable where that is safe, and never two alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_crossd.data import output_key, output_names

NAMES = {
    "alone": (["/d/a.nii.gz", "/d/b.nii.gz"], ["a", "b"]),
    "one file": (["/d/p1/image.nii.gz"], ["image"]),
    "same name in other folders": (["/d/p1/image.nii.gz", "/d/p2/image.nii.gz"], ["p1/image", "p2/image"]),
    "a third keeps its short name": (["/d/p1/x.nii", "/d/p2/x.nii", "/d/p2/y.nii"], ["p1/x", "p2/x", "y"]),
    "deep": (["/d/p1/t1/ct/x.mha", "/d/p1/t2/ct/x.mha"], ["t1/ct/x", "t2/ct/x"]),
    "folder in a folder": (["/d/x.nii", "/d/p/x.nii"], ["x", "p/x"]),
    "UIDs": (["/d/1.2.840.113.1", "/d/1.2.840.113.2", "/d/1.2.840"], ["1.2.840.113.1", "1.2.840.113.2", "1.2.840"]),
    "UIDs of several patients": (["/d/p1/1.2.840", "/d/p2/1.2.840"], ["p1/1.2.840", "p2/1.2.840"]),
    "UID files": (["/d/1.2.840.1.dcm", "/d/1.2.840.2.dcm"], ["1.2.840.1", "1.2.840.2"]),
    "dots": (["/d/case.v1.nii.gz", "/d/case.v2.nii.gz", "/d/case.nii"], ["case.v1", "case.v2", "case"]),
    "only the suffix differs": (["/d/a.nii.gz", "/d/a.mha"], ["a.nii.gz", "a.mha"]),
    "pictures": (["/d/a.png", "/d/a.jpg", "/d/a.PNG"], ["a.png", "a.jpg", "a.PNG"]),
    "suffix and folder": (["/d/p/a.nii", "/d/p/a.mha", "/d/q/a.nii"], ["p/a.nii", "p/a.mha", "q/a"]),
    "capitals": (["/d/SCAN.NII.GZ", "/d/b.DCM"], ["SCAN", "b"]),
    "unicode, spaces, hashes": (["/d/Müller #1/s 1.nii", "/d/日本/s 1.nii"], ["Müller #1/s 1", "日本/s 1"]),
    "channels": ([["/d/c_0000.nii.gz", "/d/c_0001.nii.gz"], ["/d/d_0000.nii", "/d/d_0001.nii"]], ["c", "d"]),
    "channels of one case apart": (["/d/c_0000.nii.gz", "/d/c_0001.nii.gz"], ["c_0000", "c_0001"]),
    "a list of one": ([["/d/c_0000.nii.gz"]], ["c_0000"]),
    "numbers": (["/d/1/001.nii", "/d/2/001.nii"], ["1/001", "2/001"]),
    "arrays of an npz": (["/d/x.npz#val_images/6", "/d/x.npz#val_images/7"], ["6", "7"]),
    "nothing": ([], []),
}


@pytest.mark.parametrize("case", NAMES)
def test_names(case):
    images, expected = NAMES[case]
    found = output_names([{"image": image, "label": 0} for image in images])
    assert list(found) == [output_key(image) for image in images]
    assert list(found.values()) == expected


def test_names_do_not_depend_on_the_order():
    images = ["/d/p1/x.nii", "/d/p2/x.nii", "/d/p2/x.mha", "/d/y.nii"]
    one, other = (output_names([{"image": i} for i in order]) for order in (images, images[::-1]))
    assert one == other


@pytest.mark.parametrize("images", [["/d/a.nii", "/d/b.nii", "/d/a.nii"], [["/d/a.nii", "/d/b.nii"], "/d/a.nii"]])
def test_an_image_twice(images):
    with pytest.raises(ValueError, match=r"/d/a.nii is listed 2 times"):
        output_names([{"image": image} for image in images])


def test_names_that_still_meet():
    """Names are cut for folders and kept for suffixes: two ways can lead to one name."""
    with pytest.raises(ValueError, match=r"/d/a.mha.nii and /d/a.mha would both be named 'a.mha'|both be named"):
        output_names([{"image": i} for i in ("/d/a.mha.nii", "/d/a.mha", "/d/a.nii")])


PART = st.sampled_from(["a", "b", "1.2", "a_0000", "c d"])
PATHS = st.tuples(PART, PART, st.sampled_from([".nii.gz", ".nii", ".mha", "", ".png"])).map(
    lambda parts: f"/d/{parts[0]}/{parts[1]}{parts[2]}"
)


@given(st.lists(PATHS, unique=True, max_size=12))
def test_every_item_has_a_name_of_its_own_or_none_is_named(paths):
    try:
        names = output_names([{"image": path} for path in paths]).values()
    except ValueError:  # files whose names, cut or whole, are one name
        assert any(one + ".nii" == two or one + ".mha" == two for one in paths for two in paths)
    else:
        assert len(set(names)) == len(paths)
