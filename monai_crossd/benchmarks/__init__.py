# SPDX-License-Identifier: Apache-2.0
"""How long things take, beside the limit they could reach: `python -m monai_crossd.benchmarks layers`.

Each suite is a module with `add_arguments(parser)` and `run(args)`, which gives a list of rows (dictionaries).
"""
