"""A resume is exact, or says that it is not, or is refused with what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from medmtl import api, checkpoint, files
from medmtl.cli import main
from medmtl.data.augmentation import AXES
from medmtl.errors import ArtefactError, MachineError
from medmtl.run_folder import RunFolder
from medmtl.training.commit import restore, save
from medmtl.training.session import open_session
from tests.conftest import TINY

covers = pytest.mark.covers
State = dict[str, Any]
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def run(trained_run: Path, tiny_cohort: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run beside a copy of its cohort, with its newest commit only."""
    base = tmp_path / "copy"
    shutil.copytree(trained_run.parent, base / trained_run.parent.name)
    shutil.copytree(tiny_cohort.parent, base / tiny_cohort.parents[1].name / tiny_cohort.parent.name)
    place = base / trained_run.parent.name / trained_run.name
    shutil.rmtree(place / "checkpoints" / "step-000004")
    return RunFolder.open(place)


def rewrite(run: RunFolder, change: Callable[[State], None], group: str = "state.json") -> None:
    """Change the state or a group of tensors of the commit, with a commit record that agrees."""
    folder = run.checkpoints / "step-000006"
    path = folder / group
    if path.suffix == ".json":
        body = json.loads(path.read_text())
        change(body)
        path.write_text(json.dumps(body))
    else:
        tensors = safetensors.torch.load(path.read_bytes())
        change(tensors)
        path.write_bytes(safetensors.torch.save(tensors))
    _rerecord(folder)


def _rerecord(folder: Path) -> None:
    record = json.loads((folder / "commit.json").read_text())
    record["files"] = {
        path.name: {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
        for path in folder.iterdir()
        if path.name != "commit.json"
    }
    (folder / "commit.json").write_text(json.dumps(record))


def other_optimiser(state: State) -> None:
    state["optimiser"][0]["params"] = state["optimiser"][0]["params"][1:]


STATES: dict[str, tuple[str, str, Callable[[State], None]]] = {
    "no optimiser": ("B155", "lacks optimiser", lambda state: state.pop("optimiser")),
    "no weighting": ("B155", "lacks weighting", lambda state: state.pop("weighting")),
    "no scaler": ("B155", "lacks scaler", lambda state: state.pop("scaler")),
    "no count": ("B155", "lacks skipped", lambda state: state.pop("skipped")),
    "no origin": ("B155", "does not say what it was made with", lambda state: state.pop("made_with")),
    "ill-typed": ("B155", "does not fit this run", lambda state: state.update(skipped="many")),
    "other parameters": ("B155", "holds other parameters", other_optimiser),
    "unknown key": ("B160", "holds run_at", lambda state: state.update(run_at="/x")),
    "other cohort": ("B153", "another cohort", lambda state: state["made_with"].update(cohort="0")),
    "other plan": ("B153", "another plan", lambda state: state["made_with"].update(plan="0")),
    "other splits": ("B153", "another splits", lambda state: state["made_with"].update(splits="0")),
    "other fold": ("B153", "another fold", lambda state: state["made_with"].update(fold=3)),
    "other config": ("B153", "another configuration", lambda state: state["made_with"].update(configuration="0")),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=covers(code)) for n, (code, _, _) in STATES.items()])
def test_a_state_that_does_not_fit_is_refused(run: RunFolder, name: str) -> None:
    code, words, change = STATES[name]
    rewrite(run, change)
    with pytest.raises(ArtefactError, match=rf"^\[{code}\] .*{words}"):
        restore(open_session(run))


def cut(tensors: Tensors) -> None:
    name = next(name for name, tensor in tensors.items() if tensor.dim() > 1 and len(tensor) > 1)
    tensors[name] = tensors[name][:1].clone()


@covers("B151")
@pytest.mark.parametrize("group", ["model", "average"])
def test_tensors_that_do_not_fit_are_refused(run: RunFolder, group: str) -> None:
    rewrite(run, cut, f"{group}.safetensors")
    with pytest.raises(ArtefactError, match=r"^\[B151\] .*expected \("):
        restore(open_session(run))


@covers("B155")
@pytest.mark.parametrize("group", ["optimiser", "average"])
def test_a_group_of_tensors_that_is_missing_is_refused(run: RunFolder, group: str) -> None:
    (run.checkpoints / "step-000006" / f"{group}.safetensors").unlink()
    _rerecord(run.checkpoints / "step-000006")
    with pytest.raises(ArtefactError, match=rf"^\[B155\] cannot resume exactly: step 6 lacks {group}"):
        restore(open_session(run))


@covers("B153")
def test_the_checkpoint_of_another_run_predicts_nothing(run: RunFolder) -> None:
    text = run.config.read_text()
    assert "weight_decay: 0.03" in text
    run.config.write_text(text.replace("weight_decay: 0.03", "weight_decay: 0.02"))
    with pytest.raises(ArtefactError, match=r"^\[B153\] step 6 .* was made with another configuration"):
        api.load(run.path, device="cpu")


