"""Starting from another run's trunk: what is taken, what is refused, and that a resume needs the run folder alone."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medmtl import api
from medmtl import config as configuration
from medmtl.build import build_model, build_tasks
from medmtl.checking import Checked
from medmtl.checkpoint import load
from medmtl.data.case import Case
from medmtl.errors import ArtefactError, InputError
from medmtl.planning import CaseView, Plan
from medmtl.run_folder import RunFolder
from medmtl.training.session import open_session
from medmtl.training.start import Ready, _donor, make_ready
from medmtl.training.transfer import load_trunk, refuse_leak, refuse_other_order, seen_by, take_trunk
from tests.conftest import TINY
from tests.weights import weights_sha256

STEM = "sharing.encoder.stages.0.conv1.conv.weight"


def start(config: Path, donor: Path, out: Path, **changes: Any) -> Path:
    return api.train(config, out, device="cpu", overrides={**TINY, "init.run": str(donor), **changes})


def weights(run: Path, group: str = "average") -> dict[str, torch.Tensor]:
    stored = load(RunFolder.open(run).checkpoints)
    assert stored is not None
    return dict(stored.tensors[group])


@pytest.fixture(scope="module")
def begun(tiny_cohort: Path, trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps from the trunk of the trained run, the first four of which hold it still."""
    out = tmp_path_factory.mktemp("transfer") / "run"
    return start(tiny_cohort, trained_run, out, **{"init.freeze": 4, "training.seed": 3, "training.keep": 3})


def test_the_trunk_is_the_donors_average_and_the_heads_are_new(begun: Path, trained_run: Path) -> None:
    donor, session = weights(trained_run), open_session(RunFolder.open(begun))
    for name, tensor in session.learner.model.state_dict().items():
        if name.startswith("sharing."):
            assert torch.equal(tensor, donor[name])
    own = dict(session.learner.model.named_parameters())
    linear = next(name for name in own if name.endswith("linear.weight"))
    assert not torch.equal(own[linear], donor[linear])
    record = json.loads((begun / "manifest.json").read_text())["init"]
    assert record["matched"] == sum(name.startswith("sharing.") for name in donor)
    assert (record["absent"], record["other_shape"]) == ([], [])
    assert record["weights_sha256"] == weights_sha256(trained_run)


def test_what_is_frozen_stays_and_moves_afterwards(begun: Path, trained_run: Path) -> None:
    donor = weights(trained_run)
    at_four, at_six = (load_step(begun, step) for step in (4, 6))
    assert torch.equal(at_four["model"][STEM], donor[STEM])
    assert not any(STEM in name for name in at_four["optimiser"])
    assert not torch.equal(at_six["model"][STEM], donor[STEM])
    assert at_six["optimiser"][f"{STEM}.step"] == 2


def load_step(run: Path, step: int) -> dict[str, Any]:
    stored = load(only(run, step))
    assert stored is not None and stored.step == step
    return dict(stored.tensors)


def only(run: Path, step: int) -> Path:
    """A copy of the run's checkpoints with one step in it."""
    folder = run.parent / f"only-{step}"
    if not folder.exists():
        shutil.copytree(run / "checkpoints" / f"step-{step:06}", folder / f"step-{step:06}")
    return folder


@pytest.mark.parametrize("kept", [4, None], ids=["while frozen", "before the first commit"])
def test_a_resume_is_exact_and_needs_no_donor(
    tiny_cohort: Path, trained_run: Path, begun: Path, tmp_path: Path, kept: int | None
) -> None:
    donor = tmp_path / "donor"
    shutil.copytree(trained_run, donor)
    out = tmp_path / "run"
    changes = {"init.freeze": 4, "training.seed": 3, "training.keep": 3}
    start(tiny_cohort, donor, out, **changes)
    shutil.rmtree(donor)
    for folder in (out / "checkpoints").glob("step-*"):
        if kept is None or folder.name != f"step-{kept:06}":
            shutil.rmtree(folder)
    api.train(tiny_cohort, out, device="cpu", resume=True, overrides={**TINY, "init.run": str(donor), **changes})
    ours, theirs = weights(out), weights(begun)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_donor_that_learned_from_held_out_cases_is_refused(tiny_cohort: Path, tmp_path: Path) -> None:
    donor = api.train(tiny_cohort, tmp_path / "other", device="cpu", fold=1, overrides={**TINY, "training.steps": 1})
    with pytest.raises(InputError, match=r"init\.run other may have been trained on \d of the cases .* \(case"):
        start(tiny_cohort, donor, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_donor_that_learned_from_test_cases_is_refused(tiny_cohort: Path, ready: Ready, trained_run: Path) -> None:
    ready = replace(ready, config=configuration.load(tiny_cohort, {**TINY, "init.run": str(trained_run)}))
    assert _donor(ready, 0) is not None
    learned = cases_of(ready, 0)[0].case_id
    with pytest.raises(InputError, match=rf"on 1 of the cases that this run holds out \(case '{learned}'"):
        _donor(replace(ready, splits=replace(ready.splits, test=(learned,))), 0)


@pytest.fixture(scope="module")
def ready(tiny_cohort: Path) -> Ready:
    return make_ready(configuration.load(tiny_cohort, TINY))


def cases_of(ready: Ready, part: int) -> list[Case]:
    """Training (0) or validation (1) cases of the trained run's fold."""
    return ready.members(0)[part]


def changed(run: Path, place: Path, **changes: Any) -> RunFolder:
    """A copy of a run without its weights, whose manifest holds something else; None takes a key out."""
    shutil.copytree(run, place, ignore=shutil.ignore_patterns("step-*"))
    manifest = {**json.loads((run / "manifest.json").read_text()), **changes}
    (place / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))
    return RunFolder.open(place)


