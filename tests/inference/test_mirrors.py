from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from medmtl import api
from medmtl.data.case import Case
from medmtl.errors import ConfigError, InputError
from medmtl.inference.ask import Ask, forward
from medmtl.inference.mirrors import mirrors_of, over_mirrors
from medmtl.inference.predict import Predictor
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import Task
from medmtl.tasks.detection import Detection, DetectionOptions
from tests.conftest import TINY

SIZE = (4, 6, 8)
ALL = mirrors_of((0, 1, 2))


class Stub:
    """As much of a task as is asked for here."""

    def __init__(self, *, voxel: bool, sensitive_to: tuple[str, ...] = ()) -> None:
        self.voxel = voxel
        self.sensitive_to = sensitive_to


def tasks(**stubs: Any) -> dict[str, Task]:
    return cast("dict[str, Task]", stubs)


def image() -> torch.Tensor:
    return torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(0))


def test_all_combinations_of_the_axes() -> None:
    assert mirrors_of(()) == ()
    assert mirrors_of((1,)) == ((1,),)
    assert mirrors_of((2, 0)) == ((0,), (2,), (0, 2))
    assert len(set(ALL)) == 7


def test_what_follows_the_scan_stays_and_what_follows_the_place_is_averaged() -> None:
    ramp = torch.arange(float(SIZE[0])).view(1, 1, -1, 1, 1).expand(1, 1, *SIZE)

    def look(image_BCDHW: torch.Tensor, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
        return {name: {"same": image_BCDHW, "place": ramp}[name] for name in names}

    both = tasks(same=Stub(voxel=True), place=Stub(voxel=True))
    found = over_mirrors(look, both, image(), ("same", "place"), ALL)
    torch.testing.assert_close(found["same"], image())
    torch.testing.assert_close(found["place"], torch.full((1, 1, *SIZE), 1.5))


@pytest.mark.parametrize("most", [2, 4, 6, 100])
def test_mirror_images_that_pass_together_answer_as_alone(most: int) -> None:
    sizes: list[int] = []

    def look(image_BCDHW: torch.Tensor, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
        sizes.append(len(image_BCDHW))
        ramp = torch.arange(float(SIZE[0])).view(1, 1, -1, 1, 1)
        return {"voxels": image_BCDHW * ramp, "grade": image_BCDHW[:, 0, 0, 0]}

    both, two = tasks(voxels=Stub(voxel=True), grade=Stub(voxel=False)), torch.cat([image(), image() + 1])
    expected = over_mirrors(look, both, two, ("voxels", "grade"), ALL)
    assert set(sizes) == {2}
    sizes.clear()
    found = over_mirrors(look, both, two, ("voxels", "grade"), ALL, most)
    assert sum(sizes) == 2 * 8 and max(sizes) <= max(most, 2)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_an_answer_per_case_is_averaged_and_one_that_a_mirror_changes_is_of_the_scan() -> None:
    asked: list[tuple[str, ...]] = []

    def look(image_BCDHW: torch.Tensor, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
        asked.append(names)
        return dict.fromkeys(names, image_BCDHW[:, 0, 0, 0, :1])

    both = tasks(grade=Stub(voxel=False), side=Stub(voxel=False, sensitive_to=("flip",)))
    found = over_mirrors(look, both, image(), ("grade", "side"), ((0,),))
    corner = image()[:, 0, :, 0, :1]
    torch.testing.assert_close(found["grade"], (corner[:, 0] + corner[:, -1]) / 2)
    torch.testing.assert_close(found["side"], corner[:, 0])
    assert asked == [("grade", "side"), ("grade",)]


def test_boxes_are_turned_back_and_fused() -> None:
    task = Detection("boxes", DetectionOptions(kind="detection", column="lesion"))
    lesion = torch.tensor([1.0, 1, 1, 3, 4, 5, 0.8])

    def look(image_BCDHW: torch.Tensor, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
        found = lesion.clone()
        for axis in range(3):
            if image_BCDHW[0, axis].flatten()[0] > 0:  # each channel says whether its axis is turned
                found[axis], found[axis + 3] = SIZE[axis] - lesion[axis + 3], SIZE[axis] - lesion[axis]
        return {"boxes": torch.stack([found, torch.zeros(7)])[None]}

    ramps = torch.stack([torch.linspace(-1, 1, n).view([-1 if k == axis else 1 for k in range(3)]).expand(SIZE)
                         for axis, n in enumerate(SIZE)])  # fmt: skip
    found = over_mirrors(look, {"boxes": task}, ramps[None], ("boxes",), ALL)["boxes"]
    torch.testing.assert_close(found, lesion[None, None])


@pytest.mark.parametrize("mirror", [ALL[0], ALL[-1]], ids=str)
def test_a_model_answers_alike_on_a_scan_and_on_its_mirror_image(trained_run: Path, mirror: tuple[int, ...]) -> None:
    predictor = Predictor([RunFolder.open(trained_run)], "cpu", tta=True)
    (member,) = predictor._members
    scan = torch.randn(1, 1, *member.plan.shape, generator=torch.Generator().manual_seed(0))
    dims = [2 + axis for axis in mirror]

    def ask(image_BCDHW: torch.Tensor, mirrors: Any) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            return forward(
                Ask(member.model, None, mirrors), member.tasks, member.plan, image_BCDHW, tuple(member.tasks)
            )

    assert predictor._mirrors == ALL
    found, turned = ask(scan, ALL), ask(scan.flip(dims), ALL)
    torch.testing.assert_close(turned["lesion"].flip(dims), found["lesion"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(turned["malignancy"], found["malignancy"], rtol=1e-3, atol=1e-3)
    plain = ask(scan, ())
    assert not torch.allclose(plain["lesion"], found["lesion"], atol=1e-3)


def test_the_command_and_the_key_ask_for_the_same(trained_run: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    path = tiny_cohort.parent / "images" / "case_001.nii.gz"
    case = Case("c1", "c1", None, 0, {"image": path})
    keyed = api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides={**TINY, "inference.tta": "flips"})
    answers = [
        Predictor([RunFolder.open(run)], "cpu", tta=tta).predict(case).activations["malignancy"]
        for run, tta in ((trained_run, True), (keyed, False), (trained_run, False))
    ]
    np.testing.assert_array_equal(answers[0], answers[1])
    assert answers[0] != answers[2]


def test_mirror_images_that_are_no_patients_are_refused(trained_run: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    none = {**TINY, "augmentation.flips": "none"}
    with pytest.raises(ConfigError, match=r"inference\.tta.*augmentation\.flips, which declares none"):
        api.plan(tiny_cohort, overrides={**none, "inference.tta": "flips"})
    run = api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=none)
    with pytest.raises(InputError, match=r"augmentation\.flips of this run declares no axis"):
        api.predict(run, [tiny_cohort.parent / "images" / "case_001.nii.gz"], tmp_path / "out", device="cpu", tta=True)
