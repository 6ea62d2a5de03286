# SPDX-License-Identifier: Apache-2.0
"""What holds for every layer: torch's shapes and messages, dtypes, memory formats, copies, exports."""

from __future__ import annotations

import copy
import inspect
import pickle
import shutil
import sysconfig
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import monai_crossd.conv
from monai_crossd.conv import (
    ACSConv3d,
    ACSConvTranspose3d,
    ConvBase,
    CrossDConv2d,
    CrossDConv3d,
    PlanarConv3d,
    SoftACSConv3d,
)

STATIC = partial(CrossDConv3d, mode="static")
SPREAD = partial(CrossDConv3d, placement="spread", depth_axis=0)
MEAN = partial(SoftACSConv3d, mean=True)
# layer, torch's layer, spatial dimensions
LAYERS = [
    pytest.param(CrossDConv2d, nn.Conv2d, 2, id="crossd2d"),
    pytest.param(CrossDConv3d, nn.Conv3d, 3, id="crossd3d"),
    pytest.param(STATIC, nn.Conv3d, 3, id="static"),
    pytest.param(SPREAD, nn.Conv3d, 3, id="spread"),
    pytest.param(ACSConv3d, nn.Conv3d, 3, id="acs"),
    pytest.param(SoftACSConv3d, nn.Conv3d, 3, id="soft_acs"),
    pytest.param(MEAN, nn.Conv3d, 3, id="mean_acs"),
    pytest.param(PlanarConv3d, nn.Conv3d, 3, id="planar"),
]
every_layer = pytest.mark.parametrize(("layer", "plain", "dims"), LAYERS)


def image(dims, channels=4, batch=2, size=8):
    return torch.randn(batch, channels, *range(size, size + dims))


def perturb(net):
    """Off the starting point, where much is zero or constant."""
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return net


# torch's own arguments; "T" stands for a tuple with an entry per axis
GEOMETRIES = [
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": 1, "bias": False},
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": "valid", "dilation": 2},
    {"kernel_size": 5, "padding": 2, "stride": 3, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": "same", "padding_mode": "circular", "dilation": 2},
    {"kernel_size": 3, "padding": 3, "padding_mode": "replicate", "groups": 2},
    {"kernel_size": 3, "groups": 4},
    {"kernel_size": (3, 1, 2), "stride": (1, 2, 3), "padding": (0, 1, 2), "dilation": (2, 1, 1)},
]


@every_layer
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_shape_is_that_of_torch(layer, plain, dims, geometry):
    geometry = {name: v[:dims] if isinstance(v, tuple) else v for name, v in geometry.items()}
    ours, torchs, x = layer(4, 8, **geometry), plain(4, 8, **geometry), image(dims)
    assert ours(x).shape == torchs(x).shape
    assert ours(x).isfinite().all()
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
                 "padding_mode", "transposed", "output_padding"):  # fmt: skip
        assert getattr(ours, name) == getattr(torchs, name), name
    assert (ours.bias is None) == (torchs.bias is None)


@every_layer
def test_one_image_without_batch_axis(layer, plain, dims):
    net, x = layer(4, 8, 3, padding=1).eval(), image(dims, batch=1)
    torch.testing.assert_close(net(x[0]), net(x)[0])


@every_layer
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("training", [True, False])
def test_empty_batch(layer, plain, dims, mode, training):
    net = layer(4, 8, 3, padding=1, stride=2, padding_mode=mode).train(training)
    before = copy.deepcopy(net.state_dict())
    x = image(dims, batch=0).requires_grad_()
    y = net(x)
    assert y.shape == plain(4, 8, 3, padding=1, stride=2)(x).shape
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert net.weight.grad.abs().sum() == 0
    assert all(value.equal(before[key]) for key, value in net.state_dict().items())


@every_layer
def test_a_sample_does_not_see_its_neighbours_in_eval_mode(layer, plain, dims):
    net, x = perturb(layer(4, 8, 3)).eval().double(), image(dims, batch=3).double()
    torch.testing.assert_close(net(x), torch.cat([net(x[b : b + 1]) for b in range(3)]), atol=1e-12, rtol=0)


