# SPDX-License-Identifier: Apache-2.0
"""The operators that CUDA takes, against Algorithm 1: outputs, every gradient, graphs, numbers of operations.

On a GPU they run Triton's kernels, and on a CPU too with TRITON_INTERPRET=1 (.ci/triton); else torch's operations.
"""

from __future__ import annotations

import copy
import math
import os

import pytest
import torch
from counting import count_operations
from monai.data import MetaTensor
from oracles import crossd_bank_fft, crossd_conv2d_fft, predict_rotation, rotation_shift_matrix
from torch._subclasses.fake_tensor import FakeTensorMode

from monai_crossd.conv import CrossDConv2d, CrossDConv3d, crossd_conv2d, rule
from monai_crossd.conv.crossd_gpu import mixing_from_features, sample_conv
from monai_crossd.conv.geometry import Geometry, pack
from monai_crossd.conv.rule import crossd_path

devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
dtypes = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.02)], ids=["float32", "bfloat16"]
)
INTERPRETED = rule.HAS_TRITON and os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(autouse=True)
def _no_tf32():
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def leaves(device, dtype, *shapes):
    """Tensors to give, and the same in double for the oracle."""
    given = [torch.randn(shape).to(dtype).to(device).requires_grad_() for shape in shapes]
    return given, [t.detach().cpu().double().requires_grad_() for t in given]


def assert_near(got, expected, tolerance):
    assert got.shape == expected.shape
    if not expected.numel():
        return
    scale = expected.detach().abs().max().item() or 1.0
    assert (got.detach().cpu().double() - expected.detach()).abs().max().item() <= tolerance * scale


def assert_same(got, expected, given, twins, tolerance):
    """Outputs, and gradients of all inputs."""
    cotangents = [torch.randn_like(y).to(ours).cpu() for y, ours in zip(expected, got, strict=True)]
    for ours, y in zip(got, expected, strict=True):
        assert_near(ours, y, tolerance)
    ours = torch.autograd.grad(got, given, [c.to(y) for c, y in zip(cotangents, got, strict=True)])
    theirs = torch.autograd.grad(
        expected, twins, [c.to(y).cpu().double() for c, y in zip(cotangents, got, strict=True)]
    )
    for gradient, wanted, t in zip(ours, theirs, given, strict=True):
        assert gradient.dtype == t.dtype
        assert_near(gradient, wanted, tolerance)


