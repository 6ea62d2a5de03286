# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from itertools import permutations

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from monai.data import MetaTensor

from monai_crossd.visualize import overlay_figure, save_overlay

SPACING = (1.0, 2.0, 5.0)
IMAGE = np.random.default_rng(0).normal(size=(8, 7, 6)).astype(np.float32)
LABEL = np.zeros((8, 7, 6), np.int64)
LABEL[5, 1:4, 4] = 1  # in RAS: one right, posterior, superior box, so that every flip shows
LABEL[6, 2, 4] = 2


def pictures(figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.get_images()]


def test_radiological_view():
    figure = overlay_figure(IMAGE, LABEL, LABEL, affine=np.diag([*SPACING, 1.0]))
    axes = np.array(figure.axes).reshape(3, 3)
    assert [a.get_title() for a in axes[0]] == ["image", "truth", "prediction"]
    assert [[t.get_text() for t in a.texts] for a in axes[:, 0]] == [list("RLAP"), list("RLSI"), list("APSI")]
    # slices with most structures: z=4, y=2, x=5 or 6 (one structure each, x=5 has more voxels)
    expected = (IMAGE[::-1, ::-1, 4].T, IMAGE[::-1, 2, ::-1].T, IMAGE[5, ::-1, ::-1].T)
    sizes = ((8, 14), (8, 30), (14, 30))
    for row, picture, size in zip(axes, expected, sizes, strict=True):
        for panel in row:
            shown = panel.get_images()
            np.testing.assert_array_equal(shown[0].get_array(), picture)
            assert all(tuple(s.get_extent()) == (0, size[0], size[1], 0) for s in shown)  # millimetres
        painted = np.asarray(row[1].get_images()[1].get_array())
        assert painted.shape == (*picture.shape, 4)
    axial = np.asarray(axes[0, 1].get_images()[1].get_array())[..., 3] > 0
    assert sorted(map(tuple, np.argwhere(axial).tolist())) == [(3, 2), (4, 1), (4, 2), (5, 2)]


@pytest.fixture(scope="module")
def reference():
    return pictures(overlay_figure(IMAGE, LABEL, affine=np.diag([*SPACING, 1.0])))


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, -1)])
def test_any_storage_order_gives_the_same_picture(axes, flips, reference):
    affine = np.diag([*SPACING, 1.0])
    orientation = np.column_stack([axes, flips]).astype(float)
    moved = affine @ nib.orientations.inv_ornt_aff(orientation, IMAGE.shape)
    image, label = (nib.orientations.apply_orientation(v, orientation) for v in (IMAGE, LABEL))
    for one, other in zip(reference, pictures(overlay_figure(image, label, affine=moved)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_channels_one_hot_and_meta_tensor():
    reference = pictures(overlay_figure(IMAGE, LABEL, LABEL, affine=np.diag([-1.0, 2, 5, 1])))
    image = MetaTensor(torch.as_tensor(IMAGE)[None], affine=torch.diag(torch.tensor([-1.0, 2, 5, 1])))
    one_hot = torch.nn.functional.one_hot(torch.as_tensor(LABEL), 3).movedim(-1, 0).bfloat16()
    for one, other in zip(reference, pictures(overlay_figure(image, one_hot, LABEL[None])), strict=True):
        np.testing.assert_array_equal(one, other)


def test_legend_names_all_structures_but_the_background():
    figure = overlay_figure(IMAGE, LABEL, labels={0: "background", 1: "liver", 2: "spleen", 3: "absent"})
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["liver", "spleen", "absent"]
    figure = overlay_figure(IMAGE, LABEL)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["label 1", "label 2"]


def test_one_slice_is_seen_from_one_side():
    figure = overlay_figure(IMAGE[..., :1], LABEL[..., :1], LABEL[..., :1])
    assert len(pictures(figure)) < len(pictures(overlay_figure(IMAGE, LABEL, LABEL)))
    assert [axes.get_title() for axes in figure.axes] == ["image", "truth", "prediction"]


def test_png(tmp_path):
    path = save_overlay(tmp_path / "new" / "o.png", IMAGE, np.zeros_like(LABEL), truth=LABEL, window=(-1, 1))
    assert imread(path).std() > 0.05
    assert [p.name for p in path.parent.iterdir()] == ["o.png"]


def test_nothing_half_written(tmp_path, monkeypatch):
    def fail(self, path, **_):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_overlay(tmp_path / "o.png", IMAGE, LABEL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (LABEL[:, :, :5], r"prediction has shape \(8, 7, 5\), image \(8, 7, 6\)"),
        (LABEL[0], r"prediction has shape \(7, 6\); expected \(H, W, D\)"),
    ],
)
def test_wrong_shapes(prediction, message):
    with pytest.raises(ValueError, match=message):
        overlay_figure(IMAGE, prediction)


def test_missing_matplotlib_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        overlay_figure(IMAGE, LABEL)
