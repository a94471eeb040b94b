"""Verdicts on case heads: from made predictions and features, and in the middle of a training."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medmtl import api
from medmtl import config as configuration
from medmtl.errors import InterruptedRun
from medmtl.networks.features import Features, Guide
from medmtl.run_folder import RunFolder
from medmtl.sections import TimesSection
from medmtl.training import collapse, loop
from medmtl.training.session import open_session
from medmtl.training.start import make_ready, start_run
from medmtl.training.task_schedule import TaskSchedule
from tests.conftest import TINY
from tests.faults.processes import fingerprint, records
from tests.tables import rewrite

Array = npt.NDArray[np.float64]


def made(cases: int, features: int, seed: int, strength: float = 1.0) -> tuple[Array, Array]:
    """A target, and features of which the first few hold it."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=cases)
    feature_NF = rng.normal(size=(cases, features))
    feature_NF[:, :8] += 2 * strength * target[:, None]
    return target, feature_NF


def judged(predicted: Array, target: Array, feature_NF: Array, **more: Any) -> str:
    found = collapse.verdict(predicted, target, feature_NF, steps=20, **more)
    assert found["sentence"].startswith(f"{found['verdict']}:") or found["verdict"] == "trained"
    return str(found["verdict"])


def test_a_head_that_follows_what_the_features_hold_is_trained() -> None:
    target, feature_NF = made(40, 100, 0)
    assert judged(0.5 * target, target, feature_NF) == "trained"


@pytest.mark.parametrize("noise", [1e-3, 0.5, 2.0])
def test_a_head_that_does_not_follow_what_the_features_hold_has_collapsed(noise: float) -> None:
    """Nearly constant, or saying anything, as a head that SGD's momentum threw far off does."""
    target, feature_NF = made(40, 100, 1)
    said = noise * np.random.default_rng(9).normal(size=40)
    said -= (said @ target) / (target @ target) * target
    assert judged(said, target, feature_NF) == "collapsed"
    assert judged(np.full(40, 3.0), target, feature_NF) == "collapsed"


def test_predictions_far_worse_than_a_constant_are_those_of_a_collapsed_head() -> None:
    target, feature_NF = made(40, 100, 2)
    said = 3 * target + np.random.default_rng(0).normal(size=40)
    for early, why in ((True, "yet a linear probe"), (False, "which is no lack of signal")):
        found = collapse.verdict(said, target, feature_NF, steps=20, early=early)
        assert found["fit_r2"] > 0.5 and f"predictions are far worse than a constant, {why}" in found["sentence"]
        assert found["verdict"] == "collapsed"


def test_noise_at_the_end_is_the_training_s_fault_even_where_the_features_are_noise_too() -> None:
    target, feature_NF = made(60, 100, 3, strength=0.0)
    said = np.random.default_rng(8).normal(size=60)
    assert judged(said, target, feature_NF) == "collapsed"
    assert judged(said, target, feature_NF, early=True) == "no signal found"
    assert judged(0.2 * said, target, feature_NF) == "no signal found"


@pytest.mark.parametrize("labels", [16, pytest.param(30, marks=pytest.mark.slow)])
def test_a_head_on_permuted_labels_never_comes_out_as_collapsed(labels: int) -> None:
    """Nearly constant or learned by heart, although the probe of some of them passes for one that explains a tenth."""
    above = 0
    for seed in range(14):
        target, feature_NF = made(labels, 300, seed, strength=0.0)
        figures = collapse.verdict(np.zeros(labels), target, feature_NF, steps=20)
        above += figures["probe_r2"] >= collapse.PROBE_R2
        assert figures["verdict"] == "no signal found"
        if figures["chance"] > collapse.LIKELY:
            assert judged(0.7 * target, target, feature_NF) == "no signal found"
    assert above


def test_the_probe_is_that_of_scikit_learn_and_its_chance_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "PERMUTATIONS", 19)
    target, feature_NF = made(30, 50, 4, strength=0.1)
    probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))

    def r2(values: Array) -> float:
        found = cross_val_predict(probe, feature_NF, values, cv=KFold(5, shuffle=True, random_state=0))
        return float(1 - np.mean((values - found) ** 2) / np.var(values))

    rng = np.random.default_rng(0)
    beaten = sum(r2(rng.permutation(target)) >= r2(target) for _ in range(collapse.PERMUTATIONS))
    found = collapse.verdict(np.zeros(30), target, feature_NF, steps=20)
    assert found["probe_r2"] == pytest.approx(r2(target), abs=1e-4)
    assert found["chance"] == pytest.approx((1 + beaten) / (1 + collapse.PERMUTATIONS), abs=1e-4)
    assert 0 < beaten < collapse.PERMUTATIONS


