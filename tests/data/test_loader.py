from __future__ import annotations

import itertools
import signal
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from medmtl.data.augmentation import Augmentation
from medmtl.data.batch import Batch
from medmtl.data.case import Case
from medmtl.data.covariates import NumberCovariate
from medmtl.data.loader import StepDataset
from medmtl.data.prepared import Intensity, Prepared
from medmtl.data.view import View
from medmtl.data.workers import make_loader
from tests.data.loading import CASES, CPU, EVERYTHING, SHAPE, SIZE, TRUTHS, Made, MadeCache, made_cohort, make


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made_cohort(tmp_path_factory.mktemp("cohort"))


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


def test_a_steps_samples_are_as_large_as_its_cases(cohort: Made) -> None:
    """9 x 11 x 8 voxels, on a network that wants multiples of 4, 4 and 2, in a plan for larger cases."""
    dataset = make(cohort, shape=(32, 32, 32), divisor=(4, 4, 2), augmentation=EVERYTHING)
    for step in range(6):
        view = dataset[step].views["case"]
        assert view.image_BCDHW.shape[2:] == view.targets["organ"].shape[1:] == (12, 12, 8)
    patch = make(cohort, view="patch", shape=(16, 16, 16), divisor=(4, 4, 2))[0].views["patch"]
    assert patch.image_BCDHW.shape[2:] == (16, 16, 16)


@pytest.mark.parametrize("view", ["case", "patch"])
def test_a_step_is_the_same_with_any_workers_threads_and_start(cohort: Made, view: str) -> None:
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


def test_seeds_steps_and_slots_draw_differently(cohort: Made) -> None:
    one = make(cohort, augmentation=EVERYTHING, cases=cohort[0][:1], batch=8)
    images = [image for step in range(2) for image in one[step].views["case"].image_BCDHW]
    assert len({image.numpy().tobytes() for image in images}) > 10
    other = make(cohort, augmentation=EVERYTHING, cases=cohort[0][:1], batch=8, seed=8)
    assert not torch.equal(one[0].views["case"].image_BCDHW, other[0].views["case"].image_BCDHW)


def test_every_case_comes_once_an_epoch_in_a_new_order(cohort: Made) -> None:
    dataset = make(cohort)
    drawn = list(itertools.chain.from_iterable(dataset[step].views["case"].case_ids for step in range(20)))
    epochs = [tuple(drawn[start : start + CASES]) for start in range(0, len(drawn), CASES)]
    assert all(sorted(epoch) == [f"c{number}" for number in range(CASES)] for epoch in epochs)
    assert len(set(epochs)) > 5


def test_samples_carry_their_targets(cohort: Made) -> None:
    dataset = make(cohort)
    places = set()
    for step in range(5):
        view = dataset[step].views["case"]
        assert view.image_BCDHW.shape == (2, 1, *SHAPE) and view.image_BCDHW.dtype == torch.float32
        for slot, case_id in enumerate(view.case_ids):
            number = int(case_id[1:])
            image, organ = view.image_BCDHW[slot, 0], view.targets["organ"][slot]
            mask = torch.from_numpy(np.random.default_rng(number).integers(0, 3, SIZE))
            low = tuple(image.nonzero().amin(0).tolist())  # the case is nowhere 0
            places.add(low)
            inside = tuple(slice(start, start + n) for start, n in zip(low, SIZE, strict=True))
            assert torch.equal(image[inside], mask + 10.0 * number + 1)
            assert float(image.sum()) == float(image[inside].sum())
            labelled = number < CASES - 1
            assert bool(view.present["organ"][slot]) == labelled
            assert torch.equal(organ[inside], mask if labelled else torch.zeros(SIZE).long())
            assert bool(view.present["grade"][slot]) == (case_id in TRUTHS["grade"])
            assert view.targets["grade"][slot].tolist() == [TRUTHS["grade"].get(case_id, 0.0)]
    assert len(places) > 5


def test_moved_images_and_masks_stay_together(cohort: Made) -> None:
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


def test_a_label_that_a_draw_would_change_is_taken_away(cohort: Made) -> None:
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


def test_a_case_labelled_for_a_careful_task_only_keeps_that_label(cohort: Made) -> None:
    sensitive = {"grade": {"flip", "scale", "crop", "intensity"}, "organ": set[str]()}
    truths = {"grade": {f"c{CASES - 1}": 1.0}}  # the case without a mask
    dataset = make(cohort, augmentation=EVERYTHING, sensitive=sensitive, cases=cohort[0][-1:], batch=1, truths=truths)
    assert all(bool(dataset[step].views["case"].present["grade"][0]) for step in range(40))


@pytest.mark.parametrize(("kind", "kept"), [("lesion", True), ("tiles", True), ("patch", False)])
def test_a_label_of_the_case_survives_a_cut_where_a_sample_stands_for_its_case(
    cohort: Made, kind: Any, kept: bool
) -> None:
    sensitive = {"grade": {"crop"}, "organ": set[str]()}
    dataset = make(cohort, augmentation=EVERYTHING, sensitive=sensitive, cases=cohort[0][2:3], batch=1)
    dataset = replace(dataset, view=View(kind, (4, 4, 4), tiles=1 + (kind == "tiles"), around="organ"))
    assert all(bool(dataset[step].views[kind].present["grade"][0]) for step in range(30)) is kept