def literal_mixing(features, weight, bias, bank, max_angle):
    """Pixel loop of a softmax, the rotation written out, and Fourier-shifted unit banks."""
    values = torch.einsum("oc,bcl->bol", weight, features.flatten(2)) + bias.view(1, 4, 1)
    pooled = torch.stack([torch.stack([(v * torch.softmax(v, 0)).sum() for v in sample]) for sample in values])
    axis, angle = pooled[:, :3], torch.tanh(pooled[:, 3]) * max_angle
    units = torch.eye(math.prod(bank), dtype=torch.float64).view(-1, 1, *bank)
    shifted = crossd_bank_fft(units, axis, angle)[:, :, 0, bank[0] // 2]  # (B, Q, kh, kw)
    return shifted.flatten(2).transpose(1, 2), axis, angle


@devices
@dtypes
@pytest.mark.parametrize(
    ("batch", "channels", "spatial", "bank", "channels_last"),
    [
        (3, 16, (7, 5), [3, 3, 3], True),
        (2, 5, (41,), [4, 2, 3], False),
        (1, 3, (3, 2), [2, 2, 2], True),
        (3, 4, (2, 3, 3), [1, 3, 2], False),
    ],
    ids=str,
)
def test_mixing_is_that_of_algorithm_1(device, dtype, tolerance, batch, channels, spatial, bank, channels_last):
    given, twins = leaves(device, dtype, (batch, channels, *spatial), (4, channels), (4,))
    features = given[0].flatten(2)
    if channels_last:
        features = features.transpose(1, 2).contiguous().transpose(1, 2)
    mixing, shift, mean, _ = mixing_from_features(features, *given[1:], bank, 0.9)
    assert mixing.dtype == shift.dtype == torch.float32
    expected, axis, angle = literal_mixing(*twins, bank, 0.9)
    rotated = rotation_shift_matrix(axis, angle.detach())
    assert_near(mean, rotated.mean(0), 2e-5)
    assert_near(shift, rotated, 2e-5)
    assert_near(mixing, expected, 2e-5)
    assert_same([mixing], [expected], given, twins, max(tolerance, 5e-5))


@devices
def test_gradient_of_the_shift_itself(device):
    given, twins = leaves(device, torch.float32, (3, 6, 9), (4, 6), (4,))
    _, shift, _, _ = mixing_from_features(*given, [3, 3, 3], 0.7)
    _, axis, angle = literal_mixing(*twins, [3, 3, 3], 0.7)
    skew = torch.stack([axis[:, 1] - axis[:, 2], axis[:, 2] - axis[:, 0], axis[:, 0] - axis[:, 1]], 1)
    expected = 1 - angle.unsqueeze(1) * skew / (axis.norm(dim=1, keepdim=True) + 1e-8)
    assert_same([shift], [expected], given, twins, 5e-5)


@devices
def test_many_positions_and_samples(device):
    """More than one chunk of positions, and of samples."""
    given, twins = leaves(device, torch.float32, (5, 2, 13, 7), (4, 2), (4,))
    mixing, _, mean, _ = mixing_from_features(*given, [3, 2, 2], 0.9)
    expected, axis, angle = literal_mixing(*twins, [3, 2, 2], 0.9)
    assert_near(mean, rotation_shift_matrix(axis, angle.detach()).mean(0), 2e-5)
    assert_same([mixing], [expected], given, twins, 5e-5)


@devices
def test_no_bias_and_a_large_map(device):
    given, twins = leaves(device, torch.float32, (2, 4, 12), (4, 4))
    with torch.no_grad():
        for t in (given[0], twins[0]):
            t.mul_(30)  # a softmax that would overflow without its maximum
    mixing, *_ = mixing_from_features(*given, None, [3, 3, 3], 0.9)
    expected, _, _ = literal_mixing(*twins, torch.zeros(4, dtype=torch.float64), [3, 3, 3], 0.9)
    assert mixing.isfinite().all()
    assert_near(mixing, expected, 1e-4)


# batch, groups, channels and outputs of a group, image, size, stride, pads, dilation
CONVS = [
    (2, 1, 5, 7, (6, 5), [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
    (1, 1, 35, 18, (4, 7), [3, 3], [2, 2], [1, 1, 1, 1], [1, 1]),
    (2, 2, 16, 16, (5, 5), [2, 3], [1, 2], [0, 2, 3, -1], [2, 1]),
    (2, 1, 1, 5, (7, 9), [5, 3], [2, 2], [2, 2, 1, 1], [1, 1]),
    (2, 1, 33, 3, (4, 4), [1, 3], [1, 1], [0, 0, 1, 1], [1, 1]),
    (2, 3, 2, 4, (5, 4), [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),  # groups too small for a kernel
]


def literal_conv(x, weight, mixing, bias, size, stride, pads, dilation, groups):
    outs = []
    for b in range(len(x)):
        kernel = torch.einsum("pq,oiq->oip", mixing[b], weight.flatten(2)).unflatten(2, size)
        padded = torch.nn.functional.pad(x[b : b + 1], (*pads[2:], *pads[:2]))
        outs.append(torch.conv2d(padded, kernel, bias, stride, 0, dilation, groups))
    return torch.cat(outs)


def draw_conv(device, dtype, case):
    batch, groups, channels, outputs, image, size, *geometry = case
    taps, out = math.prod(size), groups * outputs
    given, twins = leaves(device, dtype, (batch, groups * channels, *image), (out, channels, 3, *size), (out,))
    mixing, mixing_twin = leaves(device, torch.float32, (batch, taps, 3 * taps))
    return [*given[:2], *mixing, given[2]], [*twins[:2], *mixing_twin, twins[2]], [size, *geometry, groups]


def packed(geometry):
    return pack(Geometry(*geometry, "zeros"))


@devices
@dtypes
@pytest.mark.parametrize("case", CONVS, ids=str)
def test_convolution_is_one_per_sample(device, dtype, tolerance, case):
    given, twins, geometry = draw_conv(device, dtype, case)
    ours, expected = sample_conv(*given, packed(geometry)), literal_conv(*twins, *geometry)
    assert ours.dtype == dtype
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert_same([ours], [expected], given, twins, tolerance)


@devices
@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (3,)], ids=str)
def test_only_what_is_asked_for_gets_a_gradient(device, needed):
    given, twins, geometry = draw_conv(device, torch.float32, CONVS[0])
    for i, (t, twin) in enumerate(zip(given, twins, strict=True)):
        t.requires_grad_(i in needed)
        twin.requires_grad_(i in needed)
    ours, expected = sample_conv(*given, packed(geometry)), literal_conv(*twins, *geometry)
    assert_same([ours], [expected], [given[i] for i in needed], [twins[i] for i in needed], 2e-5)


def layer_and_twin(device, kind=CrossDConv2d, **options):
    layer = kind(5, 7, 3, padding=1, **options)
    with torch.no_grad():
        for value in layer.parameters():
            value.add_(0.3 * torch.randn_like(value))
    twin = copy.deepcopy(layer).double()  # stays on the CPU: `to` moves a layer in place
    return layer.to(device), twin


@devices
@pytest.mark.parametrize(
    ("stride", "padding_mode", "training"), [(1, "zeros", True), (2, "reflect", True), (1, "zeros", False)]
)
def test_layer_is_algorithm_1(device, stride, padding_mode, training):
    layer, twin = layer_and_twin(device, stride=stride, padding_mode=padding_mode)
    layer.train(training)
    twin.train(training)
    (x,), (x_twin,) = leaves(device, torch.float32, (2, 5, 7, 6))
    with crossd_path("implicit"):
        ours = layer(x)
    axis, angle = predict_rotation(twin.predictor, x_twin, twin.max_angle)
    expected = crossd_conv2d_fft(
        x_twin, twin.weight, axis, angle, twin.bias, stride, padding=1, padding_mode=padding_mode
    )
    names = [name for name, _ in layer.named_parameters() if name != "predictor.0.bias"]  # batch norm takes it away
    given = [x, *(layer.get_parameter(name) for name in names)]
    assert_same([ours], [expected], given, [x_twin, *(twin.get_parameter(name) for name in names)], 2e-4)
    moved = 0.9 + 0.1 * rotation_shift_matrix(axis, angle.detach()).mean(0) if training else torch.ones(3).double()
    assert_near(layer.running_shift, moved, 1e-5)


@devices
def test_3d_layer_fuses_its_mixing_too(device):
    layer, twin = layer_and_twin(device, CrossDConv3d)
    (x,), (x_twin,) = leaves(device, torch.float32, (2, 5, 4, 3, 5))
    with crossd_path("implicit"):
        assert_same([layer(x)], [twin(x_twin)], [x, layer.weight], [x_twin, twin.weight], 2e-4)


@devices
def test_hooks_of_the_predictor_are_called(device):
    layer, _ = layer_and_twin(device)
    x, maps = torch.randn(2, 5, 6, 6, device=device), []
    layer.eval()
    with crossd_path("implicit"):
        expected = layer(x)
        layer.predictor.register_forward_hook(lambda module, inputs, output: maps.append(output))
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)
    assert [m.shape for m in maps] == [(2, 4, 6, 6)]


@devices
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision(device, dtype):
    layer, _ = layer_and_twin(device)
    x = torch.randn(2, 5, 6, 6, device=device)
    expected = copy.deepcopy(layer)(x)
    with crossd_path("implicit"):
        with torch.autocast(device, dtype=dtype):
            y = copy.deepcopy(layer)(x)
        half = copy.deepcopy(layer).to(dtype)
        z = half(x.to(dtype))
        with pytest.raises(RuntimeError, match=r"bfloat16|float16"):
            crossd_conv2d(x.to(dtype), layer.weight, torch.ones(2, 3, device=device))
    for got in (y, z):
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), expected, atol=0.15, rtol=0.1)
        got.float().square().mean().backward()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in half.parameters())


