# SPDX-License-Identifier: Apache-2.0
"""Every way to make a graph of a network, from one example, as a function that runs the graph on other inputs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import pytest
import torch
from monai.networks.utils import convert_to_onnx
from torch import nn

Graph = Callable[[torch.Tensor], torch.Tensor]


def _trace(net: nn.Module, x: torch.Tensor) -> Graph:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(net, x, check_trace=False), file)  # tests compare more than torch's check
    file.seek(0)
    return torch.jit.load(file)


def _script(net: nn.Module, x: torch.Tensor) -> Graph:
    return torch.jit.script(net)


def _open_axes(x: torch.Tensor) -> dict[int, str]:
    return {0: "batch", **{axis: f"size{axis}" for axis in range(2, x.dim())}}


def run_onnx_file(path: str) -> Graph:
    """An ONNX file as a function, run by onnxruntime."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def _onnx_trace(net: nn.Module, x: torch.Tensor, path: str) -> Graph:
    axes = {"image": _open_axes(x)}
    torch.onnx.export(net, (x,), path, dynamo=False, input_names=["image"], output_names=["pred"], dynamic_axes=axes)
    return run_onnx_file(path)


def _onnx_monai(net: nn.Module, x: torch.Tensor, path: str) -> Graph:
    axes = {"image": _open_axes(x)}
    convert_to_onnx(net, [x], ["image"], ["pred"], dynamic_axes=axes, filename=path, dynamo=False)
    return run_onnx_file(path)


def _onnx_dynamo(net: nn.Module, x: torch.Tensor, path: str) -> Graph:
    pytest.importorskip("onnxscript")
    torch.onnx.export(
        net, (x,), path, dynamo=True, verbose=False, input_names=["image"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    return run_onnx_file(path)


def _onnx_dynamo_axes(net: nn.Module, x: torch.Tensor, path: str) -> Graph:
    pytest.importorskip("onnxscript")
    convert_to_onnx(
        net, [x], ["image"], ["pred"], dynamic_axes={"image": _open_axes(x)}, filename=path, dynamo=True, verbose=False
    )
    return run_onnx_file(path)


ANY_SIZE = {"trace": _trace, "script": _script}
ONNX = {"onnx_trace": _onnx_trace, "onnx_monai": _onnx_monai}
ONNX_DYNAMO = {"onnx_dynamo": _onnx_dynamo, "onnx_dynamo_axes": _onnx_dynamo_axes}


def make_graph(exporter: str, net: nn.Module, example: torch.Tensor, folder) -> Graph:
    """Export `net` by name; the exporters' own warnings, about themselves, are not the net's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter in ANY_SIZE:
            return ANY_SIZE[exporter](net, example)
        return {**ONNX, **ONNX_DYNAMO}[exporter](net, example, str(folder / "net.onnx"))