def accepted(donor: RunFolder, held_out: list[Case], checked: Checked) -> bool:
    try:
        refuse_leak(donor, seen_by(donor), held_out, checked)
    except InputError as error:
        assert "may have been trained on" in str(error)
        return False
    return True


def renumbered(ready: Ready) -> Checked:
    """The cohort in a table that was written anew."""
    return replace(ready.checked, cohort=replace(ready.checked.cohort, sha256="0" * 64))


def test_the_id_of_a_case_that_the_donor_held_out_spares_nobody_else(ready: Ready, trained_run: Path) -> None:
    donor = RunFolder.open(trained_run)
    held_out, trained = cases_of(ready, 1), cases_of(ready, 0)
    assert accepted(donor, held_out, ready.checked)
    assert accepted(donor, held_out, renumbered(ready))
    assert not accepted(donor, trained[:1], ready.checked)
    assert not accepted(donor, [replace(trained[0], case_id=held_out[0].case_id)], renumbered(ready))


@pytest.mark.parametrize("what", ["patient", "file", "voxels"])
def test_each_trace_of_a_training_case_is_enough(ready: Ready, trained_run: Path, what: str) -> None:
    donor, checked, (case, *_) = RunFolder.open(trained_run), renumbered(ready), cases_of(ready, 0)
    other = replace(case, patient=f" {case.patient.upper()}" if what == "patient" else "new")
    no_files = {name: "" for name in checked.sha256} if what != "file" else checked.sha256
    no_voxels = {name: "" for name in checked.voxels} if what != "voxels" else checked.voxels
    assert other.patient.strip() != case.patient
    assert not accepted(donor, [other], replace(checked, sha256=no_files, voxels=no_voxels))
    assert accepted(donor, [replace(other, patient="new")], replace(checked, sha256={}, voxels={}))


def test_what_a_donor_had_from_its_own_donor_is_remembered(
    tiny_cohort: Path, trained_run: Path, begun: Path, tmp_path: Path
) -> None:
    first = json.loads((trained_run / "manifest.json").read_text())["trained"]
    manifest = json.loads((begun / "manifest.json").read_text())
    assert manifest["init"]["seen"] == [first]
    nobody = {"patients": {"0" * 64: []}, "files_sha256": [], "voxels_sha256": []}
    donor = changed(begun, tmp_path / "second", trained=nobody)
    words = r"init\.run second, or a run that it comes from, may have been trained on \d of the cases"
    with pytest.raises(InputError, match=words):
        api.train(tiny_cohort, tmp_path / "run", device="cpu", fold=1, overrides={**TINY, "init.run": str(donor.path)})
    third = start(tiny_cohort, begun, tmp_path / "third", **{"training.steps": 1, "split.seed": 0})
    assert json.loads((third / "manifest.json").read_text())["init"]["seen"] == [first]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init": {"matched": 3}}, r"manifest\.json was refused: of what the run has seen"),
        ({"trained": None}, "is not a manifest of this version"),
    ],
)
def test_a_donor_that_does_not_say_whom_it_has_seen_is_refused(
    trained_run: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ArtefactError, match=words):
        seen_by(changed(trained_run, tmp_path / "donor", **changes))


def test_a_cross_validated_donor_gives_each_fold_its_own(tiny_cohort: Path, trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "donor" / "fold-0")
    run = start(tiny_cohort, tmp_path / "donor", tmp_path / "run", **{"training.steps": 1})
    assert json.loads((run / "manifest.json").read_text())["init"]["matched"] > 0


