# SPDX-License-Identifier: Apache-2.0
"""A line per epoch while training, its table, and its curves at the end."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.config import PathLike
from monai.engines import Evaluator

from ..visualize import save_curves
from ..visualize.figures import need_matplotlib
from .scores import write_csv

__all__ = [
    "HistoryHandler",
    "Rows",
    "as_curves",
    "class_scores",
    "format_epoch",
    "format_seconds",
    "read_history",
    "write_history",
]

Rows = dict[int, dict[str, float]]  # epoch -> column -> value


def write_history(path: PathLike, rows: Mapping[int, Mapping[str, float]]) -> Path:
    """Writes the table under a temporary name and moves it into place.

    Args:
        path: of the CSV; missing folders are made.
        rows: values by epoch and column; what an epoch lacks stays empty.

    Returns:
        ``path``.

    Raises:
        OSError: When it cannot be written, with the free space of its disk.
    """
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = ((epoch, *(row.get(name, "") for name in columns)) for epoch, row in sorted(rows.items()))
    return write_csv(path, ["epoch", *columns], lines)


def read_history(path: PathLike) -> Rows:
    """Reads what :func:`write_history` wrote.

    Args:
        path: of the CSV.

    Returns:
        Values by epoch and column.

    Raises:
        ValueError: When the file is no such table.
    """
    rows: Rows = {}
    with Path(path).open(newline="", encoding="utf-8") as file:
        try:
            for line in csv.DictReader(file):
                epoch = int(line.pop("epoch"))
                rows[epoch] = {name: float(value) for name, value in line.items() if value != ""}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no training history ({error!r}): remove or rename it.") from error
    return rows


def as_curves(rows: Mapping[int, Mapping[str, float]]) -> dict[str, list[tuple[int, float]]]:
    """Turns the table into what :func:`monai_crossd.visualize.save_curves` draws; the seconds are left out.

    Args:
        rows: values by epoch and column.

    Returns:
        (epoch, value) pairs by column.

    >>> as_curves({1: {"train_loss": 0.9, "seconds": 3.0}, 2: {"train_loss": 0.7, "val_mean_dice": 0.4}})
    {'train_loss': [(1, 0.9), (2, 0.7)], 'val_mean_dice': [(2, 0.4)]}
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for epoch, row in sorted(rows.items()):
        for name, value in row.items():
            if name != "seconds":
                curves.setdefault(name, []).append((epoch, value))
    return curves


logger = logging.getLogger(__name__)

MINUTE = 60.0  # at most this long nothing is said while iterations go on


def _count(engine: Engine | None) -> int | None:
    """Number of items that an engine of MONAI reads, where it can be told."""
    dataset = getattr(getattr(engine, "data_loader", None), "dataset", None)
    items = getattr(dataset, "data", None)
    return len(items) if isinstance(items, Sequence) else None


def class_scores(evaluator: Engine, labels: Mapping[int, str]) -> dict[str, float]:
    """Scores of the evaluator's key metric per class, averaged over the cases in which the class exists.

    Args:
        evaluator: after a run; its key metric was made with ``save_details=True``, so that
            ``state.metric_details`` holds a score per case and class (N, C).
        labels: names by class number; C is their number, or one less when the metric leaves out the background.

    Returns:
        ``{"<metric>/<name>": score}``; nan for a class that no case holds.

    Raises:
        ValueError: When the details are missing or are not of these classes.
    """
    metric = evaluator.state.key_metric_name
    details = getattr(evaluator.state, "metric_details", {}).get(metric)
    if details is None:
        raise ValueError(f"Metric {metric!r} keeps no scores per class: give it save_details=True, or give no labels.")
    names = [name for _, name in sorted(labels.items())]
    if details.ndim != 2 or details.shape[1] not in (len(names), len(names) - 1):
        raise ValueError(
            f"Metric {metric!r} has scores of shape {tuple(details.shape)}; expected (cases, {len(names)}), or "
            f"one class less without the background, for the labels {names}."
        )
    scores = torch.nanmean(details.float(), dim=0).tolist()
    return {f"{metric}/{name}": score for name, score in zip(names[-len(scores) :], scores, strict=True)}


