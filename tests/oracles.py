# SPDX-License-Identifier: Apache-2.0
"""Slow literal forms, written from the papers and not from our code: what everything is compared with."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def crossd_bank_fft(bank: torch.Tensor, axis: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Algorithm 1, steps 2 and 3: FFT, rotated frequencies, phase, inverse FFT, real part; (B, O, I, K, K, K)."""
    depth, height, width = bank.shape[2:]
    k = axis / (axis.norm(dim=1, keepdim=True) + 1e-8)
    fx, fy, fz = torch.meshgrid(
        *(torch.fft.fftfreq(n, dtype=bank.dtype) for n in (depth, height, width)), indexing="ij"
    )
    frequencies = torch.stack([fx, fy, fz])
    spectrum = torch.fft.fftn(bank, dim=(-3, -2, -1))
    rotated = []
    for b in range(len(k)):
        zero = torch.zeros((), dtype=bank.dtype)
        x, y, z = k[b]
        skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
        rotation = torch.eye(3, dtype=bank.dtype) + angle[b] * skew
        turned = torch.einsum("ij,jdhw->idhw", rotation, frequencies)
        phase = torch.exp(-2j * math.pi * turned.sum(dim=0))
        rotated.append(torch.fft.ifftn(spectrum * phase, dim=(-3, -2, -1)).real)
    return torch.stack(rotated)


