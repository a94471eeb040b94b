from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from medmtl.data import workers as worker_processes
from medmtl.data.augmentation import Augmentation
from medmtl.data.batch import Batch
from medmtl.data.cache import PreparedCache
from medmtl.data.case import Case
from medmtl.data.covariates import NumberCovariate
from medmtl.data.formats import ImageError
from medmtl.data.loader import StepDataset
from medmtl.data.order import CaseOrder
from medmtl.data.prepared import Intensity, Preparation, Prepared
from medmtl.data.view import View
from medmtl.data.workers import make_loader
from medmtl.errors import InputError, MachineError, WorkError

CASES = 5
SIZE = (9, 11, 8)
SHAPE = (12, 12, 12)
CPU = torch.device("cpu")
EVERYTHING = Augmentation((1.0, 1.0, 1.0), flips=(0, 1))
TRUTHS = {"grade": {"c0": 1.5, "c2": 2.5, "c3": 3.5}}


class MadeCache(PreparedCache):
    """A cache whose cases fail as their id says."""

    def get(self, case: Case) -> Prepared:
        in_worker = multiprocessing.parent_process() is not None
        if case.case_id == "refused":
            raise ImageError(
                Path("scan.nii"), "B051", found="a cut stream", expected="a whole one", fix="copy it again"
            )
        if case.case_id == "full":
            raise MemoryError
        if case.case_id == "vast":
            torch.empty(1 << 50)
        if case.case_id == "odd":
            raise ZeroDivisionError("by nothing")
        if case.case_id == "deadly" and in_worker:
            os.kill(os.getpid(), signal.SIGKILL)
        if case.case_id == "leaving" and in_worker:
            os._exit(3)
        return super().get(case)


def encode_organ(label: Any) -> torch.Tensor:
    return torch.from_numpy(label).long()


def encode_grade(truth: float | None) -> torch.Tensor:
    return torch.tensor([0.0 if truth is None else truth])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Case], PreparedCache]:
    """Five cases whose image is their mask plus ten times their number; the last one has no mask."""
    folder = tmp_path_factory.mktemp("cohort")
    cases = []
    for number in range(CASES):
        mask = np.random.default_rng(number).integers(0, 3, SIZE).astype(np.uint8)
        paths = {"t1": folder / f"i{number}.nii", "mask": folder / f"m{number}.nii"}
        for path, array in zip(paths.values(), (mask + np.float32(10 * number + 1), mask), strict=True):
            nib.save(nib.Nifti1Image(array, np.eye(4)), path)  # type: ignore[no-untyped-call]
        files = {"mask": paths["mask"]} if number < CASES - 1 else {}
        cases.append(Case(f"c{number}", f"c{number}", None, number + 2, {"t1": paths["t1"]}, files=files))
    cache = MadeCache(folder / "cache", Preparation((1.0, 1.0, 1.0), ("t1",), {"organ": "mask"}))
    cache.ensure(cases, 1)
    return cases, cache


def make(cohort: tuple[list[Case], PreparedCache], **changes: Any) -> StepDataset:
    cases = changes.get("cases", cohort[0])
    batch, seed = changes.get("batch", 2), changes.get("seed", 7)
    options: dict[str, Any] = {
        "cases": cases,
        "cache": cohort[1],
        "encoders": {"grade": encode_grade, "organ": encode_organ},
        "voxel": ["organ"],
        "truths": TRUTHS,
        "view": View(changes.pop("view", "case"), changes.pop("shape", SHAPE)),
        "divisor": SHAPE,
        "batch": batch,
        "slots": range(batch),
        "order": CaseOrder.even(range(len(cases)), batch, seed),
        "seed": seed,
        "intensities": [Intensity("none")],
        "augmentation": Augmentation.off((1.0, 1.0, 1.0)),
    }
    return StepDataset(**{**options, **changes})


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.step == other.step and list(one.views) == list(other.views)
    for name, view in one.views.items():
        twin = other.views[name]
        assert view.case_ids == twin.case_ids
        assert torch.equal(view.image_BCDHW, twin.image_BCDHW)
        assert torch.equal(view.covariates_BN, twin.covariates_BN)
        for task in view.targets:
            assert torch.equal(view.targets[task], twin.targets[task])
            assert torch.equal(view.present[task], twin.present[task])


