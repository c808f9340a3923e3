"""What is trained: GANs, the loop that trains them, their data and their scores."""

from trainers.gan import System
from trainers.gans import monir, narman

#: The catalogue: every system by its id.
SYSTEMS: dict[str, System] = {
    "monir-dcgan": monir.DCGAN,
    "narman-cgan": narman.CGAN,
    "narman-dcgan": narman.DCGAN,
}
