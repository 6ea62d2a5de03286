# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from processes import run_module

BUNDLES = Path(__file__).parents[2] / "bundles"


@pytest.fixture
def run_bundle():
    """Run a bundle as its user does; returns the finished process, its output in `stdout`."""

    def run(name: str, *arguments: str, configs: tuple[str, ...] = ("train",)) -> subprocess.CompletedProcess[str]:
        if "--output_dir" in arguments and "--ckpt_dir" not in arguments and "evaluate" not in configs:
            # the weights of this checkout stay
            arguments = (*arguments, "--ckpt_dir", arguments[arguments.index("--output_dir") + 1])
        files = str([f"configs/{config}.yaml" for config in configs])
        return run_module("monai.bundle", "run", "--config_file", files, *arguments, folder=BUNDLES / name)

    return run