@covers("B153")
def test_a_plan_that_was_edited_predicts_nothing(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads(run.plan.read_text())
    plan["tasks"]["risk"]["spread"] /= 10
    files.write_json(run.plan, plan)
    assert main(["evaluate", str(run.path), "--device", "cpu", "--quiet"]) == 7
    assert "[B153] step 6 in " in (err := capsys.readouterr().err) and "was made with another plan than this" in err


@covers("B153")
@pytest.mark.parametrize("part", ["plan", "splits"])
def test_a_checkpoint_that_does_not_vouch_for_a_part_is_refused(run: RunFolder, part: str) -> None:
    rewrite(run, lambda state: state["made_with"].pop(part))
    with pytest.raises(ArtefactError, match=f"another {part} than this"):
        restore(open_session(run))


@covers("B153")
def test_a_plan_may_differ_in_its_length_and_in_what_is_only_told(run: RunFolder) -> None:
    before, plan = run.made_with(), run.load_plan()
    settled = replace(plan, steps=77, minutes=3.0, reasons={"steps": "3 minutes at 0.1 s a step"}, workers=1, threads=3)
    files.write_json(run.plan, replace(settled, memory_bytes=1, disk_bytes=1, seconds=1.0).to_json())
    assert run.made_with() == before
    files.write_json(run.plan, replace(plan, batch=plan.batch + 1).to_json())
    assert run.made_with()["plan"] != before["plan"]


@covers("B153")
def test_what_does_not_change_the_result_may_differ(run: RunFolder) -> None:
    before = run.made_with()
    text = run.config.read_text()
    assert "overlap: 0.5" in text and "keep: 2" in text
    run.config.write_text(text.replace("overlap: 0.5", "overlap: 0.25").replace("keep: 2", "keep: 3"))
    assert run.made_with() == before


def test_a_scaler_comes_back_with_the_steps_that_it_left_out(run: RunFolder) -> None:
    session = open_session(run)
    session.learner.scaler, session.learner.skipped = torch.amp.GradScaler("cpu", init_scale=1024.0), 3
    save(session, 7)
    session = open_session(run)
    scaler = session.learner.scaler = torch.amp.GradScaler("cpu")
    assert restore(session) == 7
    assert (scaler.get_scale(), session.learner.skipped) == (1024.0, 3)


def test_training_samples_are_drawn_as_configured_and_validated_ones_as_they_are(run: RunFolder) -> None:
    session = open_session(run)
    (view,) = session.training.views
    assert view.sensitive == {"lesion": frozenset(), "malignancy": {"crop"}, "risk": {"crop", "scale"}}
    assert session.validation is not None and session.validation.views[0].augmentation is None
    section = session.config.augmentation.model_copy(update={"kind": "none", "flips": ("x",)})
    other = open_session(run, config=session.config.model_copy(update={"augmentation": section})).training.views[0]
    assert view.augmentation is not None and other.augmentation is not None
    assert view.augmentation.enabled and not other.augmentation.enabled
    assert view.augmentation.flips != other.augmentation.flips == (AXES["x"],)


@covers("B156", "F65")
def test_another_version_is_said_and_recorded(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    assert run.differences() == {}
    manifest = json.loads(run.manifest.read_text())
    now = manifest["versions"]["torch"]
    manifest["versions"]["torch"] = "2.0.0"
    manifest["hardware"] = "another machine"
    run.manifest.write_text(json.dumps(manifest))
    assert restore(open_session(run)) == 6
    assert f"[B156] resuming is not bit-exact: torch 2.0.0 then and {now} now" in caplog.text
    (record,) = [record for record in run.read_log() if "not_bit_exact" in record]
    assert record["step"] == 6
    assert record["not_bit_exact"]["torch"] == ["2.0.0", now]
    assert record["not_bit_exact"]["hardware"][0] == "another machine"
    run.truncate_log(6)
    assert record in run.read_log()


@covers("B156")
def test_the_same_machine_is_not_remarked_upon(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    before = run.log_file.read_bytes()
    assert restore(open_session(run)) == 6
    assert caplog.text == ""
    assert run.log_file.read_bytes() == before


@covers("B143")
def test_a_run_of_an_absent_device_is_not_resumed_on_another(run: RunFolder) -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    run.plan.write_text(run.plan.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    with pytest.raises(MachineError, match="no CUDA device"):
        open_session(run)


@covers("F55", "B147")
def test_a_run_whose_commits_are_all_bad_is_never_started_anew(run: RunFolder, tiny_cohort: Path) -> None:
    path = run.checkpoints / "step-000006" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    config = run.path.parents[1] / tiny_cohort.parents[1].name / tiny_cohort.parent.name / tiny_cohort.name
    with pytest.raises(ArtefactError, match=r"^\[B147\] all 1 checkpoints"):
        api.train(config, run.path, device="cpu", overrides=TINY, resume=True)
    assert checkpoint.load(run.checkpoints.with_name("none")) is None
