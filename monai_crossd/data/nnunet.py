# SPDX-License-Identifier: Apache-2.0
"""nnU-Net's data sets: channels of a case in files of their own, and dataset.json of versions 1 and 2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["as_text", "case_name", "count_channels", "find_channels", "pair_cases", "read_cases", "read_label_names"]

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")  # the case name, and the number of the channel


def case_name(path: Path) -> str:
    """A file's name without its suffix; a folder's name whole, dots and all."""
    return path.name if path.is_dir() else Path(path.name.removesuffix(".gz")).stem


def count_channels(content: dict[str, Any]) -> int | None:
    """Channels that a dataset.json names ("channel_names", in version 1 "modality"), or None."""
    names = content.get("channel_names", content.get("modality"))
    return len(names) if isinstance(names, (dict, list)) and names else None


def read_label_names(content: dict[str, Any], path: Path) -> dict[int, str]:
    """Reads "labels" as number -> name (decathlon, version 1) or name -> number (version 2).

    Raises:
        ValueError: When they are neither, or what this package does not train: regions and an ignored label.
    """
    labels = content.get("labels", {})
    if isinstance(labels, dict):
        if regions := [name for name, number in labels.items() if isinstance(number, (list, tuple))]:
            raise ValueError(
                f'{path}: "labels" has regions, {regions[0]!r}: {labels[regions[0]]}, which may overlap. Give a number '
                'to each label, like {"background": 0, "edema": 1, "core": 2}.'
            )
        if "ignore" in labels:
            raise ValueError(
                f'{path}: "labels" has the label "ignore" ({labels["ignore"]}) of nnU-Net, which would be trained as a '
                "class here. Fill its voxels and remove it."
            )
    try:
        pairs = [(k, v) if isinstance(v, str) else (v, k) for k, v in labels.items()]
        numbers = [int(number) for number, _ in pairs]
    except (AttributeError, TypeError, ValueError) as error:
        expected = 'numbers and names, like {"0": "background", "1": "liver"}'
        raise ValueError(f'{path}: "labels" is {labels!r}; expected {expected}.') from error
    if repeated := [number for number in numbers if numbers.count(number) > 1]:
        raise ValueError(f'{path}: "labels" gives the number {repeated[0]} to two names: {labels!r}.')
    return dict(sorted(zip(numbers, (name for _, name in pairs), strict=True)))


def find_channels(path: Path, channels: int | None = None) -> Path | list[Path]:
    """The files of an image that a list names: itself, or ``case_0000, case_0001, ...`` where only those are there.

    Args:
        path: as named, absolute, like ``imagesTr/case.nii.gz``.
        channels: expected, or None.

    Raises:
        ValueError: When a channel is missing.
    """
    if path.exists() or not path.parent.is_dir():
        return path
    case = case_name(path)
    suffix = path.name[len(case) :]
    found = {
        int(match["number"]): entry
        for entry in path.parent.glob(f"{_escaped(case)}_[0-9][0-9][0-9][0-9]{_escaped(suffix)}")
        if (match := _CHANNEL.fullmatch(case_name(entry)))
    }
    return _complete(case, found, channels or len(found), path.parent) if found else path


def _escaped(text: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", text)


def _complete(case: str, found: dict[int, Path], channels: int, folder: Path) -> Path | list[Path]:
    if sorted(found) != list(range(channels)):
        lacking = sorted(set(range(channels)) - set(found)) or sorted(found)[channels:]
        missing = lacking[0] < channels and lacking[0] not in found
        raise ValueError(
            f"{folder / case} has the channels {[f'_{number:04d}' for number in sorted(found)]}; expected {channels}, "
            f"_0000 to _{channels - 1:04d}. "
            + (f"Add {case}_{lacking[0]:04d}." if missing else "Name all in dataset.json, or remove the others.")
        )
    return found[0] if channels == 1 else [found[number] for number in range(channels)]


def pair_cases(
    images: Iterable[Path], labels: Iterable[Path], folders: tuple[Path, Path], channels: int | None = None
) -> list[dict]:
    """Pairs images and label maps by file name; ``case_0000, case_0001`` become a list.

    Args:
        images: files, or folders of a series.
        labels: the same.
        folders: of both, for messages.
        channels: of each case, as dataset.json says. None: all cases have as many as the one with most.

    Raises:
        ValueError: When one has no partner, two label maps are of one case, or a case lacks a channel.
    """
    cases: dict[str, Path] = {}
    for path in labels:
        if other := cases.get(case_name(path)):
            raise ValueError(f"{other} and {path} are both the label map of {case_name(path)}: remove one of them.")
        cases[case_name(path)] = path
    whole: dict[str, Path] = {}
    parts: dict[str, dict[int, Path]] = {}
    for path in images:
        name, match = case_name(path), _CHANNEL.fullmatch(case_name(path))
        if match and name not in cases:
            name, number = match["case"], int(match["number"])
            other = parts.setdefault(name, {}).setdefault(number, path)
        else:
            other = whole.setdefault(name, path)
        if other != path:
            raise ValueError(f"{other} and {path} are both the image of {case_name(path)}: remove one of them.")
    for name in sorted((whole.keys() | parts.keys()) ^ cases.keys()):
        found = cases.get(name) or whole.get(name) or next(iter(parts[name].values()))
        lacks = folders[0] if name in cases else folders[1]
        raise ValueError(f"{found} has no partner in {lacks}: add it under the same name, or remove the file.")
    if both := sorted(whole.keys() & parts.keys()):
        raise ValueError(
            f"{whole[both[0]]} and {next(iter(parts[both[0]].values()))} are both the image of {both[0]}: remove one."
        )
    count = channels or max((len(found) for found in parts.values()), default=1)
    if whole and parts and count > 1:
        name = min(whole)
        raise ValueError(f"{whole[name]} is one channel; expected {count}: {name}_0000 to {name}_{count - 1:04d}.")
    joined: dict[str, Path | list[Path]] = dict(whole)
    joined |= {name: _complete(name, found, count, folders[0]) for name, found in parts.items()}
    return [{"image": as_text(joined[name]), "label": str(cases[name])} for name in sorted(joined)]


def as_text(image: Path | Sequence[Path]) -> str | list[str]:
    """A path, or those of the channels."""
    return str(image) if isinstance(image, Path) else [str(path) for path in image]


def read_cases(content: dict[str, Any], path: Path) -> list[dict]:
    """Reads the optional key "dataset" of version 2: images and label map of each case.

    Raises:
        ValueError: When it has another form, or a case another number of channels than "channel_names".
    """
    cases = content["dataset"]
    items = []
    for name, case in cases.items() if isinstance(cases, dict) else []:
        images = case.get("images") if isinstance(case, dict) else None
        if not isinstance(images, list) or not images or not isinstance(case.get("label"), str):
            raise ValueError(f'{path}: "dataset", {name!r} is {case!r}; expected {{"images": [...], "label": ...}}.')
        if (count := count_channels(content)) and len(images) != count:
            raise ValueError(f'{path}: "dataset", {name!r} has {len(images)} images; expected {count} channels.')
        files = [path.parent / image for image in images]
        label = path.parent / case["label"]
        items.append({"image": as_text(files if len(files) > 1 else files[0]), "label": str(label)})
    if not items:
        raise ValueError(f'{path}: "dataset" is {cases!r}; expected an object with a case for each name.')
    return items
