# SPDX-License-Identifier: Apache-2.0
"""What state_dicts come in: wrappers, prefixes, other channels, precisions, networks; filled whole or refused whole."""

from __future__ import annotations

import re

import pytest
import torch
from monai.networks.nets import resnet10, resnet18, resnet34
from torch import nn
from ways import WAYS

from monai_crossd import ACSConv3d, CrossDConv3d, TransferError, load_2d, to_crossd, use_conv
from monai_crossd.networks import HybridNet, ResNetUNet
from monai_crossd.transfer import read_checkpoint

SMALL = {"n_input_channels": 1, "num_classes": 3, "widen_factor": 0.0625}


def net(dims=3, name="resnet10", **options):
    builder = {"resnet10": resnet10, "resnet18": resnet18, "resnet34": resnet34}[name]
    return builder(spatial_dims=dims, **{**SMALL, "bias_downsample": False, **options})


STATE = net(2).state_dict()


def prefixed(prefix):
    return {prefix + key: value for key, value in STATE.items()}


def snapshot(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def assert_unchanged(network, before):
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())


def assert_filled(network, state=STATE):
    torch.testing.assert_close(network.conv1.weight.sum(-1), state["conv1.weight"])
    torch.testing.assert_close(network.layer3[0].conv2.weight.sum(-1), state["layer3.0.conv2.weight"])
    assert network.layer4[0].bn2.running_var.equal(state["layer4.0.bn2.running_var"])


optimizer = torch.optim.Adam(net(2).parameters()).state_dict()
READ = {
    "plain": STATE,
    "state_dict": {"state_dict": STATE, "epoch": 3, "optimizer": optimizer, "args": {"lr": 0.1}},
    "model": {"model": STATE, "optimizer_state_dict": optimizer},
    "model is a word": {"model": "resnet10", "state_dict": STATE},
    "net": {"net": STATE, "acc": 0.9},
    "network": {"network": STATE},
    "model_state_dict": {"model_state_dict": STATE, "optimizer_state_dict": optimizer},
    "one in another": {"model": {"state_dict": STATE}},
    "with an epoch": {**STATE, "epoch": 3, "name": "resnet"},
    "average beside": {"state_dict": STATE, "state_dict_ema": STATE},
    "compiled": prefixed("_orig_mod."),
    "compiled parts": {re.sub(r"^(layer\d)\.", r"\1._orig_mod.", key): value for key, value in STATE.items()},
    "DataParallel": {"state_dict": prefixed("module.")},
    "Lightning": {"state_dict": prefixed("model.")},
    "Lightning, compiled": {"state_dict": prefixed("model._orig_mod.")},
    "DataParallel, compiled": prefixed("module._orig_mod."),
    "compiled, DataParallel": prefixed("_orig_mod.module."),
    "backbone": {"state_dict": prefixed("module.backbone.")},
    "encoder": {"model": prefixed("encoder.")},
    "three": {"state_dict": prefixed("model.module.encoder.")},
    "backbone and a head": {**prefixed("backbone."), "fc.weight": STATE["fc.weight"], "fc.bias": STATE["fc.bias"]},
}
del READ["backbone and a head"]["backbone.fc.weight"], READ["backbone and a head"]["backbone.fc.bias"]


@pytest.mark.parametrize("name", READ)
def test_wrappers_and_prefixes_are_taken_off(tmp_path, name):
    torch.save(READ[name], tmp_path / "a.pth")
    ours = net()
    report = load_2d(ours, tmp_path / "a.pth", "i3d")
    assert report.share == 1
    assert_filled(ours)
    again = net()
    load_2d(again, read_checkpoint(tmp_path / "a.pth"), "i3d")
    assert_filled(again)


def test_a_prefix_is_reported(tmp_path):
    torch.save(prefixed("module.backbone."), tmp_path / "a.pth")
    assert "without the prefix 'module.backbone.'" in str(load_2d(net(2), tmp_path / "a.pth"))
    assert "without the prefix 'model.'" in str(load_2d(net(), prefixed("model."), "i3d"))
    assert not load_2d(net(), STATE, "i3d").notes