WRONG_ARGUMENTS = [
    ({"in_channels": 3, "groups": 2}, r"groups \(2\) must divide in_channels \(3\)"),
    ({"out_channels": 6, "groups": 4}, r"groups \(4\) must divide out_channels \(6\)"),
    ({"groups": 0}, "groups must be at least 1, but is 0"),
    ({"in_channels": 0}, r"in_channels \(0\)"),
    ({"kernel_size": 0}, "kernel_size must be .* but is 0"),
    ({"kernel_size": (3,)}, r"kernel_size must be .* but is \(3,\)"),
    ({"kernel_size": (3, 3, 3, 3)}, r"but is \(3, 3, 3, 3\)"),
    ({"kernel_size": 2.5}, "kernel_size must be .* but is 2.5"),
    ({"stride": 0}, "stride must be .* but is 0"),
    ({"dilation": 0}, "dilation must be .* but is 0"),
    ({"padding": -1}, "padding must be .* but is -1"),
    ({"padding": "full"}, "'same' or 'valid', but is 'full'"),
    ({"padding": "same", "stride": 2}, r"padding='same' .* stride is \(2, 2"),
    ({"padding_mode": "mirror"}, "padding_mode must be one of zeros, .* but is 'mirror'"),
]


@every_layer
@pytest.mark.parametrize(("wrong", "says"), WRONG_ARGUMENTS, ids=str)
def test_wrong_arguments_are_named(layer, plain, dims, wrong, says):
    right = {"in_channels": 4, "out_channels": 8, "kernel_size": 3}
    layer(**right)
    with pytest.raises(ValueError, match=says):
        layer(**{**right, **wrong})


CROSSD_WRONG = [
    (CrossDConv2d, {"bank_init": "zeros"}, "bank_init must be one of repeat, paper, but is 'zeros'"),
    (CrossDConv2d, {"hidden_channels": 0}, "hidden_channels must be at least 1, but is 0"),
    (CrossDConv2d, {"max_angle": 0}, "max_angle .* but is 0"),
    (CrossDConv2d, {"max_angle": 45}, "radians.* but is 45"),
    (CrossDConv3d, {"mode": "fixed"}, "mode must be one of dynamic, static, but is 'fixed'"),
    (CrossDConv3d, {"placement": "middle"}, "placement must be one of center, spread, but is 'middle'"),
    (CrossDConv3d, {"depth_axis": 3}, "depth_axis must be one of -3 ... 2, but is 3"),
    (CrossDConv3d, {"bank_init": "zeros"}, "but is 'zeros'"),
]


@pytest.mark.parametrize(("layer", "wrong", "says"), CROSSD_WRONG, ids=str)
def test_wrong_arguments_of_cross_d_are_named(layer, wrong, says):
    with pytest.raises(ValueError, match=says):
        layer(4, 8, 3, **wrong)


@every_layer
def test_wrong_input_is_named(layer, plain, dims):
    net = layer(4, 8, 3)
    with pytest.raises(ValueError, match=rf"{dims + 2} axes .* got shape \[4, 8\]"):
        net(torch.zeros(4, 8))
    with pytest.raises(ValueError, match=rf"{dims + 2} axes"):
        net(torch.zeros(1, *image(dims).shape))
    with pytest.raises(ValueError, match="expected 4 input channels, got 5"):
        net(image(dims, channels=5))
    with pytest.raises(ValueError, match="expected 4 input channels, got 5"):
        net(image(dims, channels=5)[0])


@every_layer
def test_image_smaller_than_the_kernel_is_an_error_like_torchs(layer, plain, dims):
    x = torch.randn(2, 4, *[2] * dims)
    for kind in (plain, layer):
        with pytest.raises(RuntimeError):
            kind(4, 8, 3)(x)


@every_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_module(layer, plain, dims, dtype, training):
    single = perturb(layer(4, 8, 3, padding=1)).train(training)
    half = copy.deepcopy(single).to(dtype)
    x = image(dims).to(dtype).requires_grad_()
    y = half(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), single(x.float()), atol=0.1, rtol=0.1)
    y.float().square().mean().backward()
    for name, value in half.named_parameters():
        assert value.dtype == dtype, name
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name
    assert layer(4, 8, 3, dtype=dtype).state_dict().keys() == half.state_dict().keys()


@every_layer
@pytest.mark.parametrize("training", [True, False])
def test_autocast(layer, plain, dims, training):
    net, x = perturb(layer(4, 8, 3, padding=1)).train(training), image(dims)
    single = copy.deepcopy(net)(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, torchs = net(x), plain(4, 8, 3, padding=1)(x)
    assert y.dtype == torchs.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), single, atol=0.1, rtol=0.1)
    y.float().square().mean().backward()
    assert all(value.dtype == torch.float32 for value in net.state_dict().values() if value.is_floating_point())
    assert all(value.grad.dtype == torch.float32 for value in net.parameters())


