# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from processes import start
from torch import nn

from monai_crossd.conv import CrossDConv2d
from monai_crossd.conv.crossd_cpu import predict_shift
from monai_crossd.training import ResumeHandler, ShiftHandler
from monai_crossd.training.shift_handler import ShiftHistogram
from monai_crossd.visualize import read_shifts

SAMPLES = 6


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        CrossDConv2d(1, 2, 3), nn.ReLU(), CrossDConv2d(2, 3, 1), CrossDConv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )  # fmt: skip


def make_trainer(*handlers, net=None, max_epochs=2, output_dir=None, resume=False):
    """A trainer that validates too; its optimizer moves the weights."""
    net = net or make_net()
    generator = torch.Generator().manual_seed(1)
    data = [{"image": torch.randn(1, 8, 8, generator=generator), "label": i % 2} for i in range(SAMPLES)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=DataLoader(Dataset(data * 3), batch_size=4), network=net,
        decollate=False,
    )  # fmt: skip
    evaluator.state.best_metric, evaluator.state.best_metric_epoch = 0.0, 1
    last = [ResumeHandler(output_dir, evaluator, resume=resume)] if output_dir else []
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=DataLoader(Dataset(data), batch_size=4),
        network=net,
        optimizer=torch.optim.Adam(net.parameters(), 1e-2),
        loss_function=nn.CrossEntropyLoss(),
        train_handlers=[ValidationHandler(1, evaluator), *handlers, *last],
        decollate=False,
    )


def watch_shifts(trainer, monkeypatch) -> dict[tuple[int, str], list[torch.Tensor]]:
    """What the layers themselves shift by in training, by epoch and layer."""
    seen: dict[tuple[int, str], list[torch.Tensor]] = {}
    running: list[tuple[str, CrossDConv2d]] = []

    def watched(*args):
        found = predict_shift(*args)
        name, layer = running[-1]
        if layer.training:
            seen.setdefault((trainer.state.epoch, name), []).append(found.detach())
        return found

    for name, layer in trainer.network.named_modules():
        if isinstance(layer, CrossDConv2d) and layer.predictor is not None:
            layer.register_forward_pre_hook(lambda module, _, name=name: running.append((name, module)))
    monkeypatch.setattr("monai_crossd.conv.crossd.predict_shift", watched)
    return seen


@pytest.mark.parametrize("count", [1, 7, 4000])
def test_histogram_against_numpy(count):
    generator = torch.Generator().manual_seed(0)
    angle = torch.rand(count, generator=generator) - 0.5
    axis = nn.functional.normalize(torch.randn(count, 3, generator=generator))
    shifts = 1 - angle[:, None] * torch.linalg.cross(axis, torch.ones(count, 3))
    histogram = ShiftHistogram(0.5)
    for part in shifts.split(1000):
        histogram.add(part)
    for row, values in zip(histogram.summary(3, "a"), shifts.double().T.numpy(), strict=True):
        assert (row.epoch, row.layer, row.samples) == (3, "a", count)
        assert row.mean == pytest.approx(values.mean(), abs=1e-6)
        assert row.std == pytest.approx(values.std(), abs=1e-6)
        expected = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95), method="inverted_cdf")
        np.testing.assert_allclose(row[6:], expected, atol=2**0.5 * 0.5 / 1000 + 1e-6)


def test_histogram_holds_the_largest_angle():
    histogram = ShiftHistogram(0.5)
    far = 2**-0.5 * torch.tensor([[0.0, 1.0, -1.0], [0.0, -1.0, 1.0]])
    shifts = 1 - 0.5 * torch.linalg.cross(far, torch.ones(2, 3))
    histogram.add(shifts)
    depth = histogram.summary(1, "a")[0]
    assert [depth.q05, depth.q95] == pytest.approx(shifts[:, 0].sort().values.tolist(), abs=1e-3)
    assert ShiftHistogram(0.5).summary(1, "a") == []