def test_a_steps_samples_are_as_large_as_its_cases(cohort: tuple[list[Case], PreparedCache]) -> None:
    """9 x 11 x 8 voxels, on a network that wants multiples of 4, 4 and 2, in a plan for larger cases."""
    dataset = make(cohort, shape=(32, 32, 32), divisor=(4, 4, 2), augmentation=EVERYTHING)
    for step in range(6):
        view = dataset[step].views["case"]
        assert view.image_BCDHW.shape[2:] == view.targets["organ"].shape[1:] == (12, 12, 8)
    patch = make(cohort, view="patch", shape=(16, 16, 16), divisor=(4, 4, 2))[0].views["patch"]
    assert patch.image_BCDHW.shape[2:] == (16, 16, 16)


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are looked at every 5 s; a test has less time."""
    monkeypatch.setattr(worker_processes, "LOOK_SECONDS", 0.2)


@pytest.mark.parametrize("view", ["case", "patch"])
def test_a_step_is_the_same_with_any_workers_threads_and_start(
    cohort: tuple[list[Case], PreparedCache], view: str
) -> None:
    dataset = make(cohort, view=view, shape=(8, 8, 8), augmentation=EVERYTHING, batch=3)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = [dataset[step] for step in range(12)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    for first, workers in ((0, 2), (5, 2), (5, 0)):
        found = list(
            make_loader(
                make(cohort, view=view, shape=(8, 8, 8), augmentation=EVERYTHING, batch=3), first, 12, workers, CPU
            )
        )
        assert [batch.step for batch in found] == list(range(first, 12))
        for batch in found:
            assert_equal(batch, expected[batch.step])


def test_seeds_steps_and_slots_draw_differently(cohort: tuple[list[Case], PreparedCache]) -> None:
    one = make(cohort, augmentation=EVERYTHING, cases=cohort[0][:1], batch=8)
    images = [image for step in range(2) for image in one[step].views["case"].image_BCDHW]
    assert len({image.numpy().tobytes() for image in images}) > 10
    other = make(cohort, augmentation=EVERYTHING, cases=cohort[0][:1], batch=8, seed=8)
    assert not torch.equal(one[0].views["case"].image_BCDHW, other[0].views["case"].image_BCDHW)


def test_every_case_comes_once_an_epoch_in_a_new_order(cohort: tuple[list[Case], PreparedCache]) -> None:
    dataset = make(cohort)
    drawn = list(itertools.chain.from_iterable(dataset[step].views["case"].case_ids for step in range(20)))
    epochs = [tuple(drawn[start : start + CASES]) for start in range(0, len(drawn), CASES)]
    assert all(sorted(epoch) == [f"c{number}" for number in range(CASES)] for epoch in epochs)
    assert len(set(epochs)) > 5


def test_samples_carry_their_targets(cohort: tuple[list[Case], PreparedCache]) -> None:
    dataset = make(cohort)
    low = [(12 - n) // 2 for n in SIZE]
    inside = tuple(slice(start, start + n) for start, n in zip(low, SIZE, strict=True))
    for step in range(5):
        view = dataset[step].views["case"]
        assert view.image_BCDHW.shape == (2, 1, *SHAPE) and view.image_BCDHW.dtype == torch.float32
        for slot, case_id in enumerate(view.case_ids):
            number = int(case_id[1:])
            image, organ = view.image_BCDHW[slot, 0], view.targets["organ"][slot]
            mask = torch.from_numpy(np.random.default_rng(number).integers(0, 3, SIZE))
            assert torch.equal(image[inside], mask + 10.0 * number + 1)
            assert float(image.sum()) == float(image[inside].sum())
            labelled = number < CASES - 1
            assert bool(view.present["organ"][slot]) == labelled
            assert torch.equal(organ[inside], mask if labelled else torch.zeros(SIZE).long())
            assert bool(view.present["grade"][slot]) == (case_id in TRUTHS["grade"])
            assert view.targets["grade"][slot].tolist() == [TRUTHS["grade"].get(case_id, 0.0)]


def test_moved_images_and_masks_stay_together(cohort: tuple[list[Case], PreparedCache]) -> None:
    settings = Augmentation((1.0, 1.0, 1.0), flips=(0, 1, 2))
    only_spatial = {"grade": {"intensity"}, "organ": {"intensity"}}
    dataset = make(cohort, augmentation=settings, sensitive=only_spatial, cases=cohort[0][1:2], batch=1)
    moved = 0
    for step in range(60):
        view = dataset[step].views["case"]
        image, organ = view.image_BCDHW[0, 0], view.targets["organ"][0]
        # voxels that were copied: the image is there a whole number of the case
        whole = (image - image.round()).abs() < 1e-6
        copied = whole & (image > 10.5)
        if copied.sum() == np.prod(SIZE):
            assert torch.equal((image[copied] - 11).long(), organ[copied])
        else:
            moved += 1
    assert 5 < moved < 55


def test_a_label_that_a_draw_would_change_is_taken_away(cohort: tuple[list[Case], PreparedCache]) -> None:
    sensitive = {"grade": {"flip"}, "organ": set[str]()}
    dataset = make(cohort, augmentation=EVERYTHING, sensitive=sensitive, cases=cohort[0][2:3], batch=1)
    kept = 0
    for step in range(80):
        view, plain = dataset[step].views["case"], dataset.plain(1)[0].views["case"]
        mirrored = not torch.equal(view.targets["organ"], plain.targets["organ"])
        grade = bool(view.present["grade"][0])
        assert view.present["organ"][0]
        assert not (grade and torch.equal(view.image_BCDHW.flip(2), plain.image_BCDHW))
        if not mirrored:
            assert grade
        kept += grade
    assert 40 < kept < 75  # all gentle draws, and the free ones without a flip


def test_a_case_labelled_for_a_careful_task_only_keeps_that_label(cohort: tuple[list[Case], PreparedCache]) -> None:
    sensitive = {"grade": {"flip", "scale", "crop", "intensity"}, "organ": set[str]()}
    truths = {"grade": {f"c{CASES - 1}": 1.0}}  # the case without a mask
    dataset = make(cohort, augmentation=EVERYTHING, sensitive=sensitive, cases=cohort[0][-1:], batch=1, truths=truths)
    assert all(bool(dataset[step].views["case"].present["grade"][0]) for step in range(40))


def test_patches_lie_inside_and_show_foreground(cohort: tuple[list[Case], PreparedCache]) -> None:
    shape = (4, 4, 16)
    view = make(cohort, view="patch", shape=shape, batch=20)[0].views["patch"]
    for slot, case_id in enumerate(view.case_ids):
        image = view.image_BCDHW[slot, 0]
        assert (image[..., 4:12] > 0).all() and not image[..., :4].any() and not image[..., 12:].any()
        if case_id != f"c{CASES - 1}":
            organ = view.targets["organ"][slot]
            assert torch.equal(image[..., 4:12] - 10 * int(case_id[1:]) - 1, organ[..., 4:12].float())


def test_normalised_padding_is_the_mean(cohort: tuple[list[Case], PreparedCache]) -> None:
    image = make(cohort, intensities=[Intensity("zscore")])[0].views["case"].image_BCDHW[0, 0]
    assert not image[0].any()
    values = image[image != 0]
    assert float(values.mean()) == pytest.approx(0, abs=0.05)
    assert float(values.std()) == pytest.approx(1, abs=0.05)


def test_plain_gives_every_case_once_in_order(cohort: tuple[list[Case], PreparedCache]) -> None:
    plain = make(cohort, augmentation=EVERYTHING, batch=3).plain(4)
    assert len(plain) == 4
    assert [plain[step].views["case"].case_ids for step in range(4)] == [("c0",), ("c1",), ("c2",), ("c3",)]
    assert_equal(plain[2], plain[2])


def test_a_loader_without_end_and_its_side_effects(cohort: tuple[list[Case], PreparedCache]) -> None:
    state, handler = torch.get_rng_state(), signal.getsignal(signal.SIGCHLD)
    for workers in (0, 2):
        batches = make_loader(make(cohort), 100, None, workers, CPU)
        assert [next(batches).step for _ in range(4)] == [100, 101, 102, 103]
        assert signal.getsignal(signal.SIGCHLD) is handler
        assert torch.equal(torch.get_rng_state(), state)


def broken(cohort: tuple[list[Case], PreparedCache], case_id: str) -> Iterator[Case]:
    """The cohort's first case under a name that fails."""
    case = cohort[0][0]
    yield Case(case_id, "p", None, 41, case.images, files=case.files)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("case_id", "kind", "message"),
    [
        ("refused", InputError, "[B051] scan.nii: found a cut stream; expected a whole one; copy it again"),
        (
            "full",
            MachineError,
            "case 'full' (row 41) could not be loaded: out of memory; lower plan.workers or plan.memory_gb",
        ),
        pytest.param(
            "vast",
            MachineError,
            f"case 'vast' (row 41) could not be loaded: out of memory (asked for {4 << 50} bytes); lower "
            "plan.workers or plan.memory_gb",
            marks=pytest.mark.covers("F32"),
        ),
        ("odd", WorkError, "case 'odd' (row 41) could not be loaded: ZeroDivisionError: by nothing"),
    ],
)
def test_an_error_arrives_as_one_sentence(
    cohort: tuple[list[Case], PreparedCache], case_id: str, kind: type[Exception], message: str, workers: int
) -> None:
    with pytest.raises(kind) as caught:
        list(make_loader(make(cohort, cases=list(broken(cohort, case_id))), 0, 4, workers, CPU))
    assert str(caught.value) == message


