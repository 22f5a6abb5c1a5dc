"""Random numbers by counter: the same wherever and in whatever order they are drawn."""

import numpy as np


def counter_random(seed: int, stream: int, number: int, count: int) -> np.ndarray:
    """``count`` numbers in (0, 1) that depend on the three others alone (Philox, a counter-based generator)."""
    generator = np.random.Generator(np.random.Philox(key=[seed, (stream << 56) + number]))
    return generator.random(count).clip(1e-6, 1 - 1e-6)
