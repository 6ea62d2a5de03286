# SPDX-License-Identifier: Apache-2.0
"""Gradients of a formula inside the backward of a Function that has its own, where those do not do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def formula_gradients(
    formula: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Gradients of formula(*inputs) for those inputs that need one, recorded if the backward itself is (create_graph).

    Args:
        formula: gives one output or several.
        inputs: its tensors, as the Function saved them.
        needed: whether each needs a gradient.
        grads: gradient of each output, None where it has none.
    """
    record = torch.is_grad_enabled()
    with torch.enable_grad():
        # aliases: one input may have been computed from another, and that way is not the formula's
        aliases = [None if t is None else t.view_as(t) for t in inputs]
        outputs = formula(*aliases)
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        pairs = [(y, g) for y, g in zip(outputs, grads, strict=True) if g is not None]
        wanted = [t for t, need in zip(aliases, needed, strict=True) if need and t is not None]
        found = iter(
            torch.autograd.grad([y for y, _ in pairs], wanted, [g for _, g in pairs], create_graph=record)
            if wanted
            else ()
        )
    return [next(found) if need else None for need in needed]
