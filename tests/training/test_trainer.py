# SPDX-License-Identifier: Apache-2.0
"""Training on images and volumes at once, plain batches, and the repeated schedule."""

from __future__ import annotations

import contextlib
import copy
import csv
import subprocess
import sys
from pathlib import Path

import ignite.distributed as idist
import pytest
import torch
from ignite.metrics import Accuracy
from monai.data import CacheDataset, DataLoader, Dataset, DistributedSampler, MetaTensor
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler, ValidationHandler, from_engine
from monai.transforms import Compose, EnsureTyped, RandFlipd, RandGaussianNoised, Randomizable
from monai.utils import set_determinism
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import Subset

from monai_crossd.conv import CrossDConv2d
from monai_crossd.networks import HybridNet
from monai_crossd.training import (
    BestCheckpoint,
    EpochSeed,
    HistoryHandler,
    HybridTrainer,
    RepeatedOneCycleLR,
    ResumeHandler,
    StopOnNaN,
    prepare_plain_batch,
)
from monai_crossd.transfer import to_3d

pytestmark = pytest.mark.usefixtures("no_curves")
EPOCHS, BATCHES = 4, 3
CPU = torch.device("cpu")


class EvalNorms(HybridNet):
    """Its norms use their running statistics in training too, so that samples of a batch do not see each other."""

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def pair(dropout: float = 0.0) -> tuple[nn.Module, nn.Module]:
    """A network in 2D and in 3D, not tied, of the same values."""
    net2d = nn.Sequential(
        CrossDConv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        CrossDConv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(dropout), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip
    return net2d, to_3d(net2d, "crossd")


def items(size: tuple[int, ...], number: int, dtype=torch.float32) -> list[dict]:
    return [{"image": torch.randn(1, *size, dtype=dtype), "label": torch.tensor(i % 3)} for i in range(number)]


def images(number=10, dtype=torch.float32):
    return items((8, 8), number, dtype)


def volumes(number=6, dtype=torch.float32):
    return items((8, 8, 4), number, dtype)


def loader(data, batch_size=2, shuffle=False, transform=None, **options):
    return DataLoader(Dataset(data, transform), batch_size=batch_size, shuffle=shuffle, **options)


def batches(data, batch_size=2):
    return list(loader(data, batch_size))


class Grab:
    """Keeps the gradients of every backward pass."""

    def __init__(self):
        self.grads, self.outputs = [], []

    def attach(self, trainer):
        trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._grab)
        trainer.add_event_handler("ITERATION_COMPLETED", lambda t: self.outputs.append(t.state.output))

    def _grab(self, trainer):
        named = trainer.network.named_parameters(remove_duplicate=False)
        self.grads.append({name: None if p.grad is None else p.grad.clone() for name, p in named})


