# SPDX-License-Identifier: Apache-2.0
"""Feature maps of a 2D network on a slice beside those of 3D networks on the volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import PathLike
from torch import Tensor, nn

from .capture import run_layer
from .figures import need_matplotlib, save_figure

__all__ = ["draw_features"]

_MAPS = 5


def _at_slice(features: Tensor, index: int, slices: int, axis: int) -> Tensor:
    """Maps (F, H, W) of a volume's features (1, F, ...) at the place of a slice of the volume."""
    depth = features.shape[2 + axis]
    # centers of voxels, as the slice may lie between those of a layer that strides
    place = round((index + 0.5) * depth / slices - 0.5)
    return features.select(2 + axis, min(max(place, 0), depth - 1))[0]


def _compare(reference: Tensor, maps: Tensor) -> str:
    """Correlation with a map of the same shape, and how many times its standard deviation."""
    if reference.shape != maps.shape:
        return f"{maps.shape[0]}×{maps.shape[1]}"
    if not (reference.std() > 0 and maps.std() > 0):
        return "constant"
    r = torch.corrcoef(torch.stack([reference.flatten(), maps.flatten()]))[0, 1]
    return f"r = {r:.2f}, spread ×{maps.std() / reference.std():.3g}"


def _chosen(maps: Tensor, channels: Sequence[int] | None) -> list[int]:
    if channels is None:
        return maps.flatten(1).std(1).topk(min(_MAPS, len(maps))).indices.sort().values.tolist()
    if not channels or not all(0 <= channel < len(maps) for channel in channels):
        raise ValueError(f"channels are {list(channels)}; expected some of 0 ... {len(maps) - 1}.")
    return list(channels)


def _draw(figure: Any, picture: Tensor, rows: Mapping[str, Tensor], channels: Sequence[int]) -> None:
    grid = figure.subplots(len(rows), len(channels) + 1, squeeze=False)
    reference = next(iter(rows.values()))
    low, high = np.percentile(reference[channels], (0.5, 99.5))
    for line, (name, maps) in zip(grid, rows.items(), strict=True):
        for axes, channel in zip(line[1:], channels, strict=True):
            shown = axes.imshow(maps[channel], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            first = f"channel {channel}"
            axes.set_title(first if maps is reference else _compare(reference[channel], maps[channel]), fontsize=7)
        line[0].set_axis_off()
        line[0].text(0.5, 0.5, name, ha="center", va="center", fontsize=9, transform=line[0].transAxes)
    corner = grid[0, 0]
    corner.clear()
    corner.imshow(picture, cmap="gray")
    corner.set(xticks=[], yticks=[])
    corner.set_title("slice", fontsize=8)
    corner.set_xlabel(next(iter(rows)), fontsize=9)
    bar = figure.colorbar(shown, ax=grid[:, 1:], label="feature value", extend="both", shrink=0.8, aspect=30)
    bar.ax.tick_params(labelsize=7)


def draw_features(
    net2d: nn.Module,
    net3d: nn.Module | Mapping[str, nn.Module],
    volume: Tensor,
    layer_name: str,
    path: PathLike,
    *,
    index: int | None = None,
    depth_axis: int = -1,
    channels: Sequence[int] | None = None,
) -> Path:
    """Writes a PNG of a layer's feature maps: of the 2D network on a slice, below them those of the 3D one there.

    The 3D network sees the whole volume. All maps have one grey scale, that of the 2D maps (to their 0.5th and 99.5th
    percentile). Above each 3D map stands its correlation r with the 2D map of the same channel, and the ratio of their
    standard deviations.

    Args:
        net2d: 2D network.
        net3d: 3D network with a layer of the same name, such as :func:`monai_crossd.to_3d` makes of ``net2d``; or
            several by the name that is written beside their maps.
        volume: (C, H, W, D), preprocessed as in training.
        layer_name: path of the layer in both networks, as in ``named_modules``.
        path: of the PNG; missing folders are made.
        index: of the slice; by default the middle one.
        depth_axis: spatial axis of the volume that runs through the slices.
        channels: of the layer; by default the five whose 2D maps vary most.

    Returns:
        ``path``.

    Raises:
        ValueError: When a network has no such layer, or the layer's output is no map of the expected dimension, or
            ``volume``, ``index``, ``depth_axis`` or ``channels`` do not fit.
        OptionalImportError: When matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> from monai_crossd import to_3d
        >>> net2d = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_features(net2d, to_3d(net2d), torch.randn(1, 16, 16, 5), "0", f"{folder}/maps.png").name
        'maps.png'
    """
    if volume.dim() != 4:
        raise ValueError(f"volume has shape {tuple(volume.shape)}; expected (C, H, W, D).")
    if not -3 <= depth_axis <= 2:
        raise ValueError(f"depth_axis is {depth_axis}; expected -3 ... 2.")
    axis = depth_axis % 3
    slices = volume.shape[1 + axis]
    index = slices // 2 if index is None else index
    if not 0 <= index < slices:
        raise ValueError(f"index is {index}; expected 0 ... {slices - 1}, as the volume has {slices} slices.")
    nets = dict(net3d) if isinstance(net3d, Mapping) else {"3D": net3d}
    if not nets:
        raise ValueError("net3d is empty: expected at least one 3D network by its name.")
    picture = volume.select(1 + axis, index)
    outputs = {"2D": run_layer(net2d, layer_name, picture[None])[1]}
    outputs |= {name: run_layer(net, layer_name, volume[None])[1] for name, net in nets.items()}
    for (name, maps), dims in zip(outputs.items(), [4] + [5] * len(nets), strict=True):
        if maps.dim() != dims or maps.shape[1] != outputs["2D"].shape[1]:
            expected = f"(1, {outputs['2D'].shape[1]}, {'H, W' if dims == 4 else 'H, W, D'})"
            raise ValueError(f"Layer {layer_name!r} gives {tuple(maps.shape)} in {name!r}; expected {expected}.")
    rows = {n: (m[0] if n == "2D" else _at_slice(m, index, slices, axis)).float() for n, m in outputs.items()}
    chosen = _chosen(rows["2D"], channels)
    size = (1.55 * (len(chosen) + 1) + 1.0, 1.75 * len(rows) + 0.3)
    figure = need_matplotlib("matplotlib.figure").Figure(figsize=size, layout="constrained")
    _draw(figure, picture.detach().cpu().float().mean(0), rows, chosen)
    return save_figure(figure, path)
