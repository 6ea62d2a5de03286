# SPDX-License-Identifier: Apache-2.0
"""Random convolutions that torch accepts, and the comparison of two forms of one: outputs and all gradients."""

from __future__ import annotations

import random

import torch

MODES = ("zeros", "reflect", "replicate", "circular")


def draw_conv(rng: random.Random, dims: int = 3, cube: bool = False) -> dict:
    """Arguments of a torch.nn.ConvNd, and `size`, that of an input large enough for it without padding."""
    groups, inner, outer = rng.randint(1, 4), rng.randint(1, 2), rng.randint(1, 4)
    kernel = (rng.randint(1, 4),) * dims if cube or rng.random() < 0.4 else [rng.randint(1, 4) for _ in range(dims)]
    dilation = tuple(rng.randint(1, 2) for _ in range(dims))
    stride, padding = tuple(rng.randint(1, 3) for _ in range(dims)), tuple(rng.randint(0, 4) for _ in range(dims))
    if rng.random() < 0.15:
        stride, padding = (1,) * dims, "same"
    elif rng.random() < 0.1:
        padding = "valid"
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = [max(r, 5) + rng.randint(0, 2) for r in reach]
    return {
        "in_channels": inner * groups,
        "out_channels": outer * groups,
        "kernel_size": tuple(kernel),
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": rng.random() < 0.7,
        "padding_mode": rng.choice(MODES),
        "size": size,
    }


def draw_transposed(rng: random.Random, dims: int = 3) -> dict:
    """Arguments of a torch.nn.ConvTransposeNd whose output is not empty, and `size` of an input."""
    while True:
        case = draw_conv(rng, dims)
        stride = tuple(rng.randint(1, 3) for _ in range(dims))
        padding = tuple(rng.randint(0, 3) for _ in range(dims))
        extra = tuple(rng.randrange(max(s, d)) for s, d in zip(stride, case["dilation"], strict=True))
        size = [rng.randint(2, 4) for _ in range(dims)]
        case.update(stride=stride, padding=padding, output_padding=extra, padding_mode="zeros", size=size)
        out = [
            (n - 1) * s - 2 * p + d * (k - 1) + e + 1
            for n, s, p, d, k, e in zip(
                size, stride, padding, case["dilation"], case["kernel_size"], extra, strict=True
            )
        ]
        if min(out) > 0:
            return case


def largest_difference(ours: torch.Tensor, reference: torch.Tensor, inputs: list[torch.Tensor]) -> float:
    """Between two outputs, and between their gradients with respect to each input."""
    assert ours.shape == reference.shape
    cotangent = torch.randn_like(reference)
    pairs = [(ours, reference)]
    pairs += zip(
        torch.autograd.grad(ours, inputs, cotangent), torch.autograd.grad(reference, inputs, cotangent), strict=True
    )
    return max((a - b).abs().max().item() for a, b in pairs if a.numel())