def test_gradient_is_the_weighted_sum_of_those_of_both_forms_alone():
    """Oracle: two networks of the same values with nothing in common, each with a backward pass of its own."""
    net2d, net3d = (net.double() for net in pair())
    alone2d, alone3d = copy.deepcopy(net2d), copy.deepcopy(net3d)
    net = HybridNet(net2d, net3d)
    two, three = images(2, torch.float64), volumes(2, torch.float64)
    grab, losses = Grab(), (nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss())
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    trainer = HybridTrainer(
        CPU, 1, loader(three), loader(two), net, optimizer, losses[1], losses[0], schedule="mixed",
        loss_weights=(0.3, 2.0), train_handlers=[grab], decollate=False,
    )  # fmt: skip
    trainer.run()
    values = []
    for alone, data, loss in ((alone2d, two, losses[0]), (alone3d, three, losses[1])):
        batch = batches(data)[0]
        values.append(loss(alone.train()(batch["image"]), batch["label"]))
        values[-1].backward()
    grads2d, grads3d = ({name: p.grad for name, p in alone.named_parameters()} for alone in (alone2d, alone3d))
    found = grab.grads[0]
    assert {"0.weight", "4.weight", "4.bias", "0.predictor.0.weight", "4.predictor.3.bias"} < set(net.tied)
    for name in grads2d:
        if name in net.tied:
            expected = 0.3 * grads2d[name] + 2 * grads3d[name]
            torch.testing.assert_close(found[f"net2d.{name}"], expected, rtol=1e-10, atol=1e-12)
            assert found[f"net3d.{name}"].equal(found[f"net2d.{name}"])
            assert grads2d[name].norm() > 0
            assert grads3d[name].norm() > 0
        else:
            torch.testing.assert_close(found[f"net2d.{name}"], 0.3 * grads2d[name], rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(found[f"net3d.{name}"], 2 * grads3d[name], rtol=1e-10, atol=1e-12)
    output = grab.outputs[0]
    assert output["loss_2d"].item() == pytest.approx(values[0].item(), rel=1e-12)
    assert output["loss_3d"].item() == pytest.approx(values[1].item(), rel=1e-12)
    assert output["loss"].item() == pytest.approx((0.3 * values[0] + 2 * values[1]).item(), rel=1e-12)
    assert output["pred"].shape == (2, 3)
    assert output["image"].shape == (2, 1, 8, 8, 4)
    for alone, tied in ((alone2d, net.net2d), (alone3d, net.net3d)):  # each norm saw its own source
        for (name, expected), value in zip(alone.named_buffers(), tied.buffers(), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12, msg=name)


def by_hand(net, schedule, two, three, optimizer, weights, epochs, scheduler):
    """What the trainer does, written out."""
    loss = nn.CrossEntropyLoss()
    for _ in range(epochs):
        for i, volume in enumerate(three):
            image = two[i % len(two)]
            net.train()
            if schedule == "alternate":
                for form, batch, weight in ((net.net2d, image, weights[0]), (net.net3d, volume, weights[1])):
                    optimizer.zero_grad()
                    (weight * loss(form(batch["image"]), batch["label"])).backward()
                    optimizer.step()
            else:
                optimizer.zero_grad()
                value2d = weights[0] * loss(net.net2d(image["image"]), image["label"])
                value3d = weights[1] * loss(net.net3d(volume["image"]), volume["label"])
                (value2d + value3d).backward()
                optimizer.step()
            scheduler.step()


@pytest.mark.parametrize("schedule", ["mixed", "alternate"])
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
@pytest.mark.parametrize("number", [4, 6])  # fewer images than volumes, so that they come around, and as many
def test_training_is_the_loop_written_out_bit_for_bit(schedule, optimizer, number):
    two, three, weights = images(number), volumes(), (0.5, 1.5)
    nets = [HybridNet(*pair()).eval()]
    nets.append(copy.deepcopy(nets[0]))
    optimizers = [getattr(torch.optim, optimizer)(net.parameters(), 0.05, weight_decay=0.1) for net in nets]
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(o, 0.9) for o in optimizers]
    HybridTrainer(
        CPU, 2, loader(three), loader(two), nets[0], optimizers[0], nn.CrossEntropyLoss(), schedule=schedule,
        loss_weights=weights, train_handlers=[LrScheduleHandler(schedulers[0], epoch_level=False, print_lr=False)],
    ).run()  # fmt: skip
    by_hand(nets[1], schedule, batches(two), batches(three), optimizers[1], weights, 2, schedulers[1])
    torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), rtol=0, atol=0)