def test_classes_without_an_order_are_judged_alike_in_whatever_order_they_are_declared() -> None:
    """A head that knows one class of three and not the two others apart, which a mean of class numbers hides."""
    rng = np.random.default_rng(0)
    known, feature_NF = rng.permutation(np.repeat([0, 1, 2], 20)), rng.normal(size=(60, 20))
    feature_NF[:, 0] += 3 * (known == 1)
    said = np.where((known == 1)[:, None], [0.1, 0.8, 0.1], [0.45, 0.1, 0.45])
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2]):
        target = np.eye(3)[known][:, order]
        found = collapse.verdict(said[:, order], target, feature_NF, steps=20)
        assert found["verdict"] == "trained"
        assert found["fit_r2"] == pytest.approx(0.5, abs=1e-3)
    assert judged(np.full((60, 3), 1 / 3), np.eye(3)[known], feature_NF) == "collapsed"
    weak, dealt = 1 / 3 + 0.3 * (said - 1 / 3), np.eye(3)[rng.permutation(known)]
    assert judged(weak, dealt, rng.normal(size=(60, 20))) == "no signal found"


def test_a_head_is_judged_by_one_case_of_each_patient(tiny_cohort: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(tiny_cohort.parent, tmp_path / "cohort"))
    rewrite(place / "cohort.csv", lambda n, row: row.update(patient_id=f"pair {n // 2}") if 2 <= n < 8 else None)
    ready = make_ready(configuration.load(place / tiny_cohort.name, TINY))
    session = open_session(start_run(ready, tmp_path / "run", 0, "cpu"))
    tasks = {"risk": session.learner.tasks["risk"]}
    with torch.inference_mode():
        (found,) = collapse._observe(session, tasks, lambda: False).values()  # type: ignore[arg-type]
    labelled = [case for case in ready.members(0)[0] if case.case_id in ready.checked.truths["risk"]]
    assert len(found) == len({case.patient for case in labelled}) < len(labelled)
    assert found[0].target == pytest.approx(ready.checked.truths["risk"][labelled[0].case_id])


def test_the_probe_sees_what_a_head_reads() -> None:
    maps = torch.randn(4, 2, 4, 4, 4), torch.randn(4, 3, 2, 2, 2)
    means, highest = ([pool(level, (2, 3, 4)) for level in maps] for pool in (torch.mean, torch.amax))
    image = torch.cat([means[0], highest[0], means[1], highest[1]], dim=1)
    tiled = collapse._pool(Features(maps, tiles=2))
    np.testing.assert_allclose(tiled, image.unflatten(0, (2, 2)).mean(1), rtol=1e-6)
    # under a mask that is everywhere alike a mean is the plain one
    guide = Guide(torch.full((4, 1, 4, 4, 4), 0.5), torch.tensor([[0.0, 1.0]] * 4))
    age = torch.arange(4.0)[:, None]
    beside = torch.cat([*means, torch.tensor([[0.0, 1.0]] * 4).log1p(), age], dim=1)
    found = collapse._pool(Features(maps, covariates_BN=age, guides=(guide,)))
    np.testing.assert_allclose(found, torch.cat([image, beside], dim=1), rtol=1e-4, atol=1e-6)


def test_targets_that_do_not_vary_hold_no_signal() -> None:
    _, feature_NF = made(20, 30, 5)
    assert judged(np.arange(20.0), np.ones(20), feature_NF) == "no signal found"
    assert judged(np.zeros(20), np.arange(20.0), np.zeros((20, 30))) == "no signal found"


def test_no_signal_is_said_with_its_steps_its_labels_and_what_may_be_the_cause() -> None:
    target, feature_NF = made(18, 100, 4, strength=0.0)
    assert collapse.verdict(np.zeros(18), target, feature_NF, steps=20)["sentence"] == (
        "no signal found: after 20 steps its features do not explain its training labels clearly better than chance; "
        "possible causes: too few steps, too few labelled cases (18 judged), or an image that does not show it; see "
        "docs/heads.md"
    )


def test_a_head_is_judged_with_the_steps_done(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "MIN_CASES", 5)
    monkeypatch.setattr(collapse, "verdict", lambda *_, steps, early: {"steps": steps, "early": early})
    session = open_session(RunFolder.open(trained_run))
    assert collapse.collapse_check(session) == {"risk": {"steps": 6, "early": False}}
    assert collapse.collapse_check(session, early=2) == {"risk": {"steps": 2, "early": True}}


