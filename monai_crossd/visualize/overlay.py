# SPDX-License-Identifier: Apache-2.0
"""Image, truth and prediction side by side: one axial, one coronal and one sagittal slice in radiological view."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch
from monai.config import NdarrayOrTensor, PathLike
from monai.data import MetaTensor
from monai.utils import convert_to_numpy

from .figures import need_matplotlib, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["overlay_figure", "save_overlay"]

# of each view in RAS: name, axis looked along, letters at the left, right, top and bottom edge
_VIEWS = (("axial", 2, "RLAP"), ("coronal", 1, "RLSI"), ("sagittal", 0, "APSI"))


def _as_volume(array: NdarrayOrTensor, name: str) -> np.ndarray:
    """Drops the channel axis: the first channel of an image, the class numbers of one-hot labels."""
    # numpy knows no bfloat16
    volume = convert_to_numpy(array.float() if isinstance(array, torch.Tensor) else array)
    if volume.ndim == 4:
        volume = volume[0] if name == "image" or len(volume) == 1 else volume.argmax(0)
    if volume.ndim != 3:
        raise ValueError(f"{name} has shape {tuple(array.shape)}; expected (H, W, D) or (C, H, W, D).")
    return volume


def _to_ras(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    canonical = nib.as_closest_canonical(nib.Nifti1Image(volume.astype(np.float32), affine))
    return np.asarray(canonical.dataobj), tuple(float(z) for z in canonical.header.get_zooms()[:3])


def _best_slice(label: np.ndarray, axis: int) -> int:
    """The slice with most structures, then with most labelled voxels; the middle one where nothing is labelled."""
    scores = [(len(np.unique(s[s > 0])), int((s > 0).sum())) for s in np.moveaxis(label, axis, 0)]
    best = max(scores)
    return scores.index(best) if best[0] else len(scores) // 2


def _view(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    """A RAS slice as rows and columns: head or anterior at the top, the patient's right or anterior at the left."""
    return np.take(volume, index, axis)[::-1, ::-1].T


def _colours(names: Mapping[int, str]) -> dict[int, tuple[float, ...]]:
    # tab20's strong colours first, then its pale ones; more than 20 structures share them
    palette = need_matplotlib("matplotlib").colormaps["tab20"].colors
    order = [*palette[0::2], *palette[1::2]]
    return {value: order[(value - 1) % len(order)] for value in names}


def _paint(label: np.ndarray, colours: Mapping[int, tuple[float, ...]]) -> np.ndarray:
    rgba = np.zeros((*label.shape, 4))
    for value, colour in colours.items():
        rgba[label == value] = (*colour, 0.5)
    return rgba


def _annotate(axes: Any, letters: str) -> None:
    outline = [need_matplotlib("matplotlib.patheffects").withStroke(linewidth=2, foreground="black")]
    edges = (
        (0.01, 0.5, "left", "center"),
        (0.99, 0.5, "right", "center"),
        (0.5, 0.97, "center", "top"),
        (0.5, 0.03, "center", "bottom"),
    )
    for letter, (x, y, horizontal, vertical) in zip(letters, edges, strict=True):
        style = {"ha": horizontal, "va": vertical, "color": "white", "size": 8, "path_effects": outline}
        axes.text(x, y, letter, transform=axes.transAxes, **style)