@devices
@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(device, batch):
    layer, twin = layer_and_twin(device)
    (x,), (x_twin,) = leaves(device, torch.float32, (batch, 5, 6, 6))
    with crossd_path("implicit"):
        assert_same([layer(x)], [twin(x_twin)], [x], [x_twin], 2e-4)


@devices
def test_a_meta_tensor_keeps_its_metadata(device):
    layer, _ = layer_and_twin(device)
    layer.eval()
    x = torch.randn(2, 5, 6, 6, device=device)
    with crossd_path("implicit"):
        y = layer(MetaTensor(x, meta={"name": "case"}))
        torch.testing.assert_close(y.as_tensor(), layer(x))
    assert y.meta["name"] == "case"


@devices
@pytest.mark.parametrize("path", rule.PATHS)
def test_second_derivatives_of_a_layer(device, path):
    """The image is what the kernels are made from, too."""
    layer, twin = layer_and_twin(device)
    (x,), (x_twin,) = leaves(device, torch.float32, (2, 5, 4, 4))
    found = []
    for net, image in ((layer, x), (twin, x_twin)):
        with crossd_path(path if net is layer else "grouped"):
            (first,) = torch.autograd.grad(net(image).square().mean(), image, create_graph=True)
            found.append(torch.autograd.grad(first.square().sum(), [net.weight, net.predictor[3].weight, image]))
    for got, expected in zip(*found, strict=True):
        assert_near(got, expected, 1e-3)


@devices
def test_a_training_step_takes_twelve_operations_and_eighteen_back(device):
    layer = CrossDConv2d(4, 8, 3, padding=1).to(device).train()
    x = torch.randn(2, 4, 5, 5, device=device).to(memory_format=torch.channels_last).requires_grad_()

    def step(x):
        layer.zero_grad()
        return layer(x)

    with crossd_path("implicit"):
        forward, backward = count_operations(step, x)
    assert len(forward) <= 12, forward
    if device == "cuda" or INTERPRETED:  # without kernels the backward is made of torch's operations
        assert len(forward) + len(backward) <= 30, backward


