"""Values derived from masks, against hand-computed ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medmtl.tasks.base import Task
from medmtl.tasks.classification import Classification, ClassificationOptions
from medmtl.tasks.regression.derived import (
    Derivation,
    EjectionFractionOf,
    FractionOf,
    VolumeOf,
    derive,
    resolve_structures,
)
from medmtl.tasks.segmentation import Segmentation, SegmentationOptions
from tests.tasks.contract import volume


def segmentation(name: str) -> Segmentation:
    return Segmentation(
        name,
        SegmentationOptions(
            kind="segmentation", column=name, labels={"lv": 1, "myo": 3, "rv": 2}, regions={"heart": ("lv", "myo")}
        ),
    )


TASKS: dict[str, Task] = {
    "ed": segmentation("ed"),
    "es": segmentation("es"),
    "sex": Classification("sex", ClassificationOptions(kind="classification", column="sex", classes=("f", "m"))),
}


def mask(lv: int, rv: int, myo: int, spacing: tuple[float, float, float] = (1, 1, 1)) -> Any:
    array = np.zeros((30, 1, 1), np.uint8)
    array[:lv], array[lv : lv + rv], array[lv + rv : lv + rv + myo] = 1, 2, 3
    return volume(array, spacing)


def value(derivation: Derivation, unit: str | None, **masks: Any) -> float | None:
    return derive(derivation, unit, resolve_structures(derivation.structures(), TASKS), masks)


def test_volume_in_both_units_of_labels_regions_and_whole_tasks() -> None:
    ed = mask(lv=4, rv=3, myo=2, spacing=(2, 5, 10))
    assert value(VolumeOf(of=("ed/lv",)), "mm3", ed=ed) == pytest.approx(400)
    assert value(VolumeOf(of=("ed/lv",)), "ml", ed=ed) == pytest.approx(0.4)
    assert value(VolumeOf(of=("ed/heart",)), "mm3", ed=ed) == pytest.approx(600)
    assert value(VolumeOf(of=("ed",)), "mm3", ed=ed) == pytest.approx(900)


def test_structures_of_one_task_are_united_and_tasks_added() -> None:
    masks = {"ed": mask(4, 3, 2), "es": mask(1, 1, 1)}
    assert value(VolumeOf(of=("ed/lv", "ed/heart")), "mm3", **masks) == pytest.approx(6)
    assert value(VolumeOf(of=("ed/lv", "es/lv")), "mm3", **masks) == pytest.approx(5)


def test_fraction_as_number_and_in_percent() -> None:
    derivation = FractionOf(part=("ed/lv",), whole=("ed",))
    assert value(derivation, None, ed=mask(4, 3, 1)) == pytest.approx(0.5)
    assert value(derivation, "%", ed=mask(4, 3, 1)) == pytest.approx(50)
    assert value(derivation, None, ed=mask(0, 0, 0)) is None


def test_ejection_fraction_compares_two_grids() -> None:
    derivation = EjectionFractionOf(diastole=("ed/lv",), systole=("es/lv",))
    masks = {"ed": mask(10, 0, 0), "es": mask(8, 0, 0, spacing=(1, 0.5, 1))}
    assert value(derivation, "%", **masks) == pytest.approx(60)
    assert value(derivation, None, **masks) == pytest.approx(0.6)
    assert value(derivation, "%", ed=mask(10, 0, 0), es=mask(11, 0, 0)) == pytest.approx(-10)
    assert value(derivation, "%", ed=mask(0, 0, 0), es=mask(1, 0, 0)) is None


def test_resolved_values_do_not_repeat_structures() -> None:
    assert resolve_structures(("ed/lv", "ed", "ed/lv"), TASKS) == {"ed/lv": [1], "ed": [1, 3, 2]}


@pytest.mark.parametrize(
    ("structure", "word"), [("mri/lv", "ed, es"), ("sex", "no task with a mask"), ("ed/atrium", "atrium")]
)
def test_an_unknown_structure_is_refused_by_name(structure: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        resolve_structures((structure,), TASKS)


def test_a_unit_that_the_measure_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="'mm3', 'ml'"):
        VolumeOf(of=("ed",)).factor("cm3")
    with pytest.raises(ValueError, match="none, '%'"):
        FractionOf(part=("ed/lv",), whole=("ed",)).factor("ml")


def test_a_structure_is_text_or_a_list_of_texts() -> None:
    assert VolumeOf.model_validate({"measure": "volume", "of": "ed/lv"}).of == ("ed/lv",)
    for bad in ("ed/lv/base", "Ed", [], ["ed", ""]):
        with pytest.raises(ValueError, match=r"structure|at least 1"):
            VolumeOf.model_validate({"measure": "volume", "of": bad})