NAMED = {
    "teacher and student": ({"teacher": STATE, "student": STATE}, r"'teacher', 'student'.*torch.load"),
    "two wrappers": ({"net": STATE, "model": STATE}, r"several state_dicts \('net', 'model'\)"),
    "parts": ({"encoder": STATE, "decoder": STATE}, "'encoder', 'decoder'"),
    "unusual": ({"weights_of_epoch_3": STATE}, "'weights_of_epoch_3'"),
    "another prefix": (prefixed("student_net."), "prefix 'student_net.'"),
    "another prefix inside": (prefixed("module.encoder_q."), r"prefix '(module\.)?encoder_q.'"),
    "numbers": ({"epoch": 3, "loss": 0.1}, "'epoch': int, 'loss': float"),
    "optimizer": ({"optimizer": optimizer}, "no state_dict"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_not_read_is_named_with_what_to_do(tmp_path, name):
    content, says = NAMED[name]
    torch.save(content, tmp_path / "a.pth")
    ours = net()
    before = snapshot(ours)
    with pytest.raises(ValueError, match=says):
        load_2d(ours, tmp_path / "a.pth", "i3d")
    assert_unchanged(ours, before)


def test_the_advice_works(tmp_path):
    torch.save({"teacher": prefixed("module."), "student": STATE}, tmp_path / "a.pth")
    ours = net()
    load_2d(ours, torch.load(tmp_path / "a.pth", weights_only=True)["teacher"], "i3d")
    assert_filled(ours)


def test_a_part_of_the_network_is_proposed():
    unet = ResNetUNet(3, 1, 2, "resnet10", "conv", widen_factor=0.0625, decoder_channels=(4,) * 5)
    with pytest.raises(TransferError, match=r"its part 'encoder': fill that one, e.g. net3d.encoder"):
        load_2d(unet, STATE, "i3d")
    load_2d(unet.encoder, STATE, "i3d")
    assert_filled(unet.encoder)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda n: torch.compile(nn.DataParallel(n))])
def test_wrapped_networks_are_sources_and_targets(wrap):
    source, ours = net(2), net()
    assert load_2d(wrap(ours), wrap(source), "i3d").share == 1
    assert_filled(ours, source.state_dict())


def test_a_compiled_part_is_filled(tmp_path):
    torch.save(STATE, tmp_path / "a.pth")
    for method, dims in (("center", 2), ("i3d", 3)):
        ours = net(dims)
        ours.layer2 = torch.compile(ours.layer2)
        ours.conv1 = torch.compile(ours.conv1)
        assert load_2d(ours, tmp_path / "a.pth", WAYS[method][1]).share == 1
        assert ours.layer2._orig_mod[0].bn1.weight.equal(STATE["layer2.0.bn1.weight"])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["resnet10", "resnet18"])
def test_the_bias_of_monais_shortcuts_is_0(tmp_path, dims, name):
    """A file without it gives its own output in MONAI's default network."""
    theirs, ours = net(dims, name).eval(), net(dims, name, bias_downsample=True).eval()
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    report = load_2d(ours, tmp_path / "a.pth")
    assert report.share == 1
    biases = [key for key in ours.state_dict() if key.endswith("downsample.0.bias")]
    assert biases
    assert all(report.transferred[key].startswith("0: ") for key in biases)
    x = torch.randn(2, 1, *[20] * dims)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_a_bias_too_many_is_refused(tmp_path):
    torch.save(net(2, bias_downsample=True).state_dict(), tmp_path / "a.pth")
    with pytest.raises(TransferError, match=r"of the source would go nowhere \(layer2\.0\.downsample\.0\.bias"):
        load_2d(net(2), tmp_path / "a.pth")


def test_only_a_convolution_may_lack_its_bias():
    for key in ("fc.bias", "bn1.bias", "layer1.0.bn2.running_mean"):
        state = {k: v for k, v in STATE.items() if k != key}
        with pytest.raises(TransferError, match=rf"1 are not in the source \({key}\)"):
            load_2d(net(), state, "i3d")


@pytest.mark.parametrize("dims", [2, 3])
def test_batches_that_were_not_counted_are_0(tmp_path, dims):
    """As torch's own load_state_dict has it, for files of torch before 0.4.1."""
    old = {key: value for key, value in net(2).state_dict().items() if "num_batches" not in key}
    torch.save(old, tmp_path / "a.pth")
    ours = net(dims)
    ours.bn1.num_batches_tracked.fill_(7)
    load_2d(ours, tmp_path / "a.pth", "center" if dims == 2 else "i3d")
    assert ours.bn1.num_batches_tracked == 0
    if dims == 2:
        theirs = net(2)
        theirs.load_state_dict(old)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(("source", "target"), [("resnet34", "resnet18"), ("resnet18", "resnet10")])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_deeper_source_is_another_network(tmp_path, source, target, dims):
    torch.save(net(2, source).state_dict(), tmp_path / "a.pth")
    ours, method = net(dims, target), "center" if dims == 2 else "i3d"
    before = snapshot(ours)
    with pytest.raises(TransferError, match=r"would go nowhere \(layer1\.\d") as error:
        load_2d(ours, tmp_path / "a.pth", WAYS[method][1])
    assert_unchanged(ours, before)
    load_2d(ours, tmp_path / "a.pth", WAYS[method][1], strict=False)
    patterns = sorted({k.rsplit(".", 2)[0] + ".*" for k in error.value.report.skipped})
    load_2d(ours, tmp_path / "a.pth", WAYS[method][1], exclude=patterns)


