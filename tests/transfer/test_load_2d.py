# SPDX-License-Identifier: Apache-2.0
"""load_2d: exact values, a report of every key, all or nothing, and what the filled network computes."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from monai.networks.nets import DenseNet, resnet10, resnet18
from oracles import shift_bank_fft
from torch import nn
from ways import WAYS

from monai_crossd import TransferError, load_2d, to_crossd, use_conv
from monai_crossd.conv import ACSConv3d, CrossDConv2d, CrossDConv3d

BUILDERS = {"resnet10": resnet10, "resnet18": resnet18}
SMALL = {"n_input_channels": 1, "num_classes": 3, "widen_factor": 0.125}
LAYER = {"crossd": CrossDConv3d, "acs": ACSConv3d}
# what is tested of a method; the rest of WAYS belongs to to_3d
FIRST = ["crossd", "acs", "i3d", "center", "bank"]


def build(dims, kind, name="resnet10", **options):
    with nullcontext() if kind == "plain" else use_conv(kind, **options):
        return BUILDERS[name](spatial_dims=dims, **SMALL).double()


def randomise(net):
    """As after training: no value at its start, running shifts anywhere (they sum to 3)."""
    generator = torch.Generator().manual_seed(3)
    for key, value in net.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif key.endswith("running_shift"):
            value.uniform_(0, 2, generator=generator)
            value[2] = 3 - value[0] - value[1]
        elif value.is_floating_point():
            value.normal_(0, 0.2, generator=generator)
        else:
            value.fill_(7)
    return net


def target_for(method, name="resnet10", depth_axis=-1, **options):
    if method == "crossd":
        return build(3, "crossd", name, depth_axis=depth_axis, **options)
    return build(3, method if method in LAYER else "plain", name)


def snapshot(net):
    return copy.deepcopy(net.state_dict())


def assert_unchanged(net, before):
    assert net.state_dict().keys() == before.keys()
    assert all(value.equal(before[key]) for key, value in net.state_dict().items())


def assert_complete(report, source_keys, net):
    """Every key stands exactly once on each side."""
    target = [*report.transferred, *report.conflicts, *report.initial]
    assert sorted(target) == sorted(net.state_dict())
    assert set(report.numel) == set(target)
    used = set(report.transferred) | set(report.conflicts)
    assert not used & set(report.skipped)
    assert (used & set(source_keys)) | set(report.skipped) == set(source_keys)
    values = sum(value.numel() for value in net.state_dict().values())
    there = sum(net.state_dict()[key].numel() for key in report.transferred)
    assert report.share == pytest.approx(there / values)
    text = report.details()
    assert all(key in text for key in [*target, *source_keys])


def expected_kernel(method, weight, shift, like, depth_axis):
    """The 3D kernel, written without the package's functions."""
    at = 2 + depth_axis % 3
    depth = like.shape[at] if like.dim() == 5 else None
    if method == "crossd":
        if weight.dim() == 5:
            return weight
        rows, columns = weight.shape[2:]
        p, q = torch.arange(rows), torch.arange(columns)
        moved = weight[:, :, (p + 1) % rows][:, :, :, (q + 1) % columns]
        return torch.stack([moved] * like.shape[2], dim=2)
    if method == "bank":
        return torch.einsum({0: "oidhw->oidhw", 2: "oidhw->oihwd"}[depth_axis % 3], weight)
    if weight.dim() == 5:
        weight = shift_bank_fft(weight, shift)[:, :, weight.shape[2] // 2]
    if method == "acs":
        return weight
    if method == "i3d":
        return torch.stack([weight / depth] * depth, dim=at)
    zeros = torch.zeros_like(weight)
    return torch.stack([weight if d == depth // 2 else zeros for d in range(depth)], dim=at)


SOURCES = [(kind, method) for kind in ("plain", "crossd") for method in FIRST if (kind, method) != ("plain", "bank")]


@pytest.mark.parametrize(("kind", "method"), SOURCES)
@pytest.mark.parametrize(
    ("name", "as_state_dict", "depth_axis"),
    [("resnet10", False, -1), ("resnet10", False, 0), ("resnet18", False, -1), ("resnet10", True, 0)],
)
def test_values_and_report(name, kind, method, depth_axis, as_state_dict):
    net2d = randomise(build(2, kind, name))
    net3d = target_for(method, name, depth_axis)
    source, initial = snapshot(net2d), snapshot(net3d)
    report = load_2d(net3d, source if as_state_dict else net2d, WAYS[method][1], depth_axis)
    assert_unchanged(net2d, source)
    assert_complete(report, source, net3d)
    assert not report.conflicts
    for key, value in net3d.state_dict().items():
        path, _, leaf = key.rpartition(".")
        if isinstance(net3d.get_submodule(path), (CrossDConv3d, ACSConv3d, nn.Conv3d)) and leaf == "weight":
            expected = expected_kernel(method, source[key], source.get(f"{path}.running_shift"), value, depth_axis)
            torch.testing.assert_close(value, expected, atol=1e-12, rtol=0, msg=lambda m, k=key: f"{k}: {m}")
            assert key in report.transferred
        elif key in source:
            assert value.equal(source[key]), key
            assert report.transferred[key] == "copied"
        else:
            assert kind == "plain", key
            assert "plain convolution" in report.initial[key]
            if leaf == "running_shift":
                assert value.equal(torch.ones_like(value))
            elif ".predictor.3." in key:  # the angle alone is 0
                assert value[3].abs().sum() == 0
                assert value[:3].equal(initial[key][:3])
            else:
                assert value.equal(initial[key]), key
    if kind == "plain" and method != "crossd":
        assert report.share == 1
        assert not report.skipped
    if kind == "crossd" and method != "crossd":
        assert all(".predictor." in f".{k}" or k.endswith("running_shift") for k in report.skipped)
    with torch.no_grad():
        assert net3d(torch.randn(2, 1, 16, 16, 16).double()).isfinite().all()


def test_crossd_goes_over_whole():
    report = load_2d(target_for("crossd"), randomise(build(2, "crossd")))
    assert report.share == 1
    assert not report.skipped
    assert not report.initial


def test_a_plain_kernel_has_no_bank():
    net3d = build(3, "plain")
    before = snapshot(net3d)
    with pytest.raises(TransferError, match="has no bank: choose 'center' or 'i3d'") as error:
        load_2d(net3d, build(2, "plain"), "bank")
    assert "conv1.weight" in error.value.report.conflicts
    assert_unchanged(net3d, before)


def test_static_layers_take_the_running_shift_and_no_predictor():
    net2d = randomise(build(2, "crossd"))
    net3d = target_for("crossd", mode="static")
    report = load_2d(net3d, net2d)
    assert_complete(report, net2d.state_dict(), net3d)
    assert net3d.conv1.running_shift.equal(net2d.conv1.running_shift)
    assert all(".predictor." in key for key in report.skipped)
    center = target_for("center")
    load_2d(center, net2d)
    x = torch.randn(1, 1, 24, 24, 16).double()
    torch.testing.assert_close(net3d.eval()(x), center.eval()(x), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("mode", ["dynamic", "static"])
@pytest.mark.parametrize("training", [True, False])
def test_crossd_from_a_plain_source_starts_as_the_center_transfer(mode, training):
    net2d, net3d, center = randomise(build(2, "plain")), target_for("crossd", mode=mode), target_for("center")
    if mode == "static":  # a layer that was used before
        net3d.conv1.running_shift.copy_(torch.tensor([0.5, 1.5, 1.0]))
    load_2d(net3d, net2d)
    load_2d(center, net2d)
    x = torch.randn(2, 1, 24, 24, 16).double()
    torch.testing.assert_close(net3d.train(training)(x), center.train(training)(x), atol=1e-9, rtol=1e-9)


def features(net, x):
    """Stem and first stage."""
    return net.layer1(net.act(net.bn1(net.conv1(x))))


@pytest.mark.parametrize("kind", ["plain", "crossd"])
def test_i3d_gives_the_2d_features_of_a_volume_constant_along_depth(kind):
    net2d, net3d = randomise(build(2, kind)).eval(), build(3, "plain").eval()
    if kind == "crossd":  # a static 2D net at the running shift, which is what goes over
        net2d = to_static(net2d)
    load_2d(net3d, net2d, "i3d")
    image = torch.randn(2, 1, 20, 18).double()
    y = features(net3d, image.unsqueeze(-1).repeat(1, 1, 1, 1, 48))
    expected = features(net2d, image)
    for d in (10, 12, 13):  # out of reach of the padding at both ends
        torch.testing.assert_close(y[..., d], expected, atol=1e-10, rtol=1e-10)
    assert not torch.allclose(y[..., 0], expected, atol=1e-3)


def to_static(net2d):
    """Cross-D 2D net as the plain net of its kernels at the running shift."""
    plain = build(2, "plain").eval()
    state = net2d.state_dict()
    for key in plain.state_dict():
        value = state[key]
        if value.dim() == 5:
            shift = state[key.removesuffix("weight") + "running_shift"]
            value = shift_bank_fft(value, shift)[:, :, value.shape[2] // 2]
        plain.state_dict()[key].copy_(value)
    return plain


@pytest.mark.parametrize("method", ["center", "crossd"])
@pytest.mark.parametrize("depth_axis", [-1, 0])
def test_each_slice_gives_its_2d_features(method, depth_axis):
    net2d = randomise(build(2, "plain")).eval()
    context = use_conv("crossd", depth_axis=depth_axis) if method == "crossd" else nullcontext()
    with context:
        net3d = resnet10(spatial_dims=3, **SMALL).double().eval()
    load_2d(net3d, net2d, WAYS[method][1], depth_axis)
    volume = torch.randn(1, 1, 5, 20, 18).double()
    y = features(net3d, volume if depth_axis == 0 else volume.movedim(2, -1))
    expected = features(net2d, volume[0].movedim(1, 0))  # slices as a batch
    torch.testing.assert_close(y[0].movedim(depth_axis % 3 + 1, 0), expected, atol=1e-10, rtol=1e-10)


def test_exclude_leaves_keys_alone_and_says_so():
    net2d = randomise(build(2, "plain"))
    net3d = build(3, "plain")
    before, source = snapshot(net3d), net2d.state_dict()
    report = load_2d(net3d, net2d, "i3d", exclude=["fc.*", "layer4.*.bn2.*"])
    assert {key for key in report.initial if key.startswith("fc.")} == {"fc.weight", "fc.bias"}
    assert set(report.initial.values()) == {"excluded"}
    assert_complete(report, source, net3d)
    assert net3d.fc.weight.equal(before["fc.weight"])
    assert report.skipped["fc.weight"] == "excluded"
    assert report.share < 1


def test_a_head_of_other_classes_is_an_error_until_excluded():
    net3d = resnet10(spatial_dims=3, **{**SMALL, "num_classes": 5}).double()
    net2d, before = randomise(build(2, "plain")), snapshot(net3d)
    with pytest.raises(TransferError, match=r"exclude=\['fc\.\*'\]") as error:
        load_2d(net3d, net2d)
    assert set(error.value.report.conflicts) == {"fc.weight", "fc.bias"}
    assert "(3, 64) does not fit (5, 64)" in error.value.report.conflicts["fc.weight"]
    assert_complete(error.value.report, net2d.state_dict(), net3d)
    assert_unchanged(net3d, before)
    report = load_2d(net3d, net2d, exclude=["fc.*"])
    assert not report.conflicts


@pytest.mark.parametrize("method", FIRST)
def test_a_strict_failure_leaves_every_bit(method):
    source = randomise(build(2, "crossd")).state_dict()
    del source["layer4.0.bn2.weight"]
    net3d = target_for(method)
    before = snapshot(net3d)
    with pytest.raises(TransferError, match="nothing was loaded") as error:
        load_2d(net3d, source, WAYS[method][1])
    assert error.value.report.initial["layer4.0.bn2.weight"] == "the source has no such parameter"
    assert_unchanged(net3d, before)


def test_without_strict_what_fits_is_loaded():
    source = randomise(build(2, "plain")).state_dict()
    del source["layer4.0.bn2.weight"]
    source["conv1.weight"] = torch.zeros(8, 1, 5, 5)
    source["extra.weight"] = torch.zeros(3)
    net3d = build(3, "plain")
    before = snapshot(net3d)
    report = load_2d(net3d, source, strict=False)
    assert_complete(report, source, net3d)
    assert set(report.conflicts) == {"conv1.weight"}
    assert set(report.initial) == {"layer4.0.bn2.weight"}
    assert report.skipped == {"extra.weight": "the network has no such parameter"}
    for key in ("conv1.weight", "layer4.0.bn2.weight"):
        assert net3d.state_dict()[key].equal(before[key])
    assert net3d.bn1.weight.equal(source["bn1.weight"])


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_of_another_network_loads_nothing(strict):
    other = DenseNet(2, 1, 3, init_features=8, growth_rate=4, block_config=(2, 2))
    net3d = build(3, "plain")
    before = snapshot(net3d)
    with pytest.raises(TransferError, match="checkpoint of another network") as error:
        load_2d(net3d, other, "i3d", strict=strict)
    assert_unchanged(net3d, before)
    report = error.value.report
    assert set(report.skipped) == set(other.state_dict())
    assert set(report.initial) == set(net3d.state_dict())
    assert isinstance(error.value, ValueError)
    assert "features.conv0.weight" in str(error.value)


def test_a_part_of_a_network_takes_the_same_part():
    net2d, net3d = randomise(build(2, "plain")), build(3, "plain")
    assert load_2d(net3d.layer2, net2d.layer2).share == 1
    assert load_2d(net3d.conv1, net2d.conv1, "i3d").share == 1
    torch.testing.assert_close(net3d.conv1.weight.sum(-1), net2d.conv1.weight)


def test_precision_of_the_target_is_kept():
    net2d, net3d = randomise(build(2, "plain")), build(3, "plain").half()
    load_2d(net3d, net2d)
    assert {value.dtype for value in net3d.parameters()} == {torch.float16}
    assert net3d.bn1.weight.equal(net2d.bn1.weight.half())


def test_a_bank_without_running_shift_goes_only_where_none_is_needed():
    source = {k: v for k, v in randomise(build(2, "crossd")).state_dict().items() if not k.endswith("running_shift")}
    with pytest.raises(TransferError, match="no running_shift: only Cross-D layers and inflate='bank'"):
        load_2d(build(3, "plain"), source, "i3d")
    assert not load_2d(build(3, "plain"), source, "bank").conflicts


@pytest.mark.parametrize(
    ("method", "says"), [("i3dd", "did you mean 'i3d'"), ("centre", "did you mean 'center'"), ("acs", "'i3d'")]
)
def test_an_unknown_word_is_answered_with_a_suggestion(method, says):
    with pytest.raises(ValueError, match=says):
        load_2d(nn.Conv3d(1, 1, 3), nn.Conv2d(1, 1, 3), method)


def test_another_depth_axis_than_the_layers_have_is_named():
    with pytest.raises(ValueError, match=r"conv1 was built with depth_axis=-1, not 0: .*depth_axis=0"):
        load_2d(build(3, "crossd"), build(2, "crossd"), depth_axis=0)
    load_2d(build(3, "crossd"), build(2, "crossd"), depth_axis=2)  # the last one, by another name
    with pytest.raises(ValueError, match=r"depth_axis must be .* but is 3"):
        load_2d(build(3, "plain"), build(2, "plain"), "i3d", depth_axis=3)


def test_a_checkpoint_around_a_state_dict_is_named():
    checkpoint = {"state_dict": build(2, "plain").state_dict(), "epoch": 3}
    with pytest.raises(TypeError, match=r"'state_dict' holds a OrderedDict.*checkpoint\['state_dict'\]"):
        load_2d(build(3, "plain"), checkpoint, "i3d")


def test_a_converted_network_is_a_source_too():
    net2d = to_crossd(randomise(build(2, "plain")), init="preserve")
    assert isinstance(net2d.conv1, CrossDConv2d)
    net3d = target_for("crossd")
    assert load_2d(net3d, net2d).share == 1


@pytest.mark.parametrize("source", [None, 3, [torch.zeros(1)]], ids=repr)
def test_a_source_of_another_kind_is_named(source):
    with pytest.raises(TypeError, match=f"a network, a state_dict or a path, but is a {type(source).__name__}"):
        load_2d(nn.Conv3d(1, 1, 3), source)


@pytest.mark.parametrize("inflate", ["i3d", "bank"])
@pytest.mark.parametrize("axis", [-1, 0])
def test_words_that_change_nothing_are_refused(inflate, axis):
    """Of a 2D network into a 2D one; beside layers of ours, which answer for themselves, they may stand."""
    net = build(2, "plain")
    before = snapshot(net)
    with pytest.raises(ValueError, match=rf"inflate \('{inflate}'\) and depth_axis \({axis}\) have no meaning"):
        load_2d(net, build(2, "plain"), inflate, axis)
    assert_unchanged(net, before)
    assert load_2d(build(3, "acs"), build(2, "plain"), inflate, axis).share == 1


def test_a_plain_2d_network_takes_the_kernels_at_the_running_shift():
    net2d, plain = randomise(build(2, "crossd")), build(2, "plain").eval()
    report = load_2d(plain, net2d)
    assert report.share == 1
    x = torch.randn(2, 1, 24, 24).double()
    torch.testing.assert_close(plain(x), to_static(net2d)(x), atol=1e-9, rtol=1e-9)
