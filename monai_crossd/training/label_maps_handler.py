# SPDX-License-Identifier: Apache-2.0
"""Label maps that a segmentation network predicts, a file for each image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.config import DtypeLike, PathLike
from monai.data import MetaTensor

from .._replacing import replacing
from ..data.readers.formats import has_suffix
from ..data.simpleitk import SUFFIXES, SimpleITKWriter
from .case_names import CaseNames, case_paths

__all__ = ["LabelMapsHandler"]


class LabelMapsHandler:
    """Writes the "pred" of every case as ``NAME_pred.nii.gz``, with the affine and axes that it has.

    No file replaces another's: the names are those of :func:`monai_crossd.data.output_names`, made for all items of the
    evaluator's data set before the first is written. MONAI's SaveImaged, which knows one item at a time, gives images
    of one name in different folders one file, and cuts a name at its first dot. Attach it to an evaluator whose
    postprocessing ends with whole numbers on the images' own grids; a volume of one slice stays a volume.

    Args:
        output_dir: folder of the files; items of equal names get folders in it.
        output_ext: suffix, of a format of :class:`monai_crossd.data.SimpleITKWriter`.
        postfix: end of the names.
        output_dtype: type of the voxels in the files.
        labels: names of the numbers in the files, in their order or by number, for ``labels.json`` beside them.

    Raises:
        ValueError: for another suffix, at once; at the start of the run, when two items are the same file or would have
            one name; when labels do not fit ``output_dtype``.

    Example:
        .. code-block:: json

            {"_target_": "monai_crossd.training.LabelMapsHandler", "output_dir": "@output_dir"}
    """

    def __init__(
        self,
        output_dir: PathLike,
        output_ext: str = ".nii.gz",
        postfix: str = "pred",
        output_dtype: DtypeLike = np.uint8,
        labels: Mapping[int, str] | Sequence[str] | None = None,
    ) -> None:
        if not has_suffix(f"x{output_ext}", SUFFIXES) or not output_ext.startswith("."):
            raise ValueError(f"output_ext is {output_ext!r}; expected one of {SUFFIXES}.")
        self.output_dir = Path(output_dir)
        self.ending = f"_{postfix}{output_ext}" if postfix else output_ext
        self.output_dtype = output_dtype
        self.labels = dict(labels) if isinstance(labels, Mapping) else dict(enumerate(labels or ()))
        self._written = 0

    def attach(self, evaluator: Engine) -> None:
        """Registers the handlers.

        Args:
            evaluator: a MONAI evaluator whose outputs are decollated, which is its default.
        """
        evaluator.add_event_handler(Events.STARTED, self._start)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        evaluator.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, evaluator: Engine) -> None:
        self._names = CaseNames(evaluator)
        self._written = 0

    def _write(self, evaluator: Engine) -> None:
        for path, output in zip(case_paths(evaluator.state.batch), evaluator.state.output, strict=True):
            pred = output["pred"]
            target = self.output_dir / f"{self._names.name(path, self._written)}{self.ending}"
            target.parent.mkdir(parents=True, exist_ok=True)
            writer = SimpleITKWriter(output_dtype=self.output_dtype)
            writer.set_data_array(torch.as_tensor(pred).detach().cpu(), channel_dim=0)
            writer.set_metadata(pred.meta if isinstance(pred, MetaTensor) else None, resample=False)
            try:
                writer.write(target)
            except ValueError as error:
                raise ValueError(f"{path or target}: {error}") from error
            self._written += 1

    def _finish(self, _: Engine) -> None:
        count = torch.tensor(self._written)
        if idist.get_world_size() > 1:
            count = idist.all_reduce(count.to(idist.device()))
        if idist.get_rank() == 0:
            if self.labels:
                with replacing(self.output_dir / "labels.json") as temporary:
                    temporary.write_text(json.dumps(self.labels, indent=4, ensure_ascii=False) + "\n", "utf-8")
            print(f"{int(count)} label maps: {self.output_dir}", flush=True)