def test_another_network_gives_what_fits(
    tiny_cohort: Path, trained_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run = start(tiny_cohort, trained_run, tmp_path / "run", **{"plan.max_width": 12, "training.steps": 1})
    record = json.loads((run / "manifest.json").read_text())["init"]
    assert record["matched"] > 0 and record["other_shape"]
    assert "tensors start afresh" in caplog.text


def test_channels_in_another_order_are_refused(trained_run: Path) -> None:
    class Donor(RunFolder):
        def load_plan(self) -> Plan:
            plan = super().load_plan()
            return replace(plan, preparation=replace(plan.preparation, channels=("flair", "t1")))

    donor = Donor(trained_run)
    for channels in (("flair", "t1"), ("t2", "t1"), ("t2", "adc"), ("flair",)):
        refuse_other_order(donor, channels)
    for channels in (("t1", "flair"), ("t2", "flair"), ("t1",)):
        with pytest.raises(InputError, match=r"\[B141\] channel (t1 is number 1|flair is number 2) here and number"):
            refuse_other_order(donor, channels)


def test_a_network_of_which_nothing_fits_is_refused(tiny_cohort: Path, trained_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[B141\] no encoder of run fits"):
        start(tiny_cohort, trained_run, tmp_path / "out", **{"plan.width": 5, "plan.max_width": 5})


@pytest.mark.parametrize("kind", ["soft", "mmoe"])
def test_a_decoder_is_not_taken_without_the_encoder_that_it_reads(
    tiny_cohort: Path, trained_run: Path, tmp_path: Path, kind: str
) -> None:
    """The decoder of ``mmoe`` has the name that it has in ``hard``."""
    config = configuration.load(tiny_cohort, {**TINY, "sharing.kind": kind})
    plan = RunFolder.open(trained_run).load_plan()
    model = build_model(config, plan, build_tasks(config, plan.tasks))
    with pytest.raises(InputError, match="network and sharing as they are in that run"):
        take_trunk(RunFolder.open(trained_run), model)


def test_a_second_encoder_that_the_donor_has_not_is_told(trained_run: Path) -> None:
    donor = RunFolder.open(trained_run)
    config, plan = donor.load_config(), donor.load_plan()
    view = CaseView("tiles", ("malignancy", "risk"), plan.preparation, plan.shape, 1, tiles=2, share=False)
    found = take_trunk(donor, build_model(config, replace(plan, case_view=view), build_tasks(config, plan.tasks)))
    assert any(name.startswith("second_sharing.encoder") for name in found.record["absent"])


def test_norms_of_a_second_view_begin_as_the_donor_s_of_the_first(trained_run: Path) -> None:
    donor = RunFolder.open(trained_run)
    config, plan = donor.load_config(), donor.load_plan()
    coarse = replace(plan.preparation, spacing=(9.0, 9.0, 9.0))
    plan = replace(plan, case_view=CaseView("case", ("malignancy", "risk"), coarse, plan.shape, 1))
    model = build_model(config, plan, build_tasks(config, plan.tasks))
    found = take_trunk(donor, model)
    load_trunk(model, found.tensors)
    norms = model.sharing.encoder_norms()
    assert norms and not all(bool((norm.weight == 1).all()) for norm in norms)
    for norm in norms:
        assert torch.equal(norm.second_weight, norm.weight) and torch.equal(norm.second_bias, norm.bias)
    assert not any("second" in name for name in found.record["absent"])


def test_a_view_that_teaches_nothing_has_no_norms_of_its_own(trained_run: Path) -> None:
    donor = RunFolder.open(trained_run)
    config, plan = donor.load_config(), donor.load_plan()
    coarse = replace(plan.preparation, spacing=(9.0, 9.0, 9.0))
    plan = replace(plan, case_view=CaseView("case", ("malignancy", "risk"), coarse, plan.shape, 1))
    config = config.model_copy(update={"training": config.training.model_copy(update={"head_gradient": 0.0})})
    names = dict(build_model(config, plan, build_tasks(config, plan.tasks)).named_parameters())
    assert not any("second" in name for name in names)


def test_a_folder_that_is_no_run_is_refused(tiny_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run folder"):
        start(tiny_cohort, tmp_path / "nothing", tmp_path / "out")


def test_lost_initial_weights_are_refused(begun: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(begun, run)
    shutil.rmtree(run / "init")
    with pytest.raises(ArtefactError, match=r"\[B147\] .*lacks the weights"):
        RunFolder.open(run).load_initial()
