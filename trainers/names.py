"""Names that a command line shows in its help, in tables that need no torch and no pydantic.

The metrics are in `evaluation/scores.py`.
"""

from __future__ import annotations

from typing import Literal, get_args

#: The files of `gans/`, each with the ids of its systems; both in the order of the catalogue.
FAMILIES = {
    "das": ("das-gan", "das-dcgan", "das-cgan", "das-acgan", "das-infogan"),
    "sagan": ("das-sagan",),
    "vaegan": ("das-vaegan",),
    "hamed": ("hamed-dcgan", "hamed-csawgan"),
    "monir": ("monir-dcgan", "monir-dcgan-collapse", "monir-dcgan-epoch", "monir-sagan"),
    "narman": (
        "narman-dcgan",
        "narman-dcgan-64",
        "narman-dcgan-collapse",
        "narman-dcgan-overconfident",
        "narman-cgan",
        "narman-cgan-osls",
        "narman-cgan-osls-extra",
        "narman-cgan-x2-osls",
        "narman-cgan-osls-k4",
        "narman-cgan-x2-osls-dropout",
        "narman-cgan-x05",
        "narman-cgan-x05-15ep",
        "narman-cgan-no9",
    ),
    "toh": (
        "toh-dcgan-1",
        "toh-dcgan-2",
        "toh-dcgan-3",
        "toh-dcgan-4",
        "toh-dcgan-5",
        "toh-cgan-1",
        "toh-cgan-2",
        "toh-cgan-3",
        "toh-wgan-1",
        "toh-wgan-2",
        "toh-sadcgan-1",
        "toh-sadcgan-2",
        "toh-improved-dcgan-3",
        "toh-improved-cgan-1",
    ),
    "resnets": ("sngan-32", "wgan-gp-32"),
}
#: Ids of all systems.
SYSTEMS = tuple(name for names in FAMILIES.values() for name in names)

#: The data sets of `data/catalogue.py`.
DATASETS = ("mnist-mini", "mnist", "cifar10", "folder", "shapes32")

ExtractorName = Literal["lenet", "cnn", "inception", "inception-pt", "custom"]
EXTRACTORS: tuple[ExtractorName, ...] = get_args(ExtractorName)
#: Extractors that need nothing but their name.
NETWORKS = tuple(name for name in EXTRACTORS if name != "custom")
