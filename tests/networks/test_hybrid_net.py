# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from monai.networks.nets import ViT
from torch import nn

from monai_crossd.networks import HybridNet, build_resnet
from monai_crossd.transfer import load_2d, to_3d

IMAGES, VOLUMES = (2, 1, 16, 16), (2, 1, 16, 16, 8)


def small(spatial_dims: int = 2, conv: str = "crossd", classes: int = 3, **options) -> nn.Module:
    return build_resnet(
        "resnet10", conv, spatial_dims, num_classes=classes, widen_factor=0.0625, conv1_t_size=3, **options
    )


def hybrid(**options) -> HybridNet:
    net2d = small()
    return HybridNet(net2d, to_3d(net2d, "crossd"), **options)


def shared(net: HybridNet) -> set[str]:
    """Keys whose parameters are one object, found without asking the network."""
    three = dict(net.net3d.named_parameters())
    return {key for key, value in net.net2d.named_parameters() if three.get(key) is value}


def is_norm(key: str) -> bool:
    return any(part in key for part in ("bn1", "bn2", "bn3", "downsample.1", "predictor.1"))


def test_everything_is_shared_but_norms_and_head():
    net = hybrid()
    keys = {key for key, _ in net.net3d.named_parameters()}
    apart = {key for key in keys if is_norm(key) or key.startswith("fc.")}
    assert shared(net) == set(net.tied) == keys - apart
    assert set(net.apart) == apart
    assert {"conv1.weight", "conv1.predictor.0.weight", "layer4.0.conv2.predictor.3.bias"} <= shared(net)
    three = dict(net.net3d.named_buffers())
    assert not [key for key, value in net.net2d.named_buffers() if three[key] is value]
    names = [name for name, _ in net.named_parameters()]
    assert len(names) == 2 * len(keys) - len(keys - apart)  # an optimizer sees each once


@pytest.mark.parametrize(
    ("conv", "method"),
    [("crossd", "crossd"), ("conv", "acs"), ("conv", "soft_acs"), ("conv", "planar"), ("conv", "plane_cycle")],
)
def test_each_form_gives_what_it_gives_alone(conv, method):
    net2d = small(conv=conv).eval()
    net3d = to_3d(net2d, method)
    x, v = torch.randn(IMAGES), torch.randn(VOLUMES)
    expected = net2d(x), net3d(v)
    net = HybridNet(net2d, net3d)
    torch.testing.assert_close((net(x), net(v)), expected, rtol=0, atol=0)
    torch.testing.assert_close(tuple(net([x, v])), expected, rtol=0, atol=0)
    assert net.net3d.conv1.weight is net.net2d.conv1.weight


def test_monai_network_built_in_3d_gives_its_values_to_both():
    net2d, net3d = small(), small(3, conv1_t_stride=[2, 2, 1], classes=5)
    load_2d(net3d, net2d, exclude=["fc.*"])
    expected = {key: value.clone() for key, value in net3d.state_dict().items()}
    own = {key: value.clone() for key, value in net2d.state_dict().items() if is_norm(key) or key.startswith("fc.")}
    net = HybridNet(net2d, net3d)
    assert net.apart["fc.weight"] == "(3, 64) in 2D, (5, 64) in 3D".replace("64", str(net2d.fc.in_features))
    torch.testing.assert_close(net.net3d.state_dict(), expected)
    state = net.net2d.state_dict()
    torch.testing.assert_close({key: state[key] for key in own}, own)
    torch.testing.assert_close({key: state[key] for key in net.tied}, {key: expected[key] for key in net.tied})
    assert [tuple(out.shape) for out in net([torch.randn(IMAGES), torch.randn(VOLUMES)])] == [(2, 3), (2, 5)]


def test_what_is_separate_is_for_the_user_to_say():
    assert "fc.weight" in shared(hybrid(separate=[]))
    net = hybrid(separate=["fc.*", "conv1.*"])
    assert not {key for key in shared(net) if key.startswith(("fc.", "conv1."))}
    assert "layer1.0.conv1.weight" in shared(net)


def test_transformer_shares_what_is_not_bound_to_its_dimension():
    arguments = {"in_channels": 1, "patch_size": 4, "hidden_size": 12, "mlp_dim": 8, "num_layers": 1, "num_heads": 2}
    net2d = ViT(img_size=(8, 8), spatial_dims=2, classification=True, **arguments)
    net3d = ViT(img_size=(8, 8, 8), spatial_dims=3, classification=True, **arguments)
    net = HybridNet(net2d, net3d)
    assert "blocks.0.attn.qkv.weight" in shared(net)
    assert net.apart["patch_embedding.position_embeddings"] == "(1, 4, 12) in 2D, (1, 8, 12) in 3D"
    assert net.apart["norm.weight"] == "a norm"


