from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import nn

from medmtl.data.prepared import Intensity, Preparation
from medmtl.inference import forward as forward_module
from medmtl.inference.ask import at_once
from medmtl.inference.forward import stream
from medmtl.inference.planes import Found, Stream
from medmtl.model import MultiTaskModel
from medmtl.networks.shape import NetworkShape
from medmtl.planning import Plan
from medmtl.tasks.base import CaseTask, Task
from medmtl.tasks.detection import Detection, DetectionOptions

WINDOW = (8, 8, 8)
PLAN = Plan(
    preparation=Preparation((1.0, 1.0, 1.0), ("t1",), {"voxels": "mask"}),
    intensities=(Intensity("zscore"),),
    view="case",
    shape=WINDOW,
    batch=1,
    network=NetworkShape(1, (4, 4), ((3, 3, 3),) * 2, ((1, 1, 1), WINDOW)),
    device="cpu",
    precision="fp32",
    threads=1,
    workers=0,
    steps=1,
    minutes=None,
    memory_bytes=1,
)

Answer = Callable[[torch.Tensor], torch.Tensor]


def activations(
    model: MultiTaskModel,
    tasks: Mapping[str, Task],
    plan: Plan,
    image_CDHW: torch.Tensor,
    **options: Any,
) -> dict[str, torch.Tensor]:
    """:func:`stream` as one answer per task, of voxel tasks (K, D, H, W): for cases that are small."""
    planes: dict[str, list[torch.Tensor]] = {}
    found: Found = {}

    def whole() -> Stream:
        nonlocal found
        found = yield from stream(model, tasks, plan, image_CDHW, **options)
        return found

    for part in whole():
        for name, value in part.values.items():
            planes.setdefault(name, []).append(value.clone())
    found |= {name: torch.cat(parts, dim=1) for name, parts in planes.items()}
    return {name: found[name] for name in tasks}


class Whole:
    """A task that passes on what the model says."""

    def __init__(self, *, voxel: bool) -> None:
        self.voxel = voxel

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        return output

    over_windows = CaseTask.over_windows


