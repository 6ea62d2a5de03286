# SPDX-License-Identifier: Apache-2.0
"""Which parameters learn when a network is fine-tuned."""

from __future__ import annotations

import logging
from functools import partial
from typing import NamedTuple

from torch import nn

from .._options import look_up_option
from ..networks.hybrid_net import NORMS

logger = logging.getLogger(__name__)

__all__ = ["FINETUNE_MODES", "Trainable", "set_trainable"]

FINETUNE_MODES = ("full", "weak_probe", "linear_probe")


class Trainable(NamedTuple):
    """How much of a network learns.

    Attributes:
        mode: one of :data:`FINETUNE_MODES`.
        values: number of parameter values that learn.
        total: number of all.
    """

    mode: str
    values: int
    total: int

    def __str__(self) -> str:
        return f"{self.mode}: {self.values:,} of {self.total:,} parameter values learn ({self.values / self.total:.1%})"


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """Stands in for ``module.train`` where it must not leave eval mode; a function here, so that it pickles."""
    return nn.Module.train(module, False)


def set_trainable(network: nn.Module, mode: str = "full", part: str = "") -> Trainable:
    """Freezes a network in place, but for what learns, and leaves it in train mode.

    - "full": everything learns.
    - "weak_probe": of ``part``, the affine parameters of its norms (batch, instance, group, layer) and its linear
      layers learn. It stays in train mode: batch norm's running statistics follow the data, and so does the running
      shift of Cross-D layers, whose predictor has a batch norm too.
    - "linear_probe": of ``part``, nothing learns, and it stays in eval mode whatever ``train()`` says: neither running
      statistics nor running shifts move, and dropout is off. Without ``part``, the last linear layer of the network
      learns.

    What is outside of ``part`` always learns. Frozen parameters get no gradient, so optimizers skip them, weight decay
    included. Call it before the network is wrapped in DistributedDataParallel; another call undoes the first.

    References:
        M. C. Yavuz and Y. Yang, Cross-D Conv, 2024 ("weak probing").

    Args:
        network: to change.
        mode: one of :data:`FINETUNE_MODES`.
        part: path of the submodule that was pretrained, such as "encoder"; the whole network by default.

    Returns:
        Count of what learns, which is logged too.

    Raises:
        ValueError: for an unknown mode or part, or if nothing would learn: no norm or linear layer for "weak_probe",
            no linear layer for "linear_probe" (name the pretrained ``part``). The network is unchanged then.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
        >>> print(set_trainable(net, "weak_probe"))
        weak_probe: 18 of 58 parameter values learn (31.0%)
        >>> print(set_trainable(net, "linear_probe"))
        linear_probe: 10 of 58 parameter values learn (17.2%)
        >>> net.train()[1].training
        False
    """
    mode = look_up_option(mode, FINETUNE_MODES)
    try:
        pretrained = network.get_submodule(part)
    except AttributeError as error:
        parts = ", ".join(name for name, _ in network.named_children())
        raise ValueError(f"{type(network).__name__} has no part {part!r}, but {parts} and what is in them.") from error
    learning: list[nn.Module]
    if mode == "full":
        learning = list(pretrained.modules())
    elif mode == "weak_probe":
        learning = [module for module in pretrained.modules() if isinstance(module, (*NORMS, nn.Linear))]
    else:
        heads: list[nn.Module] = [module for module in network.modules() if isinstance(module, nn.Linear)]
        learning = [] if part else heads[-1:]
    frozen = {id(p) for p in pretrained.parameters()}
    frozen -= {id(p) for module in learning for p in module.parameters(recurse=False)}
    parameters = list(network.parameters())
    values = sum(p.numel() for p in parameters if id(p) not in frozen)
    if not values:
        missing = "linear layer" if mode == "linear_probe" else "norm or linear layer with parameters"
        raise ValueError(
            f"With {mode!r} nothing of this {type(network).__name__} would learn: it has no {missing} outside of what "
            'is frozen. Name the pretrained part (part="encoder"), so that the rest learns, or choose "full".'
        )
    for parameter in parameters:
        parameter.requires_grad_(id(parameter) not in frozen)
    for module in network.modules():
        stand_in = vars(module).get("train")
        if isinstance(stand_in, partial) and stand_in.func is _stay_in_eval:
            del module.train
    if mode == "linear_probe":
        setattr(pretrained, "train", partial(_stay_in_eval, pretrained))  # noqa: B010  (mypy: no method is assigned)
    network.train()
    result = Trainable(mode, values, sum(p.numel() for p in parameters))
    logger.info("%s", result)
    return result
