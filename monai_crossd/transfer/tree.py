# SPDX-License-Identifier: Apache-2.0
"""Replace layers of a network: in a copy, at any depth, the root included, tied layers once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..conv.crossd import CrossDConv2d
from .names import unwrapped

# what is put on a module after it was built
HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


def map_modules(net: nn.Module, convert: Callable[[str, nn.Module], nn.Module | None]) -> nn.Module:
    """Copy of a network in which every module that `convert` answers for is replaced.

    Hooks, buffers and attributes that were put on a module go to what replaces it. What torch.compile and DataParallel
    put around a module is not in the copy.

    Args:
        net: it is not changed.
        convert: gets path and module; returns its replacement, or None to go on inside it.

    Raises:
        TypeError: if a module that is replaced has a forward or modules of its own, with its path.
    """
    replaced: dict[nn.Module, nn.Module] = {}

    def visit(path: str, module: nn.Module) -> nn.Module:
        module = unwrapped(module)
        if module not in replaced:
            new = convert(path, module)
            replaced[module] = module if new is None else new
            if new is None:
                for name, child in list(module._modules.items()):
                    if child is not None:
                        module._modules[name] = visit(f"{path}.{name}" if path else name, child)
            elif new is not module:
                keep_additions(path, module, new)
        return replaced[module]

    return visit("", copy.deepcopy(unwrapped(net)))


def check_copies(net: nn.Module) -> None:
    """Check that a copy of a network is what the network is.

    Raises:
        TypeError: if a parameter has a hook for its gradient, or a module computes its weight in a hook, with its path.
    """
    for key, value in net.named_parameters():
        if value._backward_hooks or getattr(value, "_post_accumulate_grad_hooks", None):
            raise TypeError(
                f"{key} has a hook for its gradient, which a copy of the network loses: convert first, then register "
                "it."
            )
    for path, module in net.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                raise TypeError(
                    f"{path or 'the network'} is a {type(module).__name__} whose {name} is computed from "
                    f"{', '.join(module._parameters) or 'others'}: remove the parametrization or pruning "
                    "(torch.nn.utils.remove_weight_norm, prune.remove) and convert again."
                )


class Ties:
    """Parameters that layers share, kept shared while the layers are replaced."""

    def __init__(self) -> None:
        self.made: dict[nn.Parameter, tuple[str, nn.Parameter]] = {}

    def keep(self, path: str, old: nn.Module, new: nn.Module) -> None:
        """Let a new layer share a parameter where the old one did.

        Raises:
            TypeError: if the shared parameter is another in the new layers, with both paths.
        """
        for name in ("weight", "bias"):
            source, made = getattr(old, name), getattr(new, name)
            if source is None:
                continue
            first_path, first = self.made.setdefault(source, (path, made))
            drawn = isinstance(new, CrossDConv2d) and first.shape == made.shape  # each bank may be a new one
            if not drawn and not (first.shape == made.shape and (first is made or first.equal(made))):
                raise TypeError(
                    f"{path} shares its {name} with {first_path}, and the two would differ: part them before you "
                    "convert."
                )
            setattr(new, name, first)

    def check(self, net: nn.Module) -> None:
        """Check that nothing else has kept a parameter that the replaced layers shared with it.

        Raises:
            TypeError: if something has, with both paths; a bias is shared on.
        """
        for owner_path, owner in net.named_modules():
            for name, value in list(owner._parameters.items()):
                if value in self.made:
                    path, made = self.made[value]
                    if made.shape != value.shape:
                        raise TypeError(
                            f"{path or 'the network'} shares a parameter with {owner_path}.{name}, which would keep "
                            "the old one: part them before you convert."
                        )
                    owner._parameters[name] = made


def check_plain(path: str, module: nn.Module, kind: type[nn.Module]) -> None:
    """Check that a layer is of the class itself, whose behaviour we know.

    Raises:
        TypeError: if it is of a subclass or makes its weight in a hook, with its path.
    """
    # weight_norm, spectral_norm and pruning of the older kind keep the type and make the weight in a hook
    made = [name for name in module._parameters if name not in ("weight", "bias")]
    if type(module) is not kind or made:
        name = f"{type(module).__name__} with {made[0]}" if made else type(module).__name__
        raise TypeError(
            f"{path or 'the network'} is a {name}, a {kind.__name__} with a behaviour of its own: "
            f"replace it by a plain nn.{kind.__name__} (remove its parametrization or pruning, run a lazy layer once) "
            "and convert again."
        )


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
