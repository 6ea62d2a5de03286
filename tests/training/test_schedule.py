# SPDX-License-Identifier: Apache-2.0
"""The repeated one-cycle schedule against torch's, a new one for each cycle."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from monai_crossd.training import RepeatedOneCycleLR

OPTIONS = [
    {"max_lr": 0.1, "total_steps": 5},
    {"max_lr": [0.1, 0.3], "total_steps": 7, "pct_start": 0.1},
    {"max_lr": 0.1, "total_steps": 6, "three_phase": True, "anneal_strategy": "linear"},
    {"max_lr": 0.1, "total_steps": 4, "cycle_momentum": False},
]


def optimizer() -> torch.optim.AdamW:
    return torch.optim.AdamW([{"params": [torch.zeros(1, requires_grad=True)]} for _ in range(2)])


def settings(optim: torch.optim.Optimizer) -> list[tuple]:
    return [(group["lr"], group["betas"]) for group in optim.param_groups]


def follow(schedule, optim, steps: int) -> list[list[tuple]]:
    """Settings that each of `steps` batches trains with."""
    seen = []
    for _ in range(steps):
        seen.append(settings(optim))
        optim.step()
        schedule.step()
    return seen


@pytest.mark.parametrize("options", OPTIONS)
def test_every_cycle_is_torchs(options):
    total = options["total_steps"]
    optim = optimizer()
    found = follow(RepeatedOneCycleLR(optim, **options), optim, 3 * total)
    plain = optimizer()
    expected = follow(OneCycleLR(plain, **options), plain, total)
    assert len({str(step) for step in expected}) > 2
    for cycle in range(3):
        assert found[cycle * total : (cycle + 1) * total] == expected


def test_goes_on_from_its_state():
    whole = optimizer()
    schedule = RepeatedOneCycleLR(whole, max_lr=0.1, total_steps=5)
    follow(schedule, whole, 8)
    state = schedule.state_dict(), whole.state_dict()
    expected = follow(schedule, whole, 9)
    again = optimizer()
    resumed = RepeatedOneCycleLR(again, max_lr=0.1, total_steps=5)
    resumed.load_state_dict(state[0])
    again.load_state_dict(state[1])
    assert follow(resumed, again, 9) == expected
