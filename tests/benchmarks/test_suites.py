# SPDX-License-Identifier: Apache-2.0
"""Every suite of the benchmarks runs, the published form computes what ours does, results are kept."""

from __future__ import annotations

import csv
import math
from functools import partial
from pathlib import Path

import pytest
import torch

import monai_crossd
from monai_crossd.benchmarks import harness
from monai_crossd.benchmarks.__main__ import find_suites, main
from monai_crossd.benchmarks.output import append_csv, hardware_name
from monai_crossd.benchmarks.published import FourierCrossDConv2d
from monai_crossd.conv import CrossDConv2d

TIMED = ("acs", "layers", "networks", "scaling", "table3")


def test_every_suite_is_found():
    assert set(TIMED) <= find_suites().keys()


@pytest.mark.slow
@pytest.mark.parametrize("suite", TIMED)
def test_suite_runs_and_is_recorded(suite, tmp_path, capsys):
    rows = main([suite, "--quick", "--threads", "1", "--output", str(tmp_path)])
    assert all(row["median_ms"] > 0 for row in rows)
    limits = [row for row in rows if row["contender"] == row["limit"]]
    assert limits
    assert all(row["ratio"] == 1 for row in limits)
    path = tmp_path / hardware_name() / f"{suite}.csv"
    with path.open(newline="", encoding="utf-8") as file:
        recorded = list(csv.DictReader(file))
    assert [row["contender"] for row in recorded] == [row["contender"] for row in rows]
    assert "median_ms" in capsys.readouterr().out


@pytest.mark.slow
def test_results_lie_below_the_working_directory_and_not_in_the_package(tmp_path, monkeypatch):
    package = Path(monai_crossd.__file__).parent
    before = {path: path.stat().st_mtime_ns for path in package.rglob("*") if "__pycache__" not in path.parts}
    monkeypatch.chdir(tmp_path)
    main(["layers", "--quick", "--threads", "1"])
    written = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert written == [Path("benchmark_results", hardware_name(), "layers.csv")]
    assert {p: p.stat().st_mtime_ns for p in package.rglob("*") if "__pycache__" not in p.parts} == before


@pytest.mark.slow
def test_gpu_suite_runs_where_a_cpu_is_named():
    rows = main(["gpu", "--quick", "--threads", "1", "--dry-run", "--device", "cpu"])
    found = {(row["pass"], row["contender"]) for row in rows}
    for kind, contender in (
        ("forward+backward", "Cross-D"),
        ("forward+backward", "Cross-D, shared"),
        ("training step", "Cross-D"),
        ("evaluation", "Cross-D, frozen shifts"),
        ("forward", "Cross-D, grouped"),
        ("forward+backward", "ACS, flat"),
        ("forward+backward", "CrossDConv3d, dynamic"),
    ):
        assert (kind, contender) in found
    assert all(row["eager_ms"] > 0 and math.isnan(row["gpu_ms"]) and math.isnan(row["kernels"]) for row in rows)
    assert {row["eager_ratio"] for row in rows if row["contender"] in ("Conv2d", "Conv3d")} == {1}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_suite_says_that_it_needs_a_gpu():
    with pytest.raises(SystemExit, match="The suite gpu needs a CUDA device"):
        main(["gpu", "--dry-run"])


@pytest.mark.gpu
def test_gpu_suite_measures_graphs_and_kernels():
    rows = main(["gpu", "--quick", "--dry-run"])
    assert all(row["gpu_ms"] > 0 and row["kernels"] > 0 for row in rows)


@pytest.mark.slow
def test_published_network_is_raced_on_demand():
    rows = main(["networks", "--quick", "--threads", "1", "--dry-run", "--published"])
    assert "Cross-D as published (FFT)" in {row["contender"] for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("option", [["--channels-last"], ["--dtype", "bfloat16"]], ids=str)
def test_options_of_the_layers(option, tmp_path):
    rows = main(["layers", "--quick", "--threads", "1", "--dry-run", *option])
    assert all(row["median_ms"] > 0 for row in rows)
    assert not list(tmp_path.iterdir())


def test_wrong_suite_and_dtype_are_refused(capsys):
    for wrong in (["speed"], ["layers", "--dtype", "float8"]):
        with pytest.raises(SystemExit):
            main(wrong)
    assert "float8" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_published_form_gives_what_our_layer_gives(size, stride, training):
    ours = CrossDConv2d(4, 6, size, stride, size // 2, bias=False, bank_init="paper").train(training)
    published = FourierCrossDConv2d(4, 6, size, stride, size // 2).train(training)
    state = ours.state_dict()
    state.pop("running_shift")
    published.load_state_dict({**published.state_dict(), **state})
    x = torch.randn(3, 4, 9, 9)
    torch.testing.assert_close(published(x), ours(x), atol=1e-5, rtol=1e-4)


def test_contenders_take_turns_and_the_warm_up_does_not_count(monkeypatch):
    calls, clock = [], [0.0]
    took = {"a": [9, 9, 1, 2, 5], "b": [7, 7, 3, 3, 3]}  # seconds, call by call; the first two warm up

    def call(name):
        clock[0] += took[name][calls.count(name)]
        calls.append(name)

    monkeypatch.setattr(harness.time, "perf_counter", lambda: clock[0])
    times = harness.time_all({name: partial(call, name) for name in "ab"}, "cpu", rounds=3, warmup=2)
    assert calls == list("ab" * 5)
    # quartiles of 1, 2, 5 are 1.5 and 3.5
    assert times["a"] == {"median_ms": 2000, "iqr_ms": 2000, "first_ms": 9000}
    assert times["b"] == {"median_ms": 3000, "iqr_ms": 0, "first_ms": 7000}


@pytest.mark.skipif(not harness.sys.platform.startswith("linux"), reason="the resident set is read from /proc")
def test_peak_memory_is_what_is_touched_at_once():
    mib = 2**18  # float32 elements

    def make():
        kept = torch.ones(64 * mib)
        return lambda: torch.ones(128 * mib).add_(kept[0])

    assert 180 < harness.peak_memory(make, "cpu") < 230
    assert harness.peak_memory(lambda: lambda: None, "cpu") < 10


def test_results_of_other_columns_are_left_alone(tmp_path):
    path = tmp_path / "machine" / "suite.csv"
    append_csv(path, [{"a": 1, "b": 0.123456}])
    append_csv(path, [{"a": 2, "b": "x"}])
    assert path.read_text() == "a,b\n1,0.1235\n2,x\n"
    with pytest.raises(ValueError, match="has the columns 'a,b', not 'a'"):
        append_csv(path, [{"a": 1}])
    assert path.read_text() == "a,b\n1,0.1235\n2,x\n"
    assert [p.name for p in path.parent.iterdir()] == ["suite.csv"]


def test_hardware_name_is_a_folder_name():
    assert hardware_name().replace("-", "").isalnum()
