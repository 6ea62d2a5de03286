# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from matplotlib.image import imread
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanDice, ValidationHandler, from_engine
from monai.inferers import SimpleInferer
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    AsDiscreted,
    CenterSpatialCropd,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    RandSpatialCropSamplesd,
    ScaleIntensityRanged,
    SpatialPadd,
)
from monai.utils import set_determinism

from monai_crossd.data import load_datalist, load_labels
from monai_crossd.training import HistoryHandler, OverlayHandler, StopOnNaN
from monai_crossd.training.history import as_curves, read_history, write_history
from monai_crossd.visualize import save_curves

CLASSES = 8


@pytest.fixture(scope="module")
def demo_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def labels(demo_dir):
    return load_labels("demo", demo_dir=demo_dir)


@pytest.fixture
def engines(demo_dir):
    """Makes a trainer and an evaluator of a tiny U-Net on the demo CT."""
    set_determinism(0)
    keys = ("image", "label")
    load = [
        LoadImaged(keys),
        EnsureChannelFirstd(keys),
        ScaleIntensityRanged("image", -1000, 1000, 0, 1, clip=True),
        SpatialPadd(keys, (-1, -1, 4)),
    ]
    training = Dataset(
        load_datalist("demo", demo_dir=demo_dir),
        Compose([*load, RandSpatialCropSamplesd(keys, (32, 32, 4), 2, random_size=False)]),
    )
    validation = Dataset(
        load_datalist("demo", "validation", demo_dir=demo_dir), Compose([*load, CenterSpatialCropd(keys, (64, 64, -1))])
    )

    def make(max_epochs=2, net=None, train_handlers=(), val_handlers=(), interval=1, history_first=False, **history):
        net = net or UNet(3, 1, CLASSES, channels=(4, 8), strides=((2, 2, 1),), num_res_units=0)
        evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(validation, batch_size=1),
            network=net,
            inferer=SimpleInferer(),
            postprocessing=Compose(
                [AsDiscreted("pred", argmax=True, to_onehot=CLASSES), AsDiscreted("label", to_onehot=CLASSES)]
            ),
            key_val_metric={
                "val_mean_dice": MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))
            },
            val_handlers=list(val_handlers),
        )
        handlers = [ValidationHandler(interval, evaluator), *train_handlers]
        if history:
            handlers.insert(0 if history_first else 1, HistoryHandler(evaluator=evaluator, **history))
        trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=max_epochs,
            train_data_loader=DataLoader(training, batch_size=3),
            network=net,
            optimizer=torch.optim.Adam(net.parameters(), 1e-2),
            loss_function=DiceCELoss(softmax=True, to_onehot_y=True),
            train_handlers=handlers,
        )
        return trainer, evaluator

    yield make
    set_determinism(None)


@pytest.mark.parametrize("history_first", [False, True])
def test_history_of_a_real_run(engines, labels, tmp_path, capsys, history_first):
    trainer, evaluator = engines(3, output_dir=tmp_path, labels=labels, interval=2, history_first=history_first)
    trainer.run()
    rows = read_history(tmp_path / "history.csv")
    names = [f"val_mean_dice/{name}" for name in list(labels.values())[1:]]
    assert list(rows) == [1, 2, 3]
    assert list(rows[1]) == list(rows[3]) == ["train_loss", "seconds"]
    assert set(rows[2]) == {"train_loss", "val_mean_dice", *names, "seconds"}
    assert rows[3]["train_loss"] < rows[1]["train_loss"]
    assert rows[2]["val_mean_dice"] == evaluator.state.metrics["val_mean_dice"]
    details = evaluator.state.metric_details["val_mean_dice"]
    # cervical spine: absent from the first validation volume, so its score is the second volume's
    assert details[:, 1].isnan().tolist() == [True, False]
    assert rows[2][names[1]] == pytest.approx(details[1, 1].item())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert f"val_mean_dice {rows[2]['val_mean_dice']:.4f} (ribs " in lines[1]
    assert imread(tmp_path / "curves.png").std() > 0.01
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "history.csv"]
    save_curves(tmp_path / "both.png", {"a": as_curves(rows), "b": as_curves(rows)})


@pytest.mark.usefixtures("no_curves")
def test_it_says_what_it_does_and_how_long(engines, tmp_path, caplog, capsys, monkeypatch):
    monkeypatch.setattr("monai_crossd.training.history.MINUTE", 0.0)
    caplog.set_level("INFO", "monai_crossd")
    engines(2, output_dir=tmp_path)[0].run()
    first, *others = [record.getMessage() for record in caplog.records if "history" in record.name]
    assert first == "training on 3 items, validating on 2 items: 2 epochs of 1 iterations on cpu"
    assert [line.split(", about")[0] for line in others] == [f"epoch {n}/2: 1 of 1 iterations" for n in (1, 2)]
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith(" left") for line in lines] == [True, False]


@pytest.mark.usefixtures("no_curves")
def test_loss_is_the_mean_of_the_epoch(engines, tmp_path):
    losses = []
    trainer, _ = engines(1, output_dir=tmp_path)

    def watch(engine: Engine):
        losses.append(engine.state.output[0]["loss"])

    trainer.add_event_handler("ITERATION_COMPLETED", watch)
    trainer.run()
    assert read_history(tmp_path / "history.csv")[1]["train_loss"] == pytest.approx(sum(losses) / len(losses))


