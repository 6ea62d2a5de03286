# SPDX-License-Identifier: Apache-2.0
"""Goes on with a training that was cut off."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint
from monai.config import PathLike
from monai.engines import Evaluator, SupervisedTrainer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..transfer.checkpoints import read_file
from .checkpoint import network_state, save_checkpoint, unwrap
from .run_config import put_back_config
from .run_settings import first_difference, run_settings

__all__ = ["ResumeHandler"]

_LENGTHS = ("total_steps", "T_max", "total_iters")  # of a learning-rate schedule, in torch's schedulers


def _short(error: Exception) -> str:
    """Text of an error in one line; torch's names every weight."""
    return textwrap.shorten(str(error), 300) or type(error).__name__


def _shapes(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.shape for name, value in state.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        state = read_file(path)
        if not isinstance(state, dict) or "best_metric_epoch" not in state:
            raise ValueError("it is no checkpoint of a training's last epoch")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({_short(error)}): remove it, or train anew with resume: false."
        ) from error
    return state


class ResumeHandler:
    """Writes ``last.pt`` after every epoch and, when asked to, starts from there.

    It holds the network, the optimizer, the learning-rate schedule, the scaler of mixed precision, the epoch, and the
    best validation metric with its epoch, which :class:`BestCheckpoint` and :class:`EarlyStop` go by. It is written
    after all that other handlers do at the end of an epoch, whatever their order, under a temporary name, by the first
    process; all processes read it. With :class:`EpochSeed`, a run that was killed and resumed ends with the weights of
    one that was not.

    It also holds what decides the numbers of the run: seed, network and which of its weights learn, optimizer with
    learning rate and weight decay, schedule, loss, data (items, labels, and parts of their files; they may have moved),
    transforms, batch size, number of processes. A run that is resumed with another value of one of these is refused,
    and the ``config.yaml`` of the run before, which :func:`save_run_config` had replaced, is put back. More epochs are
    allowed where the learning-rate schedule does not span the epochs (OneCycleLR does).

    Args:
        output_dir: folder of the file.
        evaluator: of the validation.
        lr_scheduler: of the optimizer, if there is one.
        resume: start from ``last.pt``; from the beginning where there is none. A run that has finished is not trained
            again.

    Raises:
        ValueError: in ``attach``, when there are no batches to train on or to validate with; at the start, when
            ``last.pt`` cannot be read, or is of a run with other settings; the error names the first that differs.
        FloatingPointError: at the end of an epoch, when the weights are no longer finite.
        OSError: at the end of an epoch, when the file cannot be written; the one before is unharmed.

    Example:
        .. code-block:: yaml

            train:
              handlers:
              - _target_: monai_crossd.training.EpochSeed
                seed: "@seed"
              - _target_: monai_crossd.training.ResumeHandler
                output_dir: "@output_dir"
                evaluator: "@validate#evaluator"
                lr_scheduler: "@train#lr_scheduler"
                resume: "@resume"
    """

    def __init__(
        self,
        output_dir: PathLike,
        evaluator: Evaluator,
        lr_scheduler: LRScheduler | ReduceLROnPlateau | None = None,
        resume: bool = False,
    ) -> None:
        self.path = Path(output_dir) / "last.pt"
        self.evaluator = evaluator
        self.lr_scheduler = lr_scheduler
        self.resume = resume
        self._settings: dict[str, Any] | None = None

    def attach(self, trainer: SupervisedTrainer) -> None:
        """Registers the handlers.

        Args:
            trainer: a MONAI trainer.
        """
        for name, engine in (("training", trainer), ("validation", self.evaluator)):
            if engine.state.epoch_length == 0:
                raise ValueError(
                    f"The {name} has no batches: its data set is empty, or smaller than a batch with drop_last on. "
                    f"Give it items in the section {name!r}, or a smaller batch_size."
                )
        trainer.add_event_handler(Events.STARTED, self._start)
        trainer.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)

    def _start(self, trainer: Engine) -> None:
        if self._settings is None and idist.get_rank() == 0:
            self._settings = run_settings(trainer, self.evaluator.data_loader, self.lr_scheduler)
        if not self.resume or trainer.state.iteration:  # a trainer that is run again goes on by itself
            return
        if not self.path.is_file():
            self._print(f"there is no {self.path}: the training starts from the beginning")
            return
        try:
            state = _read(self.path)
            self._load(trainer, state)
        except Exception:
            put_back_config(self.path.parent)
            raise
        epoch, max_epochs = state["epoch"], trainer.state.max_epochs
        if state["stopped"] or epoch >= max_epochs:
            why = "was ended early" if state["stopped"] else "has finished"
            self._print(f"the training of {self.path} {why}, after epoch {epoch} of {max_epochs}: nothing is trained")
            trainer.terminate()
        else:
            self._print(f"the training goes on after epoch {epoch} of {max_epochs}, from {self.path}")

    def _start_epoch(self, trainer: Engine) -> None:
        # registered only now: after validation, metrics and schedule, and after what others register at the start
        if not trainer.has_event_handler(self._save, Events.EPOCH_COMPLETED):
            trainer.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _save(self, trainer: Engine) -> None:
        if idist.get_rank() != 0:
            return
        state = {
            "network": network_state(trainer.network),
            "optimizer": trainer.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler and self.lr_scheduler.state_dict(),
            "scaler": trainer.scaler and trainer.scaler.state_dict(),
            "classes": self._classes(trainer),
            "epoch": trainer.state.epoch,
            "iteration": trainer.state.iteration,
            "epoch_length": trainer.state.epoch_length,
            "stopped": bool(trainer.should_terminate),
            "best_metric": float(self.evaluator.state.best_metric),
            "best_metric_epoch": self.evaluator.state.best_metric_epoch,
            "settings": self._settings,
        }
        save_checkpoint(state, self.path)

    def _classes(self, trainer: Engine) -> dict[str, str]:
        return {"optimizer": type(trainer.optimizer).__name__, "lr_scheduler": type(self.lr_scheduler).__name__}

    def _load(self, trainer: Engine, state: dict[str, Any]) -> None:
        objects: dict[str, Any] = {"network": trainer.network, "optimizer": trainer.optimizer}
        if self.lr_scheduler is not None:
            objects["lr_scheduler"] = self.lr_scheduler
        if trainer.scaler is not None and state["scaler"]:  # it is empty where mixed precision was off
            objects["scaler"] = trainer.scaler
        try:
            self._check(trainer, state)
            Checkpoint.load_objects(objects, state)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{self.path} is of a run with other settings: {_short(error)} Resume with the settings of its run, or "
                "train anew with resume: false."
            ) from error
        trainer.state.epoch, trainer.state.iteration = state["epoch"], state["iteration"]
        self.evaluator.state.best_metric = state["best_metric"]
        self.evaluator.state.best_metric_epoch = state["best_metric_epoch"]

    def _check(self, trainer: Engine, state: dict[str, Any]) -> None:
        """Compares what torch loads without a word."""
        pairs = [(kind, state["classes"][kind], name) for kind, name in self._classes(trainer).items()]
        pairs.append(("number of batches in an epoch", state["epoch_length"], trainer.state.epoch_length))
        if state["lr_scheduler"] is not None and self.lr_scheduler is not None:
            schedule = self.lr_scheduler.state_dict()
            pairs += [
                (f"lr_scheduler's {name}", state["lr_scheduler"].get(name), schedule[name])
                for name in _LENGTHS
                if name in schedule
            ]
        for what, theirs, ours in pairs:
            if ours is not None and theirs != ours:  # a stream of data has no number of batches yet
                raise ValueError(f"the {what} was {theirs} and is now {ours}.")
        if self._settings is None:  # the first process compares
            return
        if "settings" not in state:
            raise ValueError("it was written by an earlier version, which did not keep them.")
        before, now = state["settings"], self._settings
        if _shapes(unwrap(trainer.network).state_dict()) != _shapes(state["network"]):
            before, now = ({**settings, "network": None} for settings in (before, now))  # torch names the weights
        if found := first_difference(before, now):
            raise ValueError("the {} was {!r} and is now {!r}.".format(*found))

    @staticmethod
    def _print(line: str) -> None:
        if idist.get_rank() == 0:
            print(line, flush=True)
