# SPDX-License-Identifier: Apache-2.0
"""Pictures of validation cases, of the best epoch so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ignite.engine import Engine, Events
from monai.config import PathLike

from ..visualize import save_overlay
from ..visualize.figures import need_matplotlib
from .case_names import CaseNames, case_paths

__all__ = ["OverlayHandler"]


class OverlayHandler:
    """Writes ``<case>_overlay.png`` for chosen cases when a run of the evaluator was the best so far by its key metric.

    So the picture shows the network that MONAI's ``CheckpointSaver(save_key_metric=True)`` keeps. An evaluator that
    runs once, or has no key metric, always writes. The postprocessed prediction must be on the image's grid.

    Args:
        output_dir: folder of the pictures.
        labels: names by class number.
        cases: their numbers in the order of the evaluator's data, which must not be shuffled.
        window: image values shown as black and white; by default the 1st and 99th percentile.

    Raises:
        OptionalImportError: When matplotlib is not installed; at once, not after the training.

    Example:
        .. code-block:: yaml

            handlers:
            - _target_: monai_crossd.training.OverlayHandler
              output_dir: "@output_dir"
              labels: "@labels"
    """

    def __init__(
        self,
        output_dir: PathLike,
        labels: Mapping[int, str] | None = None,
        cases: Sequence[int] = (0,),
        window: tuple[float, float] | None = None,
    ) -> None:
        need_matplotlib("matplotlib.figure")
        self.output_dir = Path(output_dir)
        self.labels = labels
        self.cases = tuple(cases)
        self.window = window
        self._seen = 0
        self._kept: dict[int, Mapping] = {}

    def attach(self, evaluator: Engine) -> None:
        """Registers the handlers.

        Args:
            evaluator: a MONAI evaluator whose outputs are decollated, which is its default.
        """
        evaluator.add_event_handler(Events.STARTED, self._start)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
        evaluator.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, evaluator: Engine) -> None:
        self._seen = 0
        self._kept = {}
        self._names = CaseNames(evaluator)

    def _keep(self, evaluator: Engine) -> None:
        for item in evaluator.state.output:
            if self._seen in self.cases:
                self._kept[self._seen] = {key: item[key] for key in ("image", "pred", "label") if key in item}
            self._seen += 1

    def _write(self, evaluator: Engine) -> None:
        missing = sorted(set(self.cases) - set(self._kept))
        if missing:
            raise ValueError(f"Case {missing[0]} is to be drawn, but the evaluator has only cases 0..{self._seen - 1}.")
        if evaluator.state.best_metric_epoch in (-1, evaluator.state.epoch):
            for number, item in self._kept.items():
                path = self.output_dir / f"{self._names.name(next(case_paths([item])), number)}_overlay.png"
                save_overlay(
                    path, item["image"], item["pred"], truth=item.get("label"), labels=self.labels, window=self.window
                )
        self._kept = {}
