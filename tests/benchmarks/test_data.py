# SPDX-License-Identifier: Apache-2.0
"""The benchmark of caches runs, counts what it says, and sees memory where memory is used."""

from __future__ import annotations

import json
import math
import sys

import pytest
from processes import start

from monai_crossd.benchmarks.__main__ import main
from monai_crossd.benchmarks.data import measure
from monai_crossd.data import CACHES, load_datalist
from monai_crossd.demo import prepare_phantoms


def make_items(folder, subjects, size):
    path = prepare_phantoms("ct", folder / "set", subjects=subjects, size=size)
    return load_datalist(path) + load_datalist(path, "validation")


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("phantoms"), 8, (32, 32, 32))


def measure_on_cpu(items, folder, cache):
    case = {"items": items, "crop": [32, 32, 32], "batch": 2, "workers": 0, "epochs": 3, "device": "cpu"}
    return measure(case | {"cache": cache, "folder": folder})


@pytest.mark.parametrize("cache", [cache for cache in CACHES if cache != "gpu"])
def test_each_way_is_measured(items, tmp_path, cache):
    found = measure_on_cpu(items, tmp_path, cache)
    assert math.isnan(found.pop("peak_gpu_mib"))
    assert set(found) == {"build_s", "first_per_s", "later_per_s", "peak_mib"}
    assert all(value > 0 for name, value in found.items() if name != "peak_mib")
    assert len(list(tmp_path.glob("*.pt"))) == (len(items) if cache == "disk" else 0)


def report_memory(items, folder):
    measure_on_cpu(items[:2], folder, "none")  # loads what is loaded late
    peaks = [measure_on_cpu(items, folder, cache)["peak_mib"] for cache in ("ram", "none")]
    (folder / "peaks.json").write_text(json.dumps(peaks))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured on Linux")
def test_a_cache_in_memory_is_seen(tmp_path):
    items = make_items(tmp_path, 8, (64, 64, 64))
    process = start(report_memory, items, tmp_path)  # a process that other tests have left no free memory in
    process.join(300)
    assert process.exitcode == 0
    ram, none = json.loads((tmp_path / "peaks.json").read_text())
    # 8 volumes of 64³ images and label maps, both float32, are 16 MiB
    assert ram - none > 8


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    rows = main(["data", "--quick", "--caches", "ram", "none", "--output", str(tmp_path)])
    assert [row["cache"] for row in rows] == ["ram", "none"]
    assert rows[0]["ratio"] == 1
    assert len(list(tmp_path.glob("*/data.csv"))) == 1
    assert "later_per_s" in capsys.readouterr().out


def test_one_epoch_is_not_enough():
    with pytest.raises(ValueError, match="epochs is 1; expected at least 2"):
        main(["data", "--epochs", "1", "--dry-run"])


def test_a_gpu_cache_needs_a_gpu(items, tmp_path):
    with pytest.raises(ValueError, match='cache is "gpu" and the device cpu'):
        measure_on_cpu(items, tmp_path, "gpu")
