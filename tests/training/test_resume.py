# SPDX-License-Identifier: Apache-2.0
"""Real trainings, killed and resumed. As a program, this file is the training that is killed."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import ignite.distributed as idist
import pytest
import torch
from monai.data import CacheDataset, DataLoader, DistributedSampler
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureTyped, Lambdad, RandFlipd, RandGaussianNoised
from monai.utils import set_determinism
from torch.nn.parallel import DistributedDataParallel

from monai_crossd.training import (
    BestCheckpoint,
    EarlyStop,
    EpochSeed,
    HistoryHandler,
    ResumeHandler,
    StopOnNaN,
    save_run_config,
)

pytestmark = pytest.mark.usefixtures("no_curves")
EPOCHS, BATCHES = 4, 3
SHIFT = Compose([EnsureTyped(("image", "label")), Lambdad("image", lambda x: x + 1)])


class Scores:
    """Stands for a metric in validation: one number per epoch, so that a test decides which epoch is the best."""

    def __init__(self, values):
        self.values = values

    def attach(self, engine, name):
        engine.add_event_handler(
            "EPOCH_COMPLETED", lambda e: e.state.metrics.update({name: self.values[e.state.epoch]})
        )


def make(
    folder, *, resume=False, workers=0, scores=(0, 1, 4, 2, 3), batch_size=2, channels=8, rate=1e-2, optimizer="AdamW",
    max_epochs=EPOCHS, early_stop=0, amp=False, extra=(), val_items=1, ddp=False, lists_order=1, interval=1,
    seed=3, shift=0.0, val_shift=0.0, decay=1e-2, dropout=0.2, prob=0.5, loss=None, frozen=(), step=False,
):  # fmt: skip
    """A U-Net with dropout and batch norm on random noise, with all that a bundle's training has."""
    set_determinism(3)
    data = [{"image": torch.randn(1, 8, 8), "label": torch.randn(1, 8, 8)} for _ in range(6)]
    held_out = [{"image": item["image"] + val_shift, "label": item["label"]} for item in data[:val_items]]
    data[-1]["label"][0, 0, 0] += shift
    random = [RandFlipd(("image", "label"), prob, 0), RandGaussianNoised("image", 0.7)]
    dataset = CacheDataset(data, Compose([*SHIFT.transforms, *random]), progress=False)
    sampler = DistributedSampler(dataset) if idist.get_world_size() > 1 else None
    options = {"shuffle": sampler is None, "sampler": sampler, "drop_last": True, "num_workers": workers}
    loader = DataLoader(dataset, batch_size=batch_size, **options)
    validation = DataLoader(CacheDataset(held_out, SHIFT, progress=False))
    net = UNet(2, 1, 1, (channels, 8), (2,), norm="batch", dropout=dropout)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name not in frozen)
    if ddp:
        net = DistributedDataParallel(net)
    optim = getattr(torch.optim, optimizer)(net.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optim, rate, max_epochs * max(len(loader), 1))
    if step:
        schedule = torch.optim.lr_scheduler.StepLR(optim, 4)
    device = torch.device("cpu")
    evaluator = SupervisedEvaluator(
        device, validation, net, key_val_metric={"score": Scores(scores)}, val_handlers=[BestCheckpoint(folder)]
    )
    handlers = [
        StopOnNaN(),
        EpochSeed(seed),
        LrScheduleHandler(schedule, epoch_level=False, print_lr=False),
        HistoryHandler(folder, evaluator),
        ValidationHandler(interval, evaluator),
        EarlyStop(early_stop, evaluator),
        ResumeHandler(folder, evaluator, schedule, resume=resume),
    ]
    return SupervisedTrainer(
        device, max_epochs, loader, net, optim, loss or torch.nn.MSELoss(), amp=amp,
        train_handlers=[*handlers[::lists_order], *extra],
    )  # fmt: skip


class At:
    """Does something at the end of an iteration."""

    def __init__(self, iteration, action):
        self.iteration, self.action = iteration, action

    def attach(self, trainer):
        trainer.add_event_handler("ITERATION_COMPLETED", self._check)

    def _check(self, trainer):
        if trainer.state.iteration == self.iteration:
            self.action(trainer)


def die(_=None):
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_saving(trainer):
    """The next checkpoint is written by half."""
    save = torch.save

    def half(state, file):
        whole = io.BytesIO()
        save(state, whole)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        die()

    torch.save = half