def shift_bank_fft(bank: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """A bank shifted by one shift (3,), Algorithm 1 with its phase written as exp(-2 pi i s.f); (O, I, Kd, Kh, Kw)."""
    grids = torch.meshgrid(*(torch.fft.fftfreq(n, dtype=bank.dtype) for n in bank.shape[2:]), indexing="ij")
    phase = torch.exp(-2j * math.pi * sum(s * f for s, f in zip(shift, grids, strict=True)))
    return torch.fft.ifftn(torch.fft.fftn(bank, dim=(-3, -2, -1)) * phase, dim=(-3, -2, -1)).real


def rotation_shift_matrix(axis: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """R^T 1 of R = I + angle [k]x, with R written out; (B, 3)."""
    shifts = []
    for k, theta in zip(axis / (axis.norm(dim=1, keepdim=True) + 1e-8), angle, strict=True):
        x, y, z = k.tolist()
        skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=axis.dtype)
        rotation = torch.eye(3, dtype=axis.dtype) + theta * skew
        shifts.append(rotation.T @ torch.ones(3, dtype=axis.dtype))
    return torch.stack(shifts)


def crossd_conv2d_fft(x, bank, axis, angle, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"):
    """Algorithm 1: one plain conv2d per sample with the middle slice of that sample's bank."""
    shifted = crossd_bank_fft(bank, axis, angle)
    outs = []
    for b in range(len(x)):
        kernel = shifted[b][:, :, bank.shape[2] // 2]
        conv = torch.nn.Conv2d(
            x.shape[1],
            bank.shape[0],
            kernel.shape[2:],
            stride,
            padding,
            dilation,
            groups,
            bias is not None,
            padding_mode,
        ).double()
        outs.append(torch.func.functional_call(conv, {"weight": kernel, "bias": bias}, x[b : b + 1]))
    return torch.cat(outs)


def predict_rotation(predictor: torch.nn.Module, x: torch.Tensor, max_angle: float = math.pi / 4):
    """Axis and angle of each sample as the paper has them, pixel loop spelled out as a softmax-weighted sum."""
    out = predictor(x.flatten(3) if x.dim() == 5 else x)
    r = torch.stack([torch.stack([(v * F.softmax(v.flatten(), 0).view_as(v)).sum() for v in sample]) for sample in out])
    return r[:, :3], torch.tanh(r[:, 3]) * max_angle


def acs_dense(weight: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
    """Dense kernel of an ACS weight, voxel by voxel."""
    out, inner = weight.shape[:2]
    base, extra = divmod(out, 3)
    first = base + (extra > 0)
    second = first + base + (extra > 1)
    rows = []
    for o in range(out):
        view = 0 if o < first else 1 if o < second else 2
        plane = [size[a] for a in range(3) if a != view]
        top = weight.shape[2] // 2 - plane[0] // 2
        left = weight.shape[3] // 2 - plane[1] // 2
        dense = torch.zeros(inner, *size, dtype=weight.dtype)
        for p in range(plane[0]):
            for q in range(plane[1]):
                at = [p, q]
                at.insert(view, size[view] // 2)
                dense[:, at[0], at[1], at[2]] = weight[o, :, top + p, left + q]
        rows.append(dense)
    return torch.stack(rows)


def crossd_conv3d_loop(x, bank, axis, angle, bias, depth_axis, placement, gate=None, **geometry):
    """Dynamic 3D: one plain Conv3d per volume, its kernel the middle slice of that volume's bank.

    The slice stands at depth // 2 of a kernel of zeros ("center") or, divided by the depth, in every slice ("spread").
    With a gate (2, C) it stands beside the center too, times the gate of each input channel.
    """
    depth, at = bank.shape[2], depth_axis % 3 + 2
    outs = []
    for b, shifted in enumerate(crossd_bank_fft(bank, axis, angle)):
        plane = shifted[:, :, depth // 2]
        if placement == "center":
            slices = [plane if d == depth // 2 else torch.zeros_like(plane) for d in range(depth)]
        else:
            slices = [plane / depth] * depth
        if gate is not None:
            inner, outer = bank.shape[1], bank.shape[0] // geometry.get("groups", 1)
            for side, of_channel in zip((-1, 1), gate, strict=True):
                slices[depth // 2 + side] = torch.stack(
                    [
                        torch.stack([plane[o, i] * of_channel[o // outer * inner + i] for i in range(inner)])
                        for o in range(len(plane))
                    ]
                )
        kernel = torch.stack(slices, dim=at)
        conv = torch.nn.Conv3d(x.shape[1], bank.shape[0], kernel.shape[2:], bias=bias is not None, **geometry).double()
        outs.append(torch.func.functional_call(conv, {"weight": kernel, "bias": bias}, x[b : b + 1]))
    return torch.cat(outs)


def plane_dense(kernel: torch.Tensor, view: int, size: tuple[int, int, int]) -> torch.Tensor:
    """2D kernels (O, I, kh, kw) in the center plane across `view`, voxel by voxel; of a larger one, its center."""
    plane = [size[a] for a in range(3) if a != view]
    top, left = kernel.shape[2] // 2 - plane[0] // 2, kernel.shape[3] // 2 - plane[1] // 2
    dense = torch.zeros(*kernel.shape[:2], *size, dtype=kernel.dtype)
    for p in range(plane[0]):
        for q in range(plane[1]):
            at = [p, q]
            at.insert(view, size[view] // 2)
            dense[:, :, at[0], at[1], at[2]] = kernel[:, :, top + p, left + q]
    return dense


def acs_transposed_dense(weight: torch.Tensor, groups: int, size: tuple[int, int, int]) -> torch.Tensor:
    """Dense kernel (I, O/groups, k1, k2, k3) of a transposed ACS weight, one output channel at a time."""
    per_group = weight.shape[1]
    out = per_group * groups
    base, extra = divmod(out, 3)
    first = base + (extra > 0)
    second = first + base + (extra > 1)
    inner = weight.shape[0] // groups
    dense = torch.zeros(*weight.shape[:2], *size, dtype=weight.dtype)
    for o in range(out):
        group, column = divmod(o, per_group)
        rows = slice(group * inner, (group + 1) * inner)
        view = 0 if o < first else 1 if o < second else 2
        dense[rows, column] = plane_dense(weight[rows, column : column + 1], view, size)[:, 0]
    return dense