def test_early_a_slow_head_is_undecided_and_a_dead_one_is_not() -> None:
    target, feature_NF = made(40, 100, 6)
    said = np.random.default_rng(1).normal(size=40)
    said -= (said @ target) / (target @ target) * target
    assert judged(0.05 * said, target, feature_NF) == "collapsed"
    assert judged(0.05 * said, target, feature_NF, early=True) == "undecided"
    assert judged(0.001 * said, target, feature_NF, early=True) == "collapsed"
    assert judged(1.5 * said, target, feature_NF, early=True) == "collapsed"


def test_a_check_leaves_training_mode_random_numbers_and_weights_alone(trained_run: Path) -> None:
    session = open_session(RunFolder.open(trained_run))
    model = session.learner.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    for mode in (True, False):
        model.train(mode)
        collapse.collapse_check(session)
        assert all(module.training is mode for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert collapse.collapse_check(session, stopped=lambda: True) == {}


def test_early_a_head_that_has_hardly_trained_is_not_judged(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "MIN_CASES", 5)
    session = open_session(RunFolder.open(trained_run))
    assert list(collapse.collapse_check(session, early=2)) == ["risk"]  # malignancy has too few labels
    times = {"risk": TimesSection(start=0.3)}
    session.learner.times = TaskSchedule(tuple(session.learner.tasks), times, steps=6)
    assert collapse.collapse_check(session, early=2) == {}
    assert list(collapse.collapse_check(session)) == ["risk"]


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps are enough for an early judgement, after two of them, and four labelled cases for a verdict."""
    monkeypatch.setattr(loop, "EARLY_FROM", 6)
    monkeypatch.setattr(collapse, "MIN_CASES", 5)


@pytest.fixture(scope="module")
def judged_early(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "EARLY_FROM", 6)
        patch.setattr(collapse, "MIN_CASES", 5)
        return api.train(tiny_cohort, tmp_path_factory.mktemp("early") / "run", device="cpu", overrides=TINY)


def test_heads_are_judged_a_third_of_the_way_too_and_nothing_else_changes(
    trained_run: Path, judged_early: Path
) -> None:
    assert fingerprint(judged_early) == fingerprint(trained_run)
    found = [(r["step"], r["collapse"]["task"]) for r in records(judged_early) if "collapse" in r]
    assert {step for step, _ in found} == {2, 6}
    assert len(found) == len(set(found))


@pytest.mark.usefixtures("early")
def test_a_stop_does_not_wait_for_the_early_judgement_and_a_resume_makes_up_for_it(
    tiny_cohort: Path, judged_early: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = loop.collapse_check

    def stop_then_judge(session: Any, *, early: int, stopped: Any) -> Any:
        return judge(session, early=early, stopped=lambda: early > 0)

    monkeypatch.setattr(loop, "collapse_check", stop_then_judge)

    def interrupt(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train" and done == 2:
            raise InterruptedRun("here")

    with pytest.raises(InterruptedRun):
        api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=TINY, progress=interrupt)
    assert not any("collapse" in record for record in records(tmp_path / "run"))
    monkeypatch.setattr(loop, "collapse_check", judge)
    for _ in range(2):  # the second resume finds it done
        api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=TINY, resume=True)
    assert records(tmp_path / "run") == records(judged_early)
    assert any(record["step"] == 2 and "collapse" in record for record in records(tmp_path / "run"))


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize(("word", "told"), [("collapsed", 2), ("no signal found", 1), ("undecided", 1)])
def test_only_a_collapsed_head_is_worth_a_warning_before_the_end(
    tiny_cohort: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    word: str,
    told: int,
) -> None:
    verdict = {"verdict": word, "sentence": f"{word}: so it is"}
    monkeypatch.setattr(loop, "collapse_check", lambda *_, **__: {"risk": verdict})
    with caplog.at_level(logging.WARNING, logger="medmtl"):
        api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=TINY)
    messages = [record.getMessage() for record in caplog.records if "so it is" in record.getMessage()]
    assert len(messages) == told
    assert messages[-1] == f"task risk, fold 0: {word}: so it is"
    assert told == 1 or messages[0] == f"task risk, fold 0, after 2 of 6 steps: {word}: so it is"


@pytest.mark.parametrize(("limit", "step"), [(None, None), (59, None), (60, 20), (450, 150)])
def test_the_moment_of_the_early_judgement(limit: int | None, step: int | None) -> None:
    assert loop._early_step(limit) == step
