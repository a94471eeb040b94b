from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from medmtl import api, checkpoint, weighting
from medmtl.data.batch import Batch
from medmtl.distributed import Ranks
from medmtl.errors import InputError, NumericError
from medmtl.networks.features import FeatureSpec
from medmtl.networks.joint import JointBatch
from medmtl.networks.pooling.head import PooledHead
from medmtl.run_folder import RunFolder
from medmtl.training.optimiser import make_optimiser
from medmtl.training.ranks import JointStep, OthersRun, refuse_ranks, refuse_too_many
from medmtl.training.session import Session, open_session
from medmtl.training.signals import Requests
from medmtl.training.step import Learner, train_step
from medmtl.weighting.base import Trained
from tests.faults import seams
from tests.faults.processes import FAST, committed, descendants, fingerprint, leftovers, records, steps_done, wait_until
from tests.training.torchrun import start_ranks

# AdamW divides a gradient by its own size, and so makes a step of the last bits of one that should be zero
SGD = {"training.optimiser": "sgd", "training.lr": 0.01, "training.head_lr": 0.01}
THREE: dict[str, Any] = {**FAST, **SGD, "plan.precision": "fp32", "training.steps": 3, "training.checkpoint_every": 3}
LONG: dict[str, Any] = {**FAST, "plan.workers": 1, "training.steps": 60, "training.checkpoint_every": 3}
FIXED = {"weighting": {"kind": "fixed", "weights": {"lesion": 1.0, "malignancy": 0.5, "risk": 2.0}}}
TWO_VIEWS = {"views.kind": "two", "views.spacing": [6.0, 6.0, 6.0], "plan.shape": [8, 8, 8], "plan.batch": 5}


class Mirrored(Ranks):
    """Two processes that hold equal samples: what they add is twice what is here."""

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.mul_(2)


class LabelledElsewhere(Ranks):
    """Two processes, of which the other one holds a sample."""

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.add_(1)


