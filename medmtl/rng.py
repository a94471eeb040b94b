"""Random numbers as a pure function of what they are for.

Every draw in training depends on (seed, purpose, step, slot) and on nothing else: not on the worker, not on what was
drawn before. A run that is resumed at step n therefore draws what the uninterrupted run would have drawn.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *parts: int | str) -> int:
    """A 63-bit seed from a base seed and any number of labels or counters."""
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *parts: int | str) -> np.random.Generator:
    """A numpy generator seeded by :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *parts))
