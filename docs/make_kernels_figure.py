# SPDX-License-Identifier: Apache-2.0
"""README's picture, docs/images/kernels.png: one 2D kernel in a volume, as `to_3d` puts it there in three ways.

Run `python docs/make_kernels_figure.py` to make it again. What is drawn are the weights of the layers themselves.
"""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from mpl_toolkits.mplot3d import Axes3D
from torch import Tensor, nn

from monai_crossd import to_3d, to_plain

KERNEL = torch.tensor([[-1.0, -0.6, 0.3], [-0.7, 0.4, 0.9], [0.2, 0.8, 1.0]])
COLORS = mpl.colormaps["RdBu_r"]
WAYS = {
    "center": "in the middle slice\n(crossd: chosen anew\nfor every volume)",
    "acs": "in three views, a third of the\noutput channels each",
    "i3d": "repeated along the depth,\ndivided by it",
}


def kernels_3d(way: str) -> Tensor:
    """Kernels (3, H, W, D) of three output channels, all of which have the same kernel in 2D."""
    layer = nn.Conv2d(1, 3, 3, padding=1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(KERNEL)
    net3d = to_3d(nn.Sequential(layer), "acs") if way == "acs" else to_3d(nn.Sequential(layer), inflate=way)
    (plain,) = (m for m in to_plain(net3d).modules() if isinstance(m, nn.Conv3d))
    return plain.weight.detach()[:, 0]


def draw_kernel(ax: Axes3D, kernel: Tensor) -> None:
    """A kernel (H, W, D) as cubes: its slices stand upright, one behind the other; what is 0 is left out."""
    values = kernel.permute(1, 2, 0).flip(2).numpy()
    ax.voxels(values != 0, facecolors=COLORS(values / 2 + 0.5), edgecolors="0.2", linewidth=0.5, shade=False)
    for start, end in combinations(product((0, 3), repeat=3), 2):  # the edges of the whole kernel
        if sum(a != b for a, b in zip(start, end, strict=True)) == 1:
            ax.plot(*zip(start, end, strict=True), color="0.6", linewidth=0.7)
    ax.view_init(elev=22, azim=-60)
    ax.set_box_aspect((1, 1, 1), zoom=1.12)
    ax.set_axis_off()


def main() -> None:
    """Writes the picture."""
    figure = plt.figure(figsize=(10, 2.7))
    columns = figure.add_gridspec(1, 6, left=0.01, right=0.97, top=0.86, bottom=0.24, wspace=0.12)
    ax = figure.add_subplot(columns[0])
    ax.imshow(KERNEL, cmap=COLORS, vmin=-1, vmax=1, extent=(0, 3, 0, 3))
    ax.set(xlim=(-1, 4), ylim=(-1, 4), aspect="equal")
    ax.set_axis_off()
    for at in range(4):
        ax.plot([0, 3], [at, at], color="0.2", linewidth=0.5)
        ax.plot([at, at], [0, 3], color="0.2", linewidth=0.5)
    titles = [("2D kernel", "what was learned\nfrom images", [ax])]
    at = 1
    for way, text in WAYS.items():
        kernels = kernels_3d(way)
        shown = kernels if way == "acs" else kernels[:1]
        axes = []
        for kernel in shown:
            axes.append(figure.add_subplot(columns[at], projection="3d"))
            draw_kernel(axes[-1], kernel)
            at += 1
        titles.append((way, text, axes))
    for name, text, axes in titles:
        boxes = [ax.get_position() for ax in axes]
        middle = (boxes[0].x0 + boxes[-1].x1) / 2
        figure.text(
            middle, 0.92, name, ha="center", weight="bold", size=11, family="monospace" if name in WAYS else None
        )
        figure.text(middle, 0.22, text, ha="center", va="top", size=9)
    path = Path(__file__).parent / "images" / "kernels.png"
    figure.savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    mpl.use("Agg")
    main()
