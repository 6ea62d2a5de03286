# SPDX-License-Identifier: Apache-2.0
"""The command `python -m monai_crossd.evaluate_transfer STUDY.yaml`, see `monai_crossd.study`."""

from .study.command import main

if __name__ == "__main__":
    main()
