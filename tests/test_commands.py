# SPDX-License-Identifier: Apache-2.0
"""Every `python -m monai_crossd...`: its help, and what it says about packages that are not installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from monai.bundle import onnx_export
from monai.utils import OptionalImportError

import monai_crossd
from monai_crossd.networks import build_resnet, onnx_extra

ROOT = Path(monai_crossd.__file__).parent
COMMANDS = sorted(
    ".".join(("monai_crossd", *path.relative_to(ROOT).with_suffix("").parts))
    for path in ROOT.rglob("*.py")
    if '\nif __name__ == "__main__":' in path.read_text("utf-8")
)
BUNDLES = ROOT.parent / "bundles"


@pytest.fixture
def without(monkeypatch):
    """Hides packages from the imports to come."""

    def hide(*packages: str) -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] in packages:
                monkeypatch.delitem(sys.modules, name)
        for package in packages:
            monkeypatch.setitem(sys.modules, package, None)

    return hide


def test_commands_are_found():
    assert {"monai_crossd.bundles", "monai_crossd.explain", "monai_crossd.benchmarks.__main__"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(command).main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: python -m {command.removesuffix('.__main__')} ")
    assert "--help" in printed


def last_line(command: str, arguments: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(command).main(arguments)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert sum(" error: " in line for line in lines) == 1
    return lines[-1]


@pytest.mark.parametrize(
    ("command", "arguments", "package", "remedy"),
    [
        ("explain", [], "slicerio", 'pip install "monai-crossd[demo]"'),
        ("explain", [], "matplotlib", "pip install matplotlib"),
        ("study.command", ["--config_file", "x.yaml"], "sklearn", 'pip install "monai-crossd[study]"'),
        ("study.command", ["--config_file", "x.yaml"], "scipy", 'pip install "monai-crossd[study]"'),
    ],
)
def test_missing_packages_are_named_with_their_extra_in_one_line(
    command, arguments, package, remedy, without, capsys, tmp_path
):
    without(package)
    output = ["--output_dir", str(tmp_path / "out")]
    line = last_line(f"monai_crossd.{command}", [*arguments, *output], capsys)
    assert package in line
    assert remedy in line


def test_unknown_networks_are_named(capsys):
    line = last_line("monai_crossd.transfer.matrix", ["UNet", "UNett"], capsys)
    assert "UNett is not in the table" in line
    assert "SegResNet" in line


def export(tmp_path: Path) -> None:
    bundle = BUNDLES / "crossd_2d_pretraining"
    onnx_export(
        net_id="network_def", filepath=str(tmp_path / "model.onnx"), ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"), config_file=str(bundle / "configs" / "inference.json"),
    )  # fmt: skip


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_onnx_export_names_its_extra(package, without, tmp_path, monkeypatch):
    def dynamo_export(dynamo: bool = True) -> None: ...

    monkeypatch.setattr(onnx_extra.torch.onnx, "export", dynamo_export)  # as torch has it from 2.9 on
    without(package)
    with pytest.raises(Exception) as raised:  # noqa: PT011  (MONAI wraps what a config raises)
        export(tmp_path)
    errors = [raised.value]
    while (cause := errors[-1].__cause__) is not None:
        errors.append(cause)
    (found,) = (error for error in errors if isinstance(error, OptionalImportError))
    assert str(found) == f'{package} is not installed: onnx_export needs `pip install "monai-crossd[onnx]"`'
    assert not list(tmp_path.iterdir())


def test_networks_are_built_without_onnx(without):
    without("onnx", "onnxscript")
    build_resnet(widen_factor=0.0625)


def test_onnx_export_by_script_does_without_onnxscript(without, monkeypatch):
    """torch before 2.9, where MONAI scripts the network."""
    monkeypatch.setattr(onnx_extra.torch.onnx, "export", lambda model, dynamo=False: None)
    without("onnxscript")
    verb = {"__name__": "monai.bundle.scripts", "check": onnx_extra.check_onnx_export}
    exec("def onnx_export(): check()", verb)
    verb["onnx_export"]()
    without("onnx")
    with pytest.raises(OptionalImportError, match="onnx is not installed"):
        verb["onnx_export"]()
