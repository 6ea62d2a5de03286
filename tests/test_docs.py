# SPDX-License-Identifier: Apache-2.0
"""README and docs/: what they state, link to and tell a reader to type."""

from __future__ import annotations

import csv
import functools
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml
from monai.networks import nets
from monai.networks.layers import Conv

import monai_crossd

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("bundles/*/docs/README.md"))]
BUNDLES = sorted(path for path in (ROOT / "bundles").iterdir() if (path / "configs").is_dir())


def code(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_readme_is_short_and_starts_with_its_two_commands():
    assert len(README.splitlines()) <= 120
    marked = [
        re.search(rf"<!-- {name}-command -->\n```bash\n(.*?)```\n<!-- end -->", README, re.DOTALL)[1]
        for name in ("main", "test")
    ]
    assert code(README, "bash")[:2] == marked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_index_has_every_page():
    links = set(re.findall(r"\]\(([^)\s]+)\)", (ROOT / "docs" / "README.md").read_text("utf-8")))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= links


@pytest.mark.parametrize("page", ["README.md", "docs/methods.md"])
def test_examples_print_what_they_say(page, torchvision, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for example in code((ROOT / page).read_text("utf-8"), "python"):
        exec(compile(example, page, "exec"), {})
        printed = re.findall(r"print\(.*\)  # (.*)", example)
        assert printed
        assert capsys.readouterr().out.splitlines() == printed


def test_what_readme_says_to_write_is_there():
    """Every call of the table is one of a name that monai_crossd, torch or MONAI has, with these arguments."""
    table = README.partition("| you have | you write |")[2].partition("\n\n")[0]
    calls = [call for line in table.splitlines()[2:] for call in re.findall(r"`([^`]+)`", line.split("|")[2])]
    net2d = nets.resnet10(spatial_dims=2, n_input_channels=1, num_classes=2)
    net3d = nets.resnet10(spatial_dims=3, n_input_channels=1, num_classes=2)
    names = {**vars(nets), **vars(monai_crossd), "Conv": Conv, "net2d": net2d, "net": net2d, "net3d": net3d}
    assert len(calls) >= 15
    for call in calls:
        if call.startswith('"'):
            assert Conv[call.strip('"'), 3]
        elif "resnet50.pth" not in call:  # a file that a reader has
            rest = "" if "Flexible" in call else ", channels=(4, 8), strides=(2,)"
            exec(call.replace("...", f"in_channels=1, out_channels=2{rest}"), dict(names))


@functools.cache
def options_of(bundle: Path) -> set[str]:
    configs = [*bundle.glob("configs/*.yaml"), bundle / "configs" / "inference.json"]
    return {key for path in configs for key in yaml.safe_load(path.read_text("utf-8"))}


def misfits(command: str) -> list[str]:
    """Config files and options of a `monai.bundle run` that no bundle has together."""
    words = shlex.split(command)
    files = yaml.safe_load(words[words.index("--config_file") + 1])
    files = [files] if isinstance(files, str) else files
    options = {word.removeprefix("--") for word in words if word.startswith("--")} - {"config_file", "standalone"}
    options -= {"nproc_per_node"}
    wrong = {}
    for bundle in BUNDLES:
        wrong[bundle.name] = [name for name in files if not (bundle / name).is_file()]
        wrong[bundle.name] += sorted(options - options_of(bundle))
    return min(wrong.values(), key=len)


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("python -m monai.bundle run --config_file configs/train.yaml --dataset_dir x", []),
        ("python -m monai.bundle run --config_file configs/trian.yaml --dataset_dir x", ["configs/trian.yaml"]),
        ("python -m monai.bundle run --config_file \"['configs/train.yaml', 'x.yaml']\"", ["x.yaml"]),
        ("python -m monai.bundle run --config_file configs/train.yaml --data_dir x", ["data_dir"]),
    ],
)
def test_misfits_are_found(command, wrong):
    assert misfits(command) == wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_what_is_there(page):
    lines = "\n".join(code(page.read_text("utf-8"), "bash")).replace("\\\n", " ").splitlines()
    for line in lines:
        if "monai.bundle run" in line:
            wanted = re.search(r"(python|torchrun) .*-m monai\.bundle run[^&#)]*", line)[0]
            assert not misfits(wanted), line
        for module in re.findall(r"-m (monai_crossd[\w.]*)", line):
            assert importlib.util.find_spec(module) is not None, line


