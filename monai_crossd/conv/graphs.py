# SPDX-License-Identifier: Apache-2.0
"""Who runs the operations: nobody but Python, or a compiler, a tracer, an exporter; and what each of them needs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes

# torch 2.7 is the first with is_exporting
_torch_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def is_exporting() -> bool:
    """Whether torch.export or torch.onnx, of either exporter, records a graph: it is used with other shapes."""
    return torch.onnx.is_in_onnx_export() or _torch_is_exporting()


def is_compiled() -> bool:
    """Whether a graph is recorded to be run in this process, by torch.compile."""
    return torch.compiler.is_compiling() and not is_exporting()


def is_eager() -> bool:
    """Whether operations just run: nobody compiles, traces, fakes, or transforms them in a way a Function ignores."""
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None
    )


def in_graph() -> bool:
    """Whether a graph is recorded by tracing or export: a branch on a shape would be decided by the example's."""
    if not torch.jit.is_scripting():
        return torch.jit.is_tracing() or is_exporting()
    return False


def constants(sizes: list[int]) -> list[int]:
    """Sizes that a weight fixes, as numbers; a trace has them as values of its graph, in single precision."""
    if not torch.jit.is_scripting():
        return _traced_constants(sizes) if torch.jit.is_tracing() else sizes
    return sizes


def _traced_constants(sizes: list[int]) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return [int(size) for size in sizes]


def no_autocast(x: Tensor) -> AbstractContextManager:
    """Operations in the precision of their inputs."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What a convolution rounds its input and weight to, on the device of `x`."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return None


def kept_constant(build: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Build a small tensor once for each set of arguments; for eager execution, where nothing folds constants.

    It is never dropped: a CUDA graph may read its memory. Nor may it be built while one is captured; a graph is
    captured after a run that warms up.
    """
    kept: dict[tuple, Tensor] = {}

    @wraps(build)
    def get(*args: object) -> Tensor:
        if args not in kept:
            with torch.inference_mode(False), torch.no_grad(), _disable_current_modes():
                kept[args] = build(*args)
        return kept[args]

    return get


def formula_gradients(
    formula: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Gradients of formula(*inputs) inside the backward of a Function that has its own, where those do not do.

    They are recorded if the backward itself is (create_graph).

    Args:
        formula: Gives one output or several.
        inputs: Its tensors, as the Function saved them.
        needed: Whether each needs a gradient.
        grads: Gradient of each output, None where it has none.
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
