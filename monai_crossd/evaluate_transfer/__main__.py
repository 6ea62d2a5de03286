# SPDX-License-Identifier: Apache-2.0
"""`python -m monai_crossd.evaluate_transfer --config_file FILE`: run or go on with a study, and report it."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser
from monai.utils import optional_import

from .methods import METHODS
from .plot import save_plot
from .pretrain import weights_path
from .report import write_report
from .runner import read_rows, run_study
from .study import Study, list_cells, read_study

logger = logging.getLogger(__name__)


def _pretraining_rows(study: Study, output_dir: Path) -> list[dict[str, Any]]:
    names = sorted({METHODS[m].pretraining or "" for m in study.methods} - {"", *study.source.weights})
    paths = [weights_path(output_dir, name, seed).with_suffix(".json") for name in names for seed in study.seeds]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report a study; `argv` are the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m monai_crossd.evaluate_transfer",
        description=__doc__,
        epilog="Any other --NAME VALUE replaces an entry of the config, as in MONAI bundles: --seeds '[0, 1]' "
        "--finetuning#epochs 5",
    )
    parser.add_argument("--config_file", required=True, nargs="+", help="study, YAML or JSON; later files come on top")
    parser.add_argument("--output_dir", type=Path, default=Path("transfer_study"), help="of cells, report and plot")
    parser.add_argument("--processes", type=int, default=1, help="that work at the same time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--report_only", action="store_true", help="report the finished cells, run none")
    args, rest = parser.parse_known_args(argv)
    if len(rest) % 2 or not all(name.startswith("--") for name in rest[::2]):
        parser.error(f"expected pairs of --NAME VALUE, got {' '.join(rest)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("monai_crossd").setLevel(logging.INFO)
    for package in ("scipy", "sklearn", "matplotlib"):  # before hours of computing, not after
        if not optional_import(package)[1]:
            parser.error(f'{package} is not installed: a study needs `pip install "monai-crossd[study]"`')
    config = ConfigParser(ConfigParser.load_config_files(args.config_file))
    for name, value in zip(rest[::2], rest[1::2], strict=True):
        config[name.removeprefix("--").replace("::", "#")] = yaml.safe_load(value)
    study = read_study(config.config)
    if args.report_only:
        rows = read_rows(study, args.output_dir)
        logger.info("%d of %d cells are done.", len(rows), len(list_cells(study)))
    else:
        rows = run_study(study, args.output_dir, args.processes, args.device)
    if not rows:
        parser.error(f"{args.output_dir} has no finished cell of this study: run it without --report_only first")
    pretrained = _pretraining_rows(study, args.output_dir)
    seconds = sum(row["seconds"] for row in pretrained)
    paths = write_report(args.output_dir, rows, study.reference, study.metric, phases={"pretraining": seconds})
    plot = save_plot(args.output_dir / "plot.png", rows, study.metric)
    logger.info("\n%s\n%s", paths[0].read_text(), "\n".join(map(str, [*paths, plot])))


if __name__ == "__main__":
    main()
