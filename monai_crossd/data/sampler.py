# SPDX-License-Identifier: Apache-2.0
"""Which cases a process of a distributed evaluation takes."""

from __future__ import annotations

from collections.abc import Sized

import ignite.distributed as idist
from monai.data import DistributedSampler

__all__ = ["EvaluationSampler"]


class EvaluationSampler(DistributedSampler):
    """MONAI's DistributedSampler of every case once, in order; its error has no numbers.

    Args:
        dataset: Cases to evaluate.
        num_replicas: Number of processes; by default those of the process group.
        rank: Number of this process; by default that in the process group.

    Raises:
        ValueError: If there are fewer cases than processes, in every process: a metric needs a case in each.

    Example:
        >>> list(EvaluationSampler(range(5), num_replicas=2, rank=1))
        [1, 3]
    """

    def __init__(self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None) -> None:
        processes = idist.get_world_size() if num_replicas is None else num_replicas
        if len(dataset) < processes:
            raise ValueError(
                f"The validation has too few cases, {len(dataset)} for {processes} processes, and each scores one: "
                f"start {len(dataset) or 'fewer'} at most (--nproc_per_node), or add cases to the section 'validation'."
            )
        super().__init__(dataset, even_divisible=False, num_replicas=num_replicas, rank=rank, shuffle=False)
