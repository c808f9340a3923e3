"""What is trained: GANs, the loop that trains them, their data and their scores."""

from trainers.gan import System
from trainers.gans import hamed, monir, narman, resnets, toh

#: The catalogue: every system by its id, family by family.
SYSTEMS: dict[str, System] = {
    **hamed.SYSTEMS,
    **monir.SYSTEMS,
    **narman.SYSTEMS,
    **toh.SYSTEMS,
    **resnets.SYSTEMS,
}
