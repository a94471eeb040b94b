from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

import medmtl
from medmtl import api, checkpoint
from medmtl.data.case import Case
from medmtl.data.covariates import NumberCovariate
from medmtl.data.formats.nifti import read_image, write_map, write_mask
from medmtl.data.prepared import Intensity
from medmtl.data.volume import Grid
from medmtl.errors import ArtefactError, InputError, MedmtlError, NumericError
from medmtl.inference import predict as predict_module
from medmtl.inference.case_prediction import CasePrediction
from medmtl.inference.forward import stream
from medmtl.inference.planes import Planes, Stream
from medmtl.inference.predict import Predictor
from medmtl.planning import Plan
from medmtl.run_folder import RunFolder
from medmtl.tasks.detection import Detection, DetectionOptions
from medmtl.tasks.regression.task import RegressionResult


@pytest.fixture(scope="module")
def predictor(trained_run: Path) -> Predictor:
    return Predictor([RunFolder.open(trained_run)], "cpu")


def case(path: Path, channel: str = "image") -> Case:
    return Case("c1", "c1", None, 0, {channel: path})


def test_every_task_answers_on_the_grid_of_the_image(predictor: Predictor, tiny_cohort: Path) -> None:
    path = tiny_cohort.parent / "images" / "case_001.nii.gz"
    found = predictor.predict(case(path))
    assert list(found) == ["lesion", "malignancy", "risk"]
    image = read_image(path)
    mask = found["lesion"].mask
    assert mask is not None
    assert mask.array.shape == image.array.shape
    np.testing.assert_array_equal(mask.grid.affine, image.grid.affine)
    assert found.outside_training == ()


@pytest.mark.covers("B162")
def test_what_the_training_did_not_see_is_named(predictor: Predictor, tmp_path: Path) -> None:
    ramp = np.arange(24 * 20 * 12, dtype=np.int32).reshape(24, 20, 12)
    write_mask(tmp_path / "coarse.nii.gz", ramp, Grid((24, 20, 12), np.diag([1.0, 1.0, 4.0, 1.0])))
    assert predictor.predict(case(tmp_path / "coarse.nii.gz")).outside_training == ("spacing_2", "intensity_image")


@pytest.mark.covers("B162")
def test_a_case_of_other_channels_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^\[B162\] the model wants the channels image; found t1; give one file"):
        predictor.predict(case(tmp_path / "absent.nii.gz", "t1"))


