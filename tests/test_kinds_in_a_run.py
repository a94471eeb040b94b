"""Every kind of sharing, weighting and encoder in a training: alone, and with kinds that it was not written beside.

A combination is either refused when the configuration is read, with both keys named, or it trains on half of the
labels, learns every head, and ends in the same bytes whether or not it was stopped and resumed.
"""

from __future__ import annotations

import csv
import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from medmtl import api, checkpoint, networks, sharing, weighting
from medmtl import config as configuration
from medmtl.errors import ConfigError
from medmtl.run_folder import RunFolder
from medmtl.training import collapse, loop
from medmtl.training.session import open_session
from tests.conftest import TINY
from tests.faults.processes import fingerprint, records
from tests.stopping import train_until
from tests.weights import weights_sha256

TASKS = ("lesion", "malignancy", "risk")
STEPS = 10  # three epochs of 3 batches: a method that compares two whole epochs has begun to
STOPPED_AFTER = 7
SMALL: dict[str, Any] = {
    **TINY,
    "plan.spacing": [4, 4, 4],
    "plan.shape": [16, 16, 16],
    "training.steps": STEPS,
    "training.checkpoint_every": 5,
}
# what a kind cannot do without, and variants of a kind that are a network or a method of their own
SHARINGS: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in sharing.kinds.names()},
    "hard:apart": {"kind": "hard", "shared_stages": 1},
    "hard:groups": {"kind": "hard", "shared_stages": 1, "groups": {"cases": ["malignancy", "risk"]}},
}
WEIGHTINGS: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in weighting.kinds.names()},
    "fixed": {"kind": "fixed", "weights": {"lesion": 1.0, "malignancy": 0.5, "risk": 2.0}},
}
LAST_STAGE = [
    kind
    for kind in weighting.kinds.names()
    if "gradient" in weighting.kinds.get(kind).Options.model_fields and kind != "graddrop"
]
WEIGHTINGS |= {f"{kind}:last": {"kind": kind, "gradient": "last_stage"} for kind in LAST_STAGE}
BESIDE: tuple[Mapping[str, Any], ...] = (
    {},
    {"training.telemetry": 2},
    {"training.alternate": "cycle"},
    {"training.tasks": {"malignancy": {"start": 0.2}, "risk": {"ramp": 0.5}}, "training.telemetry": 3},
)


@dataclass(frozen=True)
class Setting:
    """Kinds that meet in one training.

    Attributes:
        sharing, weighting: of :data:`SHARINGS` and :data:`WEIGHTINGS`.
        network: kind of the encoder.
        loss: of the regression; ``beta_nll`` can be negative.
        beside: other overrides.
    """

    sharing: str = "hard"
    weighting: str = "equal"
    network: str = "unet"
    loss: str = "huber"
    beside: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.sharing, self.weighting, self.network, self.loss, *self.beside])

    def overrides(self) -> dict[str, Any]:
        chosen = {"sharing": SHARINGS[self.sharing], "weighting": WEIGHTINGS[self.weighting]}
        return {**SMALL, **chosen, "network.kind": self.network, "tasks.risk.loss": self.loss, **self.beside}

    def refusals(self) -> list[tuple[str, str]]:
        """The two keys of every fault that the configuration has, as they are written in the message."""
        shares = sharing.kinds.get(SHARINGS[self.sharing]["kind"])
        method = weighting.kinds.get(WEIGHTINGS[self.weighting]["kind"])
        kinds = f"weighting.kind {method.kind!r}", f"sharing.kind {shares.kind!r}"
        faults = {
            kinds: method.needs == "gradients" and not shares.shares,
            (kinds[0], "tasks.risk"): method.positive_losses and self.loss == "beta_nll",
            ("training.telemetry", kinds[1]): "training.telemetry" in self.beside and not shares.shares,
            ("training.alternate", kinds[0]): "training.alternate" in self.beside
            and (method.needs == "gradients" or not method.weighs_alone),
        }
        return [keys for keys, there in faults.items() if there]


def drawn(count: int) -> list[Setting]:
    """Settings at random, the same in every run of the tests."""
    losses = ("huber", "beta_nll")
    space = itertools.product(SHARINGS, weighting.kinds.names(), networks.kinds.names(), losses, BESIDE)
    return [Setting(*parts) for parts in random.Random(0).sample(list(space), count)]


QUICK = (
    Setting("soft", "famo"),
    Setting("hard:groups", "gradvac", "resenc", beside={"training.telemetry": 2}),
    Setting("mmoe", "uncertainty", "segresnet"),
)
EVERY = {
    str(setting): setting
    for setting in (
        *QUICK,
        *(Setting(sharing=name) for name in SHARINGS),
        *(Setting(weighting=name) for name in WEIGHTINGS),
        *(Setting(network=name) for name in networks.kinds.names()),
        *drawn(20),
    )
}
TRAINED = [
    pytest.param(setting, id=name, marks=() if setting in QUICK else pytest.mark.slow)
    for name, setting in EVERY.items()
    if not setting.refusals()
]


