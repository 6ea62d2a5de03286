# SPDX-License-Identifier: Apache-2.0
"""A trainer of one network on images and volumes, and what trainers are given: plain batches, a schedule."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents, default_prepare_batch
from monai.utils import CommonKeys
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import SequentialSampler

from .._options import look_up_option
from .epoch_seed import epoch_seed, seed_loader

__all__ = ["SCHEDULES", "HybridTrainer", "RepeatedOneCycleLR", "prepare_plain_batch"]

SCHEDULES = ("mixed", "alternate")
REFUSED = ("accumulation_steps", "compile", "compile_kwargs", "iteration_update", "optim_set_to_none")


class HybridTrainer(SupervisedTrainer):
    """MONAI's SupervisedTrainer on two sources of data: every batch of volumes goes with a batch of images.

    "mixed" takes one optimizer step down the gradient of w₂ L₂(images) + w₃ L₃(volumes); "alternate" takes one down
    w₂ L₂ and then one down w₃ L₃, and what a step does not use, such as the other dimension's norms, it leaves alone.
    The volumes make the epoch. Images are loaded over and over, from the start in every epoch; with
    :class:`EpochSeed`, their order and random transforms in an epoch are always the same, so that a run can be resumed.

    All handlers work as with MONAI's trainer. Of an iteration, ``state.output`` holds "image", "label" and "pred" of
    the volumes, their losses "loss_2d" and "loss_3d" and the weighted sum "loss". Events around the forward and
    backward pass are fired in each step; in one on images alone, the output is theirs.

    Args:
        device: to train on.
        max_epochs: number of epochs.
        train_data_loader: of volumes.
        train_data_loader_2d: of images, shuffled, or with a DistributedSampler of its own.
        network: a :class:`monai_crossd.networks.HybridNet`, or its DistributedDataParallel, for "alternate" with
            ``find_unused_parameters=True``.
        optimizer: of the network's parameters.
        loss_function: of volumes.
        loss_function_2d: of images; the same by default.
        schedule: "mixed" or "alternate".
        loss_weights: w₂ of the images and w₃ of the volumes, above 0.
        **options: of SupervisedTrainer, but for accumulation_steps, compile, compile_kwargs, iteration_update and
            optim_set_to_none.

    Raises:
        ValueError: When an argument does not fit; in the first iteration, when there are no images.
        TypeError: For an option that it does not have.

    Example:
        .. code-block:: yaml

            trainer:
              _target_: monai_crossd.training.HybridTrainer
              max_epochs: 10
              device: "@device"
              train_data_loader: "@train#dataloader"
              train_data_loader_2d: "@train_2d#dataloader"
              network: "@hybrid"
              optimizer: "@train#optimizer"
              loss_function: "@train#loss"
              loss_weights: [0.5, 1.0]
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable,
        train_data_loader_2d: Iterable,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_function: Callable[[Tensor, Tensor], Tensor],
        loss_function_2d: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        schedule: str = "mixed",
        loss_weights: Sequence[float] = (1.0, 1.0),
        **options: Any,
    ) -> None:
        self.schedule = look_up_option(schedule, SCHEDULES)
        if len(loss_weights) != 2 or not all(weight > 0 for weight in loss_weights):
            raise ValueError(f"loss_weights are two numbers above 0, of images and volumes, but are {loss_weights}.")
        if refused := [name for name in REFUSED if name in options]:
            raise TypeError(f"HybridTrainer has no option {refused[0]!r}: train without it.")
        wrapped = isinstance(network, DistributedDataParallel)
        if wrapped and self.schedule == "alternate" and not network.find_unused_parameters:
            raise ValueError(
                "a step on images does not use all of the network: wrap it in DistributedDataParallel with "
                "find_unused_parameters=True, or choose schedule='mixed'."
            )
        self.data_loader_2d = train_data_loader_2d
        self.loss_functions = (loss_function_2d or loss_function, loss_function)
        self.loss_weights = tuple(loss_weights)
        self._images: Iterator[Any] = iter(())
        super().__init__(device, max_epochs, train_data_loader, network, optimizer, loss_function, **options)
        self._check_images()
        self.add_event_handler(Events.EPOCH_STARTED, self._start_images)

    def settings(self) -> dict[str, Any]:
        """What decides the numbers of the run beyond what other trainers have, for :class:`ResumeHandler`."""
        return {
            "image data": self.data_loader_2d,
            "loss of images": self.loss_functions[0],
            "schedule": self.schedule,
            "loss_weights": self.loss_weights,
        }

    def _check_images(self) -> None:
        loader: Any = self.data_loader_2d
        length = self.state.epoch_length
        ordered = isinstance(getattr(loader, "sampler", None), SequentialSampler)
        if ordered and length is not None and len(loader) > length:
            raise ValueError(
                f"an epoch has {length} batches of volumes and the images, {len(loader)} batches, start anew in each: "
                "those after would never be seen. Give the loader of images shuffle=True."
            )
        if getattr(loader, "persistent_workers", False):
            raise ValueError(
                "The workers of the images' loader keep their random state from epoch to epoch: give the loader "
                "persistent_workers=False."
            )

    def _start_images(self, _: Engine) -> None:
        self._images = self._load_images()  # which runs only when the first batch is asked for: after EpochSeed

    def _load_images(self) -> Iterator[Any]:
        """Batches of images of one epoch, over and over."""
        loader: Any = self.data_loader_2d
        sampler: Any = getattr(loader, "sampler", None)
        for number in itertools.count():
            seed = int(torch.randint(2**31, ()))
            seed_loader(loader, seed)
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch_seed(self.state.epoch, number))  # the same in all processes
            batch = None
            for batch in loader:
                yield batch
            if batch is None:
                raise ValueError(
                    "The loader of images has no batches: its data set is empty, or smaller than a batch with "
                    "drop_last on. Give it images, or a smaller batch size."
                )

    def _step(self, sources: Sequence[tuple[Tensor, Tensor]], which: Sequence[int]) -> list[Tensor]:
        """One optimizer step on the images (0), the volumes (1) or both; returns their losses."""
        inputs, targets = zip(*(sources[i] for i in which), strict=True)
        output: dict[str, Any] = {CommonKeys.IMAGE: inputs[-1], CommonKeys.LABEL: targets[-1]}
        self.state.output = output
        self.optimizer.zero_grad(set_to_none=True)  # a gradient of 0 would let momentum and decay move what is unused
        scaler = self.scaler if self.amp else None
        with nullcontext() if scaler is None else torch.autocast(self.state.device.type, **self.amp_kwargs):
            # both in one forward: DistributedDataParallel counts on one forward for each backward
            found = self.inferer(inputs[0] if len(inputs) == 1 else inputs, self.network)
            predictions = [found] if len(inputs) == 1 else found
            output[CommonKeys.PRED] = predictions[-1]
            self.fire_event(IterationEvents.FORWARD_COMPLETED)
            losses = [self.loss_functions[i](p, t).mean() for i, p, t in zip(which, predictions, targets, strict=True)]
            loss: Any = sum(self.loss_weights[i] * value for i, value in zip(which, losses, strict=True))
            output[CommonKeys.LOSS] = loss
            self.fire_event(IterationEvents.LOSS_COMPLETED)
        if scaler is None:
            loss.backward()
            self.fire_event(IterationEvents.BACKWARD_COMPLETED)
            self.optimizer.step()
        else:
            scaler.scale(loss).backward()
            self.fire_event(IterationEvents.BACKWARD_COMPLETED)
            scaler.step(self.optimizer)
            scaler.update()
        return [value.detach() for value in losses]

    def _iteration(self, engine: SupervisedTrainer, batchdata: Any) -> dict:
        """One batch of volumes and one of images."""
        sources = [
            self.prepare_batch(batch, self.state.device, self.non_blocking, **self.to_kwargs)
            for batch in (next(self._images), batchdata)
        ]
        self.network.train()
        losses: list[Tensor] = []
        for which in [(0, 1)] if self.schedule == "mixed" else [(0,), (1,)]:
            losses += self._step(sources, which)
        loss = sum(weight * value for weight, value in zip(self.loss_weights, losses, strict=True))
        self.state.output.update({CommonKeys.LOSS: loss, "loss_2d": losses[0], "loss_3d": losses[1]})
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        output: dict = self.state.output
        return output


