# SPDX-License-Identifier: Apache-2.0
"""Our convolutions in MONAI's `Conv` factory, by name, and in place of its plain convolution while a net is built."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from monai.networks.layers import Conv
from monai.utils import look_up_option
from torch import nn

from .acs import ACSConv3d
from .crossd import CrossDConv2d, CrossDConv3d, _CrossDConv
from .planar import PlanarConv3d, cycling_planes
from .soft_acs import SoftACSConv3d

CONVOLUTIONS: dict[str, dict[int, type[nn.Module]]] = {
    "crossd": {2: CrossDConv2d, 3: CrossDConv3d},
    "acs": {2: nn.Conv2d, 3: ACSConv3d},
    "soft_acs": {2: nn.Conv2d, 3: SoftACSConv3d},
    "mean_acs": {2: nn.Conv2d, 3: SoftACSConv3d},
    "planar": {2: nn.Conv2d, 3: PlanarConv3d},
    "plane_cycle": {2: nn.Conv2d, 3: PlanarConv3d},
}
OPTIONS: dict[str, dict[str, Any]] = {"mean_acs": {"mean": True}}  # of the 3D layer

_lock = threading.RLock()  # MONAI has one factory for the process


def conv_class(name: str, dim: int) -> type[nn.Module]:
    """Class of the convolution `name` in `dim` dimensions.

    Raises:
        ValueError: for a name or dimension there is none for; a near miss is suggested.
    """
    by_dim = CONVOLUTIONS[look_up_option(name.lower(), CONVOLUTIONS.keys())]
    if dim not in by_dim:
        raise ValueError(f"there is no {name!r} convolution in {dim} dimensions, only in {sorted(by_dim)}.")
    return by_dim[dim]


def _constructor(name: str) -> Callable[[int], type[nn.Module]]:
    def constructor(dim: int) -> type[nn.Module]:
        layer = conv_class(name, dim)
        return _with_options(layer, OPTIONS[name]) if dim == 3 and name in OPTIONS else layer

    constructor.__doc__ = f"{name} convolution of monai_crossd in 2 or 3 dimensions."
    constructor.__module__ = __name__
    return constructor


def register() -> None:
    """Put our convolutions into MONAI's `Conv` factory: `Conv["crossd", 2]`, `Conv["acs", 3]`, ...

    Done when monai_crossd is imported; doing it again changes nothing. A name that somebody else has taken stays
    theirs, with a warning: `use_conv` and the classes work all the same. "plane_cycle" is no entry: a plane that
    changes from layer to layer needs the network, which `use_conv` has.
    """
    for name in CONVOLUTIONS.keys() - {"plane_cycle"}:
        taken = Conv.components.get(name.upper())
        if taken is None:
            Conv.add_factory_callable(name, _constructor(name))
        elif getattr(taken.value, "__module__", "") != __name__:
            warnings.warn(
                f"MONAI's Conv factory has a {name!r} that is not monai_crossd's ({taken.value!r}); it was left alone. "
                f"Use monai_crossd.use_conv({name!r}) or the layer class instead of Conv[{name!r}, dim].",
                stacklevel=2,
            )


def _with_options(layer: type[nn.Module], options: dict[str, Any]) -> type[nn.Module]:
    """Class that builds `layer` with options, for constructors that ask MONAI for a class and call it.

    What it builds is a plain `layer` (so it pickles). Cross-D layers do not answer to isinstance: network constructors
    use it to initialise every convolution as if its weight were one kernel, and a bank has its own start (`bank_init`).
    """

    class Meta(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> nn.Module:
            return layer(*args, **{**options, **kwargs})

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, layer) and not isinstance(instance, _CrossDConv)

    proxy: Any = Meta(layer.__name__, (layer,), {"__doc__": layer.__doc__})
    return proxy


def _with_cycling_plane(depth_axis: int = -1) -> type[nn.Module]:
    """Class that builds PlanarConv3d layers, in the slice plane and the two others by turns; 1×1×1 takes no turn."""
    planes = itertools.cycle(cycling_planes(depth_axis))

    class Meta(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> nn.Module:
            layer = PlanarConv3d(*args, **kwargs)
            return layer if max(layer.kernel_size) == 1 else PlanarConv3d(*args, **kwargs, plane=next(planes))

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, PlanarConv3d)

    proxy: Any = Meta("PlanarConv3d", (PlanarConv3d,), {"__doc__": PlanarConv3d.__doc__})
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
        **options: further arguments of the layer, e.g. `mode="static"` or `depth_axis=0` of CrossDConv3d; for
            "plane_cycle" `depth_axis`, the axis that the first layer is flat across.

    Raises:
        ValueError: for an unknown name, with a suggestion.

    Example:
        >>> from monai.networks.nets import BasicUNet
        >>> with use_conv("acs"):
        ...     net = BasicUNet(spatial_dims=3, features=(4, 4, 8, 8, 8, 4))
        >>> net.conv_0.conv_0.conv.__class__.__name__
        'ACSConv3d'
    """
    name = look_up_option(name.lower(), CONVOLUTIONS.keys())
    with _lock:
        entry = Conv.components["CONV"]
        cycling = _with_cycling_plane(**options) if name == "plane_cycle" else None
        asked = False

        def swapped(dim: int) -> type[nn.Module]:
            nonlocal asked
            plain = entry.value(dim)  # asked of the block around this one, too: it is not without effect
            if dim not in CONVOLUTIONS[name]:
                return plain
            asked = True
            layer = conv_class(name, dim)
            if layer is nn.Conv2d:
                return layer
            if cycling is not None:
                return cycling
            every = {**OPTIONS.get(name, {}), **options}
            return _with_options(layer, every) if every or issubclass(layer, _CrossDConv) else layer

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
                'build it in 3D without the block and fill it by transfer_weights(net2d, net3d, method="i3d").',
                stacklevel=3,
            )