@pytest.fixture(autouse=True)
def _judged_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads are judged a third of the way too, as in a training of some length."""
    monkeypatch.setattr(loop, "EARLY_FROM", STEPS)
    monkeypatch.setattr(collapse, "MIN_CASES", 5)


@pytest.fixture(scope="module")
def half(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny cohort without half of its labels, each task's in a rhythm of its own; returns its configuration."""
    folder = tmp_path_factory.mktemp("half")
    document = yaml.safe_load(tiny_cohort.read_text(encoding="utf-8"))
    with (tiny_cohort.parent / "cohort.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for index, row in enumerate(rows):
        for column in ("image", "lesion"):
            row[column] = row[column] and str(tiny_cohort.parent / row[column])
        row.update({task: "" for place, task in enumerate(TASKS, start=1) if index // place % 2})
    with (folder / "half.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    document["cohort"] |= {"table": "half.csv", "roots": [str(tiny_cohort.parent)]}
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    return config


def stopped_and_resumed(config: Path, run: Path, overrides: Mapping[str, Any], patch: pytest.MonkeyPatch) -> None:
    """Train until a signal comes between two commits, then go on; see that what a method keeps was there to be lost."""
    train_until(STOPPED_AFTER, config, run, overrides, patch)
    fresh = open_session(RunFolder.open(run)).learner.weighting
    stored = checkpoint.load(run / "checkpoints")
    assert stored is not None and stored.step == STOPPED_AFTER
    if fresh.extra_state():
        assert stored.state["weighting"] != fresh.extra_state()
    for name, tensor in fresh.state_dict().items():
        assert not torch.equal(stored.tensors["weighting"][name], tensor), name
    api.train(config, run, device="cpu", overrides=overrides, resume=True)


@pytest.mark.parametrize("setting", TRAINED)
def test_a_training_learns_and_a_resumed_one_ends_in_the_same_bytes(
    tiny_cohort: Path, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: Setting
) -> None:
    whole = RunFolder.open(api.train(half, tmp_path / "whole", device="cpu", overrides=setting.overrides()))
    steps = [record["losses"] for record in whole.read_log() if "losses" in record]
    assert len(steps) == STEPS
    assert {name for losses in steps for name in losses} == set(TASKS)
    assert any(len(losses) < len(TASKS) for losses in steps), "no step lacks a task"
    assert all(math.isfinite(loss) for losses in steps for loss in losses.values())
    if setting.weighting != "graddrop":  # it has none
        weights = [record["weights"] for record in whole.read_log() if "losses" in record]
        assert [set(found) for found in weights] == [set(losses) for losses in steps]

    stored = checkpoint.load(whole.checkpoints)
    assert stored is not None and stored.step == STEPS
    initial = open_session(whole).learner.model
    learned = stored.tensors["model"]
    assert all(tensor.isfinite().all() for tensor in learned.values())
    still = [name for name, tensor in initial.named_parameters() if torch.equal(tensor, learned[name])]
    assert not still, "no gradient reached them"

    stopped_and_resumed(half, tmp_path / "parts", setting.overrides(), monkeypatch)
    parts = RunFolder.open(tmp_path / "parts")
    assert weights_sha256(parts.path) == weights_sha256(whole.path)
    assert fingerprint(parts.path) == fingerprint(whole.path)
    assert records(parts.path) == records(whole.path)

    if setting.weighting == "equal":
        image = tiny_cohort.parent / "images" / "case_000.nii.gz"
        table = api.predict(whole.path, [image], tmp_path / "out", device="cpu")
        (row,) = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
        assert "masks/lesion/case_000.nii.gz" in row.values()
        assert math.isfinite(float(row["risk"]))


def faults_of(config: Path, setting: Setting) -> tuple[ConfigError, ...]:
    try:
        configuration.load(config, setting.overrides())
    except ConfigError as error:
        return tuple(error.faults)
    return ()


def test_what_does_not_go_together_is_refused_with_both_keys_and_nothing_else_is(half: Path) -> None:
    pairs = [Setting(*names) for names in itertools.product(SHARINGS, weighting.kinds.names())]
    negative = [Setting(weighting=name, loss="beta_nll") for name in WEIGHTINGS]
    refused = 0
    for setting in [*pairs, *negative, *EVERY.values()]:
        faults, expected = faults_of(half, setting), setting.refusals()
        assert len(faults) == len(expected), f"{setting}: {faults}"
        for keys in expected:
            assert any(fault.code == "B142" and all(key in str(fault) for key in keys) for fault in faults), setting
        refused += bool(expected)
    assert refused > 20
