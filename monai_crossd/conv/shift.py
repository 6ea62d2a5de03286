# SPDX-License-Identifier: Apache-2.0
r"""The Cross-D shift: what a rotation of the frequency grid followed by a sum over it does to a kernel bank.

With R = I + θ[k]× the phase exp(−2πi 1·(R f)) on the Fourier transform of a bank U is exp(−2πi s·f) with s = Rᵀ1, so
U is not rotated but shifted, periodically and band-limited, by s = 1 − θ (k × 1). On an axis of length K the shifted
unit impulse is

.. math:: g_s(n) = \frac1K \sum_{f=0}^{K-1} e^{2πi φ_f (n - s)}, \qquad φ = \mathrm{fftfreq}(K),

and shifting is circular convolution with it, axis by axis. For odd K it is real. For even K the Nyquist term is not,
and the paper takes the real part of the product over all three axes, so both parts are kept until then. No Fourier
transform and no complex dtype is needed.

References:
    M. C. Yavuz and Y. Yang, Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting
    Operation, 2024 (Algorithm 1).

One alphabet for shapes: B batch, O out channels, I in channels per group, K kernel, L positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .graphs import constants, in_graph


def rotation_shift(axis: Tensor, angle: Tensor) -> Tensor:
    """Shift that the small rotation about `axis` by `angle` stands for: s = Rᵀ1 = 1 − θ (k × 1).

    The three shifts always sum to 3, and an angle of 0 gives (1, 1, 1), not 0.

    Args:
        axis: (B, 3), rotation axis, of any length; it is divided by its norm + 1e-8 as in the paper.
        angle: (B,), θ in radians.

    Returns:
        (B, 3), shift in voxels along the three axes of the bank.

    Raises:
        ValueError: if the shapes are not (B, 3) and (B,).

    Example:
        >>> rotation_shift(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([0.5]))
        tensor([[1.5000, 0.5000, 1.0000]])
    """
    fits = axis.dim() == 2 and angle.dim() == 1
    if not in_graph():
        fits = fits and axis.shape[1] == 3 and angle.shape[0] == axis.shape[0]
    if not fits:
        raise ValueError(f"axis must be (B, 3) and angle (B,), got {list(axis.shape)} and {list(angle.shape)}.")
    unit = axis / (torch.linalg.vector_norm(axis, dim=1, keepdim=True) + 1e-8)
    x, y, z = unit[:, 0], unit[:, 1], unit[:, 2]
    return 1 - angle.unsqueeze(1) * torch.stack([y - z, z - x, x - y], dim=1)


def shift_from_map(rotation_map: Tensor, max_angle: float = math.pi / 4) -> Tensor:
    """Shift of each sample from its map of rotation parameters.

    Each of the four channels is pooled with its own spatial softmax, r = Σ v·softmax(v); the first three are the axis,
    and tanh of the fourth times `max_angle` is the angle.

    Args:
        rotation_map: (B, 4, *), * any number of positions in any number of dimensions.
        max_angle: largest angle in radians.

    Returns:
        (B, 3), in float32 at least: a shift in half precision would move kernels by up to 1/1000 of a voxel.

    Example:
        >>> shift_from_map(torch.zeros(2, 4, 5, 5)).shape
        torch.Size([2, 3])
    """
    values = rotation_map.flatten(2)
    if values.dtype == torch.float16 or values.dtype == torch.bfloat16:
        values = values.float()
    pooled = (values * torch.softmax(values, dim=-1)).sum(dim=-1)
    return rotation_shift(pooled[:, :3], torch.tanh(pooled[:, 3]) * max_angle)


def _impulse(shift: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of g_s(n), (B, size) each, for shifts (B,)."""
    t = torch.arange(size, device=shift.device, dtype=shift.dtype) - shift.unsqueeze(1)
    real = torch.ones_like(t)
    for f in range(1, (size + 1) // 2):
        real = real + 2 * torch.cos((2 * math.pi * f / size) * t)
    imag = torch.zeros_like(t)
    if size % 2 == 0:
        real = real + torch.cos(math.pi * t)
        imag = -torch.sin(math.pi * t) / size
    return real / size, imag


def _impulse3d(shift: Tensor, size: list[int]) -> Tensor:
    """Real part of the shifted impulse of a bank, (B, Kd*Kh*Kw)."""
    re_d, im_d = _impulse(shift[:, 0], size[0])
    re_h, im_h = _impulse(shift[:, 1], size[1])
    re_w, im_w = _impulse(shift[:, 2], size[2])
    re_d, im_d = re_d.unsqueeze(2), im_d.unsqueeze(2)
    re_h, im_h = re_h.unsqueeze(1), im_h.unsqueeze(1)
    real = re_d * re_h
    imag = torch.zeros_like(real)
    if size[0] % 2 == 0 or size[1] % 2 == 0:
        real, imag = real - im_d * im_h, re_d * im_h + im_d * re_h
    out = real.unsqueeze(3) * re_w.unsqueeze(1).unsqueeze(1)
    if size[2] % 2 == 0:
        out = out - imag.unsqueeze(3) * im_w.unsqueeze(1).unsqueeze(1)
    return out.flatten(1)


def circulant_index(size: list[int], middle: bool, device: torch.device) -> Tensor:
    """Which element of a shifted impulse stands where in the matrix of `shift_mixing`, flattened."""
    d, h, w = size[0], size[1], size[2]
    first = torch.full([1], d // 2, device=device) if middle else torch.arange(d, device=device)
    at_d = torch.remainder(first.unsqueeze(1) - torch.arange(d, device=device), d)  # (rows, columns) of the circulant
    at_h = torch.remainder(torch.arange(h, device=device).unsqueeze(1) - torch.arange(h, device=device), h)
    at_w = torch.remainder(torch.arange(w, device=device).unsqueeze(1) - torch.arange(w, device=device), w)
    return (
        (at_d * (h * w)).view(-1, 1, 1, d, 1, 1) + (at_h * w).view(1, h, 1, 1, h, 1) + at_w.view(1, 1, w, 1, 1, w)
    ).reshape(-1)


def shift_mixing(shift: Tensor, size: list[int], middle: bool) -> Tensor:
    """Matrix M that shifts a flattened bank: kernel = M · bank.

    Args:
        shift: (B, 3), float32 or float64.
        size: kernel sizes (Kd, Kh, Kw) of the bank, through-plane axis first.
        middle: only the rows of the middle slice (index Kd // 2) of the shifted bank.

    Returns:
        (B, P, Kd*Kh*Kw) with P = Kh*Kw rows if `middle`, else Kd*Kh*Kw.
    """
    index = circulant_index(size, middle, shift.device)
    return _impulse3d(shift, size).index_select(1, index).unflatten(1, [-1, size[0] * size[1] * size[2]])


def check_bank(weight: Tensor) -> None:
    """Check the rank of a kernel bank.

    Raises:
        ValueError: with its shape.
    """
    if weight.dim() != 5:
        raise ValueError(f"the kernel bank must be (O, I, Kd, Kh, Kw), got shape {list(weight.shape)}.")


def full_precision(shift: Tensor) -> Tensor:
    """A shift in float32 at least."""
    half = shift.dtype == torch.float16 or shift.dtype == torch.bfloat16
    return shift.float() if half else shift


def _check(weight: Tensor, shift: Tensor) -> None:
    check_bank(weight)
    if shift.dim() != 2 or shift.shape[1] != 3:
        raise ValueError(f"shift must be (B, 3), got shape {list(shift.shape)}.")


def mix_kernels(weight: Tensor, mixing: Tensor, size: list[int]) -> Tensor:
    """Kernels (B, O, I, *size) from a bank (O, I, *) and mixing matrices (B, P, Q), as one GEMM; TorchScript."""
    bank = weight.flatten(2).flatten(0, 1)  # (O*I, Q)
    kernels = bank @ mixing.flatten(0, 1).to(weight.dtype).t()  # (O*I, B*P)
    kernels = kernels.view(weight.shape[0], weight.shape[1], -1, mixing.shape[1])
    return kernels.permute(2, 0, 1, 3).unflatten(3, size)


def _mix(weight: Tensor, shift: Tensor, middle: bool) -> Tensor:
    size = constants(list(weight.shape[2:]))
    mixing = shift_mixing(full_precision(shift), size, middle)
    return mix_kernels(weight, mixing, size[1:] if middle else size)


def crossd_kernel2d(weight: Tensor, shift: Tensor) -> Tensor:
    """2D kernels of a batch: the middle slice (index Kd // 2) of the bank shifted by `shift`.

    W[b] = Σ_ijk a_x[b,i] A_y[b,·,j] A_z[b,·,k] U[:,:,i,j,k]; the rest of the shifted bank is never formed.

    Args:
        weight: (O, I, Kd, Kh, Kw), bank U, through-plane axis first.
        shift: (B, 3), in voxels.

    Returns:
        (B, O, I, Kh, Kw), in the dtype of `weight`.

    Raises:
        ValueError: if a shape is another.

    Example:
        >>> bank = torch.randn(4, 2, 3, 3, 3)
        >>> kernel = crossd_kernel2d(bank, torch.ones(1, 3))
        >>> bool(torch.allclose(kernel[0], bank.roll((1, 1, 1), (2, 3, 4))[:, :, 1], atol=1e-6))
        True
    """
    _check(weight, shift)
    return _mix(weight, shift, True)


def shift_kernel(weight: Tensor, shift: Tensor) -> Tensor:
    """The whole bank, shifted periodically and band-limited, one copy per shift (for looking at, not for training).

    Args:
        weight: (O, I, Kd, Kh, Kw), bank U.
        shift: (B, 3), in voxels.

    Returns:
        (B, O, I, Kd, Kh, Kw).

    Raises:
        ValueError: if a shape is another.

    Example:
        >>> shift_kernel(torch.ones(1, 1, 3, 3, 3), torch.zeros(2, 3)).shape
        torch.Size([2, 1, 1, 3, 3, 3])
    """
    _check(weight, shift)
    return _mix(weight, shift, False)
