"""torchvision can be imported beside any torch."""

from __future__ import annotations

import subprocess
import sys

from trainers.data.vision import import_torchvision


def test_torchvision_can_be_imported_with_its_data_sets() -> None:
    torchvision = import_torchvision()
    assert torchvision.datasets.MNIST is not None
    assert import_torchvision() is torchvision


def test_it_recovers_from_a_plain_import_that_failed() -> None:
    code = (
        "import contextlib\n"
        "with contextlib.suppress(RuntimeError):\n"
        "    import torchvision\n"
        "from trainers.data.vision import import_torchvision\n"
        "import_torchvision().datasets.CIFAR10\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
