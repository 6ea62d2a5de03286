# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from monai_crossd.data import EvaluationSampler


@pytest.mark.parametrize(("cases", "processes"), [(1, 1), (2, 2), (5, 2), (7, 3), (6, 3), (9, 8)])
def test_every_case_belongs_to_one_process(cases, processes):
    parts = [list(EvaluationSampler(range(cases), processes, rank)) for rank in range(processes)]
    assert sorted(number for part in parts for number in part) == list(range(cases))
    assert all(part == sorted(part) and part for part in parts)
    assert [len(EvaluationSampler(range(cases), processes, rank)) for rank in range(processes)] == list(map(len, parts))


@pytest.mark.parametrize(("cases", "processes"), [(0, 1), (1, 2), (3, 8)])
def test_fewer_cases_than_processes_are_refused_with_both_numbers_in_each(cases, processes):
    for rank in range(processes):
        with pytest.raises(ValueError, match=f"too few cases, {cases} for {processes} processes"):
            EvaluationSampler(range(cases), processes, rank)
