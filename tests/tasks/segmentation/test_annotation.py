"""Cases annotated for some labels only: the cell, the note in the target, the loss, and what is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from medmtl.data.case import Case
from medmtl.tasks.base import CellError, ScoredCase
from medmtl.tasks.segmentation import Segmentation, SegmentationOptions
from medmtl.tasks.segmentation.annotation import (
    MOST_LABELS,
    dtype_with_note,
    read_unannotated,
    with_note,
    without_note,
)
from tests.tasks.contract import SHAPE, LabelTaskContract, case, volume
from tests.tasks.segmentation.test_task import LABELS, REGIONS, label_arrays

MASK = {"label": Path("a.nii.gz")}
NAMES = ("liver", "tumour", "vessel")


class TestAnnotated(LabelTaskContract):
    primary: ClassVar[str] = "dice"
    options: ClassVar[Mapping[str, Any]] = {
        "kind": "segmentation",
        "column": "label",
        "labels": LABELS,
        "regions": REGIONS,
        "annotated": "drawn",
        "lesions": True,
    }
    truths: ClassVar[Sequence[Any]] = label_arrays(4)
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = (
        ({"annotated": "label"}, "column of the label files"),
        ({"labels": {f"l{i}": i + 1 for i in range(MOST_LABELS + 1)}, "regions": {}}, "annotated: at most 57 labels"),
        ({"annotated": 1}, "valid string"),
    )


class TestAnnotatedRegions(LabelTaskContract):
    primary: ClassVar[str] = "dice"
    options: ClassVar[Mapping[str, Any]] = {
        **TestAnnotated.options,
        "train": "regions",
        "ignore": 3,
        "loss": "tversky",
    }
    truths: ClassVar[Sequence[Any]] = [np.where(mask == 1, 3, mask).astype(np.uint8) for mask in label_arrays(4)]
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = ()


def task(**changes: Any) -> Segmentation:
    return Segmentation("brain", SegmentationOptions.model_validate({**TestAnnotated.options, **changes}))


def drawn(cell: str | None) -> Case:
    return case({"drawn": cell}, MASK)


@pytest.mark.parametrize(
    ("cell", "unannotated"),
    [
        (None, set()),
        ("liver", {"tumour", "vessel"}),
        ("tumour liver", {"vessel"}),
        ("liver;tumour", {"vessel"}),
        (" liver ; vessel ", {"tumour"}),
        ("liver tumour vessel", set()),
    ],
)
def test_a_cell_names_what_was_annotated_and_an_empty_one_means_all(cell: str | None, unannotated: set[str]) -> None:
    assert read_unannotated(cell, NAMES, "drawn") == unannotated


@pytest.mark.parametrize(
    ("cell", "code", "fix"),
    [
        ("liver tumor", "B112", "did you mean 'tumour'"),
        ("Liver", "B112", "did you mean 'liver'"),
        ("liver,tumour", "B112", "match exactly"),
        ("1", "B112", "separated by a space or ;"),
        (";", "B112", "separated by a space or ;"),
        ("none", "B116", "empty the cell"),
    ],
)
def test_a_cell_that_names_no_label_is_refused(cell: str, code: str, fix: str) -> None:
    with pytest.raises(CellError) as caught:
        task(labels={name: i + 1 for i, name in enumerate(NAMES)}, regions={}).read(drawn(cell))
    assert (caught.value.code, caught.value.column, caught.value.found) == (code, "drawn", cell)
    assert caught.value.expected == "some of liver tumour vessel"
    assert fix in caught.value.fix


def test_the_column_is_read_beside_a_mask_only() -> None:
    assert task().read(drawn("hot")) == MASK["label"]
    assert task().unannotated(drawn("hot core")) == {"oedema"}
    assert task().read(case({"drawn": "nonsense"})) is None
    assert task().unannotated(case({"drawn": "nonsense"})) == frozenset()
    assert task(annotated=None).unannotated(drawn("nonsense")) == frozenset()
    assert (task().annotated_column, task(annotated=None).annotated_column) == ("drawn", None)


@pytest.mark.parametrize(
    ("labels", "ignore", "dtype"),
    [(2, True, np.uint8), (5, True, np.uint8), (6, False, np.int32), (26, True, np.int32), (27, False, np.int64)],
)
def test_a_note_takes_no_more_room_than_it_needs(labels: int, ignore: bool, dtype: type[np.generic]) -> None:
    assert dtype_with_note(labels + 1 + ignore, labels) is dtype


@pytest.mark.parametrize("labels", [1, 5, 6, 26, 27, MOST_LABELS])
def test_every_index_and_every_note_come_back(labels: int) -> None:
    indices = labels + 2
    dtype = torch.from_numpy(np.zeros(0, dtype_with_note(indices, labels))).dtype
    plain = torch.arange(indices).to(dtype).reshape(1, 1, indices)
    sets: list[list[int]] = [[], [0], [labels - 1], list(range(labels))]
    target = torch.stack([with_note(plain, hidden, indices) for hidden in sets])
    assert target.dtype == dtype
    found, hidden_BL = without_note(target, indices, labels)
    assert all(torch.equal(sample, plain) for sample in found)
    assert [torch.nonzero(row).flatten().tolist() for row in hidden_BL] == [sorted(set(hidden)) for hidden in sets]
    # any part of a target says the same
    assert torch.equal(without_note(target[..., -1:], indices, labels)[1], hidden_BL)


def test_a_target_with_a_note_has_the_type_of_one_without() -> None:
    for labels in (3, 9):
        made = task(labels={f"l{i}": i + 1 for i in range(labels)}, regions={}, ignore=200)
        plain = made.encode(np.zeros(SHAPE, np.uint8))
        assert made.noted(plain, drawn("l0")).dtype == plain.dtype
        assert torch.equal(made.noted(plain, drawn(None)), plain)
        assert not torch.equal(made.noted(plain, drawn("l0")), plain)
        assert torch.equal(made.noted(plain, case({"drawn": "l0"})), plain)


def without(truth: np.ndarray[Any, Any], made: Segmentation, labels: Sequence[str]) -> np.ndarray[Any, Any]:
    return np.where(np.isin(truth, [made.options.labels[name] for name in labels]), 0, truth)


@pytest.mark.parametrize("changes", [{}, {"loss": "dice_focal"}, {"loss": "tversky"}, {"ignore": 255}])
@pytest.mark.parametrize("levels", [1, 2])
def test_it_does_not_matter_where_an_unannotated_label_is_predicted_in_the_background(
    changes: Mapping[str, Any], levels: int
) -> None:
    made = task(**changes)
    truth = without(label_arrays(1)[0], made, ["core"])
    if "ignore" in changes:
        truth = np.where(np.arange(SHAPE[0])[:, None, None] < 2, 255, truth)
    target = torch.stack([made.noted(made.encode(truth), drawn("oedema hot")), made.encode(truth)])
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 4, *SHAPE, generator=generator).expand(2, -1, -1, -1, -1).clone()
    probability = logits.softmax(1)
    # the same mass of background and core together, divided otherwise
    mass, share = probability[:, 0] + probability[:, 2], torch.rand(SHAPE, generator=generator)
    background = torch.from_numpy(truth == 0)
    other = probability.clone()
    other[:, 0] = torch.where(background, mass * share, probability[:, 0])
    other[:, 2] = torch.where(background, mass * (1 - share), probability[:, 2])
    outputs = [
        tuple(p.log()[:, :, :: 2**level, :: 2**level, :: 2**level] for level in range(levels))
        for p in (probability, other)
    ]
    noted, plain = torch.stack([made.loss(output, target) for output in outputs]).unbind(1)
    torch.testing.assert_close(noted[0], noted[1])
    assert abs(float(plain[0] - plain[1])) > 1e-4


def test_samples_of_several_sets_in_one_batch_are_as_they_are_alone() -> None:
    for changes in ({}, {"train": "regions"}):
        made = task(**changes)
        cells = [None, "oedema hot", "hot", "core hot"]
        target = torch.stack(
            [
                made.noted(made.encode(without(truth, made, sorted(made.unannotated(drawn(cell))))), drawn(cell))
                for truth, cell in zip(label_arrays(4), cells, strict=True)
            ]
        )
        channels = 3 if changes else 4
        logits = torch.randn(4, channels, *SHAPE, generator=torch.Generator().manual_seed(1))
        together = made.loss((logits,), target)
        alone = [made.loss((logits[b : b + 1],), target[b : b + 1]) for b in range(4)]
        torch.testing.assert_close(together, torch.cat(alone))
        assert len(set(together.tolist())) == 4


def test_a_region_is_trained_where_all_of_its_labels_were_annotated() -> None:
    made = task(train="regions")
    truth = without(label_arrays(1)[0], made, ["oedema"])
    logits = torch.zeros(1, 3, *SHAPE, requires_grad=True)
    target = made.noted(made.encode(truth), drawn("core hot"))[None]
    (gradient,) = torch.autograd.grad(made.loss((logits,), target).sum(), logits)
    trained = [name for name, channel in zip(REGIONS, gradient[0], strict=True) if channel.count_nonzero()]
    assert trained == ["tumour", "bright"]


@pytest.mark.parametrize(
    ("cell", "unknown"),
    [(None, ""), ("core hot", "whole"), ("oedema hot", "whole tumour"), ("oedema core", "whole tumour bright")],
)
def test_regions_that_a_case_does_not_teach(cell: str | None, unknown: str) -> None:
    assert task(train="regions").untaught(drawn(cell)) == set(unknown.split())
    assert not task().untaught(drawn(cell))


def test_what_was_not_annotated_is_not_scored_and_enters_no_mean() -> None:
    made = task()
    truth = label_arrays(1)[0]
    full = made.mask_scores(np.roll(truth, 1, 0), truth, (1.0, 1.0, 1.0))
    scores = made.known_scores(full, {"oedema"})
    unknown = {key for key, value in scores.items() if value is None and full[key] is not None}
    assert {key.partition("/")[2] for key in unknown} == {"oedema", "whole"}
    assert {"dice/oedema", "dice/whole", "missed/oedema", "lesions/oedema"} <= unknown
    assert scores["dice"] == pytest.approx(np.mean([full["dice/core"], full["dice/hot"]]))
    assert scores["hd95_mm"] == pytest.approx(np.mean([full["hd95_mm/core"], full["hd95_mm/hot"]]))
    assert list(scores) == list(full)
    assert made.known_scores(full, ()) == full
    regions = task(train="regions").known_scores(full, {"oedema"})
    assert regions["dice"] == pytest.approx(np.mean([full["dice/tumour"], full["dice/bright"]]))
    assert task(train="regions").known_scores(full, {"hot"})["dice"] is None


def test_metrics_say_in_how_many_cases_a_label_was_not_annotated() -> None:
    made = task()
    cases = []
    for index, truth in enumerate(label_arrays(3)):
        scores = made.mask_scores(np.roll(truth, 1, 0), truth, (1.0, 1.0, 1.0))
        scores = made.known_scores(scores, {"hot", "oedema"} if index else {"hot"})
        cases.append(ScoredCase(f"c{index}", f"p{index}", None, 0, MASK["label"], made.result(volume(truth)), scores))
    metrics = made.metrics(cases)
    assert (metrics["dice/oedema"].n, metrics["dice/oedema"].extra["n_not_annotated"]) == (1, 2)
    assert metrics["dice/oedema"].value == pytest.approx(cases[0].scores["dice/oedema"])
    assert (metrics["dice/hot"].value, metrics["dice/hot"].why) == (None, "hot is annotated in no case")
    assert (metrics["dice/core"].n, metrics["dice/core"].extra["n_not_annotated"]) == (3, 0)
    assert (metrics["dice"].n, "n_not_annotated" in metrics["dice"].extra) == (3, False)
    assert "n_not_annotated" not in task(annotated=None).metrics(cases)["dice/core"].extra
    made.figures(cases)


def scans(count: int) -> tuple[torch.Tensor, list[np.ndarray[Any, Any]]]:
    """Images in which a dim block is the liver and a bright one the tumour, beside each other."""
    random = np.random.default_rng(0)
    images, masks = [], []
    for _ in range(count):
        mask = np.zeros((12, 12, 8), np.uint8)
        x, y = random.integers(0, 6, 2)
        mask[x : x + 5, y : y + 4, 2:6] = 1
        mask[x : x + 3, y + 4 : y + 6, 2:6] = 2
        images.append(torch.from_numpy(np.array([0.0, 1.0, 2.0])[mask] + 0.1 * random.normal(size=mask.shape)).float())
        masks.append(mask)
    return torch.stack(images)[:, None], masks


def dice_of_the_tumour(annotated: str | None) -> float:
    """Trained on a half-annotated batch in bfloat16: Dice of the tumour where nobody drew it."""
    options = {"kind": "segmentation", "column": "label", "labels": {"liver": 1, "tumour": 2}, "annotated": annotated}
    made = Segmentation("organs", SegmentationOptions.model_validate(options))
    image, masks = scans(4)
    hidden = range(1, 4)
    targets = [made.encode(masks[0])]
    targets += [made.noted(made.encode(np.where(masks[i] == 2, 0, masks[i])), drawn("liver")) for i in hidden]
    target = torch.stack(targets)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 8, 1), nn.ReLU(), nn.Conv3d(8, 3, 1))
    optimiser = torch.optim.AdamW(net.parameters(), lr=5e-2)
    for _ in range(100):
        optimiser.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss_B = made.loss((net(image),), target)
        assert torch.isfinite(loss_B).all()
        torch.autograd.backward(loss_B.mean())
        optimiser.step()
    found = made.activate((net(image),)).argmax(1)
    scores = [made.mask_scores(found[i].numpy(), masks[i], (1, 1, 1))["dice/tumour"] for i in hidden]
    return float(np.mean([score or 0.0 for score in scores]))


def test_a_label_that_few_cases_show_is_learned_and_found_where_nobody_drew_it() -> None:
    assert dice_of_the_tumour("drawn") > 0.9
    # taken at their word, the same masks teach that it is background
    assert dice_of_the_tumour(None) < 0.5
