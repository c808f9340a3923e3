"""The catalogue: every system that can be trained, by its id."""

from importlib import import_module

from trainers.gan import System

#: The files of `gans/` in the order of the catalogue; each holds a dictionary SYSTEMS.
FAMILIES = (
    "das",
    "sagan",
    "vaegan",
    "hamed",
    "monir",
    "narman",
    "toh",
    "resnets",
)

#: The catalogue: every system by its id, family by family.
SYSTEMS: dict[str, System] = {
    system_id: system
    for family in FAMILIES
    for system_id, system in import_module(f"trainers.gans.{family}").SYSTEMS.items()
}
