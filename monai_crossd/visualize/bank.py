# SPDX-License-Identifier: Apache-2.0
"""The kernel bank of a Cross-D layer, and what the layer makes of it for each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import PathLike
from torch import Tensor, nn

from .capture import find_layer, run_layer
from .figures import need_matplotlib, save_figure

__all__ = ["BANK_AXES", "draw_bank", "rotation_from_map"]

BANK_AXES = ("depth", "row", "column")  # of a bank and its shift, in their order
COLOURS = ("tab:blue", "tab:orange", "tab:green")
_MOST_IMAGES = 8


def rotation_from_map(rotation_map: Tensor, max_angle: float) -> tuple[Tensor, Tensor, Tensor]:
    """Axis, angle and shift that a Cross-D layer reads off the output of its predictor.

    Args:
        rotation_map: (B, 4, ...), output of the predictor.
        max_angle: of the layer, in radians.

    Returns:
        Unit axes k (B, 3), angles θ (B,) in radians, and shifts s = 1 − θ (k × 1) (B, 3) in voxels of the bank.

    >>> flat = torch.tensor([0.0, 0.0, 2.0, 9.0]).view(1, 4, 1)
    >>> rotation_from_map(flat, 0.5)
    (tensor([[0., 0., 1.]]), tensor([0.5000]), tensor([[1.5000, 0.5000, 1.0000]]))
    """
    values = rotation_map.float().flatten(2)
    pooled = (values * values.softmax(-1)).sum(-1)
    axis = nn.functional.normalize(pooled[:, :3])
    angle = pooled[:, 3].tanh() * max_angle
    return axis, angle, 1 - angle[:, None] * torch.linalg.cross(axis, torch.ones_like(axis))


def _kernel(layer: Any, shift: Tensor) -> Tensor:
    """2D kernel (O, I, Kh, Kw) at one shift: in 3D, what stands in the center plane or is spread over the depth."""
    if hasattr(layer, "to_conv2d"):
        weight: Tensor = layer.to_conv2d(shift).weight
        return weight.detach().cpu().float()
    weight = layer.to_conv3d(shift).weight
    return weight.detach().cpu().float().sum(2 + layer.depth_axis % 3)


def _check(layer: Any, name: str, images: Tensor, channels: Sequence[tuple[int, int]]) -> int:
    """Number of spatial dimensions."""
    if getattr(layer, "predictor", None) is None or not (hasattr(layer, "to_conv2d") or hasattr(layer, "to_conv3d")):
        raise ValueError(
            f"Layer {name!r} is a {type(layer).__name__} that predicts no shift; expected a CrossDConv2d, or a "
            "CrossDConv3d of mode 'dynamic', with a kernel larger than 1."
        )
    dims, shape = 2 if hasattr(layer, "to_conv2d") else 3, tuple(images.shape)
    if len(shape) != dims + 2 or not 0 < shape[0] <= _MOST_IMAGES:
        expected = "(B, C, H, W)" if dims == 2 else "(B, C, H, W, D)"
        raise ValueError(f"images have shape {shape}; expected {expected} with B from 1 to {_MOST_IMAGES}.")
    size = tuple(layer.weight.shape[:2])
    if not channels:
        raise ValueError("channels is empty: expected at least one (output, input), like [(0, 0)].")
    for channel in channels:
        if len(channel) != 2 or not all(0 <= at < most for at, most in zip(channel, size, strict=True)):
            raise ValueError(f"channel {channel} is not in the bank: expected (output, input) below {size}, from 0.")
    return dims


def _grid(figure: Any, heights: Sequence[float], columns: int) -> Any:
    """Axes, the last column of which is for colour bars; all without a frame until they are used."""
    ratios = {"height_ratios": list(heights), "width_ratios": [1.0] * columns + [0.08]}
    grid = figure.subplots(len(heights), columns + 1, squeeze=False, gridspec_kw=ratios)
    for axes in grid.flat:
        axes.set_axis_off()
    return grid


def _show(line: Any, values: Tensor, label: str) -> None:
    """Kernels of one row on one scale, with its colour bar."""
    limit = max(values.abs().max().item(), 1e-12)
    for axes, value in zip(line, values, strict=False):
        picture = axes.imshow(value, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_axis_on()
    line[0].set_ylabel(label, fontsize=8)
    line[-1].set_axis_on()
    bar = line[0].figure.colorbar(picture, cax=line[-1], format="%.2g")
    bar.set_label("weight", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _draw_slices(figure: Any, banks: Tensor, labels: Sequence[str], columns: int) -> None:
    """A row per channel, a column per slice."""
    figure.suptitle("The bank U, slice by slice along its depth: the same for every image", fontsize=10)
    grid = _grid(figure, [1] * len(banks), columns)
    for line, bank, label in zip(grid, banks, labels, strict=True):
        _show(line, bank, label)
    for at in range(banks.shape[1]):
        grid[0, at].set_title(f"slice {at}" + (" (middle)" if at == banks.shape[1] // 2 else ""), fontsize=8)


def _draw_shift(axes: Any, shift: Tensor, reach: float) -> None:
    axes.set_axis_on()
    axes.bar(BANK_AXES, shift - 1, bottom=1, color=COLOURS)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylim(1 - reach, 1 + reach)
    axes.tick_params(labelsize=7)
    axes.grid(axis="y", alpha=0.3)


def _draw_images(
    figure: Any, images: Tensor, rotation: tuple[Tensor, ...], kernels: Tensor, labels: Sequence[str], columns: int
) -> None:
    """A column per image: the image, its shift, its kernel in each channel and what is special in that."""
    figure.suptitle("What the layer makes of it: one shift, and so one 2D kernel, per image", fontsize=10)
    axes_k, angles, shifts = rotation
    grid = _grid(figure, [1.2, 0.9] + [1] * (2 * len(labels)), columns)
    reach = max((shifts - 1).abs().max().item() * 1.15, 0.02)
    for column, image in enumerate(images):
        axis = " ".join(f"{value:+.2f}" for value in axes_k[column].tolist())
        shift = " ".join(f"{value:.2f}" for value in shifts[column].tolist())
        upper, lower = grid[:2, column]
        upper.imshow(image, cmap="gray")
        upper.set(xticks=[], yticks=[])
        upper.set_axis_on()
        angle = math.degrees(angles[column].item())
        upper.set_title(f"axis k = {axis}\nangle θ = {angle:+.1f}°\nshift s = {shift}", fontsize=8)
        _draw_shift(lower, shifts[column], reach)
        lower.tick_params(labelleft=column == 0)
    grid[0, 0].set_ylabel("image", fontsize=8)
    grid[1, 0].set_ylabel("shift / voxel", fontsize=8)
    for at, label in enumerate(labels):
        _show(grid[2 + 2 * at], kernels[:, at], f"kernel\n{label}")
        _show(grid[3 + 2 * at], (kernels - kernels.mean(0))[:, at], f"kernel less\ntheir mean\n{label}")


def draw_bank(
    net: nn.Module, layer_name: str, images: Tensor, path: PathLike, channels: Sequence[tuple[int, int]] = ((0, 0),)
) -> Path:
    """Writes a PNG of a Cross-D layer: its bank, and for each image the predicted shift and the 2D kernel it makes.

    The upper part shows the slices of the bank U; they do not depend on the image. Below, each image has a column: the
    axis k and the angle θ that the layer's predictor read off its input, the shift s = 1 − θ (k × 1) of the bank, and
    the middle slice of the bank so shifted, which is the kernel that the image is convolved with. The last row is the
    kernel less the mean over these images: what is special to this one.

    Args:
        net: network with Cross-D layers, or such a layer.
        layer_name: path of the layer as in ``named_modules``; "" where ``net`` is the layer.
        images: (B, C, H, W), or volumes (B, C, H, W, D) for a 3D network, of which the middle slice is shown; up to 8
            of them, preprocessed as in training.
        path: of the PNG; missing folders are made.
        channels: (output, input) channels of the layer to be shown, counted from 0.

    Returns:
        ``path``.

    Raises:
        ValueError: When there is no such layer, it predicts no shift, or images or channels do not fit.
        OptionalImportError: When matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> from monai_crossd import CrossDConv2d
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_bank(CrossDConv2d(1, 4, 3), "", torch.randn(2, 1, 16, 16), f"{folder}/bank.png").name
        'bank.png'
    """
    layer: Any = find_layer(net, layer_name)
    dims = _check(layer, layer_name, images, channels)
    rotation_map = run_layer(net, f"{layer_name}.predictor".lstrip("."), images)[1]
    rotation = rotation_from_map(rotation_map, layer.max_angle)
    outputs, inputs = zip(*channels, strict=True)
    kernels = torch.stack([_kernel(layer, shift)[outputs, inputs] for shift in rotation[2]])
    banks = layer.weight.detach().cpu().float()[outputs, inputs]
    pictures = images.detach().cpu().float().mean(1)
    if dims == 3:
        pictures = pictures.select(1 + layer.depth_axis % 3, pictures.shape[1 + layer.depth_axis % 3] // 2)
    labels = [f"out {o}, in {i}" for o, i in channels]
    columns = max(banks.shape[1], len(images))
    heights = [1.45 * len(channels) + 0.5, 3.9 + 2.9 * len(channels)]
    size = (1.75 * columns + 1.4, sum(heights))
    figure = need_matplotlib("matplotlib.figure").Figure(figsize=size, layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    _draw_slices(upper, banks, labels, columns)
    _draw_images(lower, pictures, rotation, kernels, labels, columns)
    return save_figure(figure, path)
