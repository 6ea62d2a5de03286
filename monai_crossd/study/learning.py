# SPDX-License-Identifier: Apache-2.0
"""How every contender learns: one schedule, one augmentation, one treatment of batch norms."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.utils import optional_import
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from ..training import set_trainable

make_pipeline, _ = optional_import("sklearn.pipeline", name="make_pipeline")
StandardScaler, _ = optional_import("sklearn.preprocessing", name="StandardScaler")
LogisticRegression, _ = optional_import("sklearn.linear_model", name="LogisticRegression")

__all__ = ["Schedule", "augment", "endless_batches", "fine_tune", "fit", "learn", "predict", "recalibrate"]

EVAL_BATCH = 64
BESIDE_BATCH = 32  # images in a hybrid step


class Schedule(NamedTuple):
    """A training by AdamW with a one-cycle learning rate.

    Attributes:
        epochs: over the training items.
        learning_rate: highest one of the cycle.
        batch_size: items per step; a smaller last batch is left out.
        weight_decay: of AdamW.
        label_smoothing: of the cross-entropy.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    weight_decay: float = 0.01
    label_smoothing: float = 0.05


def augment(batch: Tensor, generator: torch.Generator, move: bool = True) -> Tensor:
    """Moves each item by up to a sixteenth of its size within the slice, and changes contrast and brightness.

    The border is continued where it moves in; contrast by up to 10 %, brightness by up to 0.1. On the batch, because a
    study trains hundreds of networks, and per item it would take longer than they do.

    Args:
        batch: (B, C, H, W) or (B, C, H, W, D), intensities about -1 to 1.
        generator: of the CPU.
        move: without it only contrast and brightness change.
    """
    count, most = len(batch), [max(1, size // 16) if move else 0 for size in batch.shape[2:4]]
    moves = torch.stack([torch.randint(-m, m + 1, (count,), generator=generator) for m in most])
    contrast, brightness = torch.rand(2, count, generator=generator) * 2 - 1
    rows, columns = (
        (torch.arange(size) + move[:, None]).clamp(0, size - 1).to(batch.device)
        for size, move in zip(batch.shape[2:4], moves, strict=True)
    )
    sample = torch.arange(count, device=batch.device)[:, None, None]
    # indices around a slice put the channels behind them: (B, H, W, C, ...) back to (B, C, H, W, ...)
    moved = batch.movedim(1, 3)[sample, rows[:, :, None], columns[:, None, :]].movedim(3, 1)
    shape = (count, *[1] * (batch.dim() - 1))
    return moved * (1 + 0.1 * contrast).view(shape).to(batch) + (0.1 * brightness).view(shape).to(batch)


def _batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    size = min(size, count)
    yield from torch.randperm(count, generator=generator)[: count // size * size].split(size)


def _step(
    loss: Tensor, optimizer: torch.optim.Optimizer, cycle: torch.optim.lr_scheduler.LRScheduler, when: str
) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss.item()} in {when}: lower the learning rate.")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    cycle.step()


def fit(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    schedule: Schedule,
    seed: int,
    beside: tuple[nn.Module, Tensor, Tensor] | None = None,
) -> None:
    """Trains what can learn of a network in train mode, in place; a seed gives the same batches to every network.

    The loss of a network `beside` on its images and labels is added in every step; parameters that both have learn from
    both.

    Raises:
        FloatingPointError: If the loss is no longer finite.
    """
    generator = torch.Generator().manual_seed(seed)
    networks = nn.ModuleList([network] if beside is None else [network, beside[0]])  # shared parameters count once
    optimizer = torch.optim.AdamW(
        [p for p in networks.parameters() if p.requires_grad],
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
    )
    steps = schedule.epochs * len(list(_batches(len(images), schedule.batch_size, torch.Generator())))
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.learning_rate, total_steps=steps)
    loss_function = nn.CrossEntropyLoss(label_smoothing=schedule.label_smoothing)
    for epoch in range(schedule.epochs):
        for index in _batches(len(images), schedule.batch_size, generator):
            loss = loss_function(network(augment(images[index], generator)), labels[index])
            if beside is not None:
                other = torch.randint(len(beside[1]), (BESIDE_BATCH,), generator=generator)
                loss = loss + loss_function(beside[0](augment(beside[1][other], generator)), beside[2][other])
            _step(loss, optimizer, cycle, f"epoch {epoch + 1}")


def endless_batches(groups: Sequence[Tensor], size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches without an end, from groups by turns: of a group every index once, then again in another order.

    All groups, such as the indices of a class each, are seen equally often, whatever their sizes.
    """

    def endless(group: Tensor) -> Iterator[Tensor]:
        while True:
            yield from group[torch.randperm(len(group), generator=generator)]

    sources = [endless(group) for group in groups]
    number = 0
    while True:
        yield torch.stack([next(sources[(number + at) % len(groups)]) for at in range(size)])
        number += size


def learn(
    network: nn.Module,
    draw: Callable[[], tuple[Tensor, Tensor]],
    loss_function: Callable[[Tensor, Tensor], Tensor],
    iterations: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    carried: Collection[str] = (),
    carried_rate: float = 1.0,
    frozen_steps: int = 0,
) -> None:
    """Trains a network for a number of steps, in place, by AdamW with a one-cycle learning rate.

    Args:
        network: on the device of what is drawn; it is left in train mode.
        draw: gives images and labels of a step.
        loss_function: of outputs and labels.
        iterations: number of steps.
        learning_rate: highest one of the cycle, of layers that are new.
        weight_decay: of AdamW.
        carried: names of parameters that come from 2D.
        carried_rate: their learning rate as a part of that of the others.
        frozen_steps: for so many steps at first they do not learn.

    Raises:
        FloatingPointError: If the loss is no longer finite.
    """
    named = dict(network.named_parameters())
    sides = [[p for n, p in named.items() if (n in carried) == side] for side in (False, True)]
    rates = [learning_rate, learning_rate * carried_rate]
    learning = [(side, rate) for side, rate in zip(sides, rates, strict=True) if side and rate]
    groups = [{"params": side, "lr": rate} for side, rate in learning]
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, [rate for _, rate in learning], total_steps=iterations)
    network.train()
    for step in range(iterations):
        if step in (0, frozen_steps):
            for parameter in sides[1]:
                parameter.requires_grad_(step >= frozen_steps and rates[1] > 0)
        images, labels = draw()
        loss = loss_function(network(images), labels)
        _step(loss, optimizer, cycle, f"step {step + 1}")


@torch.no_grad()
def predict(network: nn.Module, images: Tensor) -> Tensor:
    """What a network in eval mode says of all images, on the CPU."""
    network.eval()
    return torch.cat([network(batch) for batch in images.split(EVAL_BATCH)]).cpu()


def recalibrate(network: nn.Module, images: Tensor, batch_size: int, seed: int) -> None:
    """Sets the running statistics of all batch norms to those of the training images, for every contender alike.

    A kernel that was inflated sums other values than it did in 2D, so statistics of images do not fit.
    """
    order = _batches(len(images), batch_size, torch.Generator().manual_seed(seed))
    update_bn([images[index] for index in order], network)


def _probe(network: nn.Module, images: Tensor, labels: Tensor, test: Tensor) -> np.ndarray:
    """Classes by logistic regression on the features in front of the last layer."""
    network.fc = nn.Identity()
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    classifier.fit(predict(network, images).numpy(), labels.cpu().numpy())
    return classifier.predict(predict(network, test).numpy())


def fine_tune(
    network: nn.Module,
    mode: str,
    images: Tensor,
    labels: Tensor,
    test: Tensor,
    schedule: Schedule,
    seed: int,
    beside: tuple[nn.Module, Tensor, Tensor] | None = None,
) -> np.ndarray:
    """Trains a pretrained network on labelled images or volumes and classifies others.

    Args:
        network: with a last layer `fc`, on the device of the images; it is changed.
        mode: "linear_probe": its features stay, a logistic regression is fitted to them. "weak_probe": norms and linear
            layers learn, see :func:`monai_crossd.training.set_trainable`. "full": everything learns.
        images: (N, C, ...) to learn from.
        labels: (N,).
        test: (M, C, ...) to classify.
        schedule: of "weak_probe" and "full".
        seed: of order and augmentation.
        beside: of :func:`fit`.

    Returns:
        Classes (M,).
    """
    recalibrate(network, images, schedule.batch_size, seed)
    if mode == "linear_probe":
        return _probe(network, images, labels, test)
    set_trainable(network, mode)
    fit(network, images, labels, schedule, seed, beside)
    return predict(network, test).argmax(1).numpy()