def test_a_classifier_may_be_left_over_where_there_is_none():
    features = net(feed_forward=False)
    report = load_2d(features, STATE, "i3d")
    assert set(report.skipped.values()) == {"a classifier, and the network has none of that name"}
    with pytest.raises(TransferError, match="would go nowhere"):
        load_2d(features, {**STATE, "fc2.weight": torch.ones(1)}, "i3d")


@pytest.mark.parametrize("exclude", ["fc.*", ["fc.*"], ("fc.weight", "fc.bias"), "fc*", "f[c].*"])
def test_a_pattern_or_several(tmp_path, exclude):
    torch.save(STATE, tmp_path / "a.pth")
    ours = net(num_classes=5)
    assert set(load_2d(ours, tmp_path / "a.pth", "i3d", exclude=exclude).initial) == {"fc.weight", "fc.bias"}
    assert set(load_2d(ours, STATE, "i3d", exclude=exclude).initial) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("exclude", ["fc", "fd.*", ["fc.*", "head.*"], r"fc\..*", "^fc.*", "", "module.fc.*"])
def test_a_pattern_that_fits_nothing_is_an_error(tmp_path, exclude):
    torch.save(STATE, tmp_path / "a.pth")
    ours = net()
    before = snapshot(ours)
    for dims, method in ((3, "i3d"), (2, "center")):
        with pytest.raises(ValueError, match=r"exclude has .* fits no parameter, such as '.*as of a shell"):
            load_2d(ours if dims == 3 else net(2), tmp_path / "a.pth", WAYS[method][1], exclude=exclude)
    assert_unchanged(ours, before)


def test_a_near_name_is_proposed():
    with pytest.raises(ValueError, match=r"'fc', which fits no parameter, such as 'fc.weight', 'fc.bias'"):
        load_2d(net(), STATE, "i3d", exclude="fc")
    with pytest.raises(TypeError, match="one is 3"):
        load_2d(net(), STATE, "i3d", exclude=["fc.*", 3])
    pair = to_crossd(net(2)), net()
    with pytest.raises(ValueError, match="separate has 'fcc', which fits no parameter"):
        HybridNet(*pair, separate="fcc")


def test_one_pattern_separates_a_hybrid():
    with use_conv("crossd"):
        hybrid = HybridNet(net(2), net(3), separate="fc.*")
    assert hybrid.apart["fc.weight"] == "separate"
    assert "conv1.weight" in hybrid.tied


@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 1), (3, 2), (3, 4), (1, 1)])
@pytest.mark.parametrize("method", ["i3d", "center", "acs", "crossd"])
def test_images_of_other_channels(old, new, method):
    """A grey image, in each channel of both, gives the same output, in a network with two stems."""

    kinds = {"acs": ACSConv3d, "crossd": CrossDConv3d}

    def build(dims, channels):
        conv = nn.Conv2d if dims == 2 else kinds.get(method, nn.Conv3d)
        layers = conv(channels, 4, 3, padding=1), conv(channels, 4, 3, padding=1), conv(4, 2, 1)
        return nn.ModuleDict(dict(zip("abc", layers, strict=True)))

    torch.manual_seed(1)
    net2d, same, other = build(2, old), build(3, old), build(3, new)
    load_2d(same, net2d, WAYS[method][1])
    report = load_2d(other, net2d, WAYS[method][1])
    for name in "ab":
        assert ("input channels" in report.transferred[f"{name}.weight"]) == (old != new)
        x = torch.randn(2, 1, 5, 6, 7)
        y, z = same[name].eval()(x.expand(-1, old, -1, -1, -1)), other[name].eval()(x.expand(-1, new, -1, -1, -1))
        torch.testing.assert_close(z, y, atol=1e-5, rtol=1e-5)
    assert "input channels" not in report.transferred["c.weight"]


