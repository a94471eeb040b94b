"""What torchrun says of this process, in its environment; without torch, so that the command line can ask at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from medmtl.errors import InputError

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Launch:
    """One process among those that were started together.

    Attributes:
        rank, size: number of this process, from 0, and how many there are.
        local, local_size: the same among those of this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1


def launch(environment: Mapping[str, str] | None = None) -> Launch:
    """This process's place; that of a single one where torchrun did not start it.

    Args:
        environment: by default that of the process.

    Raises:
        InputError: if the variables contradict each other.
    """
    values = os.environ if environment is None else environment
    if values.get("WORLD_SIZE", "1") == "1":
        return Launch()
    given = {name: values[name] for name in _NAMES if name in values}
    numbers = {name: int(text) for name, text in given.items() if text.isascii() and text.isdecimal()}
    size, rank = numbers.get("WORLD_SIZE", 0), numbers.get("RANK", -1)
    local_size, local = numbers.get("LOCAL_WORLD_SIZE", size), numbers.get("LOCAL_RANK", -1)
    if numbers.keys() != given.keys() or not (0 <= rank < size and 0 <= local < local_size <= size):
        raise InputError(
            f"the environment does not say which of several processes this is: {given}; start them by torchrun, or "
            "unset WORLD_SIZE"
        )
    return Launch(rank, size, local, local_size)


def is_first() -> bool:
    """Whether this process is the one that speaks and writes for all."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") in (None, "0")
