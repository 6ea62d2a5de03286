# SPDX-License-Identifier: Apache-2.0
"""What learns in each fine-tuning mode, seen from what three steps of training change, buffers included."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest
import torch
from monai.networks.nets import resnet10
from monai.networks.utils import eval_mode
from torch import nn

from monai_crossd.networks import ResNetUNet, build_resnet
from monai_crossd.training import set_trainable

CONVS = ["crossd", "acs", "soft_acs", "conv"]
KINDS = [(conv, dim) for conv in CONVS for dim in (2, 3) if dim == 3 or conv in ("crossd", "conv")]


def classifier(conv: str, dim: int) -> nn.Module:
    return build_resnet("resnet10", conv, dim, widen_factor=0.125, num_classes=3)


def segmenter(norm: str = "batch") -> nn.Module:
    return ResNetUNet(
        3, 1, 3, "resnet10", widen_factor=0.125, no_max_pool=True, decoder_channels=(8, 8, 8, 4, 4), norm=norm,
        conv1_t_stride=(2, 2, 1),
    )  # fmt: skip


def train(net: nn.Module, dim: int, steps: int = 3) -> set[str]:
    """Keys of the state_dict that training changes: AdamW with a large weight decay over all parameters."""
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05, weight_decay=0.5)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        net.train()  # as MONAI's trainer does before each iteration
        x = torch.randn(2, 1, *(32, 32, 16)[:dim], generator=generator)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        with eval_mode(net), torch.no_grad():  # as its evaluator does; that ends in train()
            net(x)
    return {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}


def changing(net: nn.Module, mode: str) -> set[str]:
    """Keys that may change, by their names in MONAI's ResNet."""
    keys = set(net.state_dict())
    if mode == "linear_probe":
        return {"fc.weight", "fc.bias"}
    if mode == "weak_probe":
        norms = {name for name, m in net.named_modules() if type(m).__name__.startswith("BatchNorm")}
        moving = {key for key in keys if key.endswith("running_shift") and key[:-13] + "predictor.0.weight" in keys}
        return {key for key in keys if key.rpartition(".")[0] in {*norms, "fc"}} | moving
    still = {key for key in keys if key.endswith("running_shift")}  # of 1×1 banks, which have nothing to shift
    return keys - {key for key in still if key[:-13] + "predictor.0.weight" not in keys}


@pytest.mark.parametrize("mode", ["full", "weak_probe", "linear_probe"])
@pytest.mark.parametrize(("conv", "dim"), KINDS)
def test_exactly_what_learns_changes(conv, dim, mode):
    net = classifier(conv, dim)
    result = set_trainable(net, mode)
    expected = changing(net, mode)
    learning = {name for name, p in net.named_parameters() if p.requires_grad}
    assert learning == expected & {name for name, _ in net.named_parameters()}
    assert result == (
        mode,
        *(sum(p.numel() for p in net.parameters() if ok(p)) for ok in (lambda p: p.requires_grad, lambda p: True)),
    )
    assert train(net, dim) == expected


@pytest.mark.parametrize("mode", ["full", "weak_probe", "linear_probe"])
def test_what_is_outside_of_the_part_always_learns(mode):
    net = segmenter()
    set_trainable(net, mode, part="encoder")
    encoder = {"full": changing(net.encoder, "full"), "weak_probe": changing(net.encoder, "weak_probe")}.get(
        mode, set()
    )
    rest = {key for key in net.state_dict() if not key.startswith("encoder.")}
    assert train(net, 3) == rest | {f"encoder.{key}" for key in encoder}
    assert net.decoder.training
    assert net.encoder.training == (mode != "linear_probe")


def test_a_linear_probe_sees_fixed_features():
    """Dropout off, statistics fixed: in train mode the part gives what it gives in eval mode."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 2))
    x = torch.randn(4, 1, 8, 8)
    set_trainable(net, "linear_probe")
    assert net.train()(x).equal(net.eval()(x))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4),
                                  nn.LayerNorm(6), nn.SyncBatchNorm(4)], ids=lambda m: type(m).__name__)  # fmt: skip
def test_every_norm_learns_in_a_weak_probe(norm):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.PReLU())
    set_trainable(net, "weak_probe")
    assert {name for name, p in net.named_parameters() if p.requires_grad} == {"1.weight", "1.bias"}


def test_the_last_of_several_linear_layers_is_the_head():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(1))
    set_trainable(net, "linear_probe")
    assert [p.requires_grad for p in net.parameters()] == [False, False, True, True]


@pytest.mark.parametrize("after", ["full", "weak_probe"])
def test_another_call_undoes_the_first(after):
    net, fresh = classifier("crossd", 3), classifier("crossd", 3)
    fresh.load_state_dict(net.state_dict())
    set_trainable(net, "linear_probe")
    assert not net.training
    for each in (net, fresh):
        set_trainable(each, after)
    assert net.training
    assert train(net, 3) == train(fresh, 3)
    assert all(a.equal(b) for a, b in zip(net.state_dict().values(), fresh.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"]
)
def test_a_duplicate_is_frozen_by_itself(duplicate):
    net = segmenter()
    set_trainable(net, "linear_probe", "encoder")
    twin = duplicate(net)
    set_trainable(net, "full")
    assert net.train().encoder.training
    assert not twin.train().encoder.training
    assert twin.decoder.training
    assert all(key.startswith(("decoder.", "head.")) for key in train(twin, 3))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["weak_probe", "linear_probe"])
def test_a_frozen_network_can_be_scripted(mode):
    net, x = classifier("crossd", 3), torch.randn(2, 1, 32, 32, 8)
    set_trainable(net, mode)
    torch.testing.assert_close(torch.jit.script(net.eval())(x), net(x))


@pytest.mark.parametrize(
    ("net", "mode", "part", "message"),
    [
        (lambda: segmenter("instance"), "linear_probe", "", r"nothing of this ResNetUNet would learn.*no linear layer"),
        (lambda: segmenter().encoder, "linear_probe", "", r"Name the pretrained part \(part=\"encoder\"\)"),
        (lambda: nn.Conv2d(1, 1, 3), "weak_probe", "", "no norm or linear layer"),
        (lambda: nn.InstanceNorm2d(4), "weak_probe", "", "nothing of this InstanceNorm2d would learn"),
        (lambda: nn.ModuleDict({"all": nn.Linear(2, 2)}), "linear_probe", "all", "outside of what is frozen"),
        (segmenter, "full", "encodr", "has no part 'encodr', but encoder, decoder, head"),
        (segmenter, "linear", "encoder", "linear_probe"),
        (segmenter, "", "", "weak_probe"),
    ],
)
def test_wrong_arguments_change_nothing(net, mode, part, message):
    net = net()
    with pytest.raises(ValueError, match=message):
        set_trainable(net, mode, part)
    assert all(p.requires_grad for p in net.parameters())
    assert "train" not in vars(net)


def test_the_count_is_logged(caplog):
    with caplog.at_level(logging.INFO, "monai_crossd"):
        report = set_trainable(resnet10(spatial_dims=2, n_input_channels=1, num_classes=4), "linear_probe")
    assert report.values == 512 * 4 + 4
    assert str(report) in caplog.text
    assert str(report).startswith("linear_probe: 2,052 of ")