class Model(nn.Module):
    """Answers each task by a function of the window, and keeps the windows it saw."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.answers = answers
        self.window = WINDOW
        self.seen: dict[str, list[torch.Tensor]] = {name: [] for name in answers}

    def forward(
        self, image_BCDHW: torch.Tensor, names: Sequence[str], covariates_BN: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        assert image_BCDHW.shape[2:] == self.window
        for name in names:
            self.seen[name].append(image_BCDHW[0].clone())
        return {name: self.answers[name](image_BCDHW) for name in names}


def answer(
    model: Model,
    image_CDHW: torch.Tensor,
    *,
    overlap: float = 0.5,
    view: Literal["case", "patch"] = "case",
    precision: Literal["fp32", "bf16"] = "fp32",
) -> dict[str, torch.Tensor]:
    tasks = {name: cast(Task, Whole(voxel=name == "voxels")) for name in model.answers}
    plan = replace(PLAN, view=view, precision=precision)
    return activations(cast(MultiTaskModel, model), tasks, plan, image_CDHW, overlap=overlap)


def ramp(shape: Sequence[int]) -> torch.Tensor:
    """A linear function of the position, other in every direction."""
    x, y, z = np.indices(shape)
    return torch.from_numpy((2 * x - 3 * y + 0.5 * z + 4).astype(np.float32))[None]


def random_image(*shape: int) -> torch.Tensor:
    return torch.randn((1, *shape), generator=torch.Generator().manual_seed(1))


def mean(window_BCDHW: torch.Tensor) -> torch.Tensor:
    return window_BCDHW.mean(dim=(2, 3, 4))


@pytest.mark.covers("B088")
def test_a_small_case_is_padded_around_and_given_back_as_it_was() -> None:
    model = Model({"voxels": lambda window: window, "size": mean})
    image = random_image(5, 8, 3)
    found = answer(model, image)
    torch.testing.assert_close(found["voxels"], image, rtol=0, atol=0)
    (window,) = model.seen["voxels"]
    torch.testing.assert_close(window[:, 1:6, :, 2:5], image, rtol=0, atol=0)
    assert window.count_nonzero() == image.count_nonzero()
    torch.testing.assert_close(found["size"], image.sum().reshape(1) / 512)


def test_a_small_case_is_padded_no_further_than_the_network_needs() -> None:
    model = Model({"voxels": lambda window: window})
    model.window = (6, 8, 4)
    network = NetworkShape(1, (4, 4), ((3, 3, 3),) * 2, ((1, 1, 1), (2, 4, 2)))
    image = random_image(5, 4, 3)
    tasks = {"voxels": cast(Task, Whole(voxel=True))}
    found = activations(cast(MultiTaskModel, model), tasks, replace(PLAN, network=network), image, overlap=0.5)
    torch.testing.assert_close(found["voxels"], image, rtol=0, atol=0)


def test_a_case_of_the_windows_size_is_one_window() -> None:
    model = Model({"voxels": lambda window: window})
    image = random_image(*WINDOW)
    torch.testing.assert_close(answer(model, image)["voxels"], image, rtol=0, atol=0)
    assert len(model.seen["voxels"]) == 1


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(20, 17, 9), (30, 8, 8), (13, 5, 11)])
def test_windows_rebuild_a_constant_and_a_linear_function(shape: tuple[int, int, int], overlap: float) -> None:
    image = ramp(shape)
    found = answer(
        Model({"voxels": lambda window: torch.cat([window, torch.full_like(window, 0.7)], dim=1)}),
        image,
        overlap=overlap,
    )["voxels"]
    assert found.shape == (2, *shape)
    torch.testing.assert_close(found[:1], image, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], torch.full(shape, 0.7), rtol=1e-5, atol=0)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("shape", [(20, 17, 9), (13, 5, 11), (6, 30, 8)])
def test_windows_are_blended_as_by_monai(shape: tuple[int, int, int], overlap: float) -> None:
    def depends_on_the_place_in_the_window(window: torch.Tensor) -> torch.Tensor:
        return window * torch.linspace(-1, 2, 8) + torch.linspace(0, 1, 8)[:, None, None]

    image = random_image(*shape)
    found = answer(Model({"voxels": depends_on_the_place_in_the_window}), image, overlap=overlap)["voxels"]
    expected = sliding_window_inference(
        image[None], WINDOW, 1, depends_on_the_place_in_the_window, overlap=overlap, mode="gaussian", sigma_scale=0.125
    )
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(found, expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 50])
def test_windows_that_pass_together_answer_as_alone(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_image(20, 17, 9)
    answers: dict[str, Answer] = {"voxels": lambda window: window * torch.linspace(-1, 2, 8), "size": mean}
    alone = answer(Model(answers), image, view="patch")
    sizes = []

    def counted(window: torch.Tensor) -> torch.Tensor:
        sizes.append(len(window))
        return mean(window)

    monkeypatch.setattr(forward_module, "at_once", lambda plan, shape, device: count)
    together = answer(Model({**answers, "size": counted}), image, view="patch")
    assert max(sizes) > 1
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-6, atol=1e-6)


def test_on_a_gpu_a_pass_has_no_more_voxels_than_a_training_step_and_on_a_cpu_one_image() -> None:
    plan = replace(PLAN, batch=3)
    assert at_once(plan, WINDOW, torch.device("cpu")) == 1
    assert at_once(plan, WINDOW, torch.device("cuda")) == 3
    assert at_once(plan, (4, 8, 8), torch.device("cuda")) == 6
    assert at_once(plan, (80, 8, 8), torch.device("cuda")) == 1


def test_planes_come_before_the_last_window_is_looked_at() -> None:
    """So that the probabilities of a long scan are never all in memory."""
    model = Model({"voxels": lambda window: window})
    tasks = {"voxels": cast(Task, Whole(voxel=True))}
    planes = stream(cast(MultiTaskModel, model), tasks, PLAN, random_image(40, 8, 8), overlap=0.5)
    seen = []
    for part in planes:
        assert part.count <= WINDOW[0]
        seen.append(len(model.seen["voxels"]))
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_case_task_sees_the_centre_of_a_larger_case_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = Model({"size": mean, "voxels": lambda window: window})
    image = random_image(20, 6, 11)
    with caplog.at_level(logging.WARNING):
        found = answer(model, image)
    assert list(found) == ["size", "voxels"]
    (window,) = model.seen["size"]
    torch.testing.assert_close(window[:, :, 1:7], image[:, 6:14, :, 1:9], rtol=0, atol=0)
    torch.testing.assert_close(found["size"], mean(window[None])[0])
    (message,) = caplog.messages
    assert "around its foreground is used for size" in message
    assert len(model.seen["voxels"]) > 1


def test_a_case_that_fits_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    answer(Model({"size": mean}), random_image(8, 6, 2))
    assert caplog.messages == []


def test_evidence_anywhere_is_averaged_over_the_windows(caplog: pytest.LogCaptureFixture) -> None:
    def squared(window: torch.Tensor) -> torch.Tensor:
        return torch.stack([mean(window)[:, 0] ** 2, mean(window)[:, 0]], dim=1)

    model = Model({"texture": squared, "voxels": lambda window: window})
    image = random_image(16, 8, 12)
    found = answer(model, image, view="patch")
    windows = [image[:, x : x + 8, :, z : z + 8] for x in (0, 4, 8) for z in (0, 4)]
    expected = torch.stack([squared(window[None])[0] for window in windows]).mean(0)
    torch.testing.assert_close(found["texture"], expected)
    torch.testing.assert_close(found["voxels"], image, rtol=1e-5, atol=1e-5)
    assert caplog.messages == []


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 8, 8)])
def test_half_precision_inside_is_full_precision_outside(shape: tuple[int, int, int]) -> None:
    kernel = torch.randn((2, 1, 3, 3, 3), generator=torch.Generator().manual_seed(2))
    inside = []

    def convolve(window: torch.Tensor) -> torch.Tensor:
        output = nn.functional.conv3d(window, kernel, padding=1)
        inside.append(output.dtype)
        return output

    image = random_image(*shape)
    half = answer(Model({"voxels": convolve}), image, precision="bf16")["voxels"]
    full = answer(Model({"voxels": convolve}), image)["voxels"]
    assert half.dtype == full.dtype == torch.float32
    assert set(inside) == {torch.bfloat16, torch.float32}
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("size", [(8, 8, 8), (5, 6, 7), (12, 8, 8)])
def test_indicators_are_one_in_what_was_padded_too(size: tuple[int, int, int]) -> None:
    plan = replace(PLAN, preparation=replace(PLAN.preparation, channels=("t1", "t2"), optional=("t1", "t2")))
    model = Model({"voxels": lambda image: image[:, :1]})
    activations(
        cast(MultiTaskModel, model),
        cast("Mapping[str, Task]", {"voxels": Whole(voxel=True)}),
        plan,
        torch.randn(2, *size),
        overlap=0.5,
        held=(True, False),
    )
    assert len(model.seen["voxels"]) == (1 if max(size) <= 8 else 2)
    for window in model.seen["voxels"]:
        assert window.shape == (4, *WINDOW)
        assert not window[1].any()
        assert window[2].eq(1).all() and window[3].eq(0).all()


class Boxes(Detection):
    """Passes on the boxes that the model says."""

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        return output


def test_boxes_of_a_scan_are_those_of_its_windows_each_once() -> None:
    image = torch.zeros(1, 20, 8, 6)
    lesions = torch.tensor([[1.0, 1, 1, 4, 4, 4], [6, 2, 1, 9, 6, 5], [17, 4, 3, 20, 8, 6]])
    for number, box in enumerate(lesions.int().tolist(), start=1):
        image[0, box[0] : box[3], box[1] : box[4], box[2] : box[5]] = number

    def seen(window: torch.Tensor) -> torch.Tensor:
        """The box of the visible part of each lesion; what is cut has the higher score."""
        rows = []
        for number in (1, 2, 3):
            places = (window[0, 0] == number).nonzero()
            if len(places):
                whole = len(places) == (image == number).sum()
                rows.append([*places.amin(0).tolist(), *(places.amax(0) + 1).tolist(), 0.7 if whole else 0.9])
        found = torch.zeros(1, 5, 7)
        found[0, : len(rows)] = torch.tensor(rows) if rows else torch.empty(0, 7)
        return found

    task = Boxes("boxes", DetectionOptions(kind="detection", column="lesion"))
    views: tuple[Literal["case", "patch"], ...] = ("case", "patch")
    for view in views:
        model = cast(MultiTaskModel, Model({"boxes": seen}))
        found = activations(model, {"boxes": task}, replace(PLAN, view=view), image, overlap=0.5)["boxes"]
        assert found[:, :6].sort(dim=0).values.tolist() == lesions.tolist()
