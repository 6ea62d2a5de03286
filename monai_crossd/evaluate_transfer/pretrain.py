# SPDX-License-Identifier: Apache-2.0
"""The 2D networks that a study starts from: trained once per pretraining and seed, or read from files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .._replacing import replacing
from ..convert import load_checkpoint, read_checkpoint
from .learning import fit, predict
from .load import Items, keep_last, load_items
from .methods import build_2d
from .metrics import table1_metrics
from .study import Source, Study

__all__ = ["load_source", "pretrain", "pretrained_network", "weights_path"]


def weights_path(output_dir: Path, pretraining: str, seed: int) -> Path:
    """Where the weights of a pretraining are; beside them, .json, its scores and seconds."""
    return output_dir / "pretrained" / f"{pretraining}-seed{seed}.pt"


def _side_by_side(parts: list[Items]) -> Items:
    images, labels = (torch.cat(values) for values in zip(*((p.images, p.labels) for p in parts), strict=True))
    return Items(images, labels, [section for p in parts for section in p.sections], [])


def _read_source(source: Source, channels: int, demo_dir: str) -> tuple[Items, Items]:
    trained: list[Items] = []
    held_out: list[Items] = []
    classes = 0
    for spec in source.datasets:
        items = load_items(spec, channels, demo_dir)
        sections = np.array(items.sections)
        for part, chosen in ((trained, np.isin(sections, spec.sections)), (held_out, sections == "validation")):
            index = torch.from_numpy(np.flatnonzero(chosen))
            part.append(Items(items.images[index], items.labels[index] + classes, sections[chosen].tolist(), []))
        classes += int(items.labels.max()) + 1
    return _side_by_side(trained), _side_by_side(held_out)


def load_source(source: Source, channels: int, demo_dir: str) -> tuple[Items, Items]:
    """The images that are trained on, and those of the validation sections; all classes side by side."""
    return keep_last("source", (source, channels, demo_dir), lambda: _read_source(source, channels, demo_dir))


def pretrain(study: Study, output_dir: Path, pretraining: str, seed: int, device: str) -> dict[str, Any]:
    """Trains a 2D network on the source and writes its weights, then its row: seconds, and scores on held-out images.

    Args:
        study: of which the source and the schedule count.
        output_dir: of the study.
        pretraining: one of :data:`~monai_crossd.evaluate_transfer.methods.PRETRAININGS`.
        seed: of weights, order and augmentation.
        device: to train on.
    """
    start, demo_dir = time.perf_counter(), str(output_dir / "demo")
    items, held_out = load_source(study.source, study.channels, demo_dir)
    torch.manual_seed(seed)
    classes = int(items.labels.max()) + 1
    network = build_2d(pretraining, study.network, study.channels, classes).to(device)
    fit(network, items.images.to(device), items.labels.to(device), study.pretraining, seed)
    seconds = time.perf_counter() - start
    row: dict[str, Any] = {"pretraining": pretraining, "seed": seed, "n_train": len(items.labels), "seconds": seconds}
    if all("validation" not in spec.sections for spec in study.source.datasets):
        predicted = predict(network, held_out.images.to(device)).argmax(1).numpy()
        row |= {"n_test": len(predicted), **table1_metrics(predicted, held_out.labels.numpy(), classes)}
    path = weights_path(output_dir, pretraining, seed)
    with replacing(path) as temporary:
        torch.save(network.cpu().state_dict(), temporary)
    with replacing(path.with_suffix(".json")) as temporary:  # last: with it the pretraining is done
        temporary.write_text(json.dumps(row))
    return row


def pretrained_network(
    study: Study, output_dir: Path, pretraining: str | None, seed: int, channels: int | None = None
) -> nn.Module:
    """The 2D network that a cell starts from; where nothing is pretrained, one with new weights.

    Args:
        study: with the source.
        output_dir: of the study.
        pretraining: one of :data:`~monai_crossd.evaluate_transfer.methods.PRETRAININGS`.
        seed: of the pretraining and of what is new.
        channels: of the data set, to which the stem of weights from a file is adapted.
    """
    torch.manual_seed(seed)
    if pretraining is None or pretraining in study.source.weights:
        network = build_2d(pretraining, study.network, channels or study.channels, 1)
        if pretraining is not None:
            load_checkpoint(study.source.weights[pretraining], network, exclude=["fc.*"])
        return network
    state = read_checkpoint(weights_path(output_dir, pretraining, seed))
    network = build_2d(pretraining, study.network, study.channels, len(state["fc.bias"]))
    network.load_state_dict(state)
    return network
