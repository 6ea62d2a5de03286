# SPDX-License-Identifier: Apache-2.0
"""`python -m monai_crossd.evaluate_transfer STUDY.yaml`: run or go on with a study, and report it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser
from monai.utils import optional_import

from .curve import curve_cells, read_curve, read_curve_results, run_curve
from .curve_report import write_curve_report
from .methods import METHODS
from .paper import read_published
from .plot import save_plot
from .report import write_report
from .runner import read_results
from .study import Study, list_cells, preset_studies, read_rows, read_study, run_study, weights_path

logger = logging.getLogger(__name__)


def _read_config(parser: argparse.ArgumentParser, files: Sequence[str], changes: Sequence[str]) -> dict[str, Any]:
    """The files, later ones on top, with the entries of the command line replaced."""
    if len(changes) % 2 or not all(name.startswith("--") for name in changes[::2]):
        parser.error(f"expected pairs of --NAME VALUE, got {' '.join(changes)}")
    config = ConfigParser(ConfigParser.load_config_files(files))
    for name, value in zip(changes[::2], changes[1::2], strict=True):
        config[name.removeprefix("--").replace("::", "#")] = yaml.safe_load(value)
    return dict(config.config)


def _pretraining_seconds(study: Study, output_dir: Path) -> float:
    names = {METHODS[method].pretraining for method in study.methods} - {None, *study.source.weights}
    paths = [weights_path(output_dir, str(name), seed).with_suffix(".json") for name in names for seed in study.seeds]
    return sum(row["seconds"] for row in read_results(paths))


def _is_whole(done: int, cells: int, args: argparse.Namespace) -> bool:
    """Whether a report is due: all cells are done, here or elsewhere, or it is asked for."""
    logger.info("%d of %d cells are done.", done, cells)
    if done < cells and not args.report_only:
        logger.info("Other processes run the rest, and the last of them writes the report; --report_only: now.")
    return done == cells or args.report_only


def _run(study: Study, output_dir: Path, args: argparse.Namespace, published: Sequence[dict[str, Any]] = ()) -> None:
    """Run what is missing, and write and print report and plot."""
    if args.report_only:
        rows = read_rows(study, output_dir)
    else:
        rows = run_study(study, output_dir, args.processes, args.device, args.threads)
    if not _is_whole(len(rows), len(list_cells(study)), args):
        return
    if not rows:
        raise ValueError(f"{output_dir} has no finished cell of this study: run it without --report_only first.")
    phases = {"pretraining": _pretraining_seconds(study, output_dir)}
    paths = write_report(output_dir, rows, study.reference, study.metric, published, phases)
    plot = save_plot(output_dir / "plot.png", rows, study.metric)
    logger.info("\n%s\n%s", paths[0].read_text(), "\n".join(map(str, [*paths, plot])))


def _run_curve(config: dict[str, Any], args: argparse.Namespace) -> None:
    """Run what is missing of a curve study, and write and print its report."""
    study = read_curve(config)
    if args.report_only:
        results = read_curve_results(study, args.output_dir)
    else:
        results = run_curve(study, args.output_dir, args.processes, args.device, args.threads)
    if not _is_whole(len(results), len(curve_cells(study)), args):
        return
    paths = write_curve_report(args.output_dir, study, results)
    logger.info("\n%s\n%s", paths[0].read_text(encoding="utf-8"), "\n".join(map(str, paths)))


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report a study; `argv` are the arguments of the command line."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and not argv[0].startswith("-"):
        argv.insert(0, "--config_file")
    parser = argparse.ArgumentParser(
        prog="python -m monai_crossd.evaluate_transfer",
        description=__doc__,
        epilog="Any other --NAME VALUE replaces an entry of the config, as in MONAI bundles: --seeds '[0, 1]' "
        "--finetuning#epochs 5; of a curve study --data PATH --source::NAME FILE",
    )
    parser.add_argument(
        "--config_file", required=True, nargs="+", help="study, YAML or JSON; later files come on top; may be left out"
    )
    parser.add_argument("--output_dir", type=Path, default=Path("transfer_study"), help="of cells, report and plot")
    parser.add_argument("--processes", type=int, default=1, help="that work at the same time")
    parser.add_argument("--threads", type=int, help="of the CPU in each process; default: shared")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--report_only", action="store_true", help="report the finished cells, run none")
    args, changes = parser.parse_known_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("monai_crossd").setLevel(logging.INFO)
    for package in ("scipy", "sklearn", "matplotlib"):  # before hours of computing, not after
        if not optional_import(package)[1]:
            parser.error(f'{package} is not installed: a study needs `pip install "monai-crossd[study]"`')
    config = _read_config(parser, args.config_file, changes)
    try:
        if "initializations" in config:
            _run_curve(config, args)
            return
        if "preset" not in config:
            _run(read_study(config), args.output_dir, args)
            return
        for title, study, missing in preset_studies(config):
            logger.info("\n%s\n%s", title, "\n".join(missing))
            if study is not None:
                folder = args.output_dir / title.lower().replace(".", "").replace(" ", "_")
                _run(study, folder, args, read_published())
    except ValueError as error:
        parser.error(str(error))
