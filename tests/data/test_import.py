# SPDX-License-Identifier: Apache-2.0
"""Importing the package changes nothing of other people's readers and writers, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import locale, logging, warnings
import monai.data, nibabel, SimpleITK, torch
from PIL import Image
from monai.data import image_writer
from monai.transforms import LoadImage
from monai.transforms.io.array import SUPPORTED_READERS

image_writer.init()
Image.init()

def state():
    return {{
        "MONAI's readers, in order": list(SUPPORTED_READERS.items()),
        "those of LoadImage": [type(reader) for reader in LoadImage().readers],
        "MONAI's writers": dict(image_writer.SUPPORTED_WRITERS),
        "monai.data": {{name: id(value) for name, value in vars(monai.data).items() if name[0] != "_"}},
        "SimpleITK": [
            SimpleITK.ImageFileReader().GetRegisteredImageIOs(),
            *(getattr(SimpleITK.ProcessObject, name)() for name in dir(SimpleITK.ProcessObject)
              if name.startswith("GetGlobal")),
        ],
        "Pillow": (list(Image.ID), dict(Image.OPEN), dict(Image.EXTENSION), Image.MAX_IMAGE_PIXELS),
        "nibabel": list(nibabel.imageclasses.all_image_classes),
        "torch": (torch.serialization.get_safe_globals(), torch.get_default_dtype(), torch.initial_seed()),
        "process": (locale.setlocale(locale.LC_ALL), list(logging.root.handlers), logging.root.level),
        "warnings": list(warnings.filters),
    }}

for change in {changes!r}:
    before = state()
    exec(change)
    after = state()
    assert len(before["SimpleITK"]) > 5
    print([name for name in before if before[name] != after[name]])
"""
IMPORT = """
import monai_crossd
from monai_crossd import data, demo, training, visualize
data.SimpleITKReader(), data.NpzReader(), data.SimpleITKWriter()
"""


# what is done, and what of that is seen
CHANGES = [
    (IMPORT, "[]"),
    (
        'SUPPORTED_READERS["pilreader"] = SUPPORTED_READERS.pop("pilreader")',
        """["MONAI's readers, in order", 'those of LoadImage']""",
    ),
    ("monai.data.MyWriter = object; SimpleITK.ProcessObject.GlobalWarningDisplayOff()", "['monai.data', 'SimpleITK']"),
]


@pytest.mark.slow
def test_importing_changes_no_readers_or_writers_and_a_change_would_be_seen():
    program = PROGRAM.format(changes=[change for change, _ in CHANGES])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == [found for _, found in CHANGES]
