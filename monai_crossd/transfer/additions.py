# SPDX-License-Identifier: Apache-2.0
"""What was put on a module after it was built, taken over by the module that replaces it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


def _fresh(kind: Any, arguments: int) -> nn.Module:
    with torch.device("meta"):
        fresh: nn.Module = kind(*(1, 1, 3)[:arguments])
    return fresh


def _as_built(module: nn.Module) -> nn.Module:
    """A module of the same class that nothing was put on."""
    if hasattr(module, "kernel_size"):
        return _fresh(type(module), 3)
    return _fresh(type(module), 0 if isinstance(module, nn.Softmax2d) else 1)


def keep_additions(path: str, old: nn.Module, new: nn.Module) -> None:
    """Give a module the hooks, buffers and attributes that were put on the one that it replaces.

    Raises:
        TypeError: if something was put there that the new one cannot take over, with its path and what to do.
    """
    state = vars(old)
    for name in HOOKS:
        if hooks := state.get(name):
            getattr(new, name).update(hooks)
    new._is_full_backward_hook = old._is_full_backward_hook
    if not type(old).__module__.startswith(("torch.nn.", "monai_crossd.")):
        return  # what a class of others is built with is for the caller to know
    plain = _as_built(old)
    built = {*vars(plain), *plain._parameters, *plain._buffers, *plain._modules}
    added: dict[str, Any] = {name: value for name, value in state.items() if name not in built}
    modules = [name for name in old._modules if name not in plain._modules]
    methods = [name for name in added if hasattr(type(old), name)]
    if modules or methods:
        what = f"a {methods[0]} of its own" if methods else f"the module {modules[0]!r} inside it"
        raise TypeError(
            f"{path or 'the network'} is a {type(old).__name__} with {what}, which its new form would not have: put it "
            "into a module around the layer and convert again."
        )
    for name, buffer in old._buffers.items():
        if name not in plain._buffers:
            new.register_buffer(name, buffer, persistent=name not in old._non_persistent_buffers_set)
    for name, value in added.items():
        setattr(new, name, value)
