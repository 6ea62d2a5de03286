# SPDX-License-Identifier: Apache-2.0
"""Training and validation items: stratified by class, and no patient and no image on both sides."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from hashlib import blake2b
from itertools import combinations
from pathlib import Path

import numpy as np
from monai.data import partition_dataset
from monai.utils import ensure_tuple

from .fingerprint import files_of, sample_file
from .readers import open_image
from .readers.npz import is_npz_path

__all__ = ["SECTIONS", "check_copies", "complete_sections", "draw_patients", "find_copies", "find_patients"]

SECTIONS = ("training", "validation", "test")
_DRAWS = 16  # the best of them is taken
_ENOUGH = 2000  # patients drawn; of many patients one draw is as good as another


def _files(image: str | Sequence[str]) -> list[Path]:
    """The files of an image, of its channels all."""
    return [file for path in ensure_tuple(image) for file in files_of(path)]


def _identity(image: str | Sequence[str]) -> Hashable:
    """The same for a file, its hard links and the symbolic links to it; None where it cannot be told."""
    try:
        stats = [os.stat(path) for path in ensure_tuple(image)]
    except OSError:
        return None
    return tuple((stat.st_dev, stat.st_ino) for stat in stats)


def _sizes(image: str | Sequence[str]) -> Hashable:
    return tuple(os.path.getsize(path) for path in _files(image))


def _sample(image: str | Sequence[str]) -> Hashable:
    return tuple(sample_file(path) for path in _files(image))


def _content(image: str | Sequence[str]) -> Hashable:
    digest = blake2b(digest_size=16)
    for path in _files(image):
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.digest()


def _alike(groups: Iterable[list[int]], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Parts each group by a key, and keeps the parts with several members."""
    parts: list[list[int]] = []
    for group in groups:
        found: dict[Hashable, list[int]] = {}
        for index in group:
            try:
                found.setdefault(key(index), []).append(index)
            except OSError:
                continue  # the reading of its header says what is wrong
        parts += [part for part in found.values() if len(part) > 1]
    return parts


def _is_blank(image: str | Sequence[str]) -> bool:
    """Whether all voxels are alike: such images are equal without being of the same patient."""
    try:
        voxels = [open_image(path).load()[0] for path in ensure_tuple(image)]
    # whatever a library raises for a bad file, which its header's reading reports
    except Exception:
        return True
    return all(array.min() == array.max() for array in voxels)


def find_copies(images: Sequence[str | Sequence[str]]) -> list[list[int]]:
    """Finds images that are the same: one file under several names, or files with the same bytes.

    Sizes are compared first, then pieces, and only what is alike in both is read whole. Images without content (all
    voxels alike) are no copies of each other unless they are one file. Images in .npz files are not looked at.

    Args:
        images: paths of each: file, folder of a series, or list of channels.

    Returns:
        Groups of several indices, in rising order.
    """
    files = [index for index, image in enumerate(images) if not any(map(is_npz_path, ensure_tuple(image)))]
    identities = {index: _identity(images[index]) for index in files}
    first: dict[Hashable, list[int]] = {}
    for index in files:
        if identities[index] is not None:
            first.setdefault(identities[index], []).append(index)
    parts: list[list[int]] = [[group[0] for group in first.values()]]
    for key in (_sizes, _sample, _content):
        parts = _alike(parts, lambda index, key=key: key(images[index]))  # type: ignore[misc]
    same = [part for part in parts if not _is_blank(images[part[0]])]
    alike = {index for part in same for index in part}
    groups = [[index for one in part for index in first[identities[one]]] for part in same]
    groups += [group for group in first.values() if len(group) > 1 and group[0] not in alike]
    return sorted(sorted(group) for group in groups)


def _name(item: dict) -> str:
    return str(ensure_tuple(item["image"])[0])


