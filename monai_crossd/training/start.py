# SPDX-License-Identifier: Apache-2.0
"""Weights that the training of a 2D classifier starts from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from monai.config import PathLike
from torch import nn

from ..transfer import TransferError, TransferReport, load_2d
from .trained import plain, read_trained

logger = logging.getLogger(__name__)

__all__ = ["start_from"]


def start_from(
    network: nn.Module, path: PathLike | None, labels: Mapping[int, str] | Sequence[str] | None = None
) -> TransferReport | None:
    """Fills a 2D classifier from the weights of another, plain or Cross-D, and logs what went over.

    Kernels of plain convolutions fill Cross-D layers so that the output stays what it was; plain ones take the kernels
    of Cross-D layers at their running shift. The last linear layer stays
    as it is where the weights were trained with other labels, as the ``model.json`` beside them says, or with another
    number of classes.

    Args:
        network: To fill in place.
        path: File of a state_dict; None leaves the network as it is (from scratch).
        labels: Names of the network's classes; None takes them for those of the file.

    Returns:
        What went over, key by key; None from scratch.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint, or does not fill the network; nothing is loaded then.

    Example:
        .. code-block:: yaml

            start:
            - "$monai_crossd.training.start_from(@network_def, @weights_2d, @labels)"
    """
    if path is None:
        logger.info("no weights to start from: the network starts from scratch")
        return None
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1:]
    head = [f"{name}.{key}" for name in linear for key in network.get_submodule(name).state_dict()]
    known = read_trained(path).get("labels")
    other = head and known is not None and labels is not None and known != plain(labels)
    try:
        report = load_2d(network, path, exclude=head if other else ())
    except TransferError as error:
        if other or not error.report.conflicts or not error.report.conflicts.keys() <= set(head):
            raise
        report = load_2d(network, path, exclude=head)  # of another number of classes
    logger.info("from %s: %s", path, report.summary())
    return report
