"""The case kinds with every pooling, and what a configuration may say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from medmtl import config as configuration
from medmtl import tasks
from medmtl.networks.features import FeatureSpec
from medmtl.networks.pooling import POOLINGS
from medmtl.tasks.base import CaseTask
from medmtl.tasks.pooled import PooledOptions, PooledTask, PoolingName
from tests.tasks import test_classification, test_multilabel, test_ordinal
from tests.tasks.contract import SPEC, CaseTaskContract
from tests.tasks.regression import test_task as regression
from tests.tasks.survival import test_task as survival
from tests.test_config import MINIMAL, refusal, written

CONTRACTS: dict[str, type[CaseTaskContract]] = {
    "classification": test_classification.TestTwoClasses,
    "multilabel": test_multilabel.TestMultilabel,
    "ordinal": test_ordinal.TestOrdinal,
    "regression": regression.TestPlain,
    "survival": survival.TestContract,
}
CHECKS = sorted(name for name in dir(CaseTaskContract) if name.startswith("test_"))
GUIDED = MINIMAL.replace("unit: ml}", "unit: ml, guided_by: heart}")


def test_every_case_kind_has_the_options_and_no_voxel_kind() -> None:
    kinds = [tasks.kinds.get(name) for name in tasks.kinds.names()]
    assert {kind.kind for kind in kinds if issubclass(kind, PooledTask)} == set(CONTRACTS)
    for kind in kinds:
        assert issubclass(kind, PooledTask) == issubclass(kind, CaseTask) == issubclass(kind.Options, PooledOptions)
    assert set(get_args(PoolingName)) == set(POOLINGS)


@pytest.mark.parametrize("kind", CONTRACTS)
@pytest.mark.parametrize("pooling", sorted(POOLINGS.keys() - {"mean_max"}))
def test_a_case_kind_keeps_its_contract_with_every_pooling(kind: str, pooling: str) -> None:
    base = CONTRACTS[kind]
    contract: Any = type("Pooled", (base,), {"options": {**base.options, "pooling": pooling}})()
    assert contract.fitted().options.pooling == pooling
    assert isinstance(contract.run(1)[1].pools[0], POOLINGS[pooling])
    for check in CHECKS:
        getattr(contract, check)()


@pytest.mark.parametrize("kind", CONTRACTS)
def test_the_default_is_the_mean_and_the_maximum_without_a_guide(kind: str) -> None:
    contract = CONTRACTS[kind]()
    task, head, maps, _ = contract.run(2)
    assert task.guides == ()
    pooled = [s for m in maps.encoder for s in (m.mean((2, 3, 4)), m.amax((2, 3, 4)))]
    assert torch.equal(head.pool(maps), torch.cat(pooled, 1))  # type: ignore[operator]


@pytest.mark.parametrize("kind", CONTRACTS)
def test_a_part_of_a_case_need_not_show_its_label_unless_that_is_said(kind: str) -> None:
    options = {key: value for key, value in CONTRACTS[kind].options.items() if key != "unit"}
    for said, expected in (({}, {"crop"}), ({"sensitive_to": []}, set()), ({"sensitive_to": ["flip"]}, {"flip"})):
        made = tasks.kinds.get(kind)
        assert made("x", made.Options.model_validate({**options, **said})).sensitive_to == expected


def test_covariates_alone_are_not_pooled() -> None:
    contract = CONTRACTS["regression"]()
    with pytest.raises(ValueError, match=r"guided_by: heart .* inputs: covariates reads no image"):
        contract.unfitted(guided_by="heart", inputs="covariates")
    with pytest.raises(ValueError, match=r"pooling: gem .* inputs: covariates reads none"):
        contract.unfitted(pooling="gem", inputs="covariates")
    assert contract.unfitted(guided_by="heart", pooling="gem", inputs="both").guides == ("heart",)
    assert contract.unfitted(guided_by=["heart", "lung"]).guides == ("heart", "lung")
    assert contract.unfitted(guided_by=None).guides == ()
    with pytest.raises(ValueError, match="guided_by"):
        contract.unfitted(guided_by=False)
    head: Any = contract.fitted(inputs="covariates").head(FeatureSpec((), (), covariates=3))
    assert head.width == 0
    head = contract.fitted(inputs="both", pooling="mean").head(SPEC)
    assert head.width == sum(SPEC.channels)


def test_a_guide_may_be_declared_after_the_guided_task(tmp_path: Path) -> None:
    lines = GUIDED.splitlines(keepends=True)
    (place,) = [index for index, line in enumerate(lines) if "heart: {" in line]
    heart = lines.pop(place)
    config = configuration.load(written(tmp_path, "".join(lines).replace("training:", heart + "training:")))
    assert list(config.tasks) == ["grade", "volume", "heart"]
    (tmp_path / "stored.yaml").write_text(configuration.dump(config, tmp_path), encoding="utf-8")
    assert configuration.load(tmp_path / "stored.yaml") == config


@pytest.mark.parametrize(
    ("guide", "words"),
    [
        ("hart", "'hart' is no task of this file (did you mean 'heart'?); tasks with labels per voxel: heart"),
        ("liver", "'liver' is no task of this file; tasks with labels per voxel: heart"),
        ("grade", "'grade' is a classification, which has no mask; tasks with labels per voxel: heart"),
        ("dose", "'dose' is a voxel_regression, which has no mask; tasks with labels per voxel: heart"),
        ("volume", "a task is not its own guide; tasks with labels per voxel: heart"),
        ("[heart, liver]", "'liver' is no task of this file; tasks with labels per voxel: heart"),
        ("[heart, heart]", "'heart' is named 2 times; name it once"),
    ],
)
def test_a_guide_without_a_mask_is_refused(tmp_path: Path, guide: str, words: str) -> None:
    text = GUIDED.replace("guided_by: heart", f"guided_by: {guide}")
    text = text.replace("  grade:", "  dose: {kind: voxel_regression, column: dose, unit: Gy}\n  grade:")
    error = refusal(tmp_path, text)
    assert (error.code, error.key, error.line) == ("B141", "tasks.volume.guided_by", 11)
    assert words in str(error)


@pytest.mark.parametrize("option", ["pooling: gem", "guided_by: heart"])
def test_a_voxel_task_takes_neither_option(tmp_path: Path, option: str) -> None:
    error = refusal(tmp_path, MINIMAL.replace("rv: 2}", f"rv: 2}}, {option}"))
    assert error.key == f"tasks.heart.{option.split(':')[0]}"


def test_an_unknown_pooling_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, MINIMAL.replace("unit: ml}", "unit: ml, pooling: max}"))
    assert error.key == "tasks.volume.pooling"
    assert all(name in str(error) for name in POOLINGS)


@pytest.mark.parametrize("option", ["pooling: attention", "guided_by: heart"])
def test_covariates_alone_are_refused_with_both_keys_named(tmp_path: Path, option: str) -> None:
    text = MINIMAL.replace("unit: ml}", f"unit: ml, inputs: covariates, {option}}}")
    error = refusal(tmp_path, text.replace("tasks:", "  covariates: {age: number}\ntasks:"))
    assert error.key is not None and error.key.startswith("tasks.volume")
    assert option in str(error) and "inputs: covariates" in str(error)
