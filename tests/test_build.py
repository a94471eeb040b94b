from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medmtl import config as configuration
from medmtl.build import build_model, build_tasks, build_weighting
from medmtl.planning import CaseView
from medmtl.run_folder import RunFolder
from medmtl.weighting.fixed import Fixed


def test_tasks_keep_the_configured_order_and_kind(tiny_cohort: Path) -> None:
    config = configuration.load(tiny_cohort)
    assert [(name, task.name, task.kind) for name, task in build_tasks(config).items()] == [
        ("lesion", "lesion", "segmentation"),
        ("malignancy", "malignancy", "classification"),
        ("risk", "risk", "regression"),
    ]


def test_a_model_has_one_head_per_task_and_one_trunk(trained_run: Path) -> None:
    run = RunFolder.open(trained_run)
    config, plan = run.load_config(), run.load_plan()
    tasks = build_tasks(config, plan.tasks)
    model = build_model(config, plan, tasks)
    assert set(model.heads) == set(tasks)
    assert model.state_dict().keys() == build_model(config, plan, tasks).state_dict().keys()


def test_case_tasks_alone_have_one_network_whatever_views_share_says(trained_run: Path) -> None:
    run = RunFolder.open(trained_run)
    config, plan = run.load_config(), run.load_plan()
    alone = config.model_copy(update={"tasks": {name: config.tasks[name] for name in ("malignancy", "risk")}})
    view = CaseView("tiles", ("malignancy", "risk"), plan.preparation, plan.shape, 1, tiles=2, share=False)
    for given, second in ((config, True), (alone, False)):
        model = build_model(given, replace(plan, case_view=view), build_tasks(given, plan.tasks))
        assert (model.second_sharing is not None) is second
        assert set(model.sharing.spec) == ({"lesion"} if second else {"malignancy", "risk"})


@pytest.mark.parametrize(("factor", "share", "own"), [(2, True, True), (1, True, False), (2, False, False)])
def test_a_shared_encoder_has_own_norms_for_a_view_of_another_spacing(
    trained_run: Path, factor: int, share: bool, own: bool
) -> None:
    run = RunFolder.open(trained_run)
    config, plan = run.load_config(), run.load_plan()
    x, y, z = plan.preparation.spacing
    preparation = replace(plan.preparation, spacing=(factor * x, factor * y, factor * z))
    view = CaseView("case", ("malignancy", "risk"), preparation, plan.shape, 1, share=share)
    model = build_model(config, replace(plan, case_view=view), build_tasks(config, plan.tasks))
    assert any(name.endswith("second_bias") for name in model.state_dict()) is own


def test_equal_seeds_draw_equal_weights(trained_run: Path) -> None:
    run = RunFolder.open(trained_run)
    config, plan = run.load_config(), run.load_plan()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(build_model(config, plan, build_tasks(config, plan.tasks)).state_dict())
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert any(not torch.equal(drawn[0][name], drawn[2][name]) for name in drawn[0])


def test_the_weighting_gets_the_tasks_and_its_options(tiny_cohort: Path) -> None:
    weights = {"lesion": 1.0, "malignancy": 2.0, "risk": 0.0}
    config = configuration.load(tiny_cohort, {"weighting": {"kind": "fixed", "weights": weights}})
    weighting = build_weighting(config)
    assert isinstance(weighting, Fixed)
    assert weighting.weights == weights