def run_killed(folder, action, at, **options):
    """Train in another process, which is killed."""
    from processes import start  # not on the path where this file is a program

    process = start(train, folder, action, at, options, log=folder / "log")
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, (folder / "log").read_text()


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def read(path):
    return torch.load(path, weights_only=True)


def history(folder):
    with (folder / "history.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of a run without a break and of one that was interrupted after the first epoch."""
    folder = tmp_path_factory.mktemp("runs")
    make(folder / "unbroken").run()
    cut(folder / "cut", 1)
    return folder


@pytest.fixture
def unbroken(runs, tmp_path):
    """Folder of a run without a break."""
    return Path(shutil.copytree(runs / "unbroken", tmp_path / "unbroken"))


@pytest.fixture
def after_first(runs, tmp_path):
    """Folder of a run that was interrupted after the first epoch."""
    return Path(shutil.copytree(runs / "cut", tmp_path, dirs_exist_ok=True))


def assert_same_run(a, b):
    for name in ("last.pt", "model.pt"):
        assert same(read(a / name), read(b / name)), name
    assert history(a) == history(b)


@pytest.mark.parametrize(("action", "workers"), [("die", 0), ("die", 2), ("die_while_saving", 0)])
def test_killed_and_resumed_is_as_unbroken(tmp_path, capsys, action, workers):
    folders = [tmp_path / name for name in ("unbroken", "broken")]
    folders[1].mkdir()
    trainer = make(folders[0], workers=workers)
    trainer.run()
    run_killed(folders[1], action, at=2 * BATCHES + 2, workers=workers)  # in or at the end of the third epoch
    state = read(folders[1] / "last.pt")  # whole, and of the second epoch
    assert (state["epoch"], state["best_metric_epoch"]) == (2, 2)
    parts = [p.name for p in folders[1].glob(".*")]
    assert len(parts) == (action == "die_while_saving")  # removed when last.pt is written next
    torch.manual_seed(99)
    resumed = make(folders[1], workers=workers, resume=True)
    resumed.run()
    assert f"goes on after epoch 2 of {EPOCHS}, from {folders[1] / 'last.pt'}" in capsys.readouterr().out
    assert_same_run(*folders)
    assert same(trainer.network.state_dict(), resumed.network.state_dict())
    assert len(history(folders[1])) == EPOCHS
    assert sorted(p.name for p in folders[1].iterdir()) == ["curves.png", "history.csv", "last.pt", "log", "model.pt"]


def test_order_of_the_handlers_does_not_matter(unbroken, tmp_path):
    make(tmp_path / "other", lists_order=-1).run()
    assert_same_run(unbroken, tmp_path / "other")


def test_without_seeds_per_epoch_the_rerun_differs(unbroken, tmp_path, monkeypatch):
    """The tests above can fail."""
    monkeypatch.setattr(EpochSeed, "attach", lambda *_: None)
    stop = At(2 * BATCHES, lambda trainer: trainer.add_event_handler("EPOCH_COMPLETED", interrupt))
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "a", extra=[stop]).run()
    make(tmp_path / "a", resume=True).run()
    make(tmp_path / "b").run()
    assert not same(read(tmp_path / "a" / "last.pt")["network"], read(tmp_path / "b" / "last.pt")["network"])


def interrupt(_=None):
    raise KeyboardInterrupt


def cut(folder, epochs, **options):
    """A run that was interrupted in the middle of the epoch after some."""
    with pytest.raises(KeyboardInterrupt):
        make(folder, extra=[At(epochs * BATCHES + 1, interrupt)], **options).run()


def test_best_weights_are_not_replaced_by_worse_ones(tmp_path):
    scores = (0, 1, 4, 2, 3)
    cut(tmp_path, 2, scores=scores)
    best = (tmp_path / "model.pt").read_bytes()
    make(tmp_path, scores=scores, resume=True).run()
    assert (tmp_path / "model.pt").read_bytes() == best
    assert read(tmp_path / "last.pt")["best_metric"] == 4
    assert not same(read(tmp_path / "last.pt")["network"], read(tmp_path / "model.pt"))


