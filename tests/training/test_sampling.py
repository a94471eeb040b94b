"""Trainings whose cases are drawn by label: what is drawn, and that nothing but the step decides it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from medmtl import api
from medmtl.data.batch import ViewBatch
from medmtl.data.crop import whole_shape
from medmtl.errors import InterruptedRun
from medmtl.run_folder import RunFolder
from medmtl.training.session import Session, open_session
from tests.conftest import TINY
from tests.faults.processes import fingerprint, records

LABELLED: dict[str, Any] = {
    **TINY,
    "training.sampling": "labelled",
    "tasks.malignancy.class_sampling": "balanced",
}


@pytest.fixture(scope="module")
def sampled(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.train(tiny_cohort, tmp_path_factory.mktemp("sampled") / "run", device="cpu", overrides=LABELLED)


@pytest.fixture(scope="module")
def session(sampled: Path) -> Session:
    return open_session(RunFolder.open(sampled))


def chosen(session: Session, steps: int) -> list[str]:
    """Ids of the cases of some steps, without loading them."""
    return [case.case_id for step in range(steps) for case in session.training.views[0]._chosen(step)]


def test_the_classes_of_a_balanced_task_are_drawn_in_turn_when_it_is_served(session: Session) -> None:
    training = session.training.views[0]
    labelled = {name: {c.case_id for c in training.cases} & set(training.truths[name]) for name in training.encoders}
    queues = list(dict.fromkeys(map(frozenset, labelled.values())))
    served = chosen(session, 60)[queues.index(frozenset(labelled["malignancy"])) :: len(queues)]
    classes = Counter(training.truths["malignancy"][case_id] for case_id in served)
    assert set(classes) == {"benign", "malignant"}
    assert abs(classes["benign"] - classes["malignant"]) <= 1
    assert {case_id for case_id in served} == labelled["malignancy"]


def test_no_labelled_case_is_starved_and_the_epoch_of_the_log_says_when_all_were_drawn(
    session: Session, sampled: Path
) -> None:
    training = session.training.views[0]
    wanted = {
        c.case_id for c in training.cases if any(c.case_id in training.truths[name] for name in training.encoders)
    }
    steps = next(steps for steps in range(1, 1000) if session.training.epoch(steps) >= 1)
    assert set(chosen(session, steps)) == wanted
    epochs = [record["epoch"] for record in records(sampled) if "epoch" in record]
    assert epochs == [round(2 * step / training.order.span, 4) for step in range(1, 7)]


def test_masks_count_as_labels_of_their_task(session: Session) -> None:
    """Said by the table, before anything is loaded, and true of what is loaded."""
    for step in range(6):
        view = next(iter(session.training[step].views.values()))
        assert isinstance(view, ViewBatch)
        for slot, case_id in enumerate(view.case_ids):
            assert bool(view.present["lesion"][slot]) == (case_id in session.training.views[0].truths["lesion"])


def test_workers_and_resumes_change_nothing(tiny_cohort: Path, tmp_path: Path, sampled: Path) -> None:
    def interrupt(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train" and done == 3:
            raise InterruptedRun("here")

    overrides = {**LABELLED, "plan.workers": 1}
    with pytest.raises(InterruptedRun):
        api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=overrides, progress=interrupt)
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=overrides, resume=True)
    assert fingerprint(tmp_path / "run") == fingerprint(sampled)
    assert records(tmp_path / "run") == records(sampled)


def test_by_default_cases_are_drawn_evenly(trained_run: Path) -> None:
    session = open_session(RunFolder.open(trained_run))
    count = len(session.training.views[0].cases)
    drawn = chosen(session, 10 * count)
    assert set(Counter(drawn).values()) == {20}
    assert session.training.views[0].order.span == count


def test_a_case_that_no_task_of_the_run_is_labelled_for_is_not_drawn(tiny_cohort: Path, tmp_path: Path) -> None:
    lines = tiny_cohort.read_text().splitlines(keepends=True)
    config = tiny_cohort.parent / "class_alone.yaml"
    config.write_text("".join(line for line in lines if not line.startswith(("  lesion:", "  risk:"))))
    run = api.train(config, tmp_path / "run", device="cpu", overrides={**TINY, "training.steps": 1})
    session = open_session(RunFolder.open(run))
    labelled = session.training.views[0].truths["malignancy"]
    assert any(case.case_id not in labelled for case in session.training.views[0].cases)
    assert all(case_id in labelled for case_id in chosen(session, 30))


@pytest.fixture(scope="module")
def two_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 cases, cut so that every second scan is half as wide as the others; returns their configuration."""
    config = api.synth(tmp_path_factory.mktemp("shapes") / "cohort", cases=24)
    folder = config.parent
    for path in [*folder.glob("images/*.nii.gz"), *folder.glob("labels/*.nii.gz")]:
        scan: Any = nib.as_closest_canonical(nib.load(path))  # type: ignore[no-untyped-call, attr-defined]
        cut = path.with_name(f"cut_{path.name}")
        nib.save(scan.slicer[: 26 if path.name[-8] in "13579" else 14, :26, :18], cut)  # type: ignore[attr-defined]
        cut.replace(path)
    return config


@pytest.mark.parametrize("sampling", ["even", "labelled"])
def test_evenly_drawn_whole_cases_of_one_shape_share_a_step(two_shapes: Path, tmp_path: Path, sampling: str) -> None:
    overrides = {**TINY, "training.steps": 1, "training.sampling": sampling}
    session = open_session(RunFolder.open(api.train(two_shapes, tmp_path / "run", device="cpu", overrides=overrides)))
    view = session.training.views[0]
    assert view.view.kind == "case"
    steps = [[view.cache.get(case).image_CDHW.shape[1:] for case in view._chosen(step)] for step in range(6)]
    shapes = [{whole_shape([size], view.view.shape, view.divisor) for size in sizes} for sizes in steps]
    assert len(set.union(*shapes)) == 2
    mixed = sum(len(held) > 1 for held in shapes)
    assert mixed <= 1 if sampling == "even" else mixed > 1
