# SPDX-License-Identifier: Apache-2.0
"""Our layers in MONAI's factories, and MONAI networks built with them."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings

import pytest
import torch
from monai.networks.layers import Conv
from monai.networks.nets import BasicUNet, MedNeXt, ResNet, SegResNet, UNet
from torch import nn

from monai_crossd.conv import ACSConv3d, CrossDConv2d, CrossDConv3d, register, use_conv

NETS = {
    "UNet": lambda dims: UNet(dims, 1, 2, channels=(4, 8, 8), strides=(2, 2), num_res_units=1),
    "SegResNet": lambda dims: SegResNet(
        dims,
        init_filters=4,
        in_channels=1,
        out_channels=2,
        blocks_down=(1, 1),
        blocks_up=(1,),
        norm=("GROUP", {"num_groups": 2}),
    ),
    "BasicUNet": lambda dims: BasicUNet(dims, 1, 2, features=(4, 4, 4, 8, 8, 4)),
    "ResNet": lambda dims: ResNet(
        "basic", [1, 1, 1, 1], [4, 8, 8, 8], spatial_dims=dims, n_input_channels=1, num_classes=2
    ),
}
LAYER = {("crossd", 2): CrossDConv2d, ("crossd", 3): CrossDConv3d, ("acs", 2): nn.Conv2d, ("acs", 3): ACSConv3d}


def small_net(dims=2):
    return NETS["BasicUNet"](dims)


def convolutions(net):
    kinds = (nn.Conv2d, nn.Conv3d, CrossDConv2d, CrossDConv3d, ACSConv3d)
    predictors = {
        id(m) for layer in net.modules() if isinstance(layer, CrossDConv2d | CrossDConv3d) and layer.predictor
        for m in layer.predictor
    }  # fmt: skip
    return [m for m in net.modules() if isinstance(m, kinds) and id(m) not in predictors]


@pytest.mark.parametrize("case", LAYER.items(), ids=str)
@pytest.mark.parametrize("upper", [True, False])
def test_names_in_the_factory(case, upper):
    (name, dims), layer = case
    assert Conv[name.upper() if upper else name, dims] is layer


def test_no_such_dimension():
    with pytest.raises(ValueError, match=r"no 'crossd' convolution in 1 dimensions, only in \[2, 3\]"):
        Conv["crossd", 1]


def test_registering_again_changes_nothing():
    before = dict(Conv.components)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register()
    assert Conv.components == before


def test_a_foreign_entry_stays_with_a_warning(monkeypatch):
    foreign = Conv.components["CROSSD"]._replace(value=lambda dim: nn.Identity)
    monkeypatch.setitem(Conv.components, "CROSSD", foreign)
    with pytest.warns(UserWarning, match=r"'crossd' that is not monai_crossd's .* left alone.*use_conv\('crossd'\)"):
        register()
    assert Conv.components["CROSSD"] is foreign
    assert Conv["crossd", 2] is nn.Identity
    with use_conv("crossd"):  # does not go through the name
        assert all(isinstance(m, CrossDConv2d) for m in convolutions(small_net()))


def test_a_missing_entry_comes_back(monkeypatch):
    monkeypatch.delitem(Conv.components, "ACS")
    register()
    assert Conv["acs", 3] is ACSConv3d


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("kind", LAYER.items(), ids=str)
def test_monai_networks_train_with_our_layers(name, kind):
    (conv, dims), layer = kind
    with use_conv(conv):
        net = NETS[name](dims)
    built = convolutions(net)
    assert built
    assert all(type(m) is layer for m in built)
    x = torch.randn(2, 1, *[32 if dims == 2 or name == "BasicUNet" else 16] * dims)
    with torch.no_grad():
        plain = NETS[name](dims)(x)
    y = net(x)
    assert y.shape == plain.shape
    y.square().mean().backward()
    assert all(m.weight.grad is not None and m.weight.grad.isfinite().all() for m in built)
    assert not any(isinstance(m, layer) for m in convolutions(NETS[name](dims))) or layer is nn.Conv2d


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("options", [{}, {"hidden_channels": 4}])
def test_repeated_start_survives_monais_initialisation(dims, options):
    """ResNet draws every convolution again, as if a bank were one kernel."""
    with use_conv("crossd", **options):
        net = NETS["ResNet"](dims)
    layers = [m for m in net.modules() if isinstance(m, CrossDConv2d | CrossDConv3d)]
    assert len(layers) == len(convolutions(net)) > 5
    for layer in layers:
        assert layer.weight.equal(layer.weight[:, :, :1].expand_as(layer.weight))


def test_options_reach_every_layer():
    with use_conv("crossd", mode="static", placement="spread", depth_axis=0):
        layers = [m for m in NETS["UNet"](3).modules() if isinstance(m, CrossDConv3d)]
    assert {(m.mode, m.placement, m.depth_axis) for m in layers} == {("static", "spread", 0)}


@pytest.mark.parametrize("options", [{}, {"mode": "static"}])
def test_what_was_built_pickles_and_copies(options):
    with use_conv("crossd", **options):
        net = small_net(3).eval()
        inside = pickle.loads(pickle.dumps(net))
    x = torch.randn(1, 1, 32, 32, 32)
    for twin in (inside, pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert all(type(m) is CrossDConv3d for m in convolutions(twin))
        assert twin(x).equal(net(x))


def test_blocks_nest_and_end():
    entry = Conv.components["CONV"]
    with use_conv("crossd"):
        outer = Conv["conv", 3]
        with use_conv("acs"):
            assert Conv["conv", 3] is ACSConv3d
            # ACS in 2D is the plain convolution, also inside
            assert Conv["conv", 2] is nn.Conv2d
        assert isinstance(outer(1, 1, 3), CrossDConv3d)
        assert isinstance(Conv["conv", 3](1, 1, 3), CrossDConv3d)
        assert Conv["conv", 1] is nn.Conv1d
    assert Conv.components["CONV"] is entry
    assert Conv["conv", 3] is nn.Conv3d


def test_an_exception_ends_the_block():
    with pytest.raises(ZeroDivisionError), use_conv("crossd"), use_conv("acs"):
        1 / 0  # noqa: B018
    assert Conv["conv", 3] is nn.Conv3d


@pytest.mark.parametrize(("name", "says"), [("crosd", "did you mean 'crossd'"), ("tetris", "crossd")])
def test_unknown_name_is_answered_with_a_suggestion(name, says):
    with pytest.raises(ValueError, match=says), use_conv(name):
        pass
    assert Conv["conv", 2] is nn.Conv2d


def test_unknown_option_is_an_error_and_ends_the_block():
    with pytest.raises(TypeError, match="modus"), use_conv("crossd", modus="static"):
        small_net(3)
    assert Conv["conv", 3] is nn.Conv3d


def in_thread(function):
    result = []
    thread = threading.Thread(target=lambda: result.append(function()), daemon=True)
    thread.start()
    return thread, result


def test_another_thread_waits_with_a_block_of_its_own():
    def build():
        with use_conv("acs"):
            return small_net(3)

    with use_conv("crossd"):
        thread, result = in_thread(build)
        mine = small_net(3)
        thread.join(0.05)
        assert not result
    thread.join(60)
    assert {type(m) for m in convolutions(mine)} == {CrossDConv3d}
    assert {type(m) for m in convolutions(result[0])} == {ACSConv3d}


def test_another_thread_without_a_block_builds_what_the_open_block_says():
    """MONAI has one factory for the process, as use_conv's docstring says: a limit, held here so that it is known."""
    with use_conv("crossd"):
        thread, result = in_thread(small_net)
        thread.join(60)
    assert {type(m) for m in convolutions(result[0])} == {CrossDConv2d}
    thread, result = in_thread(small_net)
    thread.join(60)
    assert {type(m) for m in convolutions(result[0])} == {nn.Conv2d}