def test_static_layers_follow_the_shift_learned_in_2d():
    net2d = small()
    net = HybridNet(net2d, to_3d(net2d, "crossd", mode="static"))
    net.train()(torch.randn(IMAGES))
    shift = net.net2d.layer1[0].conv1.running_shift
    assert not torch.equal(shift, torch.ones(3))
    assert net.net3d.layer1[0].conv1.running_shift is shift
    assert net.double().net3d.layer1[0].conv1.running_shift is net.net2d.layer1[0].conv1.running_shift


def test_layers_that_are_the_whole_network():
    net2d = nn.Sequential(small().layer1[0].conv1)
    net = HybridNet(net2d[0], to_3d(net2d, "crossd", mode="static")[0])
    assert {"weight", "running_shift"} <= set(net.tied)


def reload(net):
    other = hybrid()
    other.load_state_dict(net.state_dict())
    return other


def assign(net):
    with torch.device("meta"):
        other = hybrid()
    other.load_state_dict(net.state_dict(), assign=True)
    return other


def in_another(net):
    """As a part of another network, which is what torch walks over."""
    return nn.ModuleDict({"net": net}).to(torch.float64).float()["net"]


def saved(net):
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = hybrid()
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


CHANGES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "state_dict": reload,
    "assigned": assign,
    "file": saved,
    "part": in_another,
    "dtype": lambda net: net.double().float(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.filterwarnings("ignore:.*no-op:UserWarning")
def test_ties_hold_and_values_too(change):
    net = hybrid()
    net.train()([torch.randn(IMAGES), torch.randn(VOLUMES)])  # the norms' statistics part
    before = {key: value.clone() for key, value in net.state_dict().items()}
    changed = CHANGES[change](net)
    assert shared(changed) == set(net.tied)
    torch.testing.assert_close(changed.state_dict(), before, rtol=0, atol=0)
    optimizer = torch.optim.SGD(changed.parameters(), 0.1)
    changed.train()(torch.randn(VOLUMES)).sum().backward()
    optimizer.step()
    assert not torch.equal(changed.net2d.conv1.weight, before["net2d.conv1.weight"])
    assert torch.equal(changed.net2d.conv1.weight, changed.net3d.conv1.weight)


@pytest.mark.filterwarnings("ignore:.*no-op:UserWarning")
def test_a_network_without_memory_gets_some():
    with torch.device("meta"):
        net = hybrid()
    assert shared(net.to_empty(device="cpu")) == set(net.tied)


def test_norms_see_their_own_dimension_only():
    net = hybrid().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net(torch.randn(IMAGES)).sum().backward()
    moved = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert not {key for key in moved if key.startswith("net3d.")}
    assert "net2d.conv1.running_shift" in moved
    grads = {name for name, p in net.named_parameters(remove_duplicate=False) if p.grad is not None}
    assert {key.removeprefix("net3d.") for key in grads if key.startswith("net3d.")} == set(net.tied)


def test_3d_form_is_a_plain_network():
    net = hybrid().eval()
    alone = to_3d(small(), "crossd")
    alone.load_state_dict(net.net3d.state_dict())
    v = torch.randn(VOLUMES)
    assert torch.equal(alone.eval()(v), net(v))


def test_trained_weights_are_those_of_the_2d_start():
    """The order of building does not lose what was learned in 2D."""
    net2d = small()
    expected = {key: value.clone() for key, value in net2d.state_dict().items()}
    torch.testing.assert_close(HybridNet(net2d, to_3d(net2d, "crossd")).net2d.state_dict(), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("conv", "inflate", "reason"),
    [
        ("conv", "i3d", r"conv1.weight: \(4, 1, 3, 3\) in 2D, \(4, 1, 3, 3, 3\) in 3D"),
        ("crossd", "bank", "conv1.weight: of a CrossDConv2d and of a Conv3d"),
        ("crossd", "center", "conv1.weight: of a CrossDConv2d and of a Conv3d"),
    ],
)
@pytest.mark.parametrize("separate", [None, []])
def test_nothing_to_share(conv, inflate, reason, separate):
    net2d = small(conv=conv)
    with pytest.raises(ValueError, match=rf"no weight to share \({reason}\): build both with Cross-D"):
        HybridNet(net2d, to_3d(net2d, inflate=inflate), separate)


def test_other_networks():
    with pytest.raises(ValueError, match=r"no weight to share \(conv1.weight: 3D only\)"):
        HybridNet(nn.Sequential(nn.Conv2d(1, 2, 3)), small(3))
    with pytest.raises(ValueError, match=r"separate has 'head\.\*', which fits no parameter, such as 'conv1.weight'"):
        hybrid(separate=["head.*"])
    with pytest.raises(ValueError, match=r"no weight to share \(nothing but norms and what is separate\)"):
        hybrid(separate=["*"])


def test_neither_images_nor_volumes():
    with pytest.raises(ValueError, match=r"volumes \(B, C, H, W, D\), but this has \(1, 16, 16\)"):
        hybrid()(torch.randn(1, 16, 16))
