"""The catalogue: every system that can be trained, by its id."""

from importlib import import_module

from trainers.gan import System
from trainers.names import FAMILIES

#: Every system by its id, family by family. Each file of `gans/` holds a dictionary SYSTEMS.
SYSTEMS: dict[str, System] = {
    system_id: import_module(f"trainers.gans.{family}").SYSTEMS[system_id]
    for family, ids in FAMILIES.items()
    for system_id in ids
}