def test_better_weights_after_resuming_are_kept(tmp_path):
    scores = (0, 1, 2, 0, 3)
    cut(tmp_path, 2, scores=scores)
    make(tmp_path, scores=scores, resume=True).run()
    last = read(tmp_path / "last.pt")
    assert last["best_metric_epoch"] == 4
    assert same(last["network"], read(tmp_path / "model.pt"))


@pytest.mark.parametrize("early_stop", [0, 2])
def test_finished_run_is_not_trained_again(tmp_path, capsys, early_stop):
    make(tmp_path, early_stop=early_stop).run()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    trainer = make(tmp_path, early_stop=early_stop, resume=True)
    iterations = []
    trainer.add_event_handler("ITERATION_STARTED", iterations.append)
    trainer.run()
    why = "was ended early, after epoch 4" if early_stop else "has finished, after epoch 4"
    assert f"{why} of {EPOCHS}: nothing is trained" in capsys.readouterr().out
    assert iterations == []
    assert same(trainer.network.state_dict(), read(tmp_path / "last.pt")["network"])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_nothing_to_resume(unbroken, tmp_path, capsys):
    make(tmp_path / "new", resume=True).run()
    assert "new/last.pt: the training starts from the beginning" in capsys.readouterr().out
    assert_same_run(unbroken, tmp_path / "new")


def test_new_run_in_the_same_folder_starts_anew(unbroken, tmp_path):
    make(tmp_path / "twice", rate=1e-3).run()
    make(tmp_path / "twice").run()
    assert_same_run(unbroken, tmp_path / "twice")


