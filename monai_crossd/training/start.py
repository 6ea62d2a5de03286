# SPDX-License-Identifier: Apache-2.0
"""Weights that a bundle's training starts from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from monai.config import PathLike
from torch import nn

from .._options import look_up_option
from ..conv.from_2d import INFLATIONS
from ..transfer import TransferError, TransferReport, load_2d, read_checkpoint
from ..transfer.load_2d import part_of
from .trained import plain, read_trained

logger = logging.getLogger(__name__)

__all__ = ["start_from"]


def start_from(
    network: nn.Module,
    path: PathLike | None,
    labels: Mapping[int, str] | Sequence[str] | None = None,
    inflate: str = "center",
    part: str | None = None,
) -> TransferReport | None:
    """Fills a network, in 2D or 3D, from the weights of a 2D one, plain or Cross-D, and logs what went over.

    Kernels of plain convolutions fill Cross-D layers so that the output stays what it was; plain ones take the kernels
    of Cross-D layers at their running shift. The head, a layer of that name or the last linear one, stays as it is
    where the weights were trained with other labels, as the .json of their name beside them says, with another number
    of classes, or without such a layer.

    Args:
        network: To fill in place.
        path: File of a state_dict; None leaves the network as it is (from scratch).
        labels: Names of the network's classes; None takes them for those of the file.
        inflate: How plain 3D kernels are filled, as in :func:`monai_crossd.load_2d`.
        part: Path of a part of the network, such as "encoder", which is filled alone where the file is of that part and
            not of a whole network.

    Returns:
        What went over, key by key; None from scratch.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint, or does not fill the network, or for an unknown `inflate`; nothing is
            loaded then.

    Example:
        .. code-block:: yaml

            start:
            - "$monai_crossd.training.start_from(@network_def, @weights_2d, @labels)"
    """
    look_up_option(inflate, INFLATIONS)
    if path is None:
        logger.info("no weights to start from: the network starts from scratch")
        return None
    state = read_checkpoint(path)
    whole, network = network, part_of(network, state, part)
    head = _head(network) if network is whole else []  # a part gives no classes
    known = read_trained(path).get("labels")
    other = bool(head) and known is not None and labels is not None and _names(known) != _names(plain(labels))
    try:
        report = load_2d(network, state, inflate, exclude=head if other else ())
    except TransferError as error:
        if other or not head:
            raise
        try:  # of another number of classes, or a trunk alone
            other, report = True, load_2d(network, state, inflate, exclude=head)
        except TransferError:
            raise error from None
    logger.info("from %s: %s", path, report.summary())
    if other:
        logger.info("%s of other classes: new weights in %s", path, ", ".join(head))
    return report


def _names(labels: Sequence[str]) -> list[str]:
    return [name.casefold() for name in labels]  # data sets write "Liver" and "liver"


def _head(network: nn.Module) -> list[str]:
    """Keys of the layer that gives the classes."""
    modules = dict(network.named_modules())
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)][-1:]
    return [
        f"{name}.{key}" for name in (["head"] if "head" in modules else linear) for key in modules[name].state_dict()
    ]
