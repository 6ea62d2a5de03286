# SPDX-License-Identifier: Apache-2.0
"""The dense path of ACS, soft, mean and transposed ACS, which CUDA takes: outputs, gradients, operations."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from counting import count_operations
from geometry import draw_conv, draw_transposed, largest_difference
from oracles import acs_dense, acs_transposed_dense, plane_dense
from torch._subclasses.fake_tensor import FakeTensorMode

from monai_crossd.conv import acs_conv3d, acs_conv_transpose3d, soft_acs_conv3d
from monai_crossd.conv.acs_kernels import plane_shape
from monai_crossd.conv.rule import ACS_PATHS, acs_path, pick_acs_path

F64 = {"dtype": torch.float64}
NAMES = ("stride", "padding", "dilation", "groups", "padding_mode")


def leaves(*shapes):
    return [torch.randn(shape, **F64, requires_grad=True) for shape in shapes]


def layout(x, channels_last):
    return x.to(memory_format=torch.channels_last_3d) if channels_last else x


@pytest.mark.parametrize("path", ACS_PATHS)
@pytest.mark.parametrize("kind", ["acs", "soft", "mean"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_path_is_the_dense_convolution(path, kind, channels_last):
    rng = random.Random(f"{kind}{channels_last}")
    for _ in range(40):
        case = draw_conv(rng)
        size, groups = case["kernel_size"], case["groups"]
        x, weight, views, bias = leaves(
            (2, case["in_channels"], *case["size"]),
            (case["out_channels"], case["in_channels"] // groups, *plane_shape(size)),
            (case["out_channels"], 3),
            (case["out_channels"],),
        )
        inputs, geometry = [x, weight, bias], {name: case[name] for name in NAMES}
        with acs_path(path):
            if kind == "acs":
                dense = acs_dense(weight, size)
                ours = acs_conv3d(layout(x, channels_last), weight, bias, kernel_size=size, **geometry)
            else:
                share = views if kind == "soft" else torch.full_like(views, 1 / 3)
                dense = sum(share[:, v].view(-1, 1, 1, 1, 1) * plane_dense(weight, v, size) for v in range(3))
                given = views if kind == "soft" else None
                inputs += [views] if kind == "soft" else []
                ours = soft_acs_conv3d(layout(x, channels_last), weight, given, bias, kernel_size=size, **geometry)
        arguments = {name: value for name, value in case.items() if name != "size"}
        conv = torch.nn.Conv3d(**{**arguments, "bias": True}).double()
        reference = torch.func.functional_call(conv, {"weight": dense, "bias": bias}, x)
        assert largest_difference(ours, reference, inputs) < 1e-10, case


@pytest.mark.parametrize("path", ACS_PATHS)
def test_every_path_of_the_transposed_one(path):
    rng = random.Random(3)
    for _ in range(40):
        case = draw_transposed(rng)
        size, groups, out = case["kernel_size"], case["groups"], case["out_channels"]
        x, weight, bias = leaves(
            (2, case["in_channels"], *case["size"]), (case["in_channels"], out // groups, *plane_shape(size)), (out,)
        )
        geometry = {name: case[name] for name in ("stride", "padding", "output_padding", "groups", "dilation")}
        with acs_path(path):
            ours = acs_conv_transpose3d(x, weight, bias, kernel_size=size, **geometry)
        reference = torch.nn.functional.conv_transpose3d(
            x, acs_transposed_dense(weight, groups, size), bias, **geometry
        )
        assert largest_difference(ours, reference, [x, weight, bias]) < 1e-10, case


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dense_kernel_is_exact_in_any_precision(dtype):
    weight = torch.randn(5, 2, 3, 3).to(dtype)
    x = torch.zeros(1, 2, 5, 5, 5, dtype=dtype)
    x[0, 0, 2, 2, 2] = 1  # the output is the kernel, mirrored
    with acs_path("dense"):
        y = acs_conv3d(x, weight, padding=1)
    kernel = acs_dense(weight, (3, 3, 3))[:, 0]
    assert y[0, :, 1:4, 1:4, 1:4].flip(1, 2, 3).equal(kernel)


# operations at most, the convolution's own among them; the mean of view weights is a product of its own
CALLS = {
    "acs": (acs_conv3d, [(6, 4, 3, 3)], 2, 2),
    "soft": (soft_acs_conv3d, [(6, 4, 3, 3), (6, 3)], 3, 6),
    "mean": (soft_acs_conv3d, [(6, 4, 3, 3)], 2, 2),
    "transposed": (acs_conv_transpose3d, [(4, 6, 3, 3)], 3, 4),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", CALLS)
def test_the_kernel_is_made_in_one_operation_each_way(kind, channels_last):
    function, shapes, forward_limit, backward_limit = CALLS[kind]
    x = layout(torch.randn(2, 4, 5, 5, 5), channels_last).requires_grad_()
    weights = [torch.randn(shape, requires_grad=True) for shape in shapes]
    with acs_path("dense"):
        forward, backward = count_operations(partial(function, padding=1), x, *weights)
    assert len(forward) <= forward_limit, forward
    assert len([name for name in backward if "add" not in name]) <= backward_limit, backward


def test_kernel_follows_the_layout_of_the_input():
    kept = []
    x, weight = torch.randn(2, 4, 5, 5, 5, requires_grad=True), torch.randn(6, 4, 3, 3, requires_grad=True)
    for channels_last in (False, True):
        with acs_path("dense"), torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            acs_conv3d(layout(x, channels_last), weight)
        kernel = next(t for t in kept if t.shape == (6, 4, 3, 3, 3))
        assert kernel.is_contiguous(memory_format=torch.channels_last_3d) == channels_last
        kept.clear()


@pytest.mark.parametrize("function", [acs_conv3d, soft_acs_conv3d])
def test_dense_path_can_be_differentiated_again_and_transformed(function):
    x, weight = leaves((1, 2, 3, 4, 3), (4, 2, 3, 3))
    with acs_path("dense"):
        call = partial(function, padding=1)
        assert torch.autograd.gradcheck(call, (x, weight), fast_mode=True)
        assert torch.autograd.gradgradcheck(call, (x, weight), fast_mode=True)
        one = torch.func.grad(lambda w: call(x, w).square().sum())(weight)
        both = torch.func.vmap(lambda w: call(x, w))(torch.stack([weight, 2 * weight]))
    torch.testing.assert_close(one, torch.autograd.grad(function(x, weight, padding=1).square().sum(), weight)[0])
    torch.testing.assert_close(both[1], 2 * both[0])


@pytest.mark.parametrize("function", [acs_conv3d, soft_acs_conv3d])
def test_dense_path_under_autocast(function):
    x, weight = torch.randn(2, 4, 5, 5, 5), torch.randn(6, 4, 3, 3, requires_grad=True)
    with acs_path("dense"), torch.autocast("cpu", dtype=torch.bfloat16):
        y = function(x, weight, padding=1)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), function(x, weight, padding=1), atol=0.2, rtol=0.05)
    y.float().sum().backward()
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize("function", [acs_conv3d, soft_acs_conv3d])
def test_a_kernel_first_made_in_inference_mode_can_be_trained(function):
    x, weight = torch.randn(1, 2, 5, 5, 5), torch.randn(7, 2, 4, 4, requires_grad=True)
    with acs_path("dense"):
        with torch.inference_mode():
            function(x, weight)
        function(x, weight).sum().backward()
    assert weight.grad.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("function", [acs_conv3d, soft_acs_conv3d])
def test_dense_path_is_compiled_and_exported(function):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(5, 2, 3, 3))

        def forward(self, x):
            return function(x, self.weight, padding=1)

    net, x = Net(), torch.randn(2, 2, 5, 5, 5)
    expected = net(x)
    with acs_path("dense"):
        net(x)  # keeps a constant, which no graph may meet
        torch._dynamo.reset()
        torch.testing.assert_close(torch.compile(net, backend="eager", fullgraph=True)(x), expected)
        exported = torch.export.export(net, (x,))
    torch.testing.assert_close(exported.module()(x), expected)
    names = {str(node.target) for node in exported.graph.nodes}
    assert not any("monai_crossd" in name or "bmm" in name for name in names)


def test_rule_by_device_and_what_overrides_it():
    assert pick_acs_path(torch.empty(1)) == "flat"
    assert pick_acs_path(torch.empty(1, device="meta")) == "flat"
    with FakeTensorMode():
        assert pick_acs_path(torch.empty(1, device="cuda")) == "dense"
        with acs_path("flat"):
            assert pick_acs_path(torch.empty(1, device="cuda")) == "flat"
    with acs_path("dense"):
        with acs_path("flat"):
            assert pick_acs_path(torch.empty(1)) == "flat"
        assert pick_acs_path(torch.empty(1)) == "dense"
    with pytest.raises(ValueError, match="path must be one of flat, dense, but is 'fast'"):
        acs_path("fast").__enter__()


@pytest.mark.gpu
@pytest.mark.parametrize("path", ACS_PATHS)
@pytest.mark.parametrize("function", [acs_conv3d, soft_acs_conv3d])
def test_cuda_gives_what_the_cpu_gives(function, path):
    x, weight = leaves((2, 4, 6, 7, 8), (8, 2, 3, 3))
    call = partial(function, padding=1, groups=2, stride=2)
    expected = call(x, weight)
    with acs_path(path):
        got = call(x.cuda(), weight.cuda()).cpu()
    assert largest_difference(got, expected, [x, weight]) < 1e-9