@pytest.mark.slow
@devices
@pytest.mark.parametrize("operator", ["mixing", "conv"])
def test_operators_are_registered_as_torch_wants_them(device, operator):
    if operator == "mixing":
        given, _ = leaves(device, torch.float32, (2, 4, 5), (4, 4), (4,))
        torch.library.opcheck(mixing_from_features, (*given, [3, 2, 2], 0.9))
    else:
        given, _, geometry = draw_conv(device, torch.float32, CONVS[0])
        torch.library.opcheck(sample_conv, (*given, packed(geometry)))


@pytest.mark.slow
@devices
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_graphs_hold_the_operators(device, backend):
    torch._dynamo.reset()
    layer, _ = layer_and_twin(device)
    twin, x, graphs = copy.deepcopy(layer), torch.randn(2, 5, 6, 6, device=device), []

    def compiler(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.backends.registry.lookup_backend(backend)(graph, inputs)

    with crossd_path("implicit"):
        y, expected = torch.compile(layer, backend=compiler, fullgraph=True)(x), twin(x)
        y.square().sum().backward()
        expected.square().sum().backward()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(layer.state_dict(), twin.state_dict())
    for (name, p), q in zip(layer.named_parameters(), twin.parameters(), strict=True):
        if name != "predictor.0.bias":  # batch norm takes it away: rounding is all that is left of its gradient
            torch.testing.assert_close(p.grad, q.grad, atol=1e-3, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    targets = {str(node.target) for node in graphs[0].graph.nodes}
    assert {name for name in targets if "monai_crossd" in name} == {
        "monai_crossd.mixing_from_features.default",
        "monai_crossd.sample_conv.default",
    }


@pytest.mark.slow
@devices
def test_exported_graphs_do_not(device):
    layer, _ = layer_and_twin(device)
    layer.eval()
    x = torch.randn(2, 5, 6, 6, device=device)
    with crossd_path("implicit"):
        exported = torch.export.export(layer, (x,))
        traced = torch.jit.trace(layer, x)
    assert "monai_crossd::" not in str(traced.inlined_graph)
    assert not any("monai_crossd." in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(x), layer(x), atol=1e-5, rtol=1e-4)


def test_data_parallel_training(tmp_path):
    layer, _ = layer_and_twin("cpu")
    twin, x = copy.deepcopy(layer), torch.randn(2, 5, 6, 6)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with crossd_path("implicit"):
            torch.nn.parallel.DistributedDataParallel(layer)(x).square().sum().backward()
            twin(x).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_rule_on_cuda(monkeypatch):
    monkeypatch.setattr(rule, "HAS_TRITON", True)
    monkeypatch.setattr(rule, "_is_capable", lambda index: True)
    mixing = torch.empty(8, 9, 27)

    def path(x, weight):
        assert rule.takes_operator(x, weight) == (rule.pick_path(x, weight, mixing, 1) == "implicit")
        return rule.pick_path(x, weight, mixing, 1)

    with FakeTensorMode():
        x, weight = torch.empty(8, 64, 5, 5, device="cuda"), torch.empty(64, 64, 3, 3, 3)
        assert path(x, weight) == "implicit"
        assert rule.fuses_mixing(x)
        assert path(x, torch.empty(64, 2, 3, 3, 3)) == "grouped"  # 32 groups of two channels
        assert path(x, torch.empty(64, 32, 3, 3, 3)) == "implicit"
        assert path(x.double(), weight) == "grouped"
        assert not rule.fuses_mixing(x.double())
        assert path(torch.empty(2, 64, 5, 5, 5, device="cuda"), weight) == "per_sample"
        with crossd_path("shared"):
            assert rule.pick_path(x, weight, mixing, 1) == "shared"
            assert not rule.fuses_mixing(x)
        monkeypatch.setattr(rule, "HAS_TRITON", False)
        assert path(x, weight) == "grouped"
        assert not rule.fuses_mixing(x)


@pytest.mark.gpu
def test_cuda_graph_replays_a_training_step():
    layer, _ = layer_and_twin("cuda")
    twin, x = copy.deepcopy(layer), torch.randn(4, 5, 8, 8, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            layer(x).square().sum().backward()
    torch.cuda.current_stream().wait_stream(stream)
    layer.load_state_dict(twin.state_dict())
    layer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layer(x).square().sum().backward()
    layer.load_state_dict(twin.state_dict())
    graph.replay()
    twin(x).square().sum().backward()
    for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(layer.running_shift, twin.running_shift)