ROW = re.compile(r"^\| `(\w+)`[^|]*\| [^|]* \| ([^|]*)\| ([^|]*)\| [\d.]+ \|$", re.MULTILINE)
NAME_IN_STUDY = {"crossd-crossd": "crossd-dynamic"}


def study_rows(name, table):
    with (ROOT / "docs" / "studies" / name / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_gains_of_readme_are_those_of_the_studies():
    measured = {}
    for name, metric in (("hippocampus", "dice"), ("vesselmnist3d", "balanced_accuracy")):
        for row in study_rows(name, "comparisons"):
            if (row["metric"], row["against"], row["train_cases"]) == (metric, "scratch", "8"):
                gain = float(row["difference"])
                measured.setdefault(row["initialization"], []).append(f"{gain:+.2f}" if abs(gain) >= 0.005 else "0.00")
    stated = {}
    for method, *gains in ROW.findall(README):
        for source, gain in zip(("conv2d", "crossd"), gains, strict=True):
            name = f"{source}-{method}"
            stated[NAME_IN_STUDY.get(name, name)] = gain.strip().replace("−", "-")
    stated = {name: gain for name, gain in stated.items() if gain}
    assert stated == {name: " / ".join(measured[name]) for name in stated}
    assert len(stated) == 6


@pytest.mark.parametrize(
    ("heading", "name", "metric"),
    [
        ("### Hippocampus", "hippocampus", "dice"),
        ("### VesselMNIST3D", "vesselmnist3d", "balanced_accuracy"),
        ("\nAUC:", "vesselmnist3d", "auc"),
    ],
)
def test_tables_of_transfer_are_those_of_the_studies(heading, name, metric):
    page = (ROOT / "docs" / "transfer.md").read_text("utf-8").partition(heading)[2]
    lines = [line.replace("*", "").strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    counts, stated = lines[0][1:], {}
    for first, *scores in lines[2:]:
        if first == "initialization":  # the next table
            break
        if first.startswith("`"):
            stated |= {(first.strip("`"), count): score for count, score in zip(counts, scores, strict=True)}
    measured = {
        (row["initialization"], row["train_cases"]): f"{float(row['score']):.3f}"
        for row in study_rows(name, "table")
        if row["metric"] == metric
    }
    assert stated == measured
    assert len(measured) == 6 * len({start for start, _ in measured}) > 50


@pytest.fixture(scope="module")
def make_api():
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs" / "make_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_api_page_is_up_to_date(make_api):
    assert (ROOT / "docs" / "api.md").read_text("utf-8") == make_api.page(), "run `python docs/make_api.py`"


def test_every_exported_name_says_what_it_is(make_api):
    for module in make_api.parts():
        for name, value in make_api.exported(module).items():
            assert re.search(r"\w.*[.:)]$", make_api.first_line(value)), f"{module.__name__}.{name}"


def test_names_at_the_top_are_documented_in_full_with_examples(make_api):
    names = make_api.exported(monai_crossd)
    titles = set(re.findall(r"^### (\w+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE))
    assert titles == names.keys()


def test_every_exported_function_and_class_has_an_example(make_api):
    for module in make_api.parts():
        for name, value in make_api.exported(module).items():
            record = isinstance(value, type) and issubclass(value, Exception | tuple)
            example = re.search(r">>> |\.\. code-block::", make_api.docstring(value))
            assert record or example, f"{module.__name__}.{name}"
