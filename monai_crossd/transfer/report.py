# SPDX-License-Identifier: Apache-2.0
"""What a transfer did: every parameter by name, and why where it did not go."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 6  # reasons of a section, and keys of a reason, that a printed report names


def some(names: list[str], number: int) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - number
    return ", ".join(names[:number]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class TransferReport:
    """Outcome of `load_2d`, key by key.

    Printed, it says what was done with how many keys and names a few of each; `details()` names all.

    Attributes:
        transferred: key of the 3D network, and how its value was made.
        skipped: key of the source that went nowhere, and why.
        initial: key of the 3D network that keeps its initial value, and why.
        conflicts: key of the 3D network whose counterpart does not fit, and why; these keep their initial value too.
        numel: number of values behind each key of the 3D network.
        notes: what was done to the source before.

    Example:
        >>> import torch
        >>> from monai_crossd import load_2d
        >>> report = load_2d(torch.nn.Conv3d(1, 4, 3), torch.nn.Conv2d(1, 4, 3), "i3d")
        >>> report.share, sorted(report.transferred)
        (1.0, ['bias', 'weight'])
    """

    transferred: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    initial: dict[str, str] = field(default_factory=dict)
    conflicts: dict[str, str] = field(default_factory=dict)
    numel: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of the 3D network's values (parameters and buffers) that were transferred, 0 to 1."""
        return sum(self.numel[key] for key in self.transferred) / max(1, sum(self.numel.values()))

    def summary(self) -> str:
        """One line."""
        return (
            f"{len(self.transferred)} of {len(self.numel)} tensors transferred ({self.share:.1%} of the "
            f"values), {len(self.initial)} left at their initial value, {len(self.conflicts)} that do not fit, "
            f"{len(self.skipped)} of the source not used"
        )

    def _sections(self) -> dict[str, dict[str, str]]:
        names = ("conflicts", "initial", "skipped", "transferred")
        return {name: entries for name in names if (entries := getattr(self, name))}

    def details(self) -> str:
        """Every key on a line of its own."""
        lines = [self.summary(), *self.notes]
        for title, entries in self._sections().items():
            width = max(map(len, entries))
            lines += [f"{title}:"] + [f"  {key:<{width}}  {why}" for key, why in entries.items()]
        return "\n".join(lines)

    def __str__(self) -> str:
        lines = [self.summary(), *self.notes]
        for title, entries in self._sections().items():
            reasons: dict[str, list[str]] = {}
            for key, why in entries.items():
                reasons.setdefault(why, []).append(key)
            lines.append(f"{title}:")
            for why, keys in list(reasons.items())[:SHOWN]:
                lines.append(f"  {some(keys, SHOWN)}  {why}")
            if len(reasons) > SHOWN:
                lines.append(f"  and {len(reasons) - SHOWN} more reasons: see details()")
        return "\n".join(lines)


class TransferError(ValueError):
    """The source does not fill the 3D network; nothing was loaded. `report` has every key.

    Example:
        >>> import torch
        >>> from monai_crossd import load_2d
        >>> try:
        ...     load_2d(torch.nn.Conv3d(1, 4, 3), torch.nn.Conv2d(1, 4, 5))
        ... except TransferError as error:
        ...     error.report.conflicts["weight"]
        'source (4, 1, 5, 5) does not fit (4, 1, 3, 3, 3)'
    """

    def __init__(self, message: str, report: TransferReport) -> None:
        self.report = report
        super().__init__(message)
