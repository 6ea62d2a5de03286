# SPDX-License-Identifier: Apache-2.0
"""Cross-D Conv in the form of the paper's Algorithm 1, with Fourier transforms and a shifted bank per sample.

To be timed against; `monai_crossd.conv.CrossDConv2d` computes the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..conv.crossd import make_predictor


class FourierCrossDConv2d(nn.Module):
    """Algorithm 1, step by step, for a square kernel.

    References:
        M. C. Yavuz and Y. Yang, Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting
        Operation, 2024.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: K.
        stride: of the convolution.
        padding: of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *[kernel_size] * 3))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.predictor = make_predictor(in_channels, 16, None, None)

    def _rotation(self, x: Tensor) -> Tensor:
        """R = I + θ [k]× of each sample, (B, 3, 3)."""
        values = self.predictor(x).flatten(2).float()
        pooled = (values * values.softmax(-1)).sum(-1)
        k = pooled[:, :3] / (pooled[:, :3].norm(dim=1, keepdim=True) + 1e-8)
        theta = torch.tanh(pooled[:, 3]) * math.pi / 4
        zero = torch.zeros_like(theta)
        a, b, c = k.unbind(1)
        skew = torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], dim=1).view(-1, 3, 3)
        return torch.eye(3, device=x.device) + theta.view(-1, 1, 1) * skew

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        batch, channels, size = x.shape[0], x.shape[1], self.weight.shape[2]
        f = torch.fft.fftfreq(size, device=x.device)
        grid = torch.stack(torch.meshgrid(f, f, f, indexing="ij"))
        turned = torch.einsum("bij,jdhw->bidhw", self._rotation(x), grid)
        phase = torch.exp(-2j * math.pi * turned.sum(dim=1))
        spectrum = torch.fft.fftn(self.weight.float(), dim=(-3, -2, -1))
        bank = torch.fft.ifftn(spectrum * phase[:, None, None], dim=(-3, -2, -1)).real
        kernels = bank[:, :, :, size // 2].flatten(0, 1)
        folded = x.reshape(1, batch * channels, *x.shape[2:])
        y = nn.functional.conv2d(folded, kernels, None, self.stride, self.padding, 1, batch)
        return y.view(batch, -1, *y.shape[2:])
