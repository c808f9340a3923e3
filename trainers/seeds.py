"""Seeds for independent streams of random numbers."""

from __future__ import annotations

import numpy as np
from numpy.random import SeedSequence


def seed_of(*entropy: int) -> int:
    """A seed in [0, 2**63) for one purpose: different `entropy` gives independent streams."""
    # SeedSequence pads with zeros: without the length, (1,) and (1, 0) would be one.
    return int(SeedSequence((len(entropy), *entropy)).generate_state(1, np.uint64)[0] >> 1)
