"""A cohort of which some cases lack a sequence: trained, resumed, evaluated, and asked for one case."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from medmtl import api
from medmtl.cli import main
from medmtl.errors import InputError
from medmtl.run_folder import RunFolder
from medmtl.training.session import open_session
from tests.conftest import TINY
from tests.stopping import resumed_copy
from tests.tables import predicted, rewrite
from tests.weights import weights_sha256

pytestmark = pytest.mark.usefixtures("undrawn")

CHANNELS = "{image_0: image_0, image_1: {column: image_1, optional: true}}"
EITHER = "{image_0: {column: image_0, optional: true}, image_1: {column: image_1, optional: true}}"
LACKING = (1, 4, 7, 10)


def declare(config: Path, channels: str, name: str) -> Path:
    text = config.read_text(encoding="utf-8")
    plain = "{image_0: image_0, image_1: image_1}"
    assert plain in text
    path = config.with_name(name)
    path.write_text(text.replace(plain, channels), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cases with two channels, of which four lack the second one."""
    made = api.synth(tmp_path_factory.mktemp("optional") / "cohort", cases=12, channels=2)
    rewrite(made.parent / "cohort.csv", lambda n, row: row.update(image_1="" if n in LACKING else row["image_1"]))
    return declare(made, CHANNELS, "optional.yaml")


@pytest.fixture(scope="module")
def run(config: Path) -> Path:
    return api.train(config, config.parents[1] / "run", device="cpu", overrides=TINY)


@pytest.fixture(scope="module")
def model(run: Path) -> Any:
    return api.load(run, device="cpu")


