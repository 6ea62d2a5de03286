# SPDX-License-Identifier: Apache-2.0
"""Every Triton kernel goes through the compiler to machine code for a GPU, which needs none (.ci/triton)."""

from __future__ import annotations

import os

import pytest

triton = pytest.importorskip("triton", reason="Triton comes with torch for CUDA; .ci/triton has it on a CPU")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from monai_crossd.conv import crossd_triton as kernels  # noqa: E402
from monai_crossd.conv import mixing_triton as mixing  # noqa: E402

BANK = {"KD": 3, "KH": 3, "KW": 3}
POOL = {"HAS_BIAS": True, "BC": 16, "BL": mixing.POOL_BLOCK}
CONV = {"KW": 3, "TAPS": 9, "PRECISION": "ieee"}
# kernel, constants, what points to half precision; all other pointers are to single precision
CASES = {
    "pool": (mixing._pool, POOL, "H"),
    "mix": (mixing._mix, {**BANK, "BB": 32, "BS": 16, "BLOCK": mixing.MIX_BLOCK}, ""),
    "mix_backward": (mixing._mix_backward, {**BANK, "HAS_SHIFT": True, "BLOCK": mixing.MIX_BLOCK}, ""),
    "pool_backward": (mixing._pool_backward, POOL, "H GRAD_H"),
    "product": (kernels._product, {"DTYPE": kernels.tl.bfloat16, "PRECISION": "ieee"}, "OUT"),
    "conv": (kernels._conv, {**CONV, "HAS_BIAS": True, "FEW": False}, "X W Y"),
    "conv_few": (kernels._conv, {**CONV, "HAS_BIAS": False, "FEW": True}, "X W Y"),
    "conv_to_input": (kernels._conv_to_input, CONV, "GY W GX"),
    "conv_to_kernel": (kernels._conv_to_kernel, CONV, "X GY GW"),
}
POINTERS = {
    "H", "WEIGHT", "BIAS", "PARTIAL", "MIXING", "SHIFT", "MEAN", "STATS", "GRAD", "GRAD_SHIFT", "GRAD_POOLED",
    "GRAD_H", "A", "B", "OUT", "X", "W", "Y", "GY", "GX", "GW",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_kernel_compiles_for_a_gpu(name):
    kernel, constants, half = CASES[name]
    options = {"num_warps": 4, "num_stages": 3}
    if hasattr(kernel, "configs"):
        constants = {**constants, **kernel.configs[0].kwargs}
        kernel = kernel.fn
    counts = {"mix": "B"}.get(name, "H" if name.startswith("conv") else "")  # a batch and a height, no pointers
    signature = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in POINTERS and argument != counts:
            signature[argument] = "*bf16" if argument in half.split() else "*fp32"
        else:
            signature[argument] = "fp32" if argument == "max_angle" else "i32"
    at = {(kernel.arg_names.index(argument),): value for argument, value in constants.items()}
    source = ASTSource(kernel, signature, constexprs=at)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= 227 * 1024
