# SPDX-License-Identifier: Apache-2.0
"""A one-cycle schedule that starts again when it is over."""

from __future__ import annotations

from torch.optim.lr_scheduler import OneCycleLR

__all__ = ["RepeatedOneCycleLR"]


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