@pytest.mark.usefixtures("quick_watch")
@pytest.mark.parametrize(
    ("case_id", "cause"),
    [
        (
            "deadly",
            r"loader process 0 was killed by SIGKILL \(signal 9\), probably for lack of memory, while step 3 was "
            r"loaded: cases 'deadly' \(row 41\), 'deadly' \(row 41\)",
        ),
        ("leaving", r"loader process 0 ended with code 3 while step 3 was loaded: cases 'leaving' \(row 41\)"),
    ],
)
def test_a_dead_worker_is_an_error_with_its_cause(
    cohort: tuple[list[Case], PreparedCache], case_id: str, cause: str
) -> None:
    with pytest.raises(WorkError, match=cause):
        list(make_loader(make(cohort, cases=list(broken(cohort, case_id))), 3, 5, 1, CPU))


def test_a_worker_leaves_requests_to_its_parent(cohort: tuple[list[Case], PreparedCache]) -> None:
    loader = make_loader(make(cohort), 0, 30, 1, CPU)
    assert next(loader).step == 0
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
        os.kill(worker.pid, number)
    assert [batch.step for batch in loader] == list(range(1, 30))
    assert not worker.is_alive()


def test_an_interpreter_that_ends_with_a_loader_at_work_ends_its_workers(
    cohort: tuple[list[Case], PreparedCache],
) -> None:
    kept = []

    def leave_open() -> None:
        kept.append(make_loader(make(cohort), 0, None, 2, CPU))
        next(kept[0])

    process = multiprocessing.get_context("fork").Process(target=leave_open)
    process.start()
    process.join(20)
    code = process.exitcode
    process.kill()
    assert code == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a CUDA device")
