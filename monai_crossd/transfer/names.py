# SPDX-License-Identifier: Apache-2.0
"""Names of parameters: patterns that choose some, prefixes of wrappers, and the names of published checkpoints."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

COMPILED = "_orig_mod."  # of torch.compile, wherever it was applied
# what DataParallel, Lightning and other programs keep the network under; any of them in any order
PREFIXES = ("module.", "model.", "net.", "network.", "backbone.", "encoder.")
# names of a classifier at the end of a network
HEADS = ("fc", "classifier", "head", "last_linear", "class_layers")


@dataclass(frozen=True)
class CheckpointFormat:
    """How one publisher names the parameters of a ResNet.

    Attributes:
        name: for messages.
        mark: a key that only this format has (regular expression).
        renames: regular expressions and what stands for them in MONAI's names, applied in order.
    """

    name: str
    mark: str
    renames: tuple[tuple[str, str], ...]

    def rename(self, key: str) -> str:
        """The name in MONAI."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


FORMATS = (
    CheckpointFormat(
        "published Cross-D-Conv",
        r"weights_3d$",
        ((r"weights_3d$", "weight"), (r"(^|\.)rotation_params\.", r"\1predictor.")),
    ),
    CheckpointFormat(
        "RadImageNet (the children of torchvision's ResNet in an nn.Sequential)",
        r"^backbone\.4\.0\.conv1\.weight$",
        (
            (r"^backbone\.0\.", "conv1."),
            (r"^backbone\.1\.", "bn1."),
            (r"^backbone\.4\.", "layer1."),
            (r"^backbone\.5\.", "layer2."),
            (r"^backbone\.6\.", "layer3."),
            (r"^backbone\.7\.", "layer4."),
        ),
    ),
    # all have MONAI's names
    CheckpointFormat("torchvision, timm, MedicalNet, MONAI or monai_crossd ResNet", r"^layer1\.0\.conv1\.weight$", ()),
)


def recognize(keys: Collection[str]) -> CheckpointFormat | None:
    """Format of a checkpoint's keys, without prefixes of wrappers; None if it is not known."""
    return next((known for known in FORMATS if any(re.search(known.mark, key) for key in keys)), None)


def as_patterns(patterns: str | Sequence[str], keys: Collection[str], argument: str) -> tuple[str, ...]:
    """Patterns as of a shell, each of which fits a key; a string is one pattern.

    Args:
        patterns: one or more of them.
        keys: what they choose from.
        argument: their name, for the message.

    Raises:
        TypeError: If one is no string.
        ValueError: If one fits no key, with keys that are near.
    """
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{argument} is a pattern or several, but one is {pattern!r}.")
        if not fits(pattern, keys):
            near = [key for key in keys if key.startswith(pattern.rstrip(".*$"))]
            near = near or get_close_matches(pattern, list(keys), cutoff=0.3) or list(keys)
            raise ValueError(
                f"{argument} has {pattern!r}, which fits no parameter, such as {', '.join(map(repr, near[:3]))}. "
                "Patterns are as of a shell and fit the whole name: 'fc.*' is all that begins with 'fc.'."
            )
    return patterns


def fits(patterns: str | Sequence[str], keys: str | Collection[str]) -> bool:
    """Whether one of the keys fits one of the patterns."""
    chosen, names = ((value,) if isinstance(value, str) else tuple(value) for value in (patterns, keys))
    return any(fnmatchcase(name, pattern) for pattern in chosen for name in names)


def unwrapped(net: nn.Module) -> nn.Module:
    """The network itself, without DataParallel, DistributedDataParallel and torch.compile around it."""
    while True:
        if isinstance(net, DataParallel | DistributedDataParallel):
            net = net.module
        elif isinstance(inner := getattr(net, COMPILED.rstrip("."), None), nn.Module):
            net = inner
        else:
            return net


def without_compiled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict under the names that it has without torch.compile, of parts of the network too."""
    return {key.replace(COMPILED, ""): value for key, value in state.items()}


def _chains(keys: Collection[str]) -> Iterator[str]:
    """Prefixes made of PREFIXES that keys begin with, the shortest first."""
    found = [""]
    for chain in found:
        yield chain
        found += [chain + prefix for prefix in PREFIXES if any(key.startswith(chain + prefix) for key in keys)]


def _strip(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor] | None:
    """A state_dict without a prefix, where it has it; None where two keys would meet."""
    out = {key.removeprefix(prefix): value for key, value in state.items()}
    return out if len(out) == len(state) else None


def fit_names(state: Mapping[str, Tensor], target: Collection[str]) -> tuple[dict[str, Tensor], str, bool]:
    """A state_dict under the names that fit most keys of the target: its own, without a prefix, or as MONAI has them.

    Args:
        state: of a checkpoint or a network.
        target: keys to be filled.

    Returns:
        The state_dict, the prefix that was taken off, and whether its names are of a published format.
    """
    state = without_compiled(state)
    best, taken, is_known, most = dict(state), "", False, -1
    for chain in _chains(state):
        stripped = _strip(state, chain)
        if stripped is None:
            continue
        known = recognize(stripped)
        renamed = stripped if known is None else {known.rename(key): value for key, value in stripped.items()}
        for names in (stripped, renamed):
            if (number := sum(key in target for key in names)) > most:
                best, taken, is_known, most = names, chain, known is not None, number
    return best, taken, is_known


def misfit_advice(source: Collection[str], target: Collection[str]) -> str:
    """What to do where few names of a source and a target agree, as far as it can be seen."""
    if sum(key in target for key in source) * 2 > min(len(source), len(target)):
        return ""
    for part in _parts(target):
        if sum(f"{part}.{key}" in target for key in source) * 2 > len(source):
            return f" The names are those of its part {part!r}: fill that one, e.g. net3d.{part}."
    for part in _parts(source):
        if sum(f"{part}.{key}" in source for key in target) * 2 > len(target):
            return (
                f" The names have the prefix '{part}.' before those of the network: take it off, "
                f"{{key.removeprefix('{part}.'): value for key, value in state.items()}}, and pass that to load_2d."
            )
    starts = {key.split(".")[0]: None for key in source}
    return (
        f" Its names begin with {', '.join(map(repr, list(starts)[:6]))}; published checkpoints whose names are known: "
        f"{'; '.join(known.name for known in FORMATS)}."
    )


def _parts(keys: Collection[str]) -> list[str]:
    """Paths of modules that keys stand under, the shortest first."""
    paths = {".".join(words[:at]) for words in (key.split(".") for key in keys) for at in range(1, min(len(words), 5))}
    return sorted(paths, key=lambda path: (path.count("."), path))