@pytest.fixture(scope="module")
def small_run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose steps take next to no time."""
    return api.train(tiny_cohort, tmp_path_factory.mktemp("small") / "run", device="cpu", overrides=FAST)


@pytest.fixture
def session(small_run: Path) -> Session:
    return open_session(RunFolder.open(small_run))


def joint_step(session: Session) -> JointStep:
    return JointStep(Mirrored(0, 2), session.learner.model, session.training.views, session.learner.device)


def weights(run: Path) -> dict[str, torch.Tensor]:
    stored = checkpoint.load(run / "checkpoints")
    assert stored is not None
    return dict(stored.tensors["model"])


def ended(children: list[Any], seconds: float = 120) -> list[int]:
    return [child.wait(seconds) for child in children]


def assert_as_one_process(config: Path, folder: Path, overrides: dict[str, Any], size: int = 2) -> Path:
    """Several processes end with the weights and the losses of one."""
    children = start_ranks(config, folder / "two", overrides, size=size)
    assert ended(children) == size * [0], [child.said() for child in children]
    assert children[1].said() == "", "only the first process speaks"
    one = api.train(config, folder / "one", device="cpu", overrides=overrides)
    alone, together = weights(one), weights(folder / "two")
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=2e-5, msg=partial("{}: {}".format, name))
    logs = [[record["losses"] for record in records(run) if "losses" in record] for run in (one, folder / "two")]
    for a, b in zip(*logs, strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    return folder / "two"


def test_three_slots_on_two_processes_with_labels_on_one_of_them_give_the_step_of_one(
    tiny_cohort: Path, tmp_path: Path
) -> None:
    run = RunFolder.open(assert_as_one_process(tiny_cohort, tmp_path, {**THREE, **FIXED, "plan.batch": 3}))
    parts = [open_session(run, Ranks(rank, 2)).training for rank in range(2)]
    labelled = [[set(part[step].views["case"].labelled()) for part in parts] for step in range(3)]
    assert any(first != second for first, second in labelled), "no step shows what this test is for"
    assert run.load_manifest()["processes"] == 2


@pytest.mark.slow
@pytest.mark.covers("F58")
@pytest.mark.parametrize(
    ("size", "changes", "slots"),
    [
        (2, {}, [(1,)]),
        (2, {"weighting.kind": "gradvac", "training.telemetry": 1}, [(1,)]),
        (2, {"weighting.kind": "famo", "sharing.kind": "soft"}, [(1,)]),
        (5, TWO_VIEWS, [(4,), ()]),
    ],
    ids=["equal", "gradvac", "famo and soft", "a process without a slot of the case heads' view"],
)
def test_several_processes_give_the_step_of_one(
    size: int, changes: dict[str, Any], slots: list[tuple[int, ...]], tiny_cohort: Path, tmp_path: Path
) -> None:
    run = RunFolder.open(assert_as_one_process(tiny_cohort, tmp_path, {**THREE, **changes}, size))
    last = open_session(run, Ranks(size - 1, size))
    assert [tuple(view.slots) for view in last.training.views] == slots


def test_the_samples_of_all_processes_are_those_of_one(session: Session) -> None:
    run = session.run
    one = session.training[3].views["case"]
    for rank in range(2):
        part = open_session(run, Ranks(rank, 2)).training[3].views["case"]
        assert part.case_ids == one.case_ids[rank::2]
        assert torch.equal(part.image_BCDHW, one.image_BCDHW[rank::2])
        assert all(torch.equal(part.targets[name], one.targets[name][rank::2]) for name in one.targets)


def test_a_process_without_a_sample_draws_what_a_guided_head_draws_elsewhere() -> None:
    head = PooledHead(FeatureSpec((4,), ((1, 1, 1),), guided=(2,)), [0.0])
    model: Any = nn.Module()
    model.heads, model.tasks = {"risk": head}, ("risk",)
    model.add_module("heads_risk", head)
    view: Any = SimpleNamespace(encoders=("risk",), batch=5, slots=())
    joint = JointStep(LabelledElsewhere(1, 2), model, [view], torch.device("cpu"))

    torch.manual_seed(0)
    assert set(joint.losses(Batch(0, {}), lambda view, names: {})) == {"risk"}
    after = torch.get_rng_state()

    torch.manual_seed(0)
    joint_batch = JointBatch(joint.ranks.sum, 5, range(5))
    for layer in (head.standardise, head.dropout, head.all_or_none):
        layer.joint = joint_batch
    head.all_or_none(head.dropout(head.standardise(torch.zeros(5, head.width))))
    assert torch.equal(torch.get_rng_state(), after)


def test_every_process_has_the_joint_loss_to_its_last_bit(session: Session) -> None:
    """With three processes and more, rounding would otherwise part them, and what a weighting keeps with them."""
    generator = torch.Generator().manual_seed(0)
    joint = joint_step(session)
    for _ in range(200):
        parts = torch.randn(4, generator=generator).exp()
        total = parts.sum()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Mirrored, "sum", lambda self, tensor, total=total: total[None])
            for part in parts:
                own = part.clone().requires_grad_()
                (value,) = joint._joint({"risk": own}, {"risk": (1, 1)}).values()
                assert torch.equal(value, total)
                torch.autograd.backward(value)
                assert own.grad == 1


@pytest.mark.parametrize("kind", [name for name in weighting.kinds.names() if name != "fixed"])
def test_a_step_with_a_mirror_is_the_step_alone(session: Session, small_run: Path, kind: str) -> None:
    def with_kind(learner: Learner) -> Learner:
        cls = weighting.kinds.get(kind)
        method = cls(cls.Options.model_validate({"kind": kind}), learner.model.tasks)
        # AdamW makes a visible step of the last bits of a gradient near zero
        training = session.config.training.model_copy(update={"optimiser": "sgd", "lr": 1e-3, "head_lr": 1e-3})
        optimiser = make_optimiser(learner.model, method, frozenset(("malignancy", "risk")), training)
        return replace(learner, weighting=method, optimiser=optimiser, telemetry=1)

    alone = with_kind(open_session(RunFolder.open(small_run)).learner)
    learner = with_kind(replace(session.learner, joint=joint_step(session)))
    for step in range(3):
        batch = session.training[step]
        ours, theirs = train_step(learner, batch, 1.0), train_step(alone, batch, 1.0)
        assert ours.losses == pytest.approx(theirs.losses, rel=1e-4)
    for name, tensor in alone.model.state_dict().items():
        torch.testing.assert_close(
            learner.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-5, msg=partial("{}: {}".format, name)
        )


def test_gradients_are_added_and_what_nobody_reached_stays_unreached(session: Session) -> None:
    first, second, *_ = session.learner.model.parameters()
    first.grad, second.grad = torch.ones_like(first), None
    joint_step(session).add_gradients(session.learner.weighting, Trained([first], (), [second]), 1)
    assert torch.equal(first.grad, 2 * torch.ones_like(first))
    assert second.grad is None


def test_rows_of_a_method_on_gradients_are_added_once(session: Session) -> None:
    shared, own, *_ = session.learner.model.parameters()
    joint = joint_step(session)
    trained = joint.hooked(Trained([shared], (), [own]))
    assert trained.reduce is not None
    (row,) = trained.reduce([torch.ones_like(shared)], [shared])
    assert row is not None and torch.equal(row, 2 * torch.ones_like(shared))
    assert trained.reduce([None], [shared]) == [None]
    shared.grad, own.grad = row.clone(), torch.ones_like(own)
    joint.add_gradients(session.learner.weighting, trained, 2)
    assert torch.equal(shared.grad, row)
    assert own.grad is not None and torch.equal(own.grad, 2 * torch.ones_like(own))


def test_a_method_on_gradients_that_does_not_add_its_rows_is_refused(session: Session) -> None:
    class Selfish(type(session.learner.weighting)):  # type: ignore[misc]
        kind = "selfish"
        needs = "gradients"

    weighting = Selfish(session.learner.weighting.options, session.learner.tasks)
    joint = joint_step(session)
    trained = joint.hooked(session.learner.model.trained())
    joint.add_gradients(weighting, trained, 1)
    with pytest.raises(InputError, match=r"weighting\.kind selfish cannot be trained on several processes"):
        joint.add_gradients(weighting, trained, 2)


def test_a_loss_that_compares_patients_is_refused(session: Session) -> None:
    tasks = dict(session.learner.tasks)
    refuse_ranks(Ranks(0, 2), tasks, "none")
    tasks["risk"].per_sample = False
    refuse_ranks(Ranks(), tasks, "none")
    with pytest.raises(InputError, match=r"tasks\.risk: its loss compares the patients of a batch"):
        refuse_ranks(Ranks(0, 2), tasks, "none")


def test_a_choice_by_the_labels_of_a_batch_is_refused(session: Session) -> None:
    refuse_ranks(Ranks(), session.learner.tasks, "cycle")
    with pytest.raises(InputError, match=r"training\.alternate 'cycle' chooses a task by the labels of a batch"):
        refuse_ranks(Ranks(0, 2), session.learner.tasks, "cycle")


def test_more_processes_than_samples_are_refused() -> None:
    refuse_too_many(2, 1, 2)
    with pytest.raises(
        InputError, match=r"3 processes cannot share a batch of 2: start at most 2, or set plan\.batch: 3"
    ):
        refuse_too_many(3, 1, 2)


@pytest.mark.covers("F47")
def test_weights_that_part_are_never_committed(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    joint = joint_step(session)
    monkeypatch.setattr(Mirrored, "gather", lambda self, word: [word, word])
    joint.refuse_apart(4)
    monkeypatch.setattr(Mirrored, "gather", lambda self, word: [word, word[::-1]])
    with pytest.raises(NumericError, match="step 4: the weights of process 1 are not those of process 0"):
        joint.refuse_apart(4)


def test_other_processes_write_nothing(trained_run: Path) -> None:
    before = (trained_run / "log.jsonl").read_bytes()
    run = OthersRun(trained_run)
    run.log({"step": 1})
    run.truncate_log(0)
    run.sync_log()
    assert (trained_run / "log.jsonl").read_bytes() == before


def test_a_request_counts_once_all_know_of_it() -> None:
    class Other(Ranks):
        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor

    with Requests(Other(0, 2)) as requests:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR1)
        assert requests.heard == "SIGTERM"
        assert requests.stop is None and not requests.commit
        requests.agree()
        assert requests.stop == "SIGTERM" and requests.commit
        requests.agree()
        assert requests.stop == "SIGTERM" and not requests.commit


@pytest.fixture(scope="module")
def undisturbed(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing happened to."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert ended(start_ranks(tiny_cohort, run, LONG)) == [0, 0]
    return run


def assert_resumes_as(undisturbed: Path, config: Path, run: Path) -> None:
    children = start_ranks(config, run, LONG, resume=True)
    assert ended(children) == [0, 0], [child.said() for child in children]
    assert fingerprint(run) == fingerprint(undisturbed)
    assert records(run) == records(undisturbed)
    assert leftovers(run) == []


@pytest.mark.slow
@pytest.mark.covers("F56")
def test_a_killed_process_ends_the_run_within_a_minute_and_it_resumes(
    undisturbed: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    children = start_ranks(tiny_cohort, tmp_path / "run", LONG)
    wait_until(partial(committed, tmp_path / "run"), children[0])
    begin = time.monotonic()
    children[1].process.kill()
    assert children[0].wait() == 8
    assert time.monotonic() - begin < 60
    assert "error: process 1 of 2 is gone or did not answer" in children[0].said()
    assert children[0].said().splitlines()[-1].startswith("error: ")
    assert_resumes_as(undisturbed, tiny_cohort, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.covers("F57")
def test_a_process_that_stands_still_ends_the_run_within_a_minute(tiny_cohort: Path, tmp_path: Path) -> None:
    children = start_ranks(tiny_cohort, tmp_path / "run", {**LONG, "training.steps": 2000})
    wait_until(partial(committed, tmp_path / "run"), children[0])
    workers = descendants(children[1].pid)
    children[1].send(signal.SIGSTOP)
    begin = time.monotonic()
    try:
        assert children[0].wait() == 8
        assert time.monotonic() - begin < 60
        assert "error: process 1 of 2 is gone or did not answer for 45 s" in children[0].said()
    finally:
        children[1].process.kill()
        children[1].process.join()
    assert workers


@pytest.mark.slow
@pytest.mark.parametrize("whole_groups", [False, True], ids=["one process", "all with their loaders, by torchrun"])
def test_a_request_to_stop_stops_both_after_the_same_step_and_they_resume(
    undisturbed: Path, tiny_cohort: Path, tmp_path: Path, whole_groups: bool
) -> None:
    run = tmp_path / "run"
    children = start_ranks(tiny_cohort, run, LONG, before=seams.slow_samples)
    wait_until(lambda: steps_done(run) > 4, children[0])
    if whole_groups:
        for child in children:
            os.killpg(child.pid, signal.SIGTERM)
    else:
        children[1].send(signal.SIGTERM)
    assert ended(children) == [5, 5]
    said = [child.said().splitlines()[-1] for child in children]
    assert said[0] == said[1] == f"error: stopped by SIGTERM after step {committed(run)}; go on with --resume"
    assert_resumes_as(undisturbed, tiny_cohort, run)


@pytest.mark.slow
def test_a_resume_on_another_number_of_processes_says_that_it_is_not_bit_exact(
    undisturbed: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    children = start_ranks(tiny_cohort, run, LONG)
    wait_until(lambda: steps_done(run) > 4, children[0])
    children[0].send(signal.SIGINT)
    assert ended(children) == [5, 5]
    api.train(tiny_cohort, run, device="cpu", overrides=LONG, resume=True)
    (record,) = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines() if "not_bit_exact" in line]
    assert record["not_bit_exact"] == {"processes": ["2", "1"]}
    assert RunFolder.open(run).is_finished()
