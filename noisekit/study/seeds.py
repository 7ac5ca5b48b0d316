"""One seed for each stage of a study, so that no two stages share random numbers."""

from __future__ import annotations

import zlib

import numpy as np


def stage_seed(seed: int, *stage: str) -> int:
    """Return the seed of a stage, such as ("optimizer", "adam"), of the study with ``seed``.

    >>> stage_seed(0, "sde", "sgd") != stage_seed(0, "optimizer", "sgd")
    True
    """
    words = [zlib.crc32(word.encode()) for word in stage]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])