@every_layer
def test_channels_last(layer, plain, dims):
    memory_format = torch.channels_last if dims == 2 else torch.channels_last_3d
    net, x = perturb(layer(4, 8, 3, padding=1, groups=2)), image(dims)
    expected, parameters = copy.deepcopy(net)(x), [id(value) for value in net.parameters()]
    net = net.to(memory_format=memory_format, dtype=torch.float64)
    assert [id(value) for value in net.parameters()] == parameters
    y = net(x.to(memory_format=memory_format, dtype=torch.float64))
    torch.testing.assert_close(y.float(), expected, atol=1e-5, rtol=1e-5)
    y.sum().backward()
    assert all(value.grad is not None for value in net.parameters())
    net.to(memory_format=memory_format)  # with gradients


@pytest.mark.slow
@every_layer
@pytest.mark.parametrize("training", [True, False])
def test_compiled_without_a_graph_break(layer, plain, dims, training):
    torch._dynamo.reset()
    eager, x = perturb(layer(4, 8, 3, padding=1)).train(training), image(dims)
    net = copy.deepcopy(eager)
    y = torch.compile(net, backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(y, eager(x))
    y.square().sum().backward()
    assert all(value.grad is not None for value in net.parameters())
    torch.testing.assert_close(net.state_dict(), eager.state_dict())


HAS_COMPILER = any(map(shutil.which, ("g++", "clang++"))) and Path(sysconfig.get_path("include"), "Python.h").exists()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="needs a C++ compiler and Python's headers")
def test_compiled_by_inductor():
    torch._dynamo.reset()
    eager, x = perturb(CrossDConv2d(4, 8, 3, padding=1)), image(2)
    net = copy.deepcopy(eager)
    got, expected = torch.compile(net, fullgraph=True)(x), eager(x)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    got.square().sum().backward()
    expected.square().sum().backward()
    for (name, a), b in zip(net.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-3, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@every_layer
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted(layer, plain, dims, training):
    eager, x = perturb(layer(4, 8, (3, 2, 3)[:dims], padding=1, padding_mode="reflect")).train(training), image(dims)
    net = torch.jit.script(copy.deepcopy(eager))
    y = net(x)
    torch.testing.assert_close(y, eager(x))
    y.square().sum().backward()
    assert all(value.grad is not None for value in net.parameters())
    torch.testing.assert_close(dict(net.state_dict()), dict(eager.state_dict()))
    assert net(x[:0]).shape == eager(x[:0]).shape
    torch.testing.assert_close(net.eval()(x[0]), eager.eval()(x[0]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_layers_run_where_the_package_is_not(tmp_path, run_without_package):
    cases = {}
    for case in LAYERS:
        layer, _, dims = case.values
        net, x = perturb(layer(4, 8, 3, padding="same")).eval(), image(dims)
        torch.jit.script(net).save(tmp_path / f"{case.id}.ts")
        cases[case.id] = (x, net(x).detach())
    torch.save(cases, tmp_path / "cases.pt")
    printed = run_without_package(
        f"""
import torch
for name, (x, y) in torch.load(r"{tmp_path / "cases.pt"}").items():
    net = torch.jit.load(rf"{tmp_path}/{{name}}.ts")
    torch.testing.assert_close(net(x), y)
    print(name)
"""
    )
    assert printed.split() == [case.id for case in LAYERS]


@pytest.mark.slow
@every_layer
def test_onnx_with_any_batch(layer, plain, dims, run_onnx):
    net = perturb(layer(4, 8, (3, 2, 3)[:dims], padding=1, stride=2, groups=2)).eval()
    inputs = [image(dims, batch=batch) for batch in (2, 1, 5)]
    for y, x in zip(run_onnx(net, inputs[0], *inputs), inputs, strict=True):
        torch.testing.assert_close(y, net(x).detach(), atol=1e-5, rtol=1e-4)


@every_layer
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_are_equal_and_apart(layer, plain, dims, duplicate):
    net, x = perturb(layer(4, 8, 3)).eval(), image(dims)
    twin = duplicate(net)
    assert twin(x).equal(net(x))
    assert repr(twin) == repr(net)
    perturb(twin)
    assert not twin(x).equal(net(x))


@every_layer
def test_state_dict_round_trip(layer, plain, dims):
    net, twin, x = perturb(layer(4, 8, 3)), layer(4, 8, 3), image(dims)
    net(x)  # moves what is counted
    twin.load_state_dict(net.state_dict())
    assert twin.eval()(x).equal(net.eval()(x))
    with pytest.raises(RuntimeError, match="weight"):
        layer(4, 8, 5).load_state_dict(net.state_dict())


@every_layer
def test_reset_parameters_starts_anew(layer, plain, dims):
    fresh, used = layer(4, 8, 3), perturb(layer(4, 8, 3))
    used(image(dims))
    for net in (fresh, used):
        torch.manual_seed(1)
        net.reset_parameters()
    torch.testing.assert_close(used.state_dict(), fresh.state_dict(), atol=0, rtol=0)


@every_layer
def test_scale_of_the_output_is_that_of_torch(layer, plain, dims):
    x = torch.randn(2, 32, *[10] * dims)
    ratio = layer(32, 96, 3, bias=False)(x).std() / plain(32, 96, 3, bias=False)(x).std()
    # center: one plane of a fan in that torch counts over the volume; spread: a mean of three
    assert 0.4 < ratio < 2.5


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (CrossDConv2d(4, 8, 3, padding=1), "4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bank=(3, 3, 3)"),
        (CrossDConv2d(4, 8, (2, 3), bias=False, groups=2),
         "4, 8, kernel_size=(2, 3), stride=(1, 1), groups=2, bias=False, bank=(3, 2, 3)"),
        (CrossDConv3d(4, 8, 1, padding="same", mode="static"),
         "4, 8, kernel_size=(1, 1, 1), stride=(1, 1, 1), padding='same', bank=(1, 1, 1), mode='static', "
         "depth_axis=-1, placement='center'"),
        (ACSConv3d(4, 8, 3, dilation=2, padding_mode="reflect"),
         "4, 8, kernel_size=(3, 3, 3), stride=(1, 1, 1), dilation=(2, 2, 2), padding_mode='reflect'"),
    ],
)  # fmt: skip
def test_repr_shows_what_is_not_the_default(net, says):
    assert net.extra_repr() == says


BASE = {"in_channels": 4, "out_channels": 8, "kernel_size": 3, "padding": 1}
SHARED = {
    "in_channels": 6,
    "out_channels": 6,
    "kernel_size": 2,
    "stride": 2,
    "padding": 2,
    "dilation": 2,
    "groups": 2,
    "bias": False,
    "padding_mode": "reflect",
    "device": "meta",
    "dtype": torch.float64,
}
CROSSD = {"hidden_channels": 8, "max_angle": 0.1, "bank_init": "paper"}
# another value of every argument, which must show
OTHER = {
    CrossDConv2d: {**SHARED, **CROSSD},
    CrossDConv3d: {**SHARED, **CROSSD, "mode": "static", "depth_axis": 0, "placement": "spread"},
    ACSConv3d: SHARED,
    SoftACSConv3d: {**SHARED, "mean": True},
    PlanarConv3d: {**SHARED, "plane": 0},
}


def observe(layer, arguments):
    """What can be seen of a layer without looking at its attributes: parameters and output, for a fixed seed."""
    torch.manual_seed(0)
    net = layer(**arguments)
    seen = {name: (value.shape, value.dtype, value.device.type) for name, value in net.state_dict().items()}
    if net.weight.is_meta:
        return seen, None
    dims = 2 if layer is CrossDConv2d else 3
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, arguments["in_channels"], *[8] * dims, generator=generator, dtype=net.weight.dtype)
    return seen, net.eval()(x).detach()