def mednext():
    width = {f"{part}_expansion_ratio": 2 for part in ("encoder", "decoder", "bottleneck")}
    depth = {"blocks_down": (1, 1, 1, 1), "blocks_bottleneck": 1, "blocks_up": (1, 1, 1, 1)}
    return MedNeXt(spatial_dims=3, init_filters=4, in_channels=1, out_channels=2, **width, **depth)


def nested(outer, inner):
    with use_conv(outer), use_conv(inner):
        return small_net(3)


def in_block(name, build):
    with use_conv(name):
        build()


BLOCKS = {
    "MedNeXt": (lambda: in_block("acs", mednext), 1),
    "torch's own": (lambda: in_block("planar", lambda: nn.Conv3d(1, 1, 3)), 1),
    "empty": (lambda: in_block("crossd", lambda: None), 1),
    "1D, which stays plain": (lambda: in_block("crossd", lambda: Conv["conv", 1]), 1),
    "transposed, which stays plain": (lambda: in_block("acs", lambda: Conv["convtrans", 3]), 1),
    "empty in another": (lambda: in_block("acs", lambda: [small_net(3), in_block("crossd", list)]), 1),
    "UNet": (lambda: in_block("acs", lambda: NETS["UNet"](3)), 0),
    "UNet in two blocks": (lambda: nested("acs", "crossd"), 0),
    "UNet in 2D, which is plain for acs": (lambda: in_block("acs", small_net), 0),
    "UNet after MedNeXt": (lambda: in_block("acs", lambda: [mednext(), small_net(3)]), 0),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_a_block_without_effect_warns_once_and_names_the_remedies(case):
    build, count = BLOCKS[case]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build()
    ours = [warning for warning in caught if "use_conv" in str(warning.message)]
    assert len(ours) == count
    for warning in ours:
        assert "had no effect" in str(warning.message)
        assert "to_3d(net2d" in str(warning.message)
        assert "load_2d(net3d, net2d)" in str(warning.message)
        assert warning.filename == __file__  # the user's line


def test_an_error_in_the_block_is_all_that_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ZeroDivisionError), use_conv("acs"):
            1 / 0  # noqa: B018
