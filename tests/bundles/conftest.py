# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BUNDLES = Path(__file__).parents[2] / "bundles"


@pytest.fixture
def run_bundle():
    """Run a bundle as its user does; returns the finished process, its output in `stdout`."""

    def run(name: str, *arguments: str, configs: tuple[str, ...] = ("train",)) -> subprocess.CompletedProcess[str]:
        if "--output_dir" in arguments and "--ckpt_dir" not in arguments and "evaluate" not in configs:
            # the weights of this checkout stay
            arguments = (*arguments, "--ckpt_dir", arguments[arguments.index("--output_dir") + 1])
        files = str([f"configs/{config}.yaml" for config in configs])
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, *arguments]
        return subprocess.run(
            command, cwd=BUNDLES / name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900
        )

    return run
