# SPDX-License-Identifier: Apache-2.0
"""What shifts the Cross-D layers of a network predict while it is trained."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.config import PathLike
from monai.utils import optional_import
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..conv import CrossDConv2d, CrossDConv3d, shift_from_map
from ..visualize.bank import BANK_AXES
from ..visualize.figures import need_matplotlib
from ..visualize.shifts import ShiftSummary, draw_shifts, read_shifts
from .checkpoint import unwrap
from .scores import write_csv

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["ShiftHandler", "ShiftHistogram"]

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


class ShiftHandler:
    """Keeps ``shifts.csv`` up to date: of each Cross-D layer and epoch, mean, spread and quantiles of its shifts.

    The shifts are those that the layers predicted for the samples they were trained on, of all processes; they are
    read off the predictors as they run, so that nothing is computed twice and no statistic of the network moves. At
    the end ``shifts.png`` is drawn. A resumed run keeps the rows of the epochs before it.

    Args:
        output_dir: folder of the two files.
        summary_writer: TensorBoard writer that receives a histogram per layer and axis after each epoch, named
            "shift/<layer>/<axis>"; it stays open.
        log_dir: folder of a writer of the handler's own, if none is given. With neither, TensorBoard is not needed.

    Raises:
        OptionalImportError: When matplotlib, or with ``log_dir`` tensorboard, is not installed; at once.
        ValueError: When both a writer and a folder are given; at the start, when no layer of the network predicts
            shifts.

    Example:
        .. code-block:: yaml

            handlers:
            - _target_: monai_crossd.training.ShiftHandler
              output_dir: "@output_dir"
              log_dir: "@output_dir"
    """

    def __init__(
        self, output_dir: PathLike, summary_writer: SummaryWriter | None = None, log_dir: PathLike | None = None
    ) -> None:
        if summary_writer is not None and log_dir is not None:
            raise ValueError(f"Both summary_writer and log_dir={str(log_dir)!r} are given: expected one of them.")
        need_matplotlib("matplotlib.figure")
        self.csv_path = Path(output_dir) / "shifts.csv"
        self.png_path = Path(output_dir) / "shifts.png"
        self.summary_writer = summary_writer
        self.log_dir = log_dir
        if log_dir is not None:
            self._writer_class, ok = optional_import("torch.utils.tensorboard", name="SummaryWriter")
            if not ok:
                self._writer_class()  # MONAI's placeholder raises when it is used
        self.rows: list[ShiftSummary] = []
        self._histograms: dict[str, ShiftHistogram] = {}
        self._batch: list[tuple[str, Tensor]] = []
        self._hooks: list[RemovableHandle] = []

    def attach(self, trainer: Engine) -> None:
        """Registers the handlers.

        Args:
            trainer: a MONAI trainer.
        """
        trainer.add_event_handler(Events.STARTED, self._start)
        trainer.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        trainer.add_event_handler(Events.COMPLETED, self._finish)

    @staticmethod
    def _layers(trainer: Engine) -> dict[str, CrossDConv2d | CrossDConv3d]:
        modules = unwrap(trainer.network).named_modules()
        return {n: m for n, m in modules if isinstance(m, (CrossDConv2d, CrossDConv3d)) and m.predictor is not None}

    def _start(self, trainer: Engine) -> None:
        if not self._layers(trainer):
            raise ValueError(
                f"No layer of the {type(unwrap(trainer.network)).__name__} predicts shifts: leave out ShiftHandler, or "
                "train a network with Cross-D layers."
            )
        if self.log_dir is not None and self.summary_writer is None and idist.get_rank() == 0:
            self.summary_writer = self._writer_class(str(self.log_dir))

    def _start_epoch(self, trainer: Engine) -> None:
        epoch = trainer.state.epoch
        if epoch > 1 and not self.rows and self.csv_path.is_file():
            self.rows = read_shifts(self.csv_path)
        self.rows = [row for row in self.rows if row.epoch < epoch]
        self._unhook()
        for name, layer in self._layers(trainer).items():
            self._histograms[name] = ShiftHistogram(layer.max_angle)
            assert layer.predictor is not None
            self._hooks.append(layer.predictor.register_forward_hook(partial(self._keep, name, layer.max_angle)))

    def _keep(self, name: str, max_angle: float, predictor: nn.Module, _: Any, rotation_map: Tensor) -> None:
        if predictor.training:  # and not while the trainer validates
            self._batch.append((name, shift_from_map(rotation_map.detach(), max_angle)))

    def _count(self, _: Engine) -> None:
        if not self._batch:
            return
        names, shifts = zip(*self._batch, strict=True)
        sizes = [len(shift) for shift in shifts]
        for name, shift in zip(names, torch.cat(shifts).cpu().split(sizes), strict=True):  # one copy for all layers
            self._histograms[name].add(shift)
        self._batch = []

    def _end_epoch(self, trainer: Engine) -> None:
        self._unhook()
        for name, histogram in self._histograms.items():
            histogram.merge()
            self.rows += histogram.summary(trainer.state.epoch, name)
        if idist.get_rank() == 0:
            write_csv(self.csv_path, ShiftSummary._fields, self.rows)
            if self.summary_writer is not None:
                for name, histogram in self._histograms.items():
                    histogram.log(self.summary_writer, f"shift/{name}", trainer.state.epoch)

    def _finish(self, _: Engine) -> None:
        # a run that was ended within an epoch still shows the epochs before
        self._unhook()
        if idist.get_rank() != 0:
            return
        if self.rows:
            draw_shifts(self.csv_path, self.png_path)
        if self.log_dir is not None and self.summary_writer is not None:
            self.summary_writer.close()
            self.summary_writer = None

    def _unhook(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()