def test_features_are_no_image():
    before = nn.Sequential(nn.Conv3d(4, 4, 3), nn.Conv3d(4, 2, 3))
    with pytest.raises(TransferError, match=r"does not fit"):
        load_2d(before, nn.Sequential(nn.Conv2d(8, 4, 3), nn.Conv2d(4, 2, 3)), "i3d")
    with pytest.raises(TransferError, match=r"1 do not fit \(1.weight\)"):
        load_2d(
            nn.Sequential(nn.Conv3d(1, 4, 3), nn.Conv3d(4, 2, 3)),
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(8, 2, 3)),
            "i3d",
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precisions(dtype):
    """A file in half precision into a network in single: no kernel is divided in half precision."""
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in STATE.items()}
    ours = net()
    load_2d(ours, state, "i3d")
    expected = state["conv1.weight"].double() / 7
    torch.testing.assert_close(ours.conv1.weight[..., 3].double(), expected, rtol=1e-6, atol=1e-9)
    assert ours.conv1.weight.dtype == torch.float32
    half = net().half()
    load_2d(half, {k: v.half() for k, v in STATE.items()}, "i3d")  # a counter in half precision too
    assert half.bn1.num_batches_tracked.dtype == torch.long


def test_numbers_of_another_kind_do_not_fit():
    state = {**STATE, "conv1.weight": STATE["conv1.weight"].mul(9).to(torch.int8)}
    with pytest.raises(TransferError, match=r"source of torch.int8 does not fit torch.float32"):
        load_2d(net(), state, "i3d")


@pytest.mark.parametrize("which", ["source", "target"])
def test_no_values_are_no_weights(which):
    with torch.device("meta"):
        empty = net(2 if which == "source" else 3)
    pair = (empty, net()) if which == "source" else (net(2), empty)
    with pytest.raises(ValueError, match="device 'meta', which holds no values"):
        load_2d(*pair, "i3d")


TURNED = {
    "linear": ("fc.weight", lambda v: v.T),
    "kernel last": ("conv1.weight", lambda v: v.permute(2, 3, 1, 0)),
    "kernel in and out": ("layer2.0.conv1.weight", lambda v: v.transpose(0, 1)),
    "flat": ("conv1.weight", lambda v: v.flatten(1)),
    "one more axis": ("bn1.weight", lambda v: v[None]),
}


@pytest.mark.parametrize("name", TURNED)
@pytest.mark.parametrize("dims", [2, 3])
def test_turned_values_load_nothing(tmp_path, name, dims):
    key, turn = TURNED[name]
    torch.save({**STATE, key: turn(STATE[key]).contiguous()}, tmp_path / "a.pth")
    ours = net(dims)
    before = snapshot(ours)
    with pytest.raises(TransferError, match=re.escape(key)) as error:
        load_2d(ours, tmp_path / "a.pth", "center" if dims == 2 else "i3d")
    assert list(error.value.report.conflicts) == [key]
    assert_unchanged(ours, before)


@pytest.mark.parametrize("inflate", ["bank", "i3d", "center"])
def test_a_plain_3d_source_is_copied_and_is_no_bank(inflate):
    source, ours = net(), net()
    before = snapshot(ours)
    if inflate == "center":
        assert set(load_2d(ours, source).transferred.values()) == {"copied"}
        assert_unchanged(ours, source.state_dict())
    else:
        with pytest.raises(ValueError, match=rf"as 2D or 3D as the network: inflate \('{inflate}'\)"):
            load_2d(ours, source, inflate)
        assert_unchanged(ours, before)
    for conv in ("acs", "crossd"):
        with use_conv(conv):
            layers = net()
        with pytest.raises(TransferError, match="plain 3D kernel, no bank"):
            load_2d(layers, net())


def test_a_bank_file_without_running_shift(tmp_path):
    with use_conv("crossd"):
        source, ours = net(2), net(3)
    state = {key: value for key, value in source.state_dict().items() if not key.endswith("running_shift")}
    torch.save(state, tmp_path / "a.pth")
    load_2d(ours, tmp_path / "a.pth")
    assert ours.conv1.weight.equal(source.conv1.weight)
    plain = net()
    load_2d(plain, tmp_path / "a.pth", "bank")
    assert plain.conv1.weight.equal(source.conv1.weight.movedim(2, 4))
    with pytest.raises(TransferError, match="no running_shift"):
        load_2d(net(), tmp_path / "a.pth", "i3d")


def test_a_printed_report_is_short_and_its_details_are_not():
    report = load_2d(net(3, "resnet34"), net(2, "resnet34"), "i3d")
    assert len(str(report).splitlines()) < 8
    assert "copied" in str(report)
    assert "and 1" in str(report)  # more than a hundred
    details = report.details()
    assert all(key in details for key in report.numel)
    state = {key: torch.zeros(at + 1, 2, 3, 4, 5, 6) for at, key in enumerate(STATE)}
    with pytest.raises(TransferError) as error:
        load_2d(net(), state, "i3d")
    assert len(str(error.value).splitlines()) < 14