@pytest.mark.parametrize(
    ("layer", "name"), [(layer, name) for layer in OTHER for name in inspect.signature(layer).parameters]
)
def test_every_argument_has_an_effect(layer, name):
    seen, y = observe(layer, BASE)
    again, same = observe(layer, BASE)
    assert seen == again
    assert y.equal(same)
    other_seen, other = observe(layer, {**BASE, name: OTHER[layer][name]})
    assert other_seen != seen or other.shape != y.shape or not torch.allclose(other, y, atol=1e-6)


def test_every_layer_is_in_the_tables():
    names = monai_crossd.conv.__all__
    public = {cls for name in names if isinstance(cls := getattr(monai_crossd.conv, name), type)}
    public -= {ConvBase, ACSConvTranspose3d}  # the latter has torch's other signature: test_from_conv.py
    assert public == set(OTHER), "give a new layer a row in OTHER, which names another value of each of its arguments"
    covered = {getattr(case.values[0], "func", case.values[0]) for case in LAYERS}
    assert covered == public, "give a new layer a row in LAYERS"


@pytest.mark.gpu
@every_layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda_gives_what_the_cpu_gives(layer, plain, dims, dtype):
    net, x = perturb(layer(4, 8, 3, padding=1)), image(dims)
    expected = copy.deepcopy(net)(x)
    net = net.cuda()
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        y = net(x.cuda())
    assert y.dtype == dtype
    tolerance = 1e-2 if dtype == torch.float32 else 0.1  # TF32 convolutions
    torch.testing.assert_close(y.float().cpu(), expected, atol=tolerance, rtol=tolerance)
    y.float().square().mean().backward()
    assert all(value.grad.isfinite().all() for value in net.parameters())
