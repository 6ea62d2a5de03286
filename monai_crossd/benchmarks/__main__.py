# SPDX-License-Identifier: Apache-2.0
"""`python -m monai_crossd.benchmarks SUITE`: run one suite, print its table, append it to this machine's CSV file."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from .output import append_csv, hardware_name, print_table

OUTPUT = Path("benchmark_results")  # below the working directory: an installed package may be read-only


def find_suites() -> dict[str, ModuleType]:
    """The modules of this package that are a suite."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name != "__main__"]
    modules = {name: importlib.import_module(f"{__package__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "run")}


def main(argv: Sequence[str] | None = None) -> list[dict]:
    """Run a suite and return its rows; `argv` are the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m monai_crossd.benchmarks", description=__doc__)
    suites = parser.add_subparsers(dest="suite", required=True)
    modules = find_suites()
    for name, module in modules.items():
        suite = suites.add_parser(name, help=(module.__doc__ or "").splitlines()[0])
        suite.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the CSV files, {OUTPUT} by default")
        suite.add_argument("--dry-run", action="store_true", help="print only, write no CSV")
        module.add_arguments(suite)
    args = parser.parse_args(argv)
    rows: list[dict] = modules[args.suite].run(args)
    print_table(rows)
    if not args.dry_run:
        path = args.output / hardware_name(getattr(args, "device", "cpu")) / f"{args.suite}.csv"
        append_csv(path, rows)
        print(f"\nappended to {path}")
    return rows


if __name__ == "__main__":
    main()