def test_a_step_on_images_leaves_what_is_3d_alone():
    """With momentum and decay, a gradient of 0 would move it."""
    net, before = HybridNet(*pair()), []

    class Watch:
        def attach(self, trainer):
            trainer.add_event_handler(
                IterationEvents.FORWARD_COMPLETED, lambda t: before.append(copy.deepcopy(net.state_dict()))
            )

    optimizer = torch.optim.AdamW(net.parameters(), 0.1, weight_decay=0.5)
    HybridTrainer(
        CPU, 1, loader(volumes()), loader(images(6)), net, optimizer, nn.CrossEntropyLoss(), schedule="alternate",
        train_handlers=[Watch()],
    ).run()  # fmt: skip
    images_of_last, volumes_of_last = before[-2:]
    moved = {key for key, value in volumes_of_last.items() if not value.equal(images_of_last[key])}
    assert {"net2d.1.weight", "net2d.10.bias", "net2d.0.weight", "net3d.0.weight"} <= moved
    parameters = {name for name, _ in net.net3d.named_parameters()}
    only3d = {f"net3d.{name}" for name in parameters - set(net.tied)}
    assert {"net3d.1.weight", "net3d.10.bias", "net3d.0.predictor.1.weight"} <= only3d
    assert not only3d & moved


@pytest.mark.parametrize("schedule", ["mixed", "alternate"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*GradScaler.*:UserWarning", "ignore:.*CUDA is not.*")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_mixed_precision(schedule, device):
    set_determinism(0)
    net = HybridNet(*pair()).to(device)
    seen, grab = [], Grab()
    net.net2d[0].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    net.net3d[0].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    before = copy.deepcopy(net.state_dict())
    HybridTrainer(
        device, 1, loader(volumes()), loader(images(6)), net, torch.optim.SGD(net.parameters(), 0.01),
        nn.CrossEntropyLoss(), schedule=schedule, amp=True, train_handlers=[grab], decollate=False,
    ).run()  # fmt: skip
    assert set(seen) == {torch.bfloat16 if device == "cpu" else torch.float16}
    assert all(output["loss"].isfinite() for output in grab.outputs)
    moved = {key for key, value in net.state_dict().items() if not value.equal(before[key])}
    assert {f"{form}.{key}" for form in ("net2d", "net3d") for key in ("0.weight", "1.weight", "10.weight")} <= moved


def test_output_is_decollated_as_monai_does():
    grab = Grab()
    net = HybridNet(*pair())
    HybridTrainer(
        CPU, 1, loader(volumes(3), 3), loader(images(1), 1), net, torch.optim.SGD(net.parameters(), 0.1),
        nn.CrossEntropyLoss(), train_handlers=[grab],
    ).run()  # fmt: skip
    assert [len(output) for output in grab.outputs] == [3]  # a sample of the volumes each, though images are fewer
    assert set(grab.outputs[0][0]) == {"image", "label", "pred", "loss", "loss_2d", "loss_3d"}


def order(trainer) -> list[float]:
    """First values of the images in the order in which they are trained on."""
    seen = []
    trainer.network.net2d.register_forward_pre_hook(lambda module, args: seen.extend(args[0][:, 0, 0, 0].tolist()))
    trainer.run()
    return seen


class Drawing(Dataset, Randomizable):
    """Draws itself, as a SmartCacheDataset does."""

    def randomize(self, data=None):
        pass


DATASETS = {
    "MONAI's": Dataset,
    "drawing": Drawing,
    "part": lambda data, transform: Subset(Dataset(data, transform), range(len(data))),
}


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_an_epoch_are_the_same_whatever_came_before(workers, dataset):
    """Epochs that run alone, from a checkpoint's number, see the images that they saw in a whole run."""
    data2d, data3d = images(), volumes()
    random = Compose([RandGaussianNoised("image", 0.5)])
    net2d, net3d = pair()

    def trainer(epoch):
        net = HybridNet(copy.deepcopy(net2d), copy.deepcopy(net3d))
        new = HybridTrainer(
            CPU, 2, loader(data3d, shuffle=True, transform=Compose([RandFlipd("image", 0.5)])),
            DataLoader(
                DATASETS[dataset](data2d, copy.deepcopy(random)), batch_size=2, shuffle=True, num_workers=workers
            ),
            net, torch.optim.SGD(net.parameters(), 0.1), nn.CrossEntropyLoss(), train_handlers=[EpochSeed(1)],
        )  # fmt: skip
        new.state.epoch, new.state.iteration = epoch, epoch * BATCHES
        return new

    whole, second = order(trainer(0)), order(trainer(1))
    assert len(whole) == 2 * len(second) == 2 * BATCHES * 2
    assert whole[len(second) :] == second
    assert whole[: len(second)] != second


@pytest.mark.parametrize("distributed", [False, True])
def test_shuffled_images_come_in_another_order_each_time_around(distributed):
    net, data = HybridNet(*pair()), Dataset(images(8), None)
    sampler = DistributedSampler(data, num_replicas=1, rank=0) if distributed else None
    trainer = HybridTrainer(
        CPU, 2, loader(volumes(16)), DataLoader(data, batch_size=2, shuffle=sampler is None, sampler=sampler),
        net, torch.optim.SGD(net.parameters(), 0.0), nn.CrossEntropyLoss(), train_handlers=[EpochSeed(0)],
    )  # fmt: skip
    seen = order(trainer)
    rounds = [tuple(seen[i : i + 8]) for i in range(0, 32, 8)]
    assert len({tuple(sorted(r)) for r in rounds}) == 1
    assert len(set(rounds)) == 4  # two in each epoch


def build(folder: Path, schedule="mixed", resume=False, ddp=False, extra=()):
    """All that a bundle's training has."""
    set_determinism(3)
    random = [RandFlipd("image", 0.5, 0), RandGaussianNoised("image", 0.7)]
    data = [images(), volumes()]
    data = [CacheDataset(d, Compose([EnsureTyped("image"), *random]), progress=False) for d in data]
    world = idist.get_world_size()
    samplers = [DistributedSampler(d, shuffle=True) if world > 1 else None for d in data]
    two, three = (
        DataLoader(d, batch_size=2 // world, shuffle=s is None, sampler=s, drop_last=True)
        for d, s in zip(data, samplers, strict=True)
    )
    net = HybridNet(*pair(dropout=0.3))
    wrapped = DistributedDataParallel(net, find_unused_parameters=schedule == "alternate") if ddp else net
    validated = DistributedDataParallel(net.net3d) if ddp else net.net3d
    optimizer = torch.optim.AdamW(net.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, EPOCHS * len(three))
    metric = Accuracy(output_transform=from_engine(["pred", "label"]))
    evaluator = SupervisedEvaluator(
        CPU, DataLoader(Dataset(volumes(4), None), batch_size=2), validated, key_val_metric={"score": metric},
        val_handlers=[BestCheckpoint(folder)], decollate=False,
    )  # fmt: skip
    handlers = [
        EpochSeed(3),
        StopOnNaN(),
        LrScheduleHandler(scheduler, epoch_level=False, print_lr=False),
        HistoryHandler(folder, evaluator),
        ValidationHandler(1, evaluator),
        ResumeHandler(folder, evaluator, scheduler, resume=resume),
        *extra,
    ]
    if idist.get_rank() == 0:
        handlers.append(TensorBoardStatsHandler(log_dir=str(folder), output_transform=lambda output: output["loss"]))
    return HybridTrainer(
        CPU, EPOCHS, three, two, wrapped, optimizer, nn.CrossEntropyLoss(), schedule=schedule, loss_weights=(0.5, 1.0),
        train_handlers=handlers, decollate=False,
        key_train_metric={"accuracy": Accuracy(output_transform=from_engine(["pred", "label"]))},
    )  # fmt: skip


class Interrupt:
    def __init__(self, iteration):
        self.iteration = iteration

    def attach(self, trainer):
        trainer.add_event_handler("ITERATION_COMPLETED", self._check)

    def _check(self, trainer):
        if trainer.state.iteration == self.iteration:
            raise KeyboardInterrupt


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def read(path: Path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("schedule", ["mixed", "alternate"])
def test_resumed_run_ends_with_the_weights_of_one_that_was_not_cut(tmp_path, schedule):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    build(whole, schedule).run()
    with pytest.raises(KeyboardInterrupt):
        build(cut, schedule, extra=[Interrupt(2 * BATCHES + 2)]).run()
    assert read(cut / "last.pt")["epoch"] == 2
    trainer = build(cut, schedule, resume=True)
    trainer.run()
    states = [read(folder / "last.pt") for folder in (whole, cut)]
    for name in ("network", "optimizer"):
        torch.testing.assert_close(states[1][name], states[0][name], rtol=0, atol=0)
    torch.testing.assert_close(read(cut / "model.pt"), read(whole / "model.pt"), rtol=0, atol=0)
    assert rows(cut) == rows(whole)
    assert trainer.network.net2d[0].weight is trainer.network.net3d[0].weight
    pair()[1].load_state_dict(read(whole / "model.pt"))  # the best weights are those of the 3D form alone


def test_without_seeds_per_epoch_the_resumed_run_differs(tmp_path, monkeypatch):
    """The test above can fail."""
    monkeypatch.setattr(EpochSeed, "attach", lambda *_: None)
    build(tmp_path / "whole").run()
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "cut", extra=[Interrupt(2 * BATCHES + 2)]).run()
    build(tmp_path / "cut", resume=True).run()
    states = [read(tmp_path / name / "last.pt")["network"]["net3d.0.weight"] for name in ("whole", "cut")]
    assert not torch.equal(*states)


def test_nan_loss_of_images_ends_the_training(tmp_path):
    trainer = build(tmp_path)
    loss = trainer.loss_functions[0]
    trainer.loss_functions = (lambda p, t: loss(p, t) * float("nan"), loss)
    with pytest.raises(FloatingPointError, match="loss is nan in iteration 1 "):
        trainer.run()


WRONG = {
    "schedule": ({"schedule": "mixd"}, ValueError, "mixd"),
    "one weight": ({"loss_weights": [1.0]}, ValueError, r"two numbers above 0, of images and volumes, but are \[1.0\]"),
    "no weight": ({"loss_weights": [0, 1]}, ValueError, r"are two numbers above 0, .* but are \[0, 1\]"),
    "accumulation": ({"accumulation_steps": 2}, TypeError, "no option 'accumulation_steps': train without it"),
    "compile": ({"compile": True}, TypeError, "no option 'compile'"),
    "unknown": ({"colour": 1}, TypeError, "colour"),
    "never seen": (
        {"train_data_loader_2d": loader(images(8))}, ValueError,
        "3 batches of volumes and the images, 4 batches, start anew in each: .* Give the loader of images shuffle=True",
    ),
    "workers": (
        {"train_data_loader_2d": loader(images(4), num_workers=1, persistent_workers=True)}, ValueError,
        "persistent_workers=False",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    options, error, message = WRONG[case]
    net = HybridNet(*pair())
    arguments = {
        "device": CPU, "max_epochs": 1, "train_data_loader": loader(volumes()), "network": net,
        "train_data_loader_2d": loader(images(6)), "optimizer": torch.optim.SGD(net.parameters(), 0.1),
        "loss_function": nn.CrossEntropyLoss(),
    }  # fmt: skip
    with pytest.raises(error, match=message):
        HybridTrainer(**arguments | options)


def test_no_images():
    net = HybridNet(*pair())
    trainer = HybridTrainer(
        CPU, 1, loader(volumes()), [], net, torch.optim.SGD(net.parameters(), 0.1), nn.CrossEntropyLoss()
    )
    with pytest.raises(ValueError, match=r"loader of images has no batches: .* or a smaller batch size"):
        trainer.run()


def test_trainer_of_monai_is_the_trainer_of_volumes_alone():
    """With the images' head and norms apart and their loss next to nothing, what is left is MONAI's trainer."""
    nets = [HybridNet(*(net.double() for net in pair()))]
    nets.append(copy.deepcopy(nets[0]))
    three, two = volumes(dtype=torch.float64), images(6, torch.float64)
    optimizers = [torch.optim.SGD(net.parameters(), 0.1) for net in nets]
    loss = nn.CrossEntropyLoss()
    HybridTrainer(CPU, 2, loader(three), loader(two), nets[0], optimizers[0], loss, loss_weights=(1e-13, 1)).run()
    SupervisedTrainer(CPU, 2, loader(three), nets[1].net3d, optimizers[1], loss).run()
    torch.testing.assert_close(nets[0].net3d.state_dict(), nets[1].net3d.state_dict(), rtol=0, atol=1e-10)


def test_distributed_network_must_look_for_what_a_step_does_not_use(tmp_path):
    idist.initialize("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net = DistributedDataParallel(HybridNet(*pair()))
        with pytest.raises(ValueError, match="find_unused_parameters=True, or choose schedule='mixed'"):
            HybridTrainer(
                CPU, 1, loader(volumes()), loader(images(6)), net, torch.optim.SGD(net.parameters(), 0.1),
                nn.CrossEntropyLoss(), schedule="alternate",
            )  # fmt: skip
    finally:
        idist.finalize()


def torchrun(*arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def train_part(path: Path, schedule: str) -> None:
    """Train on every second item, from this process's on, or on all of them; norms stay in eval mode."""
    set_determinism(5)
    rank, world = idist.get_rank(), idist.get_world_size()
    two, three = images(8, torch.float64), volumes(12, torch.float64)
    net = EvalNorms(*(net.double() for net in pair()))
    network = net
    if world > 1:
        network = DistributedDataParallel(net, find_unused_parameters=schedule == "alternate")
    optimizer = torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.1)
    size = 4 // world
    HybridTrainer(
        CPU, 2, loader(three[rank::world], size), loader(two[rank::world], size), network, optimizer,
        nn.CrossEntropyLoss(), schedule=schedule, loss_weights=(0.5, 2.0),
    ).run()  # fmt: skip
    if rank == 0:
        torch.save(dict(net.named_parameters()), path)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["mixed", "alternate"])
def test_two_processes_are_one_with_twice_the_batch(tmp_path, schedule):
    torchrun("part", str(tmp_path / "two.pt"), schedule)
    train_part(tmp_path / "one.pt", schedule)
    two, one = read(tmp_path / "two.pt"), read(tmp_path / "one.pt")
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-12)
    set_determinism(5)
    images(8, torch.float64), volumes(12, torch.float64)  # as drawn there, before the network
    start = dict(EvalNorms(*(net.double() for net in pair())).named_parameters())
    assert all((one[name] - start[name]).norm() > 1e-3 for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["mixed", "alternate"])
def test_two_processes_cut_and_resumed_are_as_unbroken(tmp_path, schedule):
    """The evaluator has a DistributedDataParallel of the 3D form of its own, on the same weights."""
    for folder, steps in (("whole", ["0"]), ("cut", [str(2 * BATCHES + 2), "resume"])):
        for step in steps:
            torchrun("build", str(tmp_path / folder), schedule, step)
    whole, cut = (read(tmp_path / folder / "last.pt") for folder in ("whole", "cut"))
    for name in ("network", "optimizer"):
        torch.testing.assert_close(cut[name], whole[name], rtol=0, atol=0)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert len(rows(tmp_path / "whole")) == EPOCHS
    pair(dropout=0.3)[1].load_state_dict(read(tmp_path / "whole" / "model.pt"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    idist.initialize("gloo")
    what, where, how = sys.argv[1:4]
    if what == "part":
        train_part(Path(where), how)
    else:
        step = sys.argv[4]
        cut = [Interrupt(int(step))] if step not in ("0", "resume") else []
        with contextlib.suppress(KeyboardInterrupt):
            build(Path(where), how, resume=step == "resume", ddp=True, extra=cut).run()
    idist.barrier()
    torch.distributed.destroy_process_group()


OPTIONS = [
    {"max_lr": 0.1, "total_steps": 5},
    {"max_lr": [0.1, 0.3], "total_steps": 7, "pct_start": 0.1},
    {"max_lr": 0.1, "total_steps": 6, "three_phase": True, "anneal_strategy": "linear"},
    {"max_lr": 0.1, "total_steps": 4, "cycle_momentum": False},
]


def optimizer() -> torch.optim.AdamW:
    return torch.optim.AdamW([{"params": [torch.zeros(1, requires_grad=True)]} for _ in range(2)])


def settings(optim: torch.optim.Optimizer) -> list[tuple]:
    return [(group["lr"], group["betas"]) for group in optim.param_groups]


def follow(schedule, optim, steps: int) -> list[list[tuple]]:
    """Settings that each of `steps` batches trains with."""
    seen = []
    for _ in range(steps):
        seen.append(settings(optim))
        optim.step()
        schedule.step()
    return seen


@pytest.mark.parametrize("options", OPTIONS)
def test_every_cycle_is_torchs(options):
    total = options["total_steps"]
    optim = optimizer()
    found = follow(RepeatedOneCycleLR(optim, **options), optim, 3 * total)
    plain = optimizer()
    expected = follow(OneCycleLR(plain, **options), plain, total)
    assert len({str(step) for step in expected}) > 2
    for cycle in range(3):
        assert found[cycle * total : (cycle + 1) * total] == expected


def test_goes_on_from_its_state():
    whole = optimizer()
    schedule = RepeatedOneCycleLR(whole, max_lr=0.1, total_steps=5)
    follow(schedule, whole, 8)
    state = schedule.state_dict(), whole.state_dict()
    expected = follow(schedule, whole, 9)
    again = optimizer()
    resumed = RepeatedOneCycleLR(again, max_lr=0.1, total_steps=5)
    resumed.load_state_dict(state[0])
    again.load_state_dict(state[1])
    assert follow(resumed, again, 9) == expected


IMAGE = torch.arange(16.0).view(1, 1, 4, 4)


@pytest.mark.parametrize(
    "label", [None, torch.tensor([1]), MetaTensor(torch.ones(1, 1, 4, 4))], ids=["none", "class", "map"]
)
@pytest.mark.parametrize("form", ["dict", "pair", "tensor"])
def test_values_stay_and_types_are_plain(form, label):
    image = MetaTensor(IMAGE, affine=torch.eye(4) * 2)
    if form == "dict":
        batch = {"image": image, **({} if label is None else {"label": label})}
    elif form == "pair":
        batch = (image, image if label is None else label)
    else:
        batch = image
    found, target = prepare_plain_batch(batch, "cpu")
    assert type(found) is torch.Tensor
    assert torch.equal(found, IMAGE)
    expected = None if form == "tensor" or (form == "dict" and label is None) else batch[1] if form == "pair" else label
    assert type(target) is (type(None) if expected is None else torch.Tensor)
    assert target is None or torch.equal(target, torch.as_tensor(expected))
    assert image.affine[0, 0] == 2


@pytest.mark.parametrize("kind", [SupervisedTrainer, SupervisedEvaluator])
def test_an_engine_gives_the_network_plain_tensors_and_keeps_the_meta(kind):
    seen = []

    class Net(torch.nn.Conv2d):
        def forward(self, x):
            seen.append(type(x))
            return super().forward(x)

    net = Net(1, 1, 1)
    data = [{"image": MetaTensor(IMAGE, meta={"filename_or_obj": "a.png"}), "label": MetaTensor(IMAGE)}]
    options = {"device": torch.device("cpu"), "network": net, "prepare_batch": prepare_plain_batch, "decollate": False}
    if kind is SupervisedTrainer:
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        engine = kind(
            max_epochs=1, train_data_loader=data, optimizer=optimizer, loss_function=torch.nn.MSELoss(), **options
        )
    else:
        engine = kind(val_data_loader=data, **options)
    engine.run()
    assert seen == [torch.Tensor]
    assert engine.state.batch["image"].meta["filename_or_obj"] == "a.png"
    assert all(type(value) is torch.Tensor for value in engine.state.output.values())
