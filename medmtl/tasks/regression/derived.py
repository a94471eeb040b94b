"""A value as a function of masks: volume, fraction or ejection fraction of named structures.

A structure is written ``TASK/LABEL`` (a label or region of a voxel task) or ``TASK`` (its whole foreground). Several structures
of one task are united; volumes of different tasks are added.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from medmtl.data.volume import Volume
from medmtl.metrics import measures
from medmtl.registry import nearest
from medmtl.tasks.base import Task, VoxelTask

STRUCTURE = re.compile(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)?")


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Structures = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]


class Derivation(BaseModel, ABC):
    """How a value follows from masks. ``factors`` are its units, each with the factor from the measure's own unit."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    factors: ClassVar[Mapping[str | None, float]]

    @field_validator("*")
    @classmethod
    def _structures_are_named(cls, value: Any) -> Any:
        for name in value if isinstance(value, tuple) else ():
            if not STRUCTURE.fullmatch(name):
                raise ValueError(f"{name!r} names no structure; write TASK/LABEL, or TASK for its whole foreground")
        return value

    def factor(self, unit: str | None) -> float:
        """From the measure's own unit to ``unit``.

        Raises:
            ValueError: if the measure is not given in that unit.
        """
        if unit not in self.factors:
            known = ", ".join(repr(known) if known else "none" for known in self.factors)
            raise ValueError(f"a target that is derived as this measure has the unit {known}, not {unit!r}")
        return self.factors[unit]

    @abstractmethod
    def structures(self) -> tuple[str, ...]:
        """Every structure it reads."""

    @abstractmethod
    def measure(self, mm3: Callable[[Sequence[str]], float]) -> float | None:
        """The value in the measure's own unit, or None where it is undefined; ``mm3`` gives the volume of structures."""


class VolumeOf(Derivation):
    """The volume of structures: ``{measure: volume, of: heart/lv}``, in mm3 or ml."""

    factors = {"mm3": 1.0, "ml": 1e-3}
    measure_: Literal["volume"] = Field("volume", alias="measure")
    of: Structures

    def structures(self) -> tuple[str, ...]:
        """Every structure it reads."""
        return self.of

    def measure(self, mm3: Callable[[Sequence[str]], float]) -> float | None:
        """In mm3."""
        return mm3(self.of)
