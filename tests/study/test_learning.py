# SPDX-License-Identifier: Apache-2.0
"""Schedule, augmentation, probes and batch norms, against what they are by definition."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from monai_crossd.networks import HybridNet
from monai_crossd.study.learning import (
    Schedule,
    augment,
    endless_batches,
    fine_tune,
    fit,
    learn,
    predict,
    recalibrate,
)

SCHEDULE = Schedule(2, 1e-2, 4)


class Net(nn.Module):
    """Small, with a batch norm and a last layer `fc`."""

    def __init__(self, dims: int = 3) -> None:
        super().__init__()
        self.conv = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, 4, 3, padding=1)
        self.norm = (nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().flatten(2).mean(2))


def volumes(count=12):
    labels = torch.arange(count) % 2
    return torch.randn(count, 1, 8, 8, 4) + labels.view(-1, 1, 1, 1, 1), labels


@pytest.mark.parametrize("shape", [(5, 2, 32, 16), (5, 2, 32, 16, 3)])
def test_augmentation_is_a_move_within_the_slice_and_a_linear_change_of_grey(shape):
    batch = torch.randn(shape)
    out = augment(batch, torch.Generator().manual_seed(3))
    moves = set()
    for before, after in zip(batch, out, strict=True):
        found = []
        for dy in range(-2, 3):
            for dx in range(-1, 2):
                rows, columns = (torch.arange(32) + dy).clamp(0, 31), (torch.arange(16) + dx).clamp(0, 15)
                moved = before[:, rows][:, :, columns].flatten()
                slope, offset = np.polyfit(moved.numpy(), after.flatten().numpy(), 1)
                if np.allclose(moved * slope + offset, after.flatten(), atol=1e-5):
                    found.append((dy, dx))
                    assert abs(slope - 1) <= 0.1
                    assert abs(offset) <= 0.1
        assert len(found) == 1
        moves |= set(found)
    assert len(moves) > 1
    assert torch.equal(out, augment(batch, torch.Generator().manual_seed(3)))


def test_fit_is_the_loop_written_by_hand():
    images, labels = volumes(10)
    ours, theirs = Net(), None
    theirs = copy.deepcopy(ours)
    fit(ours, images, labels, SCHEDULE, seed=5)
    generator = torch.Generator().manual_seed(5)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=4)
    for _ in range(2):
        order = torch.randperm(10, generator=generator)
        for index in (order[:4], order[4:8]):  # the last two are no batch
            optimizer.zero_grad()
            nn.functional.cross_entropy(
                theirs(augment(images[index], generator)), labels[index], label_smoothing=0.05
            ).backward()
            optimizer.step()
            cycle.step()
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_no_number_ends_it():
    images, labels = volumes()
    with pytest.raises(FloatingPointError, match="in epoch 1: lower the learning rate"):
        fit(Net(), images * torch.nan, labels, SCHEDULE, 0)


def test_norms_are_recalibrated_to_the_images():
    images, _ = volumes(8)
    net = Net()
    recalibrate(net, images, 8, 0)
    values = net.conv(images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(net.norm.running_mean, values.mean(1))
    torch.testing.assert_close(net.norm.running_var, values.var(1))


def test_linear_probe_is_logistic_regression_on_the_features():
    images, labels = volumes(40)
    net = Net()
    before = copy.deepcopy(net.state_dict())
    said = fine_tune(net, "linear_probe", images[:30], labels[:30], images[30:], SCHEDULE, 0)
    for key in ("conv.weight", "norm.weight"):
        assert torch.equal(net.state_dict()[key], before[key])
    features = predict(net, images).numpy()  # its last layer is gone
    mean, std = features[:30].mean(0), features[:30].std(0)
    features = (features - mean) / std
    model = LogisticRegression(max_iter=1000).fit(features[:30], labels[:30])
    assert said.tolist() == model.predict(features[30:]).tolist()
    assert (said == labels[30:].numpy()).mean() > 0.8


@pytest.mark.parametrize(("mode", "moves"), [("weak_probe", {"norm", "fc"}), ("full", {"conv", "norm", "fc"})])
def test_what_learns(mode, moves):
    images, labels = volumes()
    net = Net()
    before = copy.deepcopy(net.state_dict())
    fine_tune(net, mode, images, labels, images, SCHEDULE, 0)
    moved = {
        k.split(".")[0] for k, v in net.state_dict().items() if "running" not in k and not torch.equal(v, before[k])
    }
    assert moved - {"norm"} == moves - {"norm"}
    assert not torch.equal(net.norm.weight, before["norm.weight"])


def test_beside_it_a_second_network_teaches_what_both_have():
    from monai_crossd.networks import build_resnet

    images, labels = volumes(8)
    small = {"model_name": "resnet10", "widen_factor": 0.125, "num_classes": 2, "no_max_pool": True}
    net2d = build_resnet(**small)
    from monai_crossd import to_3d

    net3d = to_3d(net2d, "crossd")
    HybridNet(net2d, net3d)
    start = copy.deepcopy(net3d.state_dict()), copy.deepcopy(net2d.state_dict())
    pictures, classes = images[..., 0].repeat(4, 1, 1, 1), labels.repeat(4)
    fit(net3d, images, labels, Schedule(1, 1e-3, 4), 0, beside=(net2d, pictures, classes))
    assert net2d.conv1.weight is net3d.conv1.weight
    assert not torch.equal(net2d.fc.weight, start[1]["fc.weight"])  # its own head learned, from images alone
    alone = to_3d(net2d, "crossd")
    alone.load_state_dict(start[0])
    fit(alone, images, labels, Schedule(1, 1e-3, 4), 0)
    assert not torch.equal(alone.conv1.weight, net3d.conv1.weight)


def test_batches_take_every_group_and_every_index_equally_often():
    groups = [torch.tensor([10, 11, 12, 13]), torch.tensor([20])]
    batches = endless_batches(groups, 3, torch.Generator().manual_seed(1))
    seen = torch.cat([next(batches) for _ in range(16)])  # 48 of them
    values, counts = seen.unique(return_counts=True)
    assert values.tolist() == [10, 11, 12, 13, 20]
    assert counts.tolist() == [6, 6, 6, 6, 24]
    assert all(set(seen[0::2][at : at + 4].tolist()) == {10, 11, 12, 13} for at in range(0, 24, 4))
    few = endless_batches([torch.tensor([5])], 4, torch.Generator())
    assert next(few).tolist() == [5] * 4


def test_without_a_move_only_the_greys_change():
    batch = torch.randn(3, 1, 8, 8, 4)
    out = augment(batch, torch.Generator().manual_seed(0), move=False)
    for before, after in zip(batch, out, strict=True):
        slope, offset = np.polyfit(before.flatten().numpy(), after.flatten().numpy(), 1)
        assert np.allclose(before * slope + offset, after, atol=1e-5)
        assert not np.allclose(before, after, atol=1e-3)


def steps(net, count, **options):
    """What `learn` leaves of a network after the same steps, with the parameters before each."""
    images, labels = volumes(8)
    history = []

    def draw():
        history.append({name: p.detach().clone() for name, p in net.named_parameters()})
        return images, labels

    learn(net, draw, nn.functional.cross_entropy, count, 1e-2, **options)
    return [*history, {name: p.detach().clone() for name, p in net.named_parameters()}]


CARRIED = {"conv.weight", "conv.bias"}


def test_learn_is_the_loop_written_by_hand_with_a_rate_for_what_was_carried():
    torch.manual_seed(0)
    images, labels = volumes(8)
    ours = Net()
    theirs = copy.deepcopy(ours)
    learn(ours, lambda: (images, labels), nn.functional.cross_entropy, 5, 1e-2, 0.02, CARRIED, 0.1)
    carried = [p for name, p in theirs.named_parameters() if name in CARRIED]
    new = [p for name, p in theirs.named_parameters() if name not in CARRIED]
    optimizers = [torch.optim.AdamW(part, lr=1e-2, weight_decay=0.02) for part in (new, carried)]
    cycles = [
        torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=5)
        for optimizer, rate in zip(optimizers, (1e-2, 1e-3), strict=True)
    ]
    for _ in range(5):
        theirs.zero_grad()
        nn.functional.cross_entropy(theirs(images), labels).backward()
        for step in (*optimizers, *cycles):
            step.step()
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_carried_layers_wait_for_their_step():
    history = steps(Net(), 5, carried=CARRIED, frozen_steps=3)
    for step, (before, after) in enumerate(pairwise(history)):
        for name in before:
            assert torch.equal(before[name], after[name]) == (name in CARRIED and step < 3), (step, name)


def test_at_a_rate_of_0_carried_layers_stay():
    net = Net()
    before = copy.deepcopy(net.state_dict())
    steps(net, 3, carried=CARRIED, carried_rate=0.0)
    assert torch.equal(net.conv.weight, before["conv.weight"])
    assert not torch.equal(net.fc.weight, before["fc.weight"])


def test_learning_of_a_loss_that_is_no_number_ends():
    images, labels = volumes()
    with pytest.raises(FloatingPointError, match="in step 1: lower the learning rate"):
        learn(Net(), lambda: (images * torch.nan, labels), nn.functional.cross_entropy, 3, 1e-2)
