# SPDX-License-Identifier: Apache-2.0
"""What a classifier says of images that have no label, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.config import PathLike

from .case_names import CaseNames, case_paths
from .report import gather
from .scores import write_csv

__all__ = ["PredictionsHandler"]


class PredictionsHandler:
    """Writes ``predictions.csv``: of each image its path, the most probable class and the probability of each class.

    Attach it to an evaluator whose postprocessing turns "pred" into probabilities.

    Args:
        output_dir: folder of the file.
        labels: names of the classes in the order of their numbers, or by number.

    Raises:
        ValueError: at the start of the run, when an image is listed twice; when predictions are no probabilities of
            these classes.

    Example:
        .. code-block:: json

            {"_target_": "monai_crossd.training.PredictionsHandler", "output_dir": "@output_dir", "labels": "@labels"}
    """

    def __init__(self, output_dir: PathLike, labels: Mapping[int, str] | Sequence[str]) -> None:
        self.path = Path(output_dir) / "predictions.csv"
        self.labels = [name for _, name in sorted(labels.items())] if isinstance(labels, Mapping) else list(labels)
        self._rows: list[tuple[str, list[float]]] = []

    def attach(self, evaluator: Engine) -> None:
        """Registers the handlers.

        Args:
            evaluator: a MONAI evaluator.
        """
        evaluator.add_event_handler(Events.STARTED, self._start)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        evaluator.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, evaluator: Engine) -> None:
        CaseNames(evaluator)  # raises when an image is listed twice
        self._rows = []

    def _add(self, evaluator: Engine) -> None:
        for path, output in zip(case_paths(evaluator.state.batch), evaluator.state.output, strict=True):
            probabilities = torch.as_tensor(output["pred"]).detach().cpu().double().flatten()
            if len(probabilities) != len(self.labels) or abs(probabilities.sum().item() - 1) > 1e-2:
                raise ValueError(
                    f"{path or 'an image'} has the prediction {probabilities.tolist()}; expected "
                    f"probabilities of {self.labels}. Give the postprocessing Activationsd(softmax=True), or correct "
                    "the labels."
                )
            self._rows.append((path, probabilities.tolist()))

    def _finish(self, _: Engine) -> None:
        rows = [(path or f"case{i}", row) for i, (path, row) in enumerate(gather(self._rows))]
        if idist.get_rank() != 0:
            return
        write_csv(
            self.path,
            ["image", "prediction", *(f"probability/{name}" for name in self.labels)],
            [(path, self.labels[max(range(len(row)), key=row.__getitem__)], *row) for path, row in rows],
        )
        print(f"predictions of {len(rows)} images: {self.path}", flush=True)