def test_batches_for_a_gpu_are_pinned(cohort: tuple[list[Case], PreparedCache]) -> None:
    batch = next(make_loader(make(cohort), 0, 2, 1, torch.device("cuda")))
    view = batch.views["case"]
    assert view.image_BCDHW.is_pinned()
    assert all(tensor.is_pinned() for tensor in view.targets.values())


@pytest.mark.parametrize("workers", [0, 2])
def test_covariates_travel_with_their_cases_and_change_nothing_else(
    cohort: tuple[list[Case], PreparedCache], workers: int
) -> None:
    aged = [replace(case, cells={"age": case.case_id[1:]}) for case in cohort[0]]
    with_them = make(cohort, cases=aged, covariates=[NumberCovariate("age", 2.0, 2.0, 0.0, 4.0, 0)])
    for step, (found, without) in enumerate(
        zip(make_loader(with_them, 0, 3, workers, CPU), make_loader(make(cohort), 0, 3, workers, CPU), strict=True)
    ):
        view, bare = found.views["case"], without.views["case"]
        expected = [[(int(case_id[1:]) - 2) / 2, 0.0] for case_id in view.case_ids]
        assert torch.equal(view.covariates_BN, torch.tensor(expected))
        assert bare.covariates_BN.shape == (2, 0)
        assert_equal(Batch(step, {"case": replace(view, covariates_BN=bare.covariates_BN)}), without)
    assert torch.equal(with_them.plain(1)[0].views["case"].covariates_BN, torch.tensor([[-1.0, 0.0]]))


def test_what_a_row_says_of_a_target_is_added_after_the_cache(cohort: tuple[list[Case], PreparedCache]) -> None:
    noted = make(cohort, notes={"organ": lambda target, case: target + 10 * case.row})
    for step in range(len(noted)):
        (view,), (usual,) = (list(dataset[step].views.values()) for dataset in (noted, make(cohort)))
        rows = torch.tensor(view.rows).reshape(-1, 1, 1, 1)
        assert torch.equal(view.targets["organ"], usual.targets["organ"] + 10 * rows)
        assert torch.equal(view.targets["grade"], usual.targets["grade"])
    (view,) = noted.plain(3)[2].views.values()
    assert int(view.targets["organ"].min()) >= 10 * view.rows[0]