def format_seconds(seconds: float) -> str:
    """A span of time for people.

    >>> [format_seconds(seconds) for seconds in (4.21, 59.97, 61, 5400)]
    ['4.2 s', '1 min', '1 min', '1 h 30 min']
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def format_epoch(epoch: int, max_epochs: int, row: Mapping[str, float]) -> str:
    """One line for people.

    Args:
        epoch: that has ended.
        max_epochs: of the run.
        row: its values by column.

    >>> row = {"train_loss": 0.51234, "val_mean_dice": 0.8, "val_mean_dice/ribs": float("nan"), "seconds": 4.21}
    >>> format_epoch(3, 20, row)
    'epoch  3/20  train_loss 0.5123  val_mean_dice 0.8000 (ribs -)  4.2 s'
    """
    parts = [f"epoch {epoch:{len(str(max_epochs))}}/{max_epochs}"]
    for name, value in row.items():
        if "/" in name or name == "seconds":
            continue
        part = f"{name} {value:.4f}"
        classes = {n.partition("/")[2]: v for n, v in row.items() if n.startswith(f"{name}/")}
        if classes:
            part += f" ({', '.join(f'{n} -' if math.isnan(v) else f'{n} {v:.3f}' for n, v in classes.items())})"
        parts.append(part)
    return "  ".join([*parts, f"{row['seconds']:.1f} s"])


class HistoryHandler:
    """Prints a line per epoch, keeps ``history.csv`` up to date and draws ``curves.png`` at the end.

    Before the first line it says what the run is going to do, with the lines the time left, and within an epoch of
    minutes how far it is.

    Attach it to the trainer, before or after its ValidationHandler. A row is closed after everything else at the end of
    an epoch except :class:`ResumeHandler`'s checkpoint. A resumed run keeps the rows of the epochs before it.

    Args:
        output_dir: folder of the two files.
        evaluator: whose metrics are recorded whenever it has run; only numbers are.
        labels: names by class number, to record the evaluator's key metric per class too (see :func:`class_scores`).

    Raises:
        OptionalImportError: When matplotlib is not installed; at once, not after the training.

    Example:
        .. code-block:: yaml

            handlers:
            - _target_: monai_crossd.training.HistoryHandler
              output_dir: "@output_dir"
              evaluator: "@validate#evaluator"
              labels: "@labels"
    """

    def __init__(
        self, output_dir: PathLike, evaluator: Evaluator | None = None, labels: Mapping[int, str] | None = None
    ) -> None:
        need_matplotlib("matplotlib.figure")
        self.csv_path = Path(output_dir) / "history.csv"
        self.curves_path = Path(output_dir) / "curves.png"
        self.evaluator = evaluator
        self.labels = labels
        self.rows: Rows = {}
        self._losses: list[float] = []
        self._started = self._said = 0.0
        self._seconds: list[float] = []  # of the epochs of this run

    def attach(self, trainer: Engine) -> None:
        """Registers the handlers.

        Args:
            trainer: a MONAI trainer.
        """
        trainer.add_event_handler(Events.STARTED, self._start)
        trainer.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._add_loss)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        trainer.add_event_handler(Events.COMPLETED, self._finish)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._add_metrics, trainer)

    def _start(self, trainer: Engine) -> None:
        # registered only now, to come after validation
        if not trainer.has_event_handler(self._close, Events.EPOCH_COMPLETED):
            trainer.add_event_handler(Events.EPOCH_COMPLETED, self._close)
        if idist.get_rank() == 0:
            logger.info(self._plan(trainer))

    def _plan(self, trainer: Engine) -> str:
        """What the run is going to do."""
        items = [_count(engine) for engine in (trainer, self.evaluator)]
        parts = [
            f"{word} on {count} items" for word, count in zip(("training", "validating"), items, strict=True) if count
        ]
        state = trainer.state
        epochs = f"epochs {state.epoch + 1} to {state.max_epochs}" if state.epoch else f"{state.max_epochs} epochs"
        device = f" on {state.device}" if hasattr(state, "device") else ""
        return f"{', '.join(parts) or 'training'}: {epochs} of {state.epoch_length} iterations{device}"

    def _start_epoch(self, trainer: Engine) -> None:
        epoch = trainer.state.epoch
        if epoch > 1 and 1 not in self.rows and self.csv_path.is_file():
            past = {e: row for e, row in read_history(self.csv_path).items() if e < epoch}
            self.rows = {**self.rows, **past}
        self._losses = []
        self._started = self._said = time.perf_counter()

    def _add_loss(self, trainer: Engine) -> None:
        output = trainer.state.output  # of the batch, or a list of its samples where the engine decollates
        loss = (output if isinstance(output, dict) else output[0])["loss"]  # a tensor, or a number where it decollates
        self._losses.append(torch.as_tensor(loss).detach().item())
        now = time.perf_counter()
        if now - self._said > MINUTE and idist.get_rank() == 0:
            done, total = len(self._losses), trainer.state.epoch_length
            left = (now - self._started) / done * ((total or done) - done)
            at = f"{trainer.state.epoch}/{trainer.state.max_epochs}"
            logger.info("epoch %s: %d of %s iterations, about %s left of them", at, done, total, format_seconds(left))
            self._said = now

    def _end_epoch(self, trainer: Engine) -> None:
        # validation may have come first: the loss leads its row all the same
        row = self.rows.get(trainer.state.epoch, {})
        self.rows[trainer.state.epoch] = {"train_loss": sum(self._losses) / len(self._losses), **row}

    def _add_metrics(self, evaluator: Engine, trainer: Engine) -> None:
        row = self.rows.setdefault(trainer.state.epoch, {})
        row.update({name: float(v) for name, v in evaluator.state.metrics.items() if isinstance(v, (int, float))})
        if self.labels:
            row.update(class_scores(evaluator, self.labels))

    def _close(self, trainer: Engine) -> None:
        row = self.rows[trainer.state.epoch]
        row["seconds"] = time.perf_counter() - self._started
        self._seconds.append(row["seconds"])
        if idist.get_rank() == 0:
            left = (trainer.state.max_epochs - trainer.state.epoch) * sum(self._seconds) / len(self._seconds)
            line = format_epoch(trainer.state.epoch, trainer.state.max_epochs, row)
            print(f"{line}, about {format_seconds(left)} left" if left else line, flush=True)
            write_history(self.csv_path, self.rows)

    def _finish(self, _: Engine) -> None:
        # a run that was ended within an epoch still shows the epochs before
        if self.rows and idist.get_rank() == 0:
            save_curves(self.curves_path, as_curves(self.rows))
