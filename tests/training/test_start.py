"""What the plan of a fold is made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from medmtl import config as configuration
from medmtl.data.volume import Grid
from medmtl.device import describe_device
from medmtl.training.start import make_ready, plan_fold
from tests.conftest import TINY


def test_a_test_case_shapes_no_plan(tiny_cohort: Path) -> None:
    ready = make_ready(configuration.load(tiny_cohort, TINY))
    fold = ready.splits.folds[0]
    held_out, *train = fold.train
    splits = replace(ready.splits, folds=(replace(fold, train=tuple(train)),), test=(held_out,))
    seen = ready.checked.fingerprints
    huge = replace(seen[held_out], grid=Grid((300, 300, 300), seen[held_out].grid.affine))
    plans: list[Any] = [
        plan_fold(replace(ready, splits=splits, checked=checked), 0, describe_device("cpu")).to_json()
        for checked in (ready.checked, replace(ready.checked, fingerprints={**seen, held_out: huge}))
    ]
    assert plans[0] == plans[1]
