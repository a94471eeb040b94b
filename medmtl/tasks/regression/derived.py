"""A value as a function of masks: volume, fraction or ejection fraction of named structures.

A structure is written ``TASK/LABEL`` (a label or region of a voxel task) or ``TASK`` (its whole foreground). Several
structures of one task are united; volumes of different tasks are added.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from medmtl.data.volume import Volume
from medmtl.tasks.base import Names, Task
from medmtl.tasks.voxel import LabelTask
from medmtl.validation import NAME

STRUCTURE = re.compile(rf"{NAME.pattern}(/{NAME.pattern})?")


Structures = Annotated[Names, Field(min_length=1)]


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
    def compute(self, mm3: Callable[[Sequence[str]], float]) -> float | None:
        """The value in the measure's own unit, or None where it is undefined.

        Args:
            mm3: volume of structures.
        """


class VolumeOf(Derivation):
    """The volume of structures, in mm3 or ml: ``{measure: volume, of: heart/lv}``."""

    factors = {"mm3": 1.0, "ml": 1e-3}
    measure: Literal["volume"] = "volume"
    of: Structures

    def structures(self) -> tuple[str, ...]:
        """Every structure it reads."""
        return self.of

    def compute(self, mm3: Callable[[Sequence[str]], float]) -> float | None:
        """The volume in mm3."""
        return mm3(self.of)


class FractionOf(Derivation):
    """The share of one volume in another, plain or in percent: ``{measure: fraction, part: hc/head, whole: hc}``."""

    factors = {None: 1.0, "%": 100.0}
    measure: Literal["fraction"] = "fraction"
    part: Structures
    whole: Structures

    def structures(self) -> tuple[str, ...]:
        """Every structure it reads."""
        return (*self.part, *self.whole)

    def compute(self, mm3: Callable[[Sequence[str]], float]) -> float | None:
        """The share as a number; None where the whole is empty."""
        part, whole = mm3(self.part), mm3(self.whole)
        return part / whole if whole else None


class EjectionFractionOf(Derivation):
    """The share of the diastolic volume that is ejected, in percent or plain.

    ``{measure: ejection_fraction, diastole: ed/lv, systole: es/lv}`` is (EDV - ESV) / EDV.
    """

    factors = {"%": 1.0, None: 0.01}
    measure: Literal["ejection_fraction"] = "ejection_fraction"
    diastole: Structures
    systole: Structures

    def structures(self) -> tuple[str, ...]:
        """Every structure it reads."""
        return (*self.diastole, *self.systole)

    def compute(self, mm3: Callable[[Sequence[str]], float]) -> float | None:
        """The ejection fraction in percent; None where the diastolic volume is 0."""
        diastole, systole = mm3(self.diastole), mm3(self.systole)
        return 100 * (diastole - systole) / diastole if diastole else None


AnyDerivation = Annotated[VolumeOf | FractionOf | EjectionFractionOf, Field(discriminator="measure")]


def resolve_structures(structures: Sequence[str], tasks: Mapping[str, Task]) -> dict[str, list[int]]:
    """Label values of each structure.

    Args:
        structures: as written in the options.
        tasks: all tasks of the configuration.

    Raises:
        ValueError: if a structure's task or label does not exist.
    """
    return {structure: list(_label_values(structure, tasks)) for structure in dict.fromkeys(structures)}


def _label_values(structure: str, tasks: Mapping[str, Task]) -> tuple[int, ...]:
    name, _, label = structure.partition("/")
    task = tasks.get(name)
    if not isinstance(task, LabelTask):
        masks = [other for other, kind in tasks.items() if isinstance(kind, LabelTask)]
        raise ValueError(f"{name!r} is no task with a mask; those of this file: {', '.join(masks) or 'none'}")
    return task.values_of(label or None)


def derive(
    derivation: Derivation, unit: str | None, labels: Mapping[str, Sequence[int]], masks: Mapping[str, Volume]
) -> float | None:
    """The value of a case in ``unit``, or None where it is undefined.

    Args:
        derivation: what to compute.
        unit: one of the derivation's units.
        labels: of :func:`resolve_structures`.
        masks: task -> mask.
    """
    return derived_value(derivation, unit, labels, lambda task, values: _volume_mm3(masks[task], values))


def derived_value(
    derivation: Derivation,
    unit: str | None,
    labels: Mapping[str, Sequence[int]],
    volume_mm3: Callable[[str, Collection[int]], float],
) -> float | None:
    """As :func:`derive`, where ``volume_mm3`` says the volume of some label values of a task together."""

    def mm3(structures: Sequence[str]) -> float:
        values: dict[str, set[int]] = {}
        for structure in structures:
            values.setdefault(structure.partition("/")[0], set()).update(labels[structure])
        return sum((volume_mm3(task, held) for task, held in values.items()), 0.0)

    value = derivation.compute(mm3)
    return None if value is None else value * derivation.factor(unit)


def _volume_mm3(mask: Volume, labels: Collection[int]) -> float:
    return float(np.count_nonzero(np.isin(mask.array, list(labels))) * math.prod(mask.grid.spacing))
