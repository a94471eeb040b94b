from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from medmtl import api, cli
from medmtl.errors import InputError
from medmtl.run_folder import RunFolder
from medmtl.studies import profile as profiling
from medmtl.studies.profile import PARTS, WARM_STEPS, profile_steps
from medmtl.training.session import open_session
from medmtl.training.step import Learner, train_step
from tests.conftest import TINY


@pytest.fixture
def cached(tmp_path: Path) -> dict[str, object]:
    return {**TINY, "cache.folder": str(tmp_path / "cache")}


def test_the_parts_add_up_to_the_step_and_nothing_is_left_behind(tiny_cohort: Path, cached: dict[str, object]) -> None:
    before = sorted(tiny_cohort.parent.iterdir())
    found = api.profile(tiny_cohort, steps=2, device="cpu", overrides=cached)
    assert tuple(found.parts) == PARTS
    assert sum(found.parts.values()) == pytest.approx(found.seconds)
    assert all(seconds > 0 for name, seconds in found.parts.items())
    assert found.steps == 2
    assert found.samples >= 1
    assert found.peak_bytes > 0
    assert sorted(tiny_cohort.parent.iterdir()) == before


def test_time_is_given_to_the_part_that_spends_it(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(profiling, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    plain = Learner.__init__

    def spend(seconds: float) -> None:
        clock[0] += seconds

    def watched(learner: Learner, *arguments: object, **named: object) -> None:
        plain(learner, *arguments, **named)  # type: ignore[arg-type]
        parts = learner.model.sharing, learner.weighting, learner.optimiser
        features, backward = parts[0].features, parts[1].backward
        object.__setattr__(parts[0], "features", lambda *a: (spend(1), features(*a))[1])
        for head in learner.model.heads.values():
            head.register_forward_hook(lambda *_: spend(10))
        object.__setattr__(parts[1], "backward", lambda *a, **k: (spend(100), backward(*a, **k))[1])
        parts[2].register_step_pre_hook(lambda *_: spend(1000))
        parts[2].register_step_post_hook(lambda *_: spend(10000))

    monkeypatch.setattr(Learner, "__init__", watched)
    session = open_session(RunFolder.open(trained_run))
    found = profile_steps(RunFolder.open(trained_run), 2)
    timed = [view for step in (0, 1) for view in session.training[WARM_STEPS + step].views.values()]
    heads = 10 * sum(len(view.labelled()) for view in timed) / 2
    assert found.parts["encoder and decoder"] == 1
    assert found.parts["heads"] == heads
    assert found.parts["backward"] == 100
    assert found.parts["clipping"] == 1000
    assert found.parts["optimiser"] == 10000
    assert found.seconds == 11101 + heads
    assert found.samples == sum(len(view.case_ids) for view in timed) / 2
    assert found.planned_bytes == session.plan.memory_bytes


def test_it_watches_without_changing_a_step(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = []

    def kept(*arguments: object) -> object:
        records.append(train_step(*arguments))  # type: ignore[arg-type]
        return records[-1]

    monkeypatch.setattr(profiling, "train_step", kept)
    profile_steps(RunFolder.open(trained_run), 1)
    assert len(records) == WARM_STEPS + 1
    assert all(record.losses for record in records)


def test_a_head_with_its_own_warm_up_is_profiled_at_its_rates(
    tiny_cohort: Path, cached: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    def kept(learner: Learner, *arguments: object) -> object:
        record = train_step(learner, *arguments)  # type: ignore[arg-type]
        rates.append({group["clip_group"]: group["lr"] for group in learner.optimiser.param_groups}["risk"])
        return record

    monkeypatch.setattr(profiling, "train_step", kept)
    heads = {"risk": {"lr": 0.5, "warm_up": 4}}
    api.profile(tiny_cohort, steps=1, device="cpu", overrides={**cached, "training.heads": heads})
    assert rates == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]


def test_the_command_prints_a_table(
    tiny_cohort: Path, cached: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [word for key, value in cached.items() for word in ("--set", f"{key}={value}")]
    assert cli.main(["profile", str(tiny_cohort), "--steps", "1", "--device", "cpu", "--quiet", *settings]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in PARTS)
    assert "mean of 1 steps; peak memory" in told


def test_no_steps_are_refused(tiny_cohort: Path) -> None:
    with pytest.raises(InputError, match="1 step or more, found 0"):
        api.profile(tiny_cohort, steps=0)
