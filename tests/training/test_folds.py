"""Where the folds of a training may lie, and which of them are gone on with."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from medmtl import api
from medmtl import config as configuration
from medmtl.cli import main
from medmtl.errors import InputError, InterruptedRun
from medmtl.progress import silent
from medmtl.run_folder import RunFolder
from medmtl.training import folds, loop
from medmtl.training.folds import Folds
from medmtl.training.session import Session
from medmtl.training.start import Ready, make_ready, refuse_out
from tests.conftest import TINY


@pytest.fixture(scope="module")
def ready(tiny_cohort: Path) -> Ready:
    """The tiny cohort, checked."""
    return make_ready(configuration.load(tiny_cohort, TINY))


def training(ready: Ready, out: Path, *, resume: bool) -> Folds:
    """A training of all folds."""
    return Folds(ready.config, out, "all", "cpu", resume, silent, ready)


@pytest.mark.covers("B165")
@pytest.mark.parametrize("resume", [False, True])
def test_no_folds_are_made_in_a_run(ready: Ready, trained_run: Path, resume: bool) -> None:
    with pytest.raises(InputError, match=r"^\[B165\] .* is a run, and no folds are made in one"):
        training(ready, trained_run, resume=resume).numbers()
    assert not list(trained_run.glob("fold-*"))


@pytest.mark.covers("B042", "B043")
@pytest.mark.parametrize("resume", [False, True])
def test_the_folder_of_the_folds_is_no_cohort_and_nobody_else_s(
    ready: Ready, tiny_cohort: Path, tmp_path: Path, resume: bool
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    for place, code in ((tiny_cohort.parent, "B043"), (tmp_path / "taken", "B042")):
        with pytest.raises(InputError, match=rf"^\[{code}\] {place} "):
            training(ready, place, resume=resume).numbers()


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_killed_start_left_does_not_stand_in_the_way(ready: Ready, tmp_path: Path, resume: bool) -> None:
    out = tmp_path / "folds"
    (out / ".fold-0.tmp-1").mkdir(parents=True)
    assert training(ready, out, resume=resume).numbers() == [0, 1]
    assert training(ready, tmp_path / "new", resume=False).numbers() == [0, 1]


@pytest.mark.covers("B165")
def test_folds_that_are_not_there_are_not_gone_on_with(ready: Ready, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^\[B165\] there is no run at .*typo to resume; leave --resume away to start"
    ):
        training(ready, tmp_path / "typo", resume=True).numbers()
    assert not (tmp_path / "typo").exists()


@pytest.mark.covers("B042")
def test_folds_are_gone_on_with_and_never_started_a_second_time(
    ready: Ready, trained_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "folds"
    shutil.copytree(trained_run, out / "fold-0")
    assert training(ready, out, resume=True).numbers() == [0, 1]
    again = r"^\[B042\] .* exists and is not empty; choose another --out, or resume its folds with --fold all --resume"
    with pytest.raises(InputError, match=again):
        training(ready, out, resume=False).numbers()
    with pytest.raises(InputError, match=again):
        refuse_out(ready, out)
    single = Folds(ready.config, out, 0, "cpu", True, silent, ready)
    with pytest.raises(InputError, match=r"^\[B165\] there is no run at .*: resume it with --fold all$"):
        single.run(0, 1)


@pytest.mark.covers("B042", "B043")
@pytest.mark.parametrize("fold", ["0", "all", "none"])
def test_a_place_that_is_taken_is_told_before_the_cohort_is_checked(
    fold: str,
    tiny_cohort: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def check(*_: object, **__: object) -> None:
        raise AssertionError("the cohort was checked")

    monkeypatch.setattr(folds, "make_ready", check)
    (tmp_path / "notes.txt").touch()
    for place, code in ((tmp_path, "B042"), (tiny_cohort.parent, "B043")):
        assert main(["train", str(tiny_cohort), "--out", str(place), "--fold", fold, "--quiet"]) == 2
        assert capsys.readouterr().err.startswith(f"error: [{code}] {place} ")


@pytest.mark.covers("B043")
@pytest.mark.parametrize("fold", ["0", "all"])
@pytest.mark.parametrize(("inside", "said"), [("", "link; give the folder itself"), ("run", "is a file; name a new")])
def test_no_run_is_made_at_a_link_to_itself(
    fold: str, inside: str, said: str, tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    out = str(tmp_path / "loop" / inside)
    assert main(["train", str(tiny_cohort), "--out", out, "--fold", fold, "--quiet"]) == 2
    assert said in capsys.readouterr().err


def test_the_folds_share_a_cache_beside_their_folder(tiny_cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "folds"
    config = configuration.load(tiny_cohort, TINY)
    run = Folds(config, out, "all", "cpu", False, silent).run(0, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"folds", ".medmtl-cache"}
    assert [path.name for path in out.iterdir()] == ["fold-0"]
    # where the training itself looks for it
    assert run.load_config().cache.folder == tmp_path / ".medmtl-cache"
    assert Folds(config, out, 0, "cpu", False, silent).config.cache.folder is None
    chosen = configuration.load(tiny_cohort, {**TINY, "cache.folder": "/elsewhere"})
    assert Folds(chosen, out, "all", "cpu", False, silent).config.cache.folder == Path("/elsewhere")


@pytest.mark.covers("F08")
def test_a_request_to_stop_in_the_last_step_of_a_fold_is_heard_before_the_next(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, overrides, finish = tmp_path / "folds", {**TINY, "training.steps": 2}, loop.finish_tasks

    def stop(session: Session) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        finish(session)

    monkeypatch.setattr(loop, "finish_tasks", stop)
    with pytest.raises(InterruptedRun, match=r"^stopped by SIGTERM after fold-0; go on with --resume$"):
        api.train(tiny_cohort, out, fold="all", device="cpu", overrides=overrides)
    assert [path.name for path in out.iterdir()] == ["fold-0"]
    api.train(tiny_cohort, out, fold="all", device="cpu", overrides=overrides, resume=True)
    assert all(RunFolder.open(out / f"fold-{number}").is_finished() for number in (0, 1))