def overlay_figure(
    image: NdarrayOrTensor,
    prediction: NdarrayOrTensor,
    truth: NdarrayOrTensor | None = None,
    labels: Mapping[int, str] | None = None,
    affine: NdarrayOrTensor | None = None,
    window: tuple[float, float] | None = None,
) -> Figure:
    """Draws the slices with most structures: a column each for the image, the truth if known, and the prediction.

    All are turned to the radiological view (the patient's right at the left, anterior or head at the top), in
    millimetres.

    Args:
        image: (H, W, D) or (C, H, W, D), of which the first channel is shown.
        prediction: class numbers (H, W, D) or (1, H, W, D), or one-hot (C, H, W, D).
        truth: like ``prediction``.
        labels: names by class number; 0 is the background and is not drawn. Without it the numbers are the names.
        affine: (4, 4) of all three, voxels to RAS millimetres. By default that of ``image`` if it is a MetaTensor, else
            the identity.
        window: image values shown as black and white; by default the 1st and 99th percentile.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: When the shapes are not those of volumes, or differ.
        OptionalImportError: When matplotlib is not installed.

    Example:
        >>> figure = overlay_figure(np.random.rand(16, 16, 4), np.eye(16, dtype=int)[..., None].repeat(4, axis=2))
        >>> type(figure).__name__
        'Figure'
    """
    if affine is None:
        affine = image.affine if isinstance(image, MetaTensor) else np.eye(4)
    affine = convert_to_numpy(affine).astype(float)
    columns = {"image": image} | ({} if truth is None else {"truth": truth}) | {"prediction": prediction}
    volumes = {name: _as_volume(array, name) for name, array in columns.items()}
    for name, volume in volumes.items():
        if volume.shape != volumes["image"].shape:
            raise ValueError(
                f"{name} has shape {volume.shape}, image {volumes['image'].shape}: bring both to one grid first."
            )
    spacing = _to_ras(volumes["image"], affine)[1]
    volumes = {name: _to_ras(volume, affine)[0] for name, volume in volumes.items()}
    low, high = np.percentile(volumes["image"], (1, 99)) if window is None else window
    if labels is None:
        found = set(np.unique(volumes["prediction"])) | set(np.unique(volumes.get("truth", 0)))
        labels = {int(value): f"label {int(value)}" for value in sorted(found)}
    names = {value: name for value, name in labels.items() if value > 0}
    colours = _colours(names)
    reference = volumes.get("truth", volumes["prediction"])
    return _draw(volumes, reference, spacing, names, colours, (float(low), float(high)))


def _draw(
    volumes: Mapping[str, np.ndarray],
    reference: np.ndarray,
    spacing: tuple[float, ...],
    names: Mapping[int, str],
    colours: Mapping[int, tuple[float, ...]],
    window: tuple[float, float],
) -> Figure:
    size = np.array(reference.shape) * spacing
    # a volume of one slice, or an image, is seen from one side alone
    views = [view for view in _VIEWS if min(np.delete(reference.shape, view[1])) > 1] or list(_VIEWS)
    # a thin volume keeps its proportions, but its rows stay high enough for the title and the letters
    rows = [max(size[1 if axis == 2 else 2], 0.12 * size.max()) for _, axis, _ in views]
    scale = 3.2 / max(size[0], size[1])  # inches per millimetre
    figure = need_matplotlib("matplotlib.figure").Figure(
        figsize=(3.4 * len(volumes) + 2.1, sum(rows) * scale + 1.0), layout="constrained"
    )
    grid = figure.subplots(len(views), len(volumes), squeeze=False, gridspec_kw={"height_ratios": rows})
    for (view, axis, letters), row in zip(views, grid, strict=True):
        index = _best_slice(reference, axis)
        across, down = (float(s) for i, s in enumerate(size) if i != axis)
        place: dict[str, Any] = {"extent": (0, across, down, 0), "interpolation": "nearest"}
        for (name, volume), axes in zip(volumes.items(), row, strict=True):
            axes.imshow(_view(volumes["image"], axis, index), cmap="gray", vmin=window[0], vmax=window[1], **place)
            if name != "image":
                axes.imshow(_paint(_view(volume, axis, index), colours), **place)
            axes.set(xticks=[], yticks=[])
            axes.set_facecolor("black")
            _annotate(axes, letters)
            if view == views[0][0]:
                axes.set_title(name)
        row[0].set_ylabel(f"{view}\n{index + 1}/{reference.shape[axis]}", size=8, rotation=0, ha="right", va="center")
    patch = need_matplotlib("matplotlib.patches").Patch
    if names:
        figure.legend(
            handles=[patch(color=colours[value], label=name) for value, name in names.items()],
            loc="outside right center",
            frameon=False,
            fontsize=8,
        )
    return figure


def save_overlay(path: PathLike, image: NdarrayOrTensor, prediction: NdarrayOrTensor, **options: Any) -> Path:
    """Writes :func:`overlay_figure` as PNG; takes its arguments.

    Args:
        path: of the PNG; missing folders are made.
        image: as there.
        prediction: as there.
        options: ``truth``, ``labels``, ``affine`` and ``window`` as there.

    Returns:
        ``path``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     image, found = np.zeros((16, 16, 4)), np.ones((16, 16, 4), int)
        ...     save_overlay(f"{folder}/a.png", image, found, labels={1: "liver"}).name
        'a.png'
    """
    return save_figure(overlay_figure(image, prediction, **options), path)
