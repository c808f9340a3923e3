"""The import of torchvision, which fails beside some builds of torch."""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType

import torch

#: Keeps the operators declared: their declaration ends with the library object.
_declared: list[torch.library.Library] = []


@functools.cache
def import_torchvision() -> ModuleType:
    """torchvision with `torchvision.datasets`, even if its compiled operators do not load.

    torchvision of the default package index is built for CUDA. Beside a torch for the CPU its compiled library fails to
    load, and its import then fails at two operators that it registers shapes for. We declare both operators, which
    nothing here calls.
    """
    try:
        return _import()
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)
    _declared.append(library)
    return _import()


def _import() -> ModuleType:
    importlib.import_module("torchvision.datasets")
    return sys.modules["torchvision"]