def check_copies(items: Sequence[dict], sections: Sequence[str], task: str) -> list[list[int]]:
    """Finds copies among the items of a data set, and refuses what no split can mend.

    Args:
        items: of all sections.
        sections: of each item.
        task: "segmentation" or "classification".

    Returns:
        Groups of indices as those of :func:`find_copies`.

    Raises:
        ValueError: When copies have different labels, or are in two sections.
    """
    groups = find_copies([item["image"] for item in items])
    for group in groups:
        first = group[0]
        for other in group[1:]:
            same = f"{_name(items[first])} and {_name(items[other])} are the same image"
            labels = items[first]["label"], items[other]["label"]
            if labels[0] != labels[1] and (task == "classification" or _differ(*labels)):
                raise ValueError(
                    f"{same}, with the labels {labels[0]} and {labels[1]}: correct one of them, or remove a copy."
                )
            if sections[first] != sections[other]:
                raise ValueError(
                    f'{same}, in the sections "{sections[first]}" and "{sections[other]}": remove it from one of them.'
                )
    return groups


def _differ(label: str | Sequence[str], other: str | Sequence[str]) -> bool:
    """Whether two label maps that are there have different bytes."""
    identities = _identity(label), _identity(other)
    if None in identities or identities[0] == identities[1]:
        return False
    return _content(label) != _content(other)


def find_patients(items: Sequence[dict], pattern: str | None = None) -> list[str]:
    """Names the patient of each item.

    Args:
        items: dictionaries with "image", and "patient" or not.
        pattern: regular expression, searched in the image's path (with "/"): its first group, or without a group the
            whole match, is the patient. It comes before "patient".

    Returns:
        A name per item, or an empty list where nothing names patients.

    Raises:
        ValueError: When the pattern is no regular expression or does not match a path, or when only some items have
            a "patient".
    """
    if pattern is not None:
        try:
            find = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"patient_pattern {pattern!r} is no regular expression: {error}.") from error
        found = [find.search(Path(ensure_tuple(item["image"])[0]).as_posix()) for item in items]
        names = [match and match[1 if find.groups else 0] for match in found]
        remedy = f'patient_pattern {pattern!r} finds no patient in it; expected something like r"(P\\d+)_"'
    else:
        names = [item.get("patient") for item in items]
        if not any("patient" in item for item in items):
            return []
        remedy = 'it has no "patient", other items have. Name it, or leave the patients out'
    for item, name in zip(items, names, strict=True):
        if name is None or name == "":
            raise ValueError(f"{ensure_tuple(item['image'])[0]}: {remedy}.")
    return [str(name) for name in names]


def _cost(held: np.ndarray, total: np.ndarray, fraction: float) -> tuple[int, int, float]:
    """Classes without training items, classes without validation items, and how far the shares are off."""
    off = (held - fraction * total) ** 2 / total
    return int((held == total).sum()), int((held == 0).sum()), float(off.sum())


def _draw(counts: np.ndarray, fraction: float, rng: np.random.Generator) -> tuple[tuple, np.ndarray]:
    """Moves patients, in random order, to the other side as long as this lowers the cost.

    scikit-learn's StratifiedGroupKFold knows shares of 1/k alone, and left a class without training items in 4 of 200
    drawn data sets, where this left none; its shares were ten times as far off.
    """
    total = counts.sum(0)
    is_held, held = np.zeros(len(counts), bool), np.zeros_like(total)
    cost, moved = _cost(held, total, fraction), True
    while moved:
        moved = False
        for patient in rng.permutation(len(counts)):
            other = held - counts[patient] if is_held[patient] else held + counts[patient]
            if (new := _cost(other, total, fraction)) < cost:
                is_held[patient] ^= True
                held, cost, moved = other, new, True
    return cost, is_held


def draw_patients(patients: Sequence[str], classes: Sequence[int], val_fraction: float, seed: int = 0) -> set[str]:
    """Draws the patients held out for validation, so that each class comes as near to `val_fraction` as it can.

    First every class keeps training items, then it gets validation items, then the shares are balanced.

    Args:
        patients: of each item.
        classes: of each item.
        val_fraction: part of the items to hold out.
        seed: of the draw.

    Returns:
        Their names; at least one, and not all.

    Raises:
        ValueError: When no patient can be held out.

    Example:
        >>> draw_patients(["a", "a", "b", "c", "c"], [0, 1, 0, 1, 1], 0.4)  # b has no item of class 1, c none of 0
        {'a'}
    """
    names, rows = np.unique(list(patients), return_inverse=True)
    columns = np.unique(list(classes), return_inverse=True)[1]
    counts = np.zeros((len(names), columns.max() + 1), int)
    np.add.at(counts, (rows, columns), 1)
    rng = np.random.default_rng(seed)
    alone = int(((counts > 0).sum(0) == 1).sum())  # a class of one patient cannot be on both sides
    best, held_out = _draw(counts, val_fraction, rng)
    for draw in range(1, _DRAWS):
        if best[:2] <= (0, alone) and draw * len(names) > _ENOUGH:
            break
        cost, other = _draw(counts, val_fraction, rng)
        if cost < best:
            best, held_out = cost, other
    if not held_out.any():
        raise ValueError(
            f"{len(names)} patient(s), {names[:8].tolist()}, cannot be split into training and validation with every "
            "class in training: add patients, or name the sections yourself in a .json or .csv list."
        )
    return set(names[held_out].tolist())


