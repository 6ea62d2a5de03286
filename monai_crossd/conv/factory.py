# SPDX-License-Identifier: Apache-2.0
"""Our convolutions by name, in MONAI's `Conv` factory and in place of its plain convolution while a net is built."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from monai.networks.layers import Conv
from monai.utils import look_up_option
from torch import nn

from .acs import ACSConv3d
from .base import ConvBase
from .crossd import CrossDConv2d
from .crossd3d import CrossDConv3d
from .planar import PlanarConv3d, plane_by_turns
from .soft_acs import SoftACSConv3d


class Convolution(NamedTuple):
    """What a name stands for.

    Attributes:
        layer3d: Class of the 3D layer.
        layer2d: Class of the 2D layer.
        options: Arguments of the 3D layer.
        turns: Arguments of the 3D layer that change from layer to layer, from the depth axis; None if none do.
    """

    layer3d: type[ConvBase]
    layer2d: type[nn.Module] = nn.Conv2d
    options: Mapping[str, Any] = MappingProxyType({})
    turns: Callable[..., list[dict[str, Any]]] | None = None


CONVOLUTIONS: dict[str, Convolution] = {
    "crossd": Convolution(CrossDConv3d, CrossDConv2d),
    "acs": Convolution(ACSConv3d),
    "soft_acs": Convolution(SoftACSConv3d),
    "mean_acs": Convolution(SoftACSConv3d, options={"mean": True}),
    "planar": Convolution(PlanarConv3d),
    "plane_cycle": Convolution(PlanarConv3d, turns=plane_by_turns),
}

_lock = threading.RLock()  # MONAI has one factory for the process


def conv_class(name: str, dim: int) -> type[nn.Module]:
    """Class of the convolution `name` in `dim` dimensions.

    Raises:
        ValueError: For a name or dimension there is none for; a near miss is suggested.
    """
    conv = CONVOLUTIONS[look_up_option(name.lower(), CONVOLUTIONS.keys())]
    if dim not in (2, 3):
        raise ValueError(f"there is no {name!r} convolution in {dim} dimensions, only in [2, 3].")
    return conv.layer3d if dim == 3 else conv.layer2d


def _constructor(name: str) -> Callable[[int], type[nn.Module]]:
    def constructor(dim: int) -> type[nn.Module]:
        layer, options = conv_class(name, dim), CONVOLUTIONS[name].options
        return _with_options(layer, options) if dim == 3 and options else layer

    constructor.__doc__ = f"{name} convolution of monai_crossd in 2 or 3 dimensions."
    constructor.__module__ = __name__
    return constructor


def register() -> None:
    """Put our convolutions into MONAI's `Conv` factory: `Conv["crossd", 2]`, `Conv["acs", 3]`, ...

    Done when monai_crossd is imported; doing it again changes nothing. A name that somebody else has taken stays
    theirs, with a warning: `use_conv` and the classes work all the same. "plane_cycle" is no entry: a plane that
    changes from layer to layer needs the network, which `use_conv` has.

    Example:
        >>> register()
        >>> Conv["acs", 3].__name__
        'ACSConv3d'
    """
    for name in (name for name, conv in CONVOLUTIONS.items() if conv.turns is None):
        taken = Conv.components.get(name.upper())
        if taken is None:
            Conv.add_factory_callable(name, _constructor(name))
        elif getattr(taken.value, "__module__", "") != __name__:
            warnings.warn(
                f"MONAI's Conv factory has a {name!r} that is not monai_crossd's ({taken.value!r}); it was left alone. "
                f"Use monai_crossd.use_conv({name!r}) or the layer class instead of Conv[{name!r}, dim].",
                stacklevel=2,
            )


def _with_options(
    layer: type[nn.Module], options: Mapping[str, Any], turns: Iterator[dict[str, Any]] | None = None
) -> type[nn.Module]:
    """Class that builds `layer` with options, for constructors that ask MONAI for a class and call it.

    What it builds is a plain `layer` (so it pickles). A layer with a start of its own does not answer to isinstance:
    network constructors use it to initialise every convolution as if its weight were one kernel. A 1×1×1 kernel takes
    no turn.
    """

    class Meta(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> nn.Module:
            made: Any = layer(*args, **{**options, **kwargs})
            if turns is not None and max(made.kernel_size) > 1:
                made = layer(*args, **{**options, **kwargs, **next(turns)})
            return made

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, layer) and not getattr(instance, "own_start", False)

    proxy: Any = Meta(layer.__name__, (layer,), {"__doc__": layer.__doc__})
    return proxy


@contextmanager
def use_conv(name: str, **options: Any) -> Iterator[None]:
    """Every convolution that a MONAI network asks its factory for is built as `name`, inside the `with` block.

    Blocks nest, and blocks of other threads wait. But MONAI has one factory for the process: a network that another
    thread builds meanwhile without a block of its own gets these convolutions too, so keep the block short.
    A block that had no effect (MedNeXt, torchvision and others build their convolutions themselves) warns.

    Args:
        name: "crossd", "acs", "soft_acs", "mean_acs", "planar" or "plane_cycle" (planar layers, in the slice plane and
            the two others by turns, in the order in which the network builds them). In 2D all but "crossd" are plain
            Conv2d. Transposed convolutions stay plain: the plane of a transposed ACS layer leaves slices empty where
            it strides across them.
        **options: Further arguments of the layer, e.g. `mode="static"` or `depth_axis=0` of CrossDConv3d; for
            "plane_cycle" `depth_axis`, the axis that the first layer is flat across.

    Raises:
        ValueError: For an unknown name, with a suggestion.

    Example:
        >>> from monai.networks.nets import BasicUNet
        >>> with use_conv("acs"):
        ...     net = BasicUNet(spatial_dims=3, features=(4, 4, 8, 8, 8, 4))
        >>> net.conv_0.conv_0.conv.__class__.__name__
        'ACSConv3d'
    """
    name = look_up_option(name.lower(), CONVOLUTIONS.keys())
    with _lock:
        entry, conv = Conv.components["CONV"], CONVOLUTIONS[name]
        turns = None
        if conv.turns is not None:
            turns, options = itertools.cycle(conv.turns(**options)), {}
        every, asked = {**conv.options, **options}, False

        def swapped(dim: int) -> type[nn.Module]:
            nonlocal asked
            around = entry.value(dim)  # asked of the block around this one, too: it is not without effect
            if dim not in (2, 3):
                return around
            asked = True
            layer = conv_class(name, dim)
            if layer is nn.Conv2d:
                return layer
            plain = not every and turns is None and not getattr(layer, "own_start", False)
            return layer if plain else _with_options(layer, every, turns)

        Conv.components["CONV"] = entry._replace(value=swapped)
        try:
            yield
        finally:
            Conv.components["CONV"] = entry
        if not asked:
            warnings.warn(
                f"use_conv({name!r}) had no effect: nothing in the block asked MONAI's factory for a convolution. "
                "Networks are to be built inside the block. One that builds its convolutions itself, such as MedNeXt, "
                f"gets these layers by to_3d(net2d, {name!r}) of the 2D network where to_3d can convert it; otherwise "
                "build it in 3D without the block and fill its plain layers by load_2d(net3d, net2d).",
                stacklevel=3,
            )
