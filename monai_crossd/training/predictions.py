# SPDX-License-Identifier: Apache-2.0
"""What a network says of each case, in files: a table of classes, label maps, pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.config import DtypeLike, PathLike
from monai.data import MetaTensor

from .._replacing import replacing
from ..data.output_names import output_names
from ..data.readers.formats import has_suffix
from ..data.simpleitk import SUFFIXES, SimpleITKWriter
from ..visualize import save_overlay
from ..visualize.figures import need_matplotlib
from .scores import write_csv

__all__ = ["CaseNames", "LabelMapsHandler", "OverlayHandler", "PredictionsHandler", "case_paths"]


def case_paths(batch: Any) -> Iterator[str]:
    """Path of each image of a batch, decollated or not; "" where the image has no path."""
    if isinstance(batch, Mapping):
        image = batch["image"]
        paths = image.meta.get("filename_or_obj") if isinstance(image, MetaTensor) else None
        yield from map(str, paths or [""] * len(image))
    else:
        for item in batch:
            image = item["image"]
            yield str(image.meta.get("filename_or_obj", "")) if isinstance(image, MetaTensor) else ""


class CaseNames:
    """Short names of an evaluator's cases, each used for one of them only; see :func:`output_names`.

    They are those of the items of the evaluator's data set, all of them known before the first is used, and the same in
    every process. A case of a data set that does not list its items gets the name of its path, or its number.

    Args:
        evaluator: before its run.

    Raises:
        ValueError: When two items are the same file, or would have one name.
    """

    def __init__(self, evaluator: Engine) -> None:
        dataset = getattr(evaluator.data_loader, "dataset", None)
        items = getattr(dataset, "data", dataset)
        listed = isinstance(items, (list, tuple)) and all(_has_path(item) for item in items)
        self._names: dict[str, str] = output_names(items) if listed else {}  # type: ignore[arg-type]
        self._used: dict[str, str] = {name: path for path, name in self._names.items()}

    def name(self, path: str, number: int) -> str:
        """Name of a case.

        Args:
            path: of its image; "" where it has none.
            number: of the case.

        Raises:
            ValueError: When another case of a data set that does not list its items has that name.
        """
        if path in self._names:
            return self._names[path]
        key = path or f"case{number}"
        (name,) = output_names([{"image": key}]).values()
        if (other := self._used.setdefault(name, key)) != key:
            raise ValueError(f"The outputs of {other} and {key} would both be named {name!r}: rename one of the two.")
        return name


def _has_path(item: Any) -> bool:
    image = item.get("image") if isinstance(item, Mapping) else None
    if isinstance(image, (list, tuple)):
        return bool(image) and all(_is_path(part) for part in image)
    return _is_path(image)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) or hasattr(value, "__fspath__")


def gather(values: list) -> list:
    """Lists of all processes, one after the other by rank, which is MONAI's order of what its metrics gather."""
    if idist.get_world_size() == 1:
        return values
    parts: list[Any] = [None] * idist.get_world_size()
    torch.distributed.all_gather_object(parts, values)
    return [value for part in parts for value in part]


class CaseHandler:
    """Base of handlers of an evaluator: for its start, each of its batches and its end."""

    _names: CaseNames

    def attach(self, evaluator: Engine) -> None:
        """Registers the handlers.

        Args:
            evaluator: a MONAI evaluator, whose outputs are decollated, which is its default.
        """
        evaluator.add_event_handler(Events.STARTED, self._start)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        evaluator.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, evaluator: Engine) -> None:
        self._names = CaseNames(evaluator)  # raises when an image is listed twice

    def _add(self, evaluator: Engine) -> None:
        raise NotImplementedError

    def _finish(self, evaluator: Engine) -> None:
        raise NotImplementedError


class PredictionsHandler(CaseHandler):
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

    def _start(self, evaluator: Engine) -> None:
        super()._start(evaluator)
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

    def _finish(self, evaluator: Engine) -> None:
        rows = [(path or f"case{i}", row) for i, (path, row) in enumerate(gather(self._rows))]
        if idist.get_rank() != 0:
            return
        write_csv(
            self.path,
            ["image", "prediction", *(f"probability/{name}" for name in self.labels)],
            [(path, self.labels[max(range(len(row)), key=row.__getitem__)], *row) for path, row in rows],
        )
        print(f"predictions of {len(rows)} images: {self.path}", flush=True)


class LabelMapsHandler(CaseHandler):
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

    def _start(self, evaluator: Engine) -> None:
        super()._start(evaluator)
        self._written = 0

    def _add(self, evaluator: Engine) -> None:
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

    def _finish(self, evaluator: Engine) -> None:
        count = torch.tensor(self._written)
        if idist.get_world_size() > 1:
            count = idist.all_reduce(count.to(idist.device()))
        if idist.get_rank() == 0:
            if self.labels:
                with replacing(self.output_dir / "labels.json") as temporary:
                    temporary.write_text(json.dumps(self.labels, indent=4, ensure_ascii=False) + "\n", "utf-8")
            print(f"{int(count)} label maps: {self.output_dir}", flush=True)


class OverlayHandler(CaseHandler):
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

    def _start(self, evaluator: Engine) -> None:
        super()._start(evaluator)
        self._seen = 0
        self._kept = {}

    def _add(self, evaluator: Engine) -> None:
        for item in evaluator.state.output:
            if self._seen in self.cases:
                kept = {key: item[key] for key in ("image", "pred", "label") if key in item}
                # an image is a volume of one slice
                self._kept[self._seen] = {
                    k: v[..., None] if v is not None and v.ndim == 3 else v for k, v in kept.items()
                }
            self._seen += 1

    def _finish(self, evaluator: Engine) -> None:
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