def _split(
    items: list[dict], patients: list[str], task: str, val_fraction: float, seed: int
) -> tuple[list[dict], list[dict]]:
    """Splits by patient; without patients by item, in classification each class by itself."""
    classes = [item["label"] if task == "classification" else 0 for item in items]
    if patients:
        held = draw_patients(patients, classes, val_fraction, seed)
        sides: tuple[list[dict], list[dict]] = ([], [])
        for item, patient in zip(items, patients, strict=True):
            sides[patient in held].append(item)
        return sides
    groups: dict[int, list[dict]] = {}
    for item, number in zip(items, classes, strict=True):
        groups.setdefault(number, []).append(item)
    training: list[dict] = []
    validation: list[dict] = []
    for _, group in sorted(groups.items()):
        held_out = min(max(1, round(len(group) * val_fraction)), len(group) - 1)
        parts = partition_dataset(group, [len(group) - held_out, held_out], shuffle=True, seed=seed)
        training += parts[0]
        validation += parts[1]
    return training, validation


def _join(patients: list[str], copies: list[list[int]]) -> list[str]:
    """Names alike the patients that share an image."""
    joined = {name: name for name in patients}
    for group in copies:
        names = {joined[patients[index]] for index in group}
        joined = {name: min(names) if other in names else other for name, other in joined.items()}
    return [joined[name] for name in patients]


def _split_once(
    items: list[dict], copies: list[list[int]], task: str, val_fraction: float, seed: int
) -> tuple[list[dict], list[dict]]:
    """Splits one item of each group of copies; the others go where it goes."""
    following = {id(items[first]): [items[index] for index in others] for first, *others in copies}
    followers = {index for _, *others in copies for index in others}
    parts = _split([item for index, item in enumerate(items) if index not in followers], [], task, val_fraction, seed)
    training, validation = ([copy for item in part for copy in (item, *following.get(id(item), []))] for part in parts)
    return training, validation


def complete_sections(
    sections: dict[str, list[dict]],
    task: str,
    val_fraction: float = 0.2,
    seed: int = 0,
    patient_pattern: str | None = None,
) -> dict[str, list[dict]]:
    """Splits the training items where a data set brings no validation section, by patient where patients are named.

    Items of the same file, or of files with the same bytes, stay on one side.

    Args:
        sections: items under "training" and, where the data set has them, "validation" and "test".
        task: "segmentation" or "classification", where each class is split by itself.
        val_fraction: part of the training items held out.
        seed: of the split.
        patient_pattern: as in :func:`find_patients`.

    Raises:
        ValueError: When an argument is out of its range, patients cannot be told or split, a patient or an image is in
            two sections of the data set, or one image has two labels.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}; expected a number between 0 and 1, both excluded.")
    patients = {name: find_patients(items, patient_pattern) for name, items in sections.items()}
    for one, other in combinations(patients, 2):
        if common := sorted(set(patients[one]) & set(patients[other])):
            raise ValueError(
                f'Patient {common[0]!r} is in the sections "{one}" and "{other}" ({len(common)} such patients): move '
                "all images of a patient into one section."
            )
    placed = [(item, name) for name in sorted(sections, key=SECTIONS.index) for item in sections[name]]
    copies = check_copies([item for item, _ in placed], [name for _, name in placed], task)
    training = sections.get("training")
    if not training or "validation" in sections:
        return sections
    copies = [group for group in copies if group[0] < len(training)]  # they come first
    if patients["training"]:
        parts = _split(training, _join(patients["training"], copies), task, val_fraction, seed)
    else:
        parts = _split_once(training, copies, task, val_fraction, seed)
    return {**sections, "training": parts[0], "validation": parts[1]}
