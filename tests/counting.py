# SPDX-License-Identifier: Apache-2.0
"""Counts what eager execution sends to a device: every operation that is not a view."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class CountOperations(TorchDispatchMode):
    """Names of the operations dispatched inside the block, views left out."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def count_operations(function, *inputs) -> tuple[list[str], list[str]]:
    """Operations of a forward pass, and of the backward pass with respect to every leaf, on the second call."""
    function(*inputs).sum().backward()  # fills what is kept, and the gradients
    with CountOperations() as counter:
        y = function(*inputs)
    forward, cotangent = counter.names, torch.ones_like(y)
    with CountOperations() as counter:
        y.backward(cotangent)
    return forward, counter.names