OTHERS = {
    "network": ({"channels": 4}, "size mismatch for model.0.conv.weight"),
    "optimizer": ({"optimizer": "Adam"}, "the optimizer was AdamW and is now Adam"),
    "batch size": ({"batch_size": 3}, "the number of batches in an epoch was 3 and is now 2"),
    "schedule": ({"max_epochs": 6}, "the lr_scheduler's total_steps was 12 and is now 18"),
    "fewer epochs": ({"max_epochs": 3}, "the lr_scheduler's total_steps was 12 and is now 9"),
    "kind of schedule": ({"step": True}, "the lr_scheduler was OneCycleLR and is now StepLR"),
    "seed": ({"seed": 4}, "the seed was 3 and is now 4"),
    "learning rate": ({"rate": 1e-3}, "lr was "),
    "weight decay": ({"decay": 0.5}, "weight_decay was 0.01 and is now 0.5"),
    "one voxel of one label": ({"shift": 1.0}, "the training data content was "),
    "validation images": ({"val_shift": 1.0}, "the validation data content was "),
    "validation items": ({"val_items": 2}, "the validation data items was 1 and is now 2"),
    "augmentation": (
        {"prob": 0.25},
        "transform transforms 2 (RandFlipd) prob was 0.5 and is now 0.25",
    ),
    "loss": ({"loss": torch.nn.L1Loss()}, "the loss class was 'MSELoss' and is now 'L1Loss'"),
    "option of the loss": (
        {"loss": torch.nn.MSELoss(reduction="sum")},
        "the loss reduction was 'mean' and is now",
    ),
    "network of the same shapes": ({"dropout": 0.5}, "Dropout(p=0.2, inplace=False)"),
    "frozen weights": ({"frozen": ("model.0.conv.weight",)}, "the trained weights 0 was 'model.0.conv.weight'"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_checkpoint_of_other_settings(after_first, tmp_path, case):
    options, message = OTHERS[case]
    save_run_config(tmp_path, {"run": "first"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save_run_config(tmp_path, {"run": "second"})
    with pytest.raises(ValueError, match="is of a run with other settings: ") as raised:
        make(tmp_path, resume=True, **options).run()
    assert message in str(raised.value)
    assert "train anew with resume: false" in str(raised.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("earlier", [False, True])
def test_config_is_that_of_the_last_run_that_was_not_refused(after_first, tmp_path, refused, earlier):
    for name in ["first", "second"][not earlier :]:
        save_run_config(tmp_path, {"run": name})
    save_run_config(tmp_path, {"run": "second"}, "evaluate_config.yaml")
    trainer = make(tmp_path, resume=True, rate=0.5 if refused else 1e-2)
    if refused:
        with pytest.raises(ValueError, match="other settings"):
            trainer.run()
    else:
        trainer.run()
    texts = {path.name: path.read_text() for path in tmp_path.glob("*.yaml")}
    assert "run: second" in texts.pop("evaluate_config.yaml")
    if refused and not earlier:
        assert texts == {}
    else:
        assert f"run: {'first' if refused else 'second'}" in texts["config.yaml"]


@pytest.mark.parametrize(("epochs", "trained"), [(6, 6), (2, 2)])
def test_other_number_of_epochs_with_a_schedule_that_does_not_span_them(tmp_path, capsys, epochs, trained):
    make(tmp_path / "a", step=True).run()
    trainer = make(tmp_path / "a", step=True, max_epochs=epochs, resume=True, scores=(0, 1, 4, 2, 3, 0, 1))
    trainer.run()
    assert len(history(tmp_path / "a")) == max(trained, EPOCHS)
    if epochs > EPOCHS:
        make(tmp_path / "b", step=True, max_epochs=epochs, scores=(0, 1, 4, 2, 3, 0, 1)).run()
        assert_same_run(tmp_path / "a", tmp_path / "b")
    else:
        assert "has finished, after epoch 4 of 2: nothing is trained" in capsys.readouterr().out


def test_checkpoint_of_an_earlier_version(after_first, tmp_path):
    state = read(tmp_path / "last.pt")
    del state["settings"]
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="written by an earlier version"):
        make(tmp_path, resume=True).run()


@pytest.mark.parametrize("damage", ["half", "empty", "weights", "pickle"])
def test_damaged_checkpoint(unbroken, damage):
    path = unbroken / "last.pt"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if damage == "half" else b"")
    if damage == "weights":
        path.write_bytes((unbroken / "model.pt").read_bytes())
    elif damage == "pickle":
        torch.save({"best_metric_epoch": Path}, path)  # code is not loaded
    with pytest.raises(ValueError, match=r"last\.pt cannot be read \(.+\): remove it, or train anew"):
        make(unbroken, resume=True).run()


def test_keys_are_the_same_with_and_without_ddp(tmp_path):
    idist.initialize("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        cut(tmp_path, 2, ddp=True)
        wrapped = read(tmp_path / "last.pt"), read(tmp_path / "model.pt")
        cut(tmp_path / "plain", 2)
        assert same(wrapped, (read(tmp_path / "plain" / "last.pt"), read(tmp_path / "plain" / "model.pt")))
        trainer = make(tmp_path / "plain", ddp=True, resume=True)
        trainer.run()
    finally:
        idist.finalize()
    make(tmp_path, resume=True).run()
    assert_same_run(tmp_path, tmp_path / "plain")


@pytest.mark.slow
def test_two_processes_killed_and_resumed_are_as_unbroken(tmp_path):
    """The first process writes, both read, and each has its own random numbers."""

    def distributed(folder, action, at, **options):
        folder.mkdir(exist_ok=True)
        arguments = [str(folder), action, str(at), json.dumps({"ddp": True, "batch_size": 1, **options})]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
        with (folder / "log").open("w") as log:
            return subprocess.run([*command, *arguments], stdout=log, stderr=log, timeout=240).returncode

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert distributed(whole, "none", 0) == 0, (whole / "log").read_text()
    assert distributed(broken, "die", 2 * BATCHES + 2) != 0
    assert read(broken / "last.pt")["epoch"] == 2
    assert distributed(broken, "none", 0, resume=True) == 0, (broken / "log").read_text()
    assert (broken / "log").read_text().count("goes on after epoch 2 of 4") == 1
    assert_same_run(whole, broken)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*GradScaler.*:UserWarning", "ignore:.*autocast.*")
def test_scaler_of_mixed_precision(tmp_path):
    """Torch has no scaler without a GPU: its state is empty, and stays so."""
    cut(tmp_path, 1, amp=True)
    assert read(tmp_path / "last.pt")["scaler"] == {}
    trainer = make(tmp_path, resume=True)
    trainer.run()
    assert trainer.state.epoch == EPOCHS


@pytest.mark.parametrize(
    ("scores", "early_stop", "interval", "last"),
    [
        ((0, 1, 4, 2, 3), 0, 1, 4),
        ((0, 1, 4, 2, 3), 1, 1, 3),
        ((0, 1, 4, 2, 3), 2, 1, 4),
        ((0, 5, 4, 2, 3), 2, 1, 3),
        ((0, 5, 5, 5, 5), 2, 1, 3),  # as good is not better
        ((0, 1, 2, 3, 4), 1, 1, 4),
        ((0, 0, 2, 0, 1), 1, 2, 4),  # validated every other epoch: the third cannot be the last
    ],
)
def test_early_stop(tmp_path, capsys, scores, early_stop, interval, last):
    trainer = make(tmp_path, scores=scores, early_stop=early_stop, interval=interval)
    trainer.run()
    assert trainer.state.epoch == last
    state = read(tmp_path / "last.pt")
    assert state["epoch"] == last
    assert ("the training ends with epoch" in capsys.readouterr().out) == state["stopped"]


def test_early_stop_counts_on_after_resuming(tmp_path, capsys):
    scores = (0, 5, 4, 2, 3)
    cut(tmp_path, 2, scores=scores, early_stop=2)
    make(tmp_path, scores=scores, early_stop=2, resume=True).run()
    assert "no better score since epoch 1: the training ends with epoch 3" in capsys.readouterr().out


def test_negative_patience(tmp_path):
    with pytest.raises(ValueError, match="patience is -1; expected a number of epochs, or 0"):
        make(tmp_path, early_stop=-1)


def spoil(trainer):
    torch.nn.init.constant_(next(trainer.network.parameters()), math.inf)


def test_nan_loss_leaves_the_checkpoints_of_the_epoch_before(tmp_path):
    cut(tmp_path / "good", 2)
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf) in iteration 8 \(epoch 3 of 4\): .* has ended"):
        make(tmp_path / "bad", extra=[At(7, spoil)]).run()
    assert same(read(tmp_path / "bad" / "last.pt"), read(tmp_path / "good" / "last.pt"))
    assert same(read(tmp_path / "bad" / "model.pt"), read(tmp_path / "good" / "model.pt"))
    assert [row["epoch"] for row in history(tmp_path / "bad")] == ["1", "2"]
    assert (tmp_path / "bad" / "curves.png").is_file()
    make(tmp_path / "bad", resume=True).run()  # and the run can go on from there


@pytest.mark.parametrize("scores", [(0, 1, 2, 3, 4), (0, 5, 2, 3, 4)])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, scores):
    """The last step of an epoch spoils the weights after a finite loss: neither checkpoint takes them."""
    with pytest.raises(FloatingPointError, match=r"weights 'model\.0\.conv\.weight' are no longer finite"):
        make(tmp_path, scores=scores, extra=[At(2 * BATCHES, spoil)]).run()
    assert read(tmp_path / "last.pt")["epoch"] == 1
    assert all(v.isfinite().all() for v in read(tmp_path / "model.pt").values())


@pytest.mark.parametrize(("options", "name"), [({"val_items": 0}, "validation"), ({"batch_size": 7}, "training")])
def test_nothing_to_train_on_or_to_validate_with(tmp_path, options, name):
    with pytest.raises(ValueError, match=f"The {name} has no batches: its data set is empty, or smaller than a batch"):
        make(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["last.pt", "model.pt", "history.csv"])
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
def test_full_disk(tmp_path, name):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode()}")
    try:

        def fill(trainer):
            before.update({p.name: p.read_bytes() for p in disk.iterdir()})
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            with (disk / "filler").open("wb") as file:
                file.write(bytes(free - len(before[name]) // 2))  # room for half of it

        before: dict[str, bytes] = {}
        scores = (0, 1, 2, 3, 4) if name == "model.pt" else (0, 4, 3, 2, 1)  # else it would be the first to fail
        trainer = make(disk, scores=scores, extra=[At(2 * BATCHES + 1, fill)])
        with pytest.raises(OSError, match=rf"{disk}/{name} could not be written \(.+\): its disk has \d+\.\d MiB free"):
            trainer.run()
        assert trainer.state.epoch == 3
        assert (disk / name).read_bytes() == before[name]  # of the epoch before
        assert not list(disk.glob(".*"))
        (disk / "filler").unlink()
        make(disk, scores=scores, resume=True).run()
        assert read(disk / "last.pt")["epoch"] == EPOCHS
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def train(folder, action, at, options):
    torch.set_num_threads(1)
    actions = {"die": die, "die_while_saving": die_while_saving, "none": None}
    make(folder, extra=[At(at, actions[action])], **options).run()


if __name__ == "__main__":
    idist.initialize("gloo")
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))
    idist.finalize()
