from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from medmtl.data.prepared import Intensity, Preparation, Prepared
from medmtl.inference.ask import Ask
from medmtl.inference.case_view import PredictedLesion, SecondScan, case_view_activations
from medmtl.inference.predict import reference_centre
from medmtl.model import MultiTaskModel
from medmtl.networks.shape import NetworkShape
from medmtl.planning import CaseView, Plan
from medmtl.tasks.base import Task
from medmtl.tasks.segmentation import Segmentation

OPTIONS = Segmentation.Options.model_validate({"kind": "segmentation", "column": "m", "labels": {"core": 1, "rim": 2}})
TUMOUR = Segmentation("tumour", OPTIONS, {})
SIZE = (24, 20, 16)
PREPARATION = Preparation((1.0, 1.0, 1.0), ("t1",), {"tumour": "m"})


class Passing:
    """A task that passes on what the model says."""

    voxel = False

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        return output


class Model(torch.nn.Module):
    """Keeps what it is shown; answers the mean of the image, of tiles each."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[torch.Tensor] = []

    def forward(self, image_BCDHW: torch.Tensor, names: Any, covariates_BN: Any = None) -> dict[str, torch.Tensor]:
        self.seen.append(image_BCDHW[0])
        return {"grade": image_BCDHW.mean(dim=(2, 3, 4))}

    def pool(self, image_BCDHW: torch.Tensor, names: Any) -> dict[str, torch.Tensor]:
        return {name: output for name, output in self(image_BCDHW, names).items()}

    def answer(self, pooled: dict[str, torch.Tensor], covariates_BN: Any = None) -> dict[str, torch.Tensor]:
        return {name: found_TF.amax(dim=0, keepdim=True) for name, found_TF in pooled.items()}


def plan(kind: Any, **view: Any) -> Plan:
    return Plan(
        preparation=PREPARATION,
        intensities=(Intensity("zscore"),),
        view="patch",
        shape=(8, 8, 8),
        batch=1,
        network=NetworkShape(1, (4, 4), ((3, 3, 3),) * 2, ((1, 1, 1), (4, 4, 4))),
        device="cpu",
        precision="fp32",
        threads=1,
        workers=0,
        steps=1,
        minutes=None,
        memory_bytes=1,
        case_view=CaseView(kind, ("grade",), PREPARATION, (8, 8, 8), 1, **view),
    )


def answer(model: Model, planned: Plan, scan: SecondScan) -> torch.Tensor:
    tasks = {"tumour": cast(Task, TUMOUR), "grade": cast(Task, Passing())}
    return case_view_activations(Ask(cast(MultiTaskModel, model)), tasks, planned, scan, 0.0)["grade"]


def image(seed: int = 0) -> torch.Tensor:
    return torch.randn((1, *SIZE), generator=torch.Generator().manual_seed(seed))


def probabilities(*parts: tuple[tuple[int, int, int], float]) -> torch.Tensor:
    """Of background, core and rim: cubes of 3 voxels around places where the core has a probability."""
    found = torch.zeros((3, *SIZE))
    for place, value in parts:
        found[(1, *(slice(n - 1, n + 2) for n in place))] = value
    found[0] = 1 - found[1]
    return found


def predicted_centre(found: torch.Tensor, planes: int = 7) -> tuple[int, int, int]:
    """Of the tumour, whose probabilities come some planes at a time."""
    lesion = PredictedLesion({"tumour": TUMOUR}, CaseView("lesion", (), PREPARATION, (8, 8, 8), 1, around="tumour"))
    for part in found.split(planes, dim=1):
        lesion.see(part)
    return lesion.centre()


def test_the_window_lies_around_the_largest_predicted_lesion() -> None:
    found = probabilities(((15, 9, 7), 0.9))
    found[1, 2, 2, 2], found[0, 2, 2, 2] = 1.0, 0.0  # one voxel of another, surer part
    assert predicted_centre(found) == (15, 9, 7)
    model, scan = Model(), SecondScan(image(), None, predicted_centre(found))
    answer(model, plan("lesion", around="tumour"), scan)
    assert torch.equal(model.seen[0], image()[:, 11:19, 5:13, 3:11])


def test_where_nothing_is_predicted_the_likeliest_voxel_is_looked_at() -> None:
    found = probabilities(((15, 9, 7), 0.2))
    found[1, 16, 10, 8], found[0, 16, 10, 8] = 0.3, 0.7
    assert predicted_centre(found) == (16, 10, 8)


def test_a_known_lesion_is_looked_at_instead_and_beyond_the_scan_is_the_mean() -> None:
    model = Model()
    scan = SecondScan(image(), None, (1, 9, 7))
    answer(model, plan("lesion", around="tumour"), scan)
    assert torch.equal(model.seen[0][:, 3:], image()[:, :5, 5:13, 3:11])
    assert not model.seen[0][:, :3].any()


def test_tiles_cover_the_case_and_are_joined_by_the_head() -> None:
    model = Model()
    found = answer(model, plan("tiles", tiles=2), SecondScan(image(), None))
    assert len(model.seen) == 3 * 3 * 2
    assert found == pytest.approx(max(float(tile.mean()) for tile in model.seen))
    values = {value for tile in model.seen for value in tile.flatten().tolist()}
    assert set(image().flatten().tolist()) <= values


def test_the_whole_case_is_looked_at_as_the_view_prepares_it(caplog: pytest.LogCaptureFixture) -> None:
    model, coarse = Model(), image(1)[:, :6, :8, :5]
    answer(model, plan("case"), SecondScan(image(), coarse))
    assert model.seen[0].shape == (1, 8, 8, 8)
    assert torch.equal(model.seen[0][:, 1:7, :, 1:6], coarse)
    assert not caplog.messages
    answer(model, plan("case"), SecondScan(image(), image(1)))
    assert model.seen[1].shape == (1, 8, 8, 8)
    (message,) = caplog.messages
    assert "larger than any training case" in message
    assert "leaves out" in message


def test_where_no_voxel_is_likelier_than_another_the_first_one_is_looked_at() -> None:
    empty = torch.zeros((3, *SIZE))
    empty[0] = 1.0
    assert predicted_centre(empty) == (0, 0, 0)


def test_a_references_lesion_is_no_part_that_nobody_labelled() -> None:
    label = np.zeros(SIZE, np.uint8)
    label[10:20, 8:18], label[3:6, 4:7, 5:8] = 255, 1
    prepared, unlabelled = (cast(Prepared, SimpleNamespace(labels=held)) for held in ({"tumour": label}, {}))
    planned = plan("lesion", around="tumour")
    planned = replace(planned, preparation=replace(PREPARATION, ignored={"tumour": 255}))
    assert reference_centre(prepared, planned) == (4, 5, 6)
    assert reference_centre(unlabelled, planned) is None
    assert reference_centre(prepared, plan("tiles", tiles=2)) is None