@pytest.mark.parametrize(("kind", "shown"), [("lesion", False), ("tiles", True)])
def test_a_lesions_view_shows_no_case_without_its_mask(cohort: Made, kind: Any, shown: bool) -> None:
    truths = {"grade": {f"c{CASES - 1}": 1.0}}  # the case without a mask
    dataset = make(cohort, cases=cohort[0][-1:], batch=1, truths=truths)
    dataset = replace(dataset, view=View(kind, (4, 4, 4), tiles=1 + (kind == "tiles"), around="organ"))
    assert bool(dataset[0].views[kind].present["grade"][0]) is shown


def test_a_process_with_some_of_the_slots_makes_their_samples_as_all_of_them_would(
    cohort: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = cohort[1].get

    def of_its_own_size(case: Case) -> Prepared:
        found = plain(case)
        more = [(0, 4 * int(case.case_id[1:])), (0, 0), (0, 0)]
        labels = {name: np.pad(label, more) for name, label in found.labels.items()}
        return replace(found, image_CDHW=np.pad(found.image_CDHW, [(0, 0), *more]), labels=labels)

    monkeypatch.setattr(cohort[1], "get", of_its_own_size)
    sizes: dict[str, Any] = {"shape": (32, 32, 32), "divisor": (4, 4, 2), "batch": 2}
    for step in range(3):
        whole = make(cohort, **sizes)[step].views["case"].image_BCDHW
        for slot in (0, 1):
            alone = make(cohort, **sizes, slots=(slot,))[step].views["case"].image_BCDHW
            assert torch.equal(alone, whole[slot : slot + 1])


def test_patches_lie_inside_and_show_foreground(cohort: Made) -> None:
    shape = (4, 4, 16)
    view = make(cohort, view="patch", shape=shape, batch=20)[0].views["patch"]
    for slot, case_id in enumerate(view.case_ids):
        image = view.image_BCDHW[slot, 0]
        assert (image[..., 4:12] > 0).all() and not image[..., :4].any() and not image[..., 12:].any()
        if case_id != f"c{CASES - 1}":
            organ = view.targets["organ"][slot]
            assert torch.equal(image[..., 4:12] - 10 * int(case_id[1:]) - 1, organ[..., 4:12].float())


def test_normalised_padding_is_the_mean(cohort: Made) -> None:
    image = make(cohort, intensities=[Intensity("zscore")])[0].views["case"].image_BCDHW[0, 0]
    assert not image[0].any()
    values = image[image != 0]
    assert float(values.mean()) == pytest.approx(0, abs=0.05)
    assert float(values.std()) == pytest.approx(1, abs=0.05)


def test_plain_gives_every_case_once_in_order(cohort: Made) -> None:
    plain = make(cohort, augmentation=EVERYTHING, batch=3).plain(4)
    assert len(plain) == 4
    assert [plain[step].views["case"].case_ids for step in range(4)] == [("c0",), ("c1",), ("c2",), ("c3",)]
    assert_equal(plain[2], plain[2])


def test_a_loader_without_end_and_its_side_effects(cohort: Made) -> None:
    state, handler = torch.get_rng_state(), signal.getsignal(signal.SIGCHLD)
    for workers in (0, 2):
        batches = make_loader(make(cohort), 100, None, workers, CPU)
        assert [next(batches).step for _ in range(4)] == [100, 101, 102, 103]
        assert signal.getsignal(signal.SIGCHLD) is handler
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_covariates_travel_with_their_cases_and_change_nothing_else(cohort: Made, workers: int) -> None:
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


def test_a_sample_of_which_no_voxel_counts_is_not_labelled(cohort: Made) -> None:
    for value, ignored in ((1, {}), (1, {"organ": 1}), (2, {"organ": 1})):
        cache = MadeCache(cohort[1].folder, replace(cohort[1].preparation, ignored=ignored))
        dataset = make((cohort[0], cache))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StepDataset, "_window", with_labels_of(StepDataset._window, value))
            (view,) = dataset[0].views.values()
        expected = [case_id != "c4" and ignored.get("organ") != value for case_id in view.case_ids]
        assert view.present["organ"].tolist() == expected


def with_labels_of(window: Any, value: int) -> Any:
    """What cuts a sample, whose labels all have one value."""

    def cut(*given: Any) -> Any:
        image, labels = window(*given)
        return image, {name: np.full_like(label, value) for name, label in labels.items()}

    return cut


def test_what_a_row_says_of_a_target_is_added_after_the_cache(cohort: Made) -> None:
    noted = make(cohort, notes={"organ": lambda target, case: target + 10 * case.row})
    for step in range(len(noted)):
        (view,), (usual,) = (list(dataset[step].views.values()) for dataset in (noted, make(cohort)))
        rows = torch.tensor(view.rows).reshape(-1, 1, 1, 1)
        assert torch.equal(view.targets["organ"], usual.targets["organ"] + 10 * rows)
        assert torch.equal(view.targets["grade"], usual.targets["grade"])
    (view,) = noted.plain(3)[2].views.values()
    assert int(view.targets["organ"].min()) >= 10 * view.rows[0]