@pytest.mark.parametrize("tasks", [("risk",), ("lesion",), ("lesion", "risk")], ids=", ".join)
def test_an_answer_that_is_not_finite_is_never_given(
    tasks: tuple[str, ...], predictor: Predictor, tiny_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> Stream:
        parts = stream(*arguments, **options)
        value = next(parts).values["lesion"].clone()
        if "lesion" in tasks:
            value[0, 0, 0, 0] = torch.inf
        yield Planes({"lesion": value})
        found = yield from parts
        return {name: value * torch.nan if name in tasks else value for name, value in found.items()}

    monkeypatch.setattr(predict_module, "stream", broken)
    with pytest.raises(NumericError, match=f"'c1': the model's answer is not finite for {', '.join(tasks)}$"):
        predictor.predict(case(tiny_cohort.parent / "images" / "case_001.nii.gz"))


def test_boxes_that_are_not_finite_are_no_answer() -> None:
    broken: set[str] = set()
    own = SimpleNamespace(tasks={"boxes": Detection("boxes", DetectionOptions(kind="detection", column="lesion"))})
    found = [{"boxes": torch.full((1, 7), torch.nan)}, {"boxes": torch.zeros(0, 7)}]
    assert Predictor._joined(cast(Predictor, own), found, cast(Any, None), broken) == {}
    assert broken == {"boxes"}


def streamed(predictor: Predictor, reading: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """What each model is asked: its plan and image, and the options."""
    asked: list[tuple[Any, dict[str, Any]]] = []

    def keep(model: Any, tasks: Any, plan: Plan, image_CDHW: torch.Tensor, **options: Any) -> None:
        asked.append(((plan, image_CDHW.clone()), options))

    monkeypatch.setattr(predict_module, "stream", keep)
    predictor._streams(reading)
    return asked


def test_the_options_of_inference_are_followed(
    trained_run: Path, tiny_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.open(trained_run)
    config, other = run.load_config(), "fp32" if run.load_plan().precision == "bf16" else "bf16"
    inference = config.inference.model_copy(update={"overlap": 0.7, "precision": other})
    changed = config.model_copy(update={"inference": inference})
    monkeypatch.setattr(RunFolder, "load_config", lambda self: changed)
    predictor = Predictor([run], "cpu")
    reading = predictor.read(case(tiny_cohort.parent / "images" / "case_001.nii.gz"))
    (((plan, _), options),) = streamed(predictor, reading, monkeypatch)
    assert (options["overlap"], plan.precision) == (0.7, other)


def test_each_fold_sees_a_case_as_its_own_training_did(
    trained_run: Path, tiny_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.open(trained_run)
    predictor = Predictor([run, run], "cpu")
    for fold, (middle, low) in enumerate([(100.0, 40.0), (300.0, 60.0)]):
        own = predictor._members[fold]
        learned: dict[str, Any] = {
            "intensities": (Intensity("ct", (-1000.0, 1000.0), middle, 10.0),),
            "covariates": (NumberCovariate("age", low, 10.0, low, low + 20, 0),),
        }
        predictor._members[fold] = replace(own, plan=replace(own.plan, **learned))
    told = replace(case(tiny_cohort.parent / "images" / "case_001.nii.gz"), cells={"age": "70"})
    reading = predictor.read(told)
    (first, one), (second, other) = streamed(predictor, reading, monkeypatch)
    torch.testing.assert_close(first[1] - second[1], torch.full_like(first[1], 20.0))
    assert one["covariates_N"][0] != other["covariates_N"][0]
    # an age that one of the folds was trained on is not strange
    assert reading.strange == ()
    assert predictor._strange_covariates(replace(told, cells={"age": "150"})) == ("covariate_age",)


def test_a_scan_that_is_looked_at_again_is_not_overwritten(
    predictor: Predictor, tiny_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = predictor.read(case(tiny_cohort.parent / "images" / "case_001.nii.gz"))
    before = reading.prepared.image_CDHW.copy()
    streamed(predictor, replace(reading, with_reference=True), monkeypatch)
    np.testing.assert_array_equal(reading.prepared.image_CDHW, before)


def test_folds_of_other_spacings_are_refused(trained_run: Path) -> None:
    class Coarser(RunFolder):
        def load_plan(self) -> Plan:
            plan = super().load_plan()
            return replace(plan, preparation=replace(plan.preparation, spacing=(9.0, 9.0, 9.0)))

    with pytest.raises(ArtefactError, match="trained for different tasks, channels or spacings"):
        Predictor([RunFolder.open(trained_run), Coarser(trained_run)], "cpu")


@pytest.mark.covers("B147")
def test_a_run_without_a_checkpoint_is_refused_by_name(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "load", lambda folder, first_of: None)
    with pytest.raises(ArtefactError, match="run has no checkpoint yet"):
        medmtl.load(trained_run, device="cpu")


@pytest.mark.covers("B162")
def test_cases_outside_the_training_range_are_warned_about_and_marked(
    trained_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ramp = np.arange(24 * 20 * 12, dtype=np.int32).reshape(24, 20, 12)
    write_mask(tmp_path / "coarse.nii.gz", ramp, Grid((24, 20, 12), np.diag([1.0, 1.0, 4.0, 1.0])))
    table = medmtl.predict(trained_run, [tmp_path / "coarse.nii.gz"], tmp_path / "out", device="cpu")
    assert "[B162] 1 of 1 cases lie outside" in caplog.text
    assert "coarse (spacing_2, intensity_image)" in caplog.text
    assert "spacing_2" in table.read_text()


@pytest.mark.covers("B162")
def test_the_range_of_an_ensemble_is_that_of_its_folds(trained_run: Path, tmp_path: Path) -> None:
    run = RunFolder.open(trained_run)
    both = Predictor([run, run], "cpu")
    ramp = np.arange(24 * 20 * 12, dtype=np.int32).reshape(24, 20, 12) % 500
    write_mask(tmp_path / "coarse.nii.gz", ramp, Grid((24, 20, 12), np.diag([1.0, 1.0, 4.0, 1.0])))
    assert "spacing_2" in both.predict(case(tmp_path / "coarse.nii.gz")).outside_training
    other = both._members[1]
    wider = {**other.plan.training_range, "spacing_2": (1.0, 5.0)}
    both._members[1] = replace(other, plan=replace(other.plan, training_range=wider))
    assert "spacing_2" not in both.predict(case(tmp_path / "coarse.nii.gz")).outside_training


@pytest.mark.covers("B162")
def test_a_ct_that_lost_its_intercept_is_outside_by_its_air(trained_run: Path, tmp_path: Path) -> None:
    predictor = Predictor([RunFolder.open(trained_run)], "cpu")
    (member,) = predictor._members
    seen = {**member.plan.training_range, "intensity_image": (500.0, 2000.0), "intensity_low_image": (-1024.0, -900.0)}
    scan = np.tile(np.linspace(-1000, 600, 12).astype(np.int16), (24, 20, 1))
    for name, array in (("sound", scan), ("shifted", scan + 1024)):
        write_map(tmp_path / f"{name}.nii.gz", array.astype(np.float32), Grid((24, 20, 12), np.eye(4)))
    ct = replace(member.plan, training_range=seen, intensities=(Intensity("ct", (-1000.0, 600.0), 0.0, 300.0),))
    for plan, outside in ((ct, ("intensity_low_image",)), (replace(ct, training_range=member.plan.training_range), ())):
        predictor._members[0] = replace(member, plan=plan)
        found = predictor.predict(case(tmp_path / "shifted.nii.gz")).outside_training
        assert tuple(name for name in found if "low" in name) == outside
    predictor._members[0] = replace(member, plan=ct)
    assert "intensity_low_image" not in predictor.predict(case(tmp_path / "sound.nii.gz")).outside_training


def test_a_prediction_and_a_model_are_shown_in_one_line_without_an_id(trained_run: Path, tiny_cohort: Path) -> None:
    model = medmtl.load(trained_run, device="cpu")
    assert repr(model) == "Model(image -> lesion segmentation, malignancy classification, risk regression)"
    found = model.predict(tiny_cohort.parent / "images" / "case_000.nii.gz")
    told = re.fullmatch(r"Prediction\(lesion_lesion_ml (\S+), malignancy (\w+), risk (\S+)\)", repr(found))
    assert told is not None and told[3] == f"{found['risk'].cells('risk')['risk']:.4g}"


def test_a_task_that_there_is_not_is_a_key_error_that_says_which_there_are() -> None:
    found = CasePrediction("c", {"risk": RegressionResult(value=1.0), "organ": RegressionResult(value=2.0)}, {}, ())
    with pytest.raises(MedmtlError) as raised:
        found["rsk"]
    assert isinstance(raised.value, KeyError)
    assert str(raised.value) == "no task is called 'rsk', only risk, organ; did you mean 'risk'?"
    assert "rsk" not in found and found.get("rsk") is None and raised.value.exit_code == 2


def test_cases_that_the_model_was_trained_on_are_named_whatever_they_are_called_now(
    tiny_cohort: Path, trained_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fold = RunFolder.open(trained_run).load_splits().folds[0]
    source = tiny_cohort.parent / "images"
    learned = Path(shutil.copy(source / f"{fold.train[0]}.nii.gz", tmp_path / "learned.nii.gz"))
    held_out = Path(shutil.copy(source / f"{fold.val[0]}.nii.gz", tmp_path / "held_out.nii.gz"))
    api.predict(trained_run, [learned, held_out], tmp_path / "out", device="cpu")
    told = [record.message for record in caplog.records if "trained on, so that" in record.message]
    assert [message.rpartition(": ")[2] for message in told] == ["learned"]
    assert told[0].startswith("1 of 2 cases ")
    caplog.clear()
    api.predict(trained_run, [held_out], tmp_path / "out", device="cpu")
    assert "trained on, so that" not in caplog.text