def images(config: Path, number: int) -> dict[str, str]:
    with (config.parent / "cohort.csv").open(newline="", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[number]
    return {name: str(config.parent / row[name]) for name in ("image_0", "image_1") if row[name]}


def test_the_network_has_an_input_per_channel_and_one_per_optional_channel(run: Path) -> None:
    plan = RunFolder.open(run).load_plan()
    assert (plan.preparation.channels, plan.preparation.optional) == (("image_0", "image_1"), ("image_1",))
    assert plan.network.in_channels == 3


def test_what_is_learned_of_a_channel_comes_from_the_cases_that_have_it(run: Path, config: Path) -> None:
    folder = RunFolder.open(run)
    session = open_session(folder)
    train = set(folder.load_splits().folds[0].train)
    held = [case for case in session.training.views[0].cases if "image_1" in case.images]
    assert {case.case_id for case in session.training.views[0].cases} == train and 0 < len(held) < len(train)
    bright = [session.training.views[0].cache.get(case).statistics[1]["p995"] for case in held]
    assert folder.load_plan().training_range["intensity_image_1"] == (min(bright), max(bright))


def test_batches_say_what_is_missing_and_hide_what_is_not(run: Path) -> None:
    session = open_session(RunFolder.open(run))
    lacking = {f"case_{number:03}" for number in LACKING}
    dropped = 0
    for step in range(30):
        (view,) = session.training[step].views.values()
        for case_id, image in zip(view.case_ids, view.image_BCDHW, strict=True):
            assert image[0].ne(0).any()
            flag = image[2].unique()
            assert flag.numel() == 1
            assert bool(flag) == bool(image[1].ne(0).any())
            if case_id in lacking:
                assert not bool(flag)
            else:
                dropped += not bool(flag)
    assert dropped
    # a case that is only looked at keeps what it has
    assert session.validation is not None
    for step in range(len(session.validation)):
        (view,) = session.validation[step].views.values()
        assert bool(view.image_BCDHW[0, 2].all()) == (view.case_ids[0] not in lacking)


@pytest.mark.covers("P07")
def test_a_resumed_run_ends_as_one_that_was_not_stopped(run: Path, config: Path) -> None:
    place = resumed_copy(run, config, config.parents[1] / "stopped")
    assert weights_sha256(place) == weights_sha256(run)


def test_every_case_is_scored(run: Path) -> None:
    api.evaluate(run, split="all", device="cpu")
    parts = [json.loads(path.read_text()) for path in (run / "evaluation").glob("*/activations.json")]
    assert sum(map(len, parts)) == 12


def test_another_cohort_says_itself_whether_its_channels_are_brought_to_one_grid(
    run: Path, config: Path, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(config.parent, tmp_path / "elsewhere")) / config.name
    second = images(place, 0)["image_1"]
    scan: Any = nib.load(second)
    nib.save(scan.slicer[:, :, ::2], second)
    with pytest.raises(InputError, match=r"^1 of 12 cases were not predicted.*on the first channel's grid"):
        api.predict(run, place, tmp_path / "refused", device="cpu")
    place.write_text(place.read_text().replace("cohort:\n", "cohort:\n  resample: to_first\n"), encoding="utf-8")
    assert len(predicted(api.predict(run, place, tmp_path / "brought", device="cpu"))) == 12
    scores = api.evaluate(run, config=place, out=tmp_path / "scores", allow_overlap=True, device="cpu")
    assert scores["all"].metrics["cases"] == 12


@pytest.mark.parametrize("number", [0, 1])
def test_every_way_to_ask_gives_one_answer(run: Path, model: Any, config: Path, tmp_path: Path, number: int) -> None:
    case_id, files = f"case_{number:03}", images(config, number)
    assert len(files) == 2 - (number in LACKING)
    typed = [f"{name}={path}" for name, path in files.items()]
    assert main(["predict", str(run), *typed, "--out", str(tmp_path / "typed"), "--quiet", "--device", "cpu"]) == 0
    (by_file,) = predicted(tmp_path / "typed" / "predictions.csv").values()
    rows = [
        predicted(api.predict(run, [config], tmp_path / "config"))[case_id],
        predicted(api.predict(run, [config.parent / "cohort.csv"], tmp_path / "table"))[case_id],
        predicted(model.predict(files, case_id=case_id).save(tmp_path / "python"))[case_id],
    ]
    assert rows[0] == rows[1] == rows[2]
    # named after its last file, as nobody said its id
    assert by_file["risk"] == rows[0]["risk"]
    assert by_file["malignancy"] == rows[0]["malignancy"]


def test_a_missing_channel_changes_the_answer_and_is_not_strange(model: Any, config: Path) -> None:
    files = images(config, 0)
    whole, part = model.predict(files), model.predict({"image_0": files["image_0"]})
    assert whole.activations != part.activations
    assert part.outside_training == ()
    with pytest.raises(InputError, match=r"wants the channels image_0, image_1 \(optional\); found image_1"):
        model.predict({"image_1": files["image_1"]})


def test_an_absent_channel_is_no_channel_of_zeros(model: Any, config: Path, tmp_path: Path) -> None:
    files = images(config, 0)
    scan = nib.Nifti1Image.from_filename(files["image_0"])
    nib.save(nib.Nifti1Image(np.zeros(scan.shape, np.int16), scan.affine), tmp_path / "zero.nii.gz")  # type: ignore[no-untyped-call]
    zeros = model.predict({**files, "image_1": tmp_path / "zero.nii.gz"})
    assert zeros.activations != model.predict({"image_0": files["image_0"]}).activations


def test_another_cohort_need_not_have_an_optional_channel(run: Path, config: Path, tmp_path: Path) -> None:
    less = declare(config.with_name("config.yaml"), "{image_0: image_0}", "less.yaml")
    api.evaluate(run, config=less, out=tmp_path / "external", allow_overlap=True, device="cpu")
    answers = json.loads((tmp_path / "external" / "activations.json").read_text())
    table = predicted(api.predict(run, [less], tmp_path / "prediction"))
    assert len(answers) == len(table) == 12
    other = declare(config.with_name("config.yaml"), "{image_1: image_1}", "other.yaml")
    with pytest.raises(InputError, match=r"other\.yaml has no channel image_0"):
        api.predict(run, [other], tmp_path / "none")


def test_what_the_model_needs_is_needed_whatever_the_other_file_says(run: Path, config: Path, tmp_path: Path) -> None:
    shutil.copytree(config.parent, tmp_path / "cohort")
    rewrite(tmp_path / "cohort" / "cohort.csv", lambda n, row: row.update(image_0="" if n == 3 else row["image_0"]))
    given = declare(tmp_path / "cohort" / "config.yaml", EITHER, "either.yaml")
    with pytest.raises(InputError, match=r"1 of 12 cases were not predicted.*\[B076\] row 5"):
        api.predict(run, [given], tmp_path / "out")


def test_the_first_channel_that_is_there_defines_the_grid_of_the_answer(config: Path, tmp_path: Path) -> None:
    shutil.copytree(config.parent, tmp_path / "cohort")
    table = tmp_path / "cohort" / "cohort.csv"
    rewrite(table, lambda n, row: row.update(image_0="" if n in (2, 3, 5) else row["image_0"]))
    given = declare(tmp_path / "cohort" / "config.yaml", EITHER, "either.yaml")
    run = api.train(given, tmp_path / "run", device="cpu", overrides=TINY)
    assert RunFolder.open(run).load_plan().network.in_channels == 4
    files = images(given, 2)
    assert list(files) == ["image_1"]
    found = api.load(run, device="cpu").predict(files)
    scan = nib.Nifti1Image.from_filename(files["image_1"])
    (mask,) = [result.mask for result in found.values() if result.mask is not None]
    assert mask.array.shape == scan.shape
    np.testing.assert_allclose(mask.grid.affine, scan.affine)
    api.evaluate(run, split="all", device="cpu")
    assert (run / "evaluation" / "train" / "report.html").is_file()
    assert all(bool(torch.isfinite(torch.tensor(values)).all()) for values in found.activations.values())


@pytest.mark.parametrize("kind", ["two", "lesion", "tiles"])
def test_a_second_view_tells_the_network_which_channels_are_there(kind: str, config: Path, tmp_path: Path) -> None:
    overrides = {**TINY, "plan.shape": [16, 16, 16], "views.kind": kind, "training.steps": 2}
    if kind == "two":
        overrides["views.spacing"] = [2.0, 2.0, 2.0]
    run = api.train(config, tmp_path / "run", device="cpu", overrides=overrides)
    session = open_session(RunFolder.open(run))
    for step in range(4):
        for view in session.training[step].views.values():
            assert view.image_BCDHW.shape[1] == session.plan.network.in_channels
    assert api.evaluate(run, device="cpu")["val"].metrics["cases"] > 0