def test_table_is_what_the_layers_predicted(tmp_path, monkeypatch):
    trainer = make_trainer(ShiftHandler(tmp_path))
    seen = watch_shifts(trainer, monkeypatch)
    trainer.run()
    rows = read_shifts(tmp_path / "shifts.csv")
    axes = ("depth", "row", "column")
    assert [row[:4] for row in rows] == [(e, n, axis, SAMPLES) for e in (1, 2) for n in ("0", "3") for axis in axes]
    for row in rows:  # a 1×1 layer has no shift, and validation's samples do not count
        values = torch.cat(seen[row.epoch, row.layer])[:, axes.index(row.axis)]
        assert row.mean == pytest.approx(values.mean().item(), abs=1e-6)
        assert row.std == pytest.approx(values.std(correction=0).item(), abs=1e-6)
    assert rows[0].mean != rows[6].mean
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shifts.csv", "shifts.png"]


def test_training_is_the_same_with_the_handler(tmp_path):
    nets = [make_net(), make_net()]
    make_trainer(net=nets[0]).run()
    make_trainer(ShiftHandler(tmp_path), net=nets[1]).run()
    for (name, expected), found in zip(nets[0].state_dict().items(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(found, expected), name
    assert not any(module._forward_hooks for module in nets[1].modules())


def test_resumed_run_keeps_its_past(tmp_path):
    make_trainer(ShiftHandler(tmp_path / "whole"), max_epochs=3).run()
    folder = tmp_path / "cut"
    make_trainer(ShiftHandler(folder), max_epochs=2, output_dir=folder).run()
    make_trainer(ShiftHandler(folder), max_epochs=3, output_dir=folder, resume=True).run()
    assert (folder / "shifts.csv").read_text() == (tmp_path / "whole" / "shifts.csv").read_text()
    make_trainer(ShiftHandler(folder), max_epochs=1, output_dir=folder).run()  # a new run is a new table
    assert {row.epoch for row in read_shifts(folder / "shifts.csv")} == {1}


@pytest.mark.parametrize("given", ["log_dir", "summary_writer"])
def test_tensorboard(tmp_path, given):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path / "log")) if given == "summary_writer" else None
    handler = ShiftHandler(tmp_path, writer, tmp_path / "log" if writer is None else None)
    make_trainer(handler).run()
    if writer is not None:
        writer.close()
    events = accumulator.EventAccumulator(str(tmp_path / "log"), size_guidance={"histograms": 0}).Reload()
    assert events.Tags()["histograms"] == [f"shift/{n}/{axis}" for n in "03" for axis in ("depth", "row", "column")]
    for row in read_shifts(tmp_path / "shifts.csv"):
        logged = events.Histograms(f"shift/{row.layer}/{row.axis}")[row.epoch - 1]
        value = logged.histogram_value
        assert (logged.step, value.num) == (row.epoch, SAMPLES)
        assert value.sum / value.num == pytest.approx(row.mean)
        assert value.sum_squares / value.num - row.mean**2 == pytest.approx(row.std**2, abs=1e-7)
        assert sum(value.bucket) == SAMPLES
        assert value.min <= row.q05 <= row.q95 <= value.max


def test_network_without_shifts(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="No layer of the Sequential predicts shifts"):
        make_trainer(ShiftHandler(tmp_path), net=net).run()
    assert list(tmp_path.iterdir()) == []


def test_writer_and_folder(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer, pytest.raises(ValueError, match="expected one of them"):
        ShiftHandler(tmp_path, writer, tmp_path)


def count_in_rank(folder, rank):
    torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    histogram = ShiftHistogram(0.5)
    histogram.add(torch.full((rank + 1, 3), 1.0 + 0.3 * rank))
    histogram.merge()
    row = histogram.summary(1, "a")[0]
    (folder / str(rank)).write_text(f"{row.samples} {row.mean:.4f} {row.q05:.2f} {row.q95:.2f}")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_count_together(tmp_path):
    ranks = [start(count_in_rank, tmp_path, rank, log=tmp_path / "log") for rank in (0, 1)]
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0, 0], (tmp_path / "log").read_text()
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() == "3 1.2000 1.00 1.30"
