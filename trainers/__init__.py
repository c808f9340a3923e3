"""What is trained: GANs, the loop that trains them, their data and their scores."""

from trainers.gan import System
from trainers.gans import das, hamed, monir, narman, resnets, sagan, toh, vaegan

#: The catalogue: every system by its id, family by family.
SYSTEMS: dict[str, System] = {
    **das.SYSTEMS,
    **sagan.SYSTEMS,
    **vaegan.SYSTEMS,
    **hamed.SYSTEMS,
    **monir.SYSTEMS,
    **narman.SYSTEMS,
    **toh.SYSTEMS,
    **resnets.SYSTEMS,
}