@pytest.mark.usefixtures("no_curves")
def test_resumed_run_keeps_its_past(engines, tmp_path):
    past = {1: {"train_loss": 9.0}, 2: {"train_loss": 8.0}, 3: {"train_loss": 7.0}}
    write_history(tmp_path / "history.csv", past)
    trainer, _ = engines(3, output_dir=tmp_path)
    trainer.add_event_handler("STARTED", lambda engine: setattr(engine.state, "epoch", 2))  # as CheckpointLoader does
    trainer.run()
    rows = read_history(tmp_path / "history.csv")
    assert [rows[1], rows[2]] == [past[1], past[2]]
    assert rows[3]["train_loss"] < 7


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({0: "background", 1: "ribs"}, r"scores of shape \(2, 7\); expected \(cases, 2\)"),
        ({i: str(i) for i in range(12)}, r"expected \(cases, 12\)"),
    ],
)
def test_wrong_labels(engines, tmp_path, names, message):
    trainer, _ = engines(1, output_dir=tmp_path, labels=names)
    with pytest.raises(ValueError, match=message):
        trainer.run()


def test_class_absent_from_all_cases_is_a_dash(tmp_path):
    from monai_crossd.training.history import class_scores, format_epoch

    evaluator = Engine(lambda *_: None)
    evaluator.state.key_metric_name = "dice"
    evaluator.state.metric_details = {"dice": torch.tensor([[0.5, math.nan], [1.0, math.nan]])}
    scores = class_scores(evaluator, {0: "background", 1: "liver", 2: "spleen"})
    assert scores["dice/liver"] == 0.75
    assert math.isnan(scores["dice/spleen"])
    assert "(liver 0.750, spleen -)" in format_epoch(1, 1, {"dice": 0.75, **scores, "seconds": 1.0})
    write_history(tmp_path / "h.csv", {1: scores})
    assert math.isnan(read_history(tmp_path / "h.csv")[1]["dice/spleen"])
    evaluator.state.metric_details = {}
    with pytest.raises(ValueError, match="give it save_details=True"):
        class_scores(evaluator, {0: "background", 1: "liver"})


def test_foreign_csv_is_refused(tmp_path):
    (tmp_path / "h.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"h\.csv is no training history"):
        read_history(tmp_path / "h.csv")


def test_overlays_of_the_chosen_cases(engines, labels, tmp_path):
    trainer, _ = engines(1, val_handlers=[OverlayHandler(tmp_path, labels, cases=(0, 1))])
    trainer.run()
    written = sorted(p.name for p in tmp_path.iterdir())
    assert written == ["chest_08-11_overlay.png", "chest_26-29_overlay.png"]
    assert all(imread(p).std() > 0.05 for p in tmp_path.iterdir())


def test_overlay_is_of_the_best_epoch(engines, tmp_path):
    _, evaluator = engines(1, val_handlers=[OverlayHandler(tmp_path)])
    path = tmp_path / "chest_08-11_overlay.png"
    evaluator.run(1)
    first = path.read_bytes()
    path.unlink()
    for parameter in evaluator.network.parameters():
        torch.nn.init.zeros_(parameter)  # predicts background: the score falls to 0
    evaluator.run(2)
    assert evaluator.state.best_metric_epoch == 1
    assert first
    assert not path.exists()


def test_overlay_of_a_case_that_is_not_there(engines, tmp_path):
    _, evaluator = engines(1, val_handlers=[OverlayHandler(tmp_path, cases=(2,))])
    with pytest.raises(ValueError, match=r"Case 2 is to be drawn, but the evaluator has only cases 0\.\.1"):
        evaluator.run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_stop_on_nan(engines, tmp_path, value):
    trainer, _ = engines(3, interval=9, train_handlers=[StopOnNaN()], output_dir=tmp_path)

    def spoil(engine: Engine):
        torch.nn.init.constant_(next(engine.network.parameters()), value)

    trainer.add_event_handler("EPOCH_COMPLETED", spoil)
    iteration = trainer.state.epoch_length + 1
    with pytest.raises(FloatingPointError, match=rf"The loss is nan in iteration {iteration} \(epoch 2 of 3\)"):
        trainer.run()
    assert trainer.state.epoch == 2
    assert list(read_history(tmp_path / "history.csv")) == [1]  # the epochs before are not lost
    assert (tmp_path / "curves.png").is_file()


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("history_first", [False, True])
def test_row_is_on_disk_when_its_epoch_ends(engines, tmp_path, history_first):
    """A run killed in its second epoch has the row of the first, with its validation."""
    trainer, _ = engines(2, output_dir=tmp_path, history_first=history_first)
    found = []

    def look(engine: Engine):
        found.append(list(read_history(tmp_path / "history.csv").items()) if engine.state.epoch > 1 else [])

    trainer.add_event_handler("EPOCH_STARTED", look)
    trainer.run()
    ((epoch, row),) = found[1]
    assert epoch == 1
    assert list(row) == ["train_loss", "val_mean_dice", "seconds"]


def test_handlers_from_yaml(tmp_path):
    names = {0: "background", 1: "liver"}
    parser = ConfigParser(
        {
            "labels": names,
            "handlers": [
                {"_target_": "monai_crossd.training.HistoryHandler", "output_dir": str(tmp_path), "labels": "@labels"},
                {"_target_": "monai_crossd.training.OverlayHandler", "output_dir": str(tmp_path), "labels": "@labels"},
                {"_target_": "monai_crossd.training.StopOnNaN"},
            ],
        }
    )
    handlers = parser.get_parsed_content("handlers")
    assert [type(h) for h in handlers] == [HistoryHandler, OverlayHandler, StopOnNaN]
    assert handlers[0].labels == names
