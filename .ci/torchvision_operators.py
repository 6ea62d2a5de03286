# SPDX-License-Identifier: Apache-2.0
"""Lets PyPI's torchvision, built for CUDA, be imported beside a torch that is built for the CPU.

Its import asks for the operators nms and qnms, which nobody calls in MONAI Label: they are declared just before it. Put
this file into site-packages, with a torchvision_operators.pth of the line `import torchvision_operators`.
"""

import sys

libraries = []  # an operator lives as long as its library


class Declare:
    """Finder of no module, that is asked before torchvision is found."""

    def find_spec(self, name, path=None, target=None):
        """Declare the operators before the first import of torchvision."""
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                libraries.append(torch.library.Library("torchvision", "DEF"))
                for operator in ("nms", "qnms"):
                    libraries[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, Declare())
