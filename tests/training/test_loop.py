from __future__ import annotations

import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medmtl import api
from medmtl import config as configuration
from medmtl.data.batch import Batch
from medmtl.data.loader import StepViews
from medmtl.data.workers import make_loader
from medmtl.errors import BusyRunError, InputError, InterruptedRun, NumericError, WorkError
from medmtl.folder_lock import FolderLock
from medmtl.run_folder import RunFolder
from medmtl.training import loop, step
from medmtl.training.folds import as_asked
from medmtl.training.optimiser import Schedule
from medmtl.training.session import open_session
from medmtl.training.signals import Requests
from medmtl.training.step import Learner
from tests.conftest import TINY
from tests.faults.processes import fingerprint, records


def test_the_number_of_loader_processes_changes_nothing(trained_run: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides={**TINY, "plan.workers": 1})
    assert fingerprint(tmp_path / "run") == fingerprint(trained_run)


def test_a_signal_commits_and_ends_with_an_interruption(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def step_then_signal(*arguments: Any) -> Any:
        record = step.train_step(*arguments)
        if arguments[1].step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return record

    monkeypatch.setattr(loop, "train_step", step_then_signal)
    with pytest.raises(InterruptedRun, match="SIGTERM after step 3"):
        api.train(tiny_cohort, out, device="cpu", overrides=TINY)
    monkeypatch.undo()
    assert (out / "checkpoints" / "last").read_text().strip() == "step-000003"
    api.train(tiny_cohort, out, device="cpu", overrides=TINY, resume=True)
    assert (out / "checkpoints" / "last").read_text().strip() == "step-000006"


def test_a_request_during_a_validation_is_met_at_once_and_made_up_for(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    losses = step.task_losses
    validated: list[int] = []

    def signal_then_losses(*arguments: Any, **named: Any) -> Any:
        validated.append(len(validated))
        os.kill(os.getpid(), signal.SIGTERM)
        return losses(*arguments, **named)

    monkeypatch.setattr(loop, "task_losses", signal_then_losses)
    with pytest.raises(InterruptedRun, match="SIGTERM after step 2"):
        api.train(tiny_cohort, out, device="cpu", overrides=TINY)
    monkeypatch.undo()
    assert validated == [0]
    assert not any("validation" in record for record in records(out))
    api.train(tiny_cohort, out, device="cpu", overrides=TINY, resume=True)
    assert fingerprint(out) == fingerprint(trained_run)
    assert records(out) == records(trained_run)


@pytest.mark.covers("F42", "F45", "P12")
@pytest.mark.parametrize("what", ["loss", "weights"])
def test_what_is_not_finite_reaches_no_commit_and_no_log(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    out = tmp_path / "run"

    def broken(learner: Learner, batch: Batch, factor: float) -> Any:
        if batch.step == 3 and what == "loss":
            (view,) = batch.views.values()
            batch = Batch(3, {"case": replace(view, image_BCDHW=view.image_BCDHW * math.nan)})
        if batch.step == 3 and what == "weights":
            monkeypatch.setattr(
                learner.optimiser, "step", lambda: learner.model.trunk_parameters()[0].data.fill_(math.inf)
            )
        return step.train_step(learner, batch, factor)

    monkeypatch.setattr(loop, "train_step", broken)
    with pytest.raises(NumericError, match=rf"step 3: the {what} of .* not finite.* \(row \d+\)") as caught:
        api.train(tiny_cohort, out, device="cpu", overrides=TINY)
    assert caught.value.exit_code == 4
    monkeypatch.undo()
    assert (out / "checkpoints" / "last").read_text().strip() == "step-000002"
    assert [record["step"] for record in records(out) if "losses" in record] == [1, 2, 3]
    api.train(tiny_cohort, out, device="cpu", overrides=TINY, resume=True)
    assert fingerprint(out) == fingerprint(trained_run)


@pytest.mark.covers("F46")
def test_a_validation_that_is_not_finite_is_null_and_chooses_nothing(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = step.task_losses
    monkeypatch.setattr(loop, "task_losses", lambda *a, **k: {n: v * math.nan for n, v in losses(*a, **k).items()})
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=TINY)
    found = [record["validation"] for record in records(tmp_path / "run") if "validation" in record]
    assert len(found) == 3 and all(set(validation.values()) == {None} for validation in found)
    assert fingerprint(tmp_path / "run") == fingerprint(trained_run)
    assert not (tmp_path / "run" / "best").exists()


def test_a_validation_is_of_the_averaged_weights_on_the_validation_cases(trained_run: Path) -> None:
    run = RunFolder.open(trained_run)
    session = open_session(run)
    average, said = session.learner.average, list[Any]()
    assert session.validation is not None and average is not None
    (view,) = session.validation.views
    assert {case.case_id for case in view.cases} == set(run.load_splits().folds[0].val)
    step.train_step(session.learner, session.training[0], 1.0)
    session.run = SimpleNamespace(log=said.append)  # type: ignore[assignment]
    loop._validate(session, 1, Requests())
    session.learner = replace(session.learner, average=None)
    loop._validate(session, 1, Requests())
    session.learner.model.load_weights(average.tensors)
    loop._validate(session, 1, Requests())
    assert said[0] == said[2] != said[1]


@pytest.mark.covers("F66")
def test_an_error_of_a_callback_is_the_caller_s_and_leaves_the_commit(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    def own_callback(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train" and done == 3:
            raise ZeroDivisionError("in a callback")

    with pytest.raises(ZeroDivisionError, match="in a callback") as caught:
        api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=TINY, progress=own_callback)
    assert caught.traceback[-1].name == "own_callback"
    assert (tmp_path / "run" / "checkpoints" / "last").read_text().strip() == "step-000002"
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=TINY, resume=True)
    assert fingerprint(tmp_path / "run") == fingerprint(trained_run)


@pytest.mark.covers("F66")
@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_kind_s_own_code_names_the_case_and_keeps_its_trace(trained_run: Path, workers: int) -> None:
    def own_encode(truth: Any) -> Any:
        raise ZeroDivisionError("in a task kind")

    (view,) = open_session(RunFolder.open(trained_run)).training.views
    dataset = StepViews([replace(view, encoders={**view.encoders, "risk": own_encode})])
    with pytest.raises(WorkError, match=r"case '.*' \(row \d+\) .*: ZeroDivisionError: in a task kind") as caught:
        next(make_loader(dataset, 0, 2, workers, torch.device("cpu")))
    assert "in own_encode" in caught.value.__notes__[0]


@pytest.mark.covers("F07")
def test_a_run_killed_after_its_last_rename_is_tidied_by_the_next_start(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    (run / "checkpoints" / "last").write_text("step-000004\n")
    shutil.copytree(run / "checkpoints" / "step-000004", run / "checkpoints" / ".step-000002.tmp-1")
    (run / "checkpoints" / "step-000002").mkdir()
    api.train(tiny_cohort, run, device="cpu", overrides=TINY, resume=True)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-000004", "step-000006", "last"}
    assert fingerprint(run) == fingerprint(trained_run)


def test_resume_takes_what_changes_no_result_as_it_is_asked_for(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    before = {path: path.read_bytes() for path in (run / "config.yaml", run / "plan.json")}
    seen: list[int] = []

    def watched(dataset: Any, first: int, limit: int | None, workers: int, device: torch.device) -> Any:
        seen.append(workers)
        return make_loader(dataset, first, limit, workers, device)

    monkeypatch.setattr(loop, "make_loader", watched)
    changed = {**TINY, "plan.workers": 1, "training.keep": 3, "cache.folder": str(tmp_path / "elsewhere")}
    api.train(tiny_cohort, run, device="cpu", overrides=changed, resume=True)
    assert seen == [1]
    assert list((tmp_path / "elsewhere").iterdir())
    kept = {path.name for path in (run / "checkpoints").glob("step-*")}
    assert kept == {"step-000002", "step-000004", "step-000006"}
    assert fingerprint(run) == fingerprint(trained_run)
    assert {path: path.read_bytes() for path in before} == before


def test_what_a_resume_does_not_set_is_as_the_run_has_it(tiny_cohort: Path) -> None:
    set_once = {"plan.workers": 3, "training.keep": 5, "cache.folder": "/elsewhere"}
    stored, asked = configuration.load(tiny_cohort, set_once), configuration.load(tiny_cohort)
    assert as_asked(stored, asked) == stored
    other = as_asked(stored, configuration.load(tiny_cohort, {"training.keep": 2}))
    assert (other.training.keep, other.plan.workers) == (2, 3)


def test_resume_refuses_another_configuration_and_names_the_keys(trained_run: Path, tiny_cohort: Path) -> None:
    with pytest.raises(InputError, match=r"B145.*training\.lr; give the same --set") as caught:
        api.train(tiny_cohort, trained_run, overrides={**TINY, "training.lr": 0.5}, resume=True)
    command = f"medmtl train {trained_run / 'config.yaml'} --out {trained_run} --resume"
    assert f"or resume with its own: {command}; " in str(caught.value)


@pytest.mark.parametrize("fold", ["ALL", "0", None, 1.0, True])
def test_a_fold_that_is_none_is_refused_before_the_cohort_is_read(tmp_path: Path, fold: Any) -> None:
    with pytest.raises(InputError, match=r"B164\] fold wants a number or 'all' or 'none', found ") as caught:
        api.train(tmp_path / "nothing.yaml", tmp_path / "run", fold=fold)
    assert str(caught.value).endswith(repr(fold))
    with pytest.raises(InputError, match=r"fold wants a number or 'none', found 'all'"):
        api.plan(tmp_path / "nothing.yaml", fold="all")  # type: ignore[arg-type]


def test_resume_without_a_run_and_a_second_start_are_refused(
    trained_run: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no run at"):
        api.train(tiny_cohort, tmp_path / "none", overrides=TINY, resume=True)
    with pytest.raises(InputError, match="not empty"):
        api.train(tiny_cohort, trained_run, overrides=TINY)


def test_two_processes_never_train_one_run(trained_run: Path, tiny_cohort: Path) -> None:
    with FolderLock(trained_run), pytest.raises(BusyRunError):
        api.train(tiny_cohort, trained_run, overrides=TINY, resume=True)


def test_minutes_become_a_fixed_number_of_steps(tiny_cohort: Path, tmp_path: Path) -> None:
    overrides = {**TINY, "training.minutes": 0.01}
    del overrides["training.steps"]
    api.train(tiny_cohort, tmp_path / "run", device="cpu", overrides=overrides)
    run = RunFolder.open(tmp_path / "run")
    plan = run.load_plan()
    assert plan.steps is not None and plan.steps >= loop.WARM_STEPS
    assert run.read_log()[-1]["step"] == plan.steps
    assert "minutes" in plan.reasons["steps"]
    factors = [record["rate_factor"] for record in run.read_log() if "losses" in record]
    assert factors[:50] == [(step + 1) / 50 for step in range(50)][: len(factors)]


def test_the_log_tells_waiting_and_memory_within_the_plan(trained_run: Path) -> None:
    timing = RunFolder.open(trained_run).read_log()[-1]["timing"]
    assert 0 <= timing["waiting_share"] <= 1
    assert timing["peak_memory_bytes"] > 0


@pytest.mark.parametrize("steps", [1, 7, 400])
def test_rates_warm_up_and_decay_to_nearly_nothing(steps: int) -> None:
    schedule = Schedule(steps, fixed_warm_up=False)
    factors = [schedule.factor(step) for step in range(steps)]
    assert max(factors) == 1.0
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(1.0)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
