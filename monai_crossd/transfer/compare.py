# SPDX-License-Identifier: Apache-2.0
"""Whether the code of a network does to the slices of a volume what it does to an image.

On a volume that repeats one image every layer that is carried into 3D, with its kernel in the center and the depth left
alone, gives the image's output in every slice: convolutions see one slice, pools and norms the same values more often.
What differs comes from the network's own code, such as a mean over the axes 2 and 3.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .modules3d import ConversionError

SLICES = (5, 7, 6)  # depths to try, the first that no other axis has: small, and nothing is mistaken for it
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3}  # of the largest value; others are coarser
COARSE = 5e-2


def tensors(value: Any) -> Iterator[Tensor]:
    """Tensors in what a forward returns, one after another."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)
    elif is_dataclass(value):
        yield from tensors([getattr(value, field.name) for field in fields(value)])


def _run(
    net: nn.Module, x: Tensor, seed: int, see: Callable[[str, Any], None] = lambda path, out: None
) -> list[Tensor]:
    """Outputs in evaluation mode, without a trace on the network or on torch's random numbers."""
    probe = copy.deepcopy(net).eval()
    for path, module in probe.named_modules():
        module.register_forward_hook(lambda module, args, out, path=path: see(path, out))
    with torch.no_grad(), torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        return list(tensors(probe(x.clone())))


def _equal(got: Tensor, expected: Tensor) -> bool:
    if got.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return got.equal(expected)
    scale = expected[expected.isfinite()].abs().max().item() if expected.isfinite().any() else 0.0
    tolerance = TOLERANCE.get(expected.dtype, COARSE)
    return torch.allclose(got, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def _slices(got: Tensor, expected: Tensor, depth: int) -> Iterator[Tensor]:
    """A result that repeats that of an image, with its axes in turn where the depth can be, the slices first."""
    shape = list(got.shape)
    if got.dim() == expected.dim() + 1 > 3:
        for axis in range(got.dim()):
            if shape[:axis] + shape[axis + 1 :] == list(expected.shape):
                yield got.movedim(axis, 0)
    if got.dim() == expected.dim() > 2:  # a list of places, with more of them
        for axis in range(got.dim()):
            if shape == [n * depth if at == axis else n for at, n in enumerate(expected.shape)]:
                yield got.unflatten(axis, (-1, depth)).movedim(axis + 1, 0)
                yield got.unflatten(axis, (depth, -1)).movedim(axis, 0)


def _agrees(got: Tensor, expected: Tensor, depth: int, values: bool, middle: bool) -> bool:
    """Whether a result in 3D is that of the image, as a whole or slice by slice."""
    if got.shape == expected.shape and (not values or middle or _equal(got, expected)):
        return True
    for slices in _slices(got, expected, depth):
        # where the code itself pads or resizes the depth, the first and last slices are not the image's
        chosen = slices[len(slices) // 2 :][:1] if middle or len(slices) != depth else slices
        if len(chosen) and (not values or all(_equal(one, expected) for one in chosen)):
            return True
    return False


def _depths(example: Tensor, axis: int) -> list[int]:
    taken = set(example.shape[:axis] + example.shape[axis + 1 :])
    small = next((n for n in SLICES if n not in taken), SLICES[0])
    return sorted({min(small, example.shape[axis]), example.shape[axis]})


class _Watch:
    """Sees the outputs of every module, and which differs first from those of the run that it goes by."""

    def __init__(
        self, agrees: Callable[[Tensor, Tensor], bool], reference: _Watch | None = None, axis: int = 4, depth: int = 0
    ) -> None:
        self.agrees, self.reference, self.first = agrees, reference, ""
        self.axis, self.depth, self.keeps_depth = axis, depth, True
        self.outputs: dict[str, list[list[Tensor]]] = defaultdict(list)

    def __call__(self, path: str, out: Any) -> None:
        """Take the outputs of one call."""
        self.outputs[path].append(list(tensors(out)))
        calls = [] if self.reference is None else self.reference.outputs.get(path, [])
        number = len(self.outputs[path])
        for one in self.outputs[path][-1]:
            self.keeps_depth &= one.dim() != 5 or one.shape[self.axis] in (1, self.depth)
        if not self.first and number <= len(calls) and not _all(self.agrees, self.outputs[path][-1], calls[number - 1]):
            self.first = path


def _all(agrees: Callable[[Tensor, Tensor], bool], got: list[Tensor], expected: list[Tensor]) -> bool:
    return len(got) == len(expected) and all(agrees(one, other) for one, other in zip(got, expected, strict=True))


def check_slices(
    net2d: nn.Module, stand_in: Callable[[bool, int], nn.Module], example: Tensor, axis: int, keep_depth: bool
) -> None:
    """Compare a 3D form of a network with the network, on a volume that repeats one image.

    Args:
        net2d: without layers that predict their kernel.
        stand_in: makes the 3D form with kernels in the center; gets whether to keep the depth, and the depth.
        example: (B, C, H, W, D), or with the depth elsewhere.
        axis: of the depth.
        keep_depth: the result is to have the depth of the volume.

    Raises:
        ConversionError: if they differ, with the path of the module that differs first.
    """
    image = example.select(axis, example.shape[axis] // 2)
    if image.is_floating_point() and image.std() < 1e-6 * (1 + image.abs().max()):  # nothing can be told by it
        image = image + torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    reference = _Watch(_equal)
    try:
        expected = _run(net2d, image, 0, reference)
        values = _all(_equal, _run(net2d, image, 1), expected)
    except Exception:  # an image of this size is nothing for the network, and there is nothing to compare with
        return
    for keep, depth in [*((True, depth) for depth in _depths(example, axis)), (False, example.shape[axis])]:
        agrees = partial(_agrees, depth=depth, values=values, middle=not keep)
        watch = _Watch(agrees, reference, axis, depth)
        try:
            got = _run(stand_in(keep, depth), image.unsqueeze(axis).repeat_interleave(depth, dim=axis), 0, watch)
        except Exception:  # the network needs the depth that its own layers leave
            continue
        for one, other in zip(got, expected, strict=False):
            if keep_depth and keep and one.dim() == 5 and other.dim() == 4 and one.shape[axis] != depth:
                raise ConversionError("", f"does not keep the depth: {depth} slices become {one.shape[axis]}")
        if _all(agrees, got, expected):
            return
        if watch.keeps_depth or not keep:
            shapes = [", ".join(str(list(one.shape)) for one in side) for side in (got, expected)]
            raise ConversionError(
                watch.first,
                f"does something else to a volume than to its slices (of {depth} slices of one image the network makes "
                f"{shapes[0]}, of the image {shapes[1]}, and what is in them differs; look for axes that are counted "
                "from the end, and for two where a volume has three)",
            )
