# SPDX-License-Identifier: Apache-2.0
"""The distribution of a layer's shifts, counted batch by batch and process by process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ignite.distributed as idist
import torch
from torch import Tensor

from ..visualize.bank import BANK_AXES
from ..visualize.shifts import ShiftSummary

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["ShiftHistogram"]

_BINS = 1000
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class ShiftHistogram:
    """Distribution of shifts in fixed memory, however many samples there are.

    No component of s = 1 − θ (k × 1) is further from 1 than √2 θ. That range is divided into 1000 bins, so that a
    quantile is exact to 1/500 of √2 θ, which is 0.002 voxels for the default angle; mean and standard deviation are
    exact.

    Args:
        max_angle: of the layer, in radians.

    Example:
        >>> shifts = ShiftHistogram(0.5)
        >>> shifts.add(torch.tensor([[1.0, 1.2, 0.8], [1.0, 1.4, 0.6]]))
        >>> [(s.axis, s.samples, round(s.mean, 3), round(s.std, 3)) for s in shifts.summary(1, "conv1")]
        [('depth', 2, 1.0, 0.0), ('row', 2, 1.3, 0.1), ('column', 2, 0.7, 0.1)]
    """

    def __init__(self, max_angle: float) -> None:
        reach = 2**0.5 * max_angle
        self.edges = torch.linspace(1 - reach, 1 + reach, _BINS + 1, dtype=torch.float64)
        # by axis: the bins, then the sums of the shifts' distances from 1 and of their squares
        self.counts = torch.zeros(3, _BINS + 2, dtype=torch.float64)

    def add(self, shifts: Tensor) -> None:
        """Counts the shifts (B, 3) of a batch."""
        shifts = shifts.detach().cpu().double()
        bins = torch.bucketize(shifts, self.edges[1:-1]).t()
        self.counts[:, :_BINS].scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.float64))
        self.counts[:, _BINS] += (shifts - 1).sum(0)
        self.counts[:, _BINS + 1] += (shifts - 1).square().sum(0)

    def summary(self, epoch: int, layer: str) -> list[ShiftSummary]:
        """A row per axis; none when nothing was counted."""
        rows = []
        for axis, counts in zip(BANK_AXES, self.counts, strict=True):
            bins, samples = counts[:_BINS], counts[:_BINS].sum().item()
            if samples:
                mean, square = (counts[_BINS:] / samples).tolist()
                at = torch.searchsorted(bins.cumsum(0) / samples, torch.tensor(_QUANTILES, dtype=torch.float64))
                middle = (self.edges[at] + self.edges[at + 1]) / 2
                std = max(square - mean**2, 0) ** 0.5
                rows.append(ShiftSummary(epoch, layer, axis, int(samples), 1 + mean, std, *middle.tolist()))
        return rows

    def merge(self) -> None:
        """Adds what the other processes counted."""
        if idist.get_world_size() > 1:
            self.counts = idist.all_reduce(self.counts).cpu()

    def log(self, writer: SummaryWriter, tag: str, epoch: int) -> None:
        """Gives TensorBoard a histogram per axis, named "<tag>/<axis>"."""
        for axis, counts in zip(BANK_AXES, self.counts, strict=True):
            filled = counts[:_BINS].nonzero().flatten()
            if not len(filled):
                continue
            used = slice(int(filled[0]), int(filled[-1]) + 1)
            samples = counts[:_BINS].sum().item()
            distance, square = counts[_BINS:].tolist()
            writer.add_histogram_raw(
                f"{tag}/{axis}",
                min=self.edges[used.start].item(),
                max=self.edges[used.stop].item(),
                num=int(samples),
                sum=samples + distance,
                sum_squares=samples + 2 * distance + square,
                bucket_limits=self.edges[1:][used].tolist(),
                bucket_counts=counts[used].tolist(),
                global_step=epoch,
            )
