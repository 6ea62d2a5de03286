# SPDX-License-Identifier: Apache-2.0
"""What a transfer did: every parameter by name, and why where it did not go."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TransferReport:
    """Outcome of `transfer_weights`, key by key.

    Attributes:
        method: how kernels were carried.
        transferred: key of the 3D network, and how its value was made.
        skipped: key of the source that went nowhere, and why.
        initial: key of the 3D network that keeps its initial value, and why.
        conflicts: key of the 3D network whose counterpart does not fit, and why; these keep their initial value too.
        numel: number of values behind each key of the 3D network.
    """

    method: str
    transferred: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    initial: dict[str, str] = field(default_factory=dict)
    conflicts: dict[str, str] = field(default_factory=dict)
    numel: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the 3D network's values (parameters and buffers) that were transferred, 0 to 1."""
        return sum(self.numel[key] for key in self.transferred) / max(1, sum(self.numel.values()))

    def summary(self) -> str:
        """One line."""
        return (
            f"{self.method}: {len(self.transferred)} of {len(self.numel)} tensors transferred ({self.share:.1%} of the "
            f"values), {len(self.initial)} left at their initial value, {len(self.conflicts)} that do not fit, "
            f"{len(self.skipped)} of the source not used"
        )

    def __str__(self) -> str:
        lines = [self.summary()]
        for title in ("conflicts", "initial", "skipped", "transferred"):
            entries: dict[str, str] = getattr(self, title)
            if entries:
                width = max(map(len, entries))
                lines += [f"{title}:"] + [f"  {key:<{width}}  {why}" for key, why in entries.items()]
        return "\n".join(lines)


class TransferError(ValueError):
    """The source does not fill the 3D network; nothing was loaded. `report` has every key."""

    def __init__(self, message: str, report: TransferReport) -> None:
        self.report = report
        super().__init__(message)