def prepare_plain_batch(
    batchdata: Any, device: str | torch.device | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """MONAI's way to prepare a batch, with plain tensors in place of MetaTensors.

    Each operation on a MetaTensor is a call of Python, and torch warns of the gradients of some. The meta stays
    where it is needed: in ``engine.state.batch``, and in what SlidingWindowInferer makes, which takes it off itself.

    Args:
        batchdata: as MONAI's trainers and evaluators get it.
        device: that the tensors are moved to.
        non_blocking: of ``Tensor.to``.
        **kwargs: others of ``Tensor.to``.

    Returns:
        Image, and label or None.

    Example:
        >>> from monai.data import MetaTensor
        >>> image, label = prepare_plain_batch({"image": MetaTensor(torch.zeros(1, 1, 4, 4)), "label": torch.zeros(1)})
        >>> type(image).__name__, type(label).__name__
        ('Tensor', 'Tensor')
    """
    image, label = default_prepare_batch(batchdata, device, non_blocking, **kwargs)
    return image.as_subclass(torch.Tensor), None if label is None else label.as_subclass(torch.Tensor)


class RepeatedOneCycleLR(OneCycleLR):
    """torch's OneCycleLR, which raises an error after its last step; this one begins the next cycle.

    A federated client trains for as many rounds as the server wants, and a round is a cycle unless ``epochs``
    says otherwise.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
        >>> schedule = RepeatedOneCycleLR(optimizer, max_lr=1.0, total_steps=4)
        >>> rates = []
        >>> for _ in range(8):
        ...     rates.append(round(optimizer.param_groups[0]["lr"], 3))
        ...     _ = optimizer.step()
        ...     schedule.step()
        >>> rates
        [0.04, 0.812, 0.283, 0.0, 0.04, 0.812, 0.283, 0.0]
    """

    def get_lr(self) -> list:
        """Learning rates of the step, counted from the start of its cycle."""
        step = self.last_epoch
        self.last_epoch = step % self.total_steps
        try:
            return super().get_lr()
        finally:
            self.last_epoch = step
