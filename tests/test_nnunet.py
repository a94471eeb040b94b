from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medmtl.config import Config, dump, load
from medmtl.errors import ConfigError
from medmtl.networks.resenc import ResencOptions
from medmtl.planning import with_statistics
from tests.planning.cohorts import CPU, build_tasks, configured, facts, fingerprint, planned, scan

# axes are z, y, x: slices are thick
STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 4]]
KERNELS = [[1, 3, 3], [3, 3, 3], [3, 3, 5]]
COMMON = {
    "patch_size": [16, 40, 32],
    "batch_size": 3,
    "spacing": [3, 1.25, 1.0],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [True],
}
OLD = {
    **COMMON,
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 8,
    "unet_max_num_features": 20,
    "n_conv_per_stage_encoder": [2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2],
    "pool_op_kernel_sizes": STRIDES,
    "conv_kernel_sizes": KERNELS,
}
NEW = {
    **COMMON,
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [8, 16, 20],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": KERNELS,
            "strides": STRIDES,
            "n_conv_per_stage": [2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "dropout_op": None,
            "nonlin": "torch.nn.LeakyReLU",
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}
RESENC = {
    **COMMON,
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "arch_kwargs": {
            **{k: v for k, v in NEW["architecture"]["arch_kwargs"].items() if k != "n_conv_per_stage"},  # type: ignore[index]
            "n_blocks_per_stage": [1, 3, 4],
        },
    },
}


def written(folder: Path, configuration: dict[str, Any], name: str = "3d_fullres", **top: Any) -> Path:
    path = folder / "nnUNetPlans.json"
    document = {"dataset_name": "Dataset001", "transpose_forward": [0, 1, 2], "configurations": {name: configuration}}
    path.write_text(json.dumps({**document, **top}), encoding="utf-8")
    return path


def honoured(folder: Path, configuration: dict[str, Any], top: dict[str, Any] | None = None, **keys: Any) -> Config:
    return configured(folder, plan__nnunet=str(written(folder, configuration, **(top or {}))), **keys)


@pytest.mark.parametrize("form", [OLD, NEW], ids=["old", "new"])
def test_both_forms_of_a_plan_are_planned_on_with_our_order_of_the_axes(tmp_path: Path, form: dict[str, Any]) -> None:
    plan = planned(honoured(tmp_path, form), fingerprint((64, 64, 20)))
    assert plan.preparation.spacing == (1.0, 1.25, 3.0)
    assert (plan.shape, plan.batch) == ((32, 40, 16), 3)
    assert plan.network.strides == ((1, 1, 1), (2, 2, 1), (4, 2, 2))
    assert plan.network.kernels == ((3, 3, 1), (3, 3, 3), (5, 3, 3))
    assert plan.network.channels == (8, 16, 20)
    for key in ("spacing", "shape", "batch", "strides", "network"):
        assert "from nnUNetPlans.json, 3d_fullres" in plan.reasons[key], key


def test_the_normalisation_is_the_plans(tmp_path: Path) -> None:
    config = honoured(tmp_path, NEW)
    plan = with_statistics(planned(config, fingerprint((64, 64, 20))), config, build_tasks(config), *facts(scan()))
    assert [own.kind for own in plan.intensities] == ["zscore_nonzero"]
    assert plan.reasons["normalisation.t1"] == "from nnUNetPlans.json, 3d_fullres"


@pytest.mark.parametrize(
    ("scheme", "mask", "kind"),
    [("ZScoreNormalization", False, "zscore"), ("CTNormalization", True, "ct"), ("NoNormalization", False, "none")],
)
def test_each_scheme_has_its_kind(tmp_path: Path, scheme: str, mask: bool, kind: str) -> None:
    config = honoured(tmp_path, {**NEW, "normalization_schemes": [scheme], "use_mask_for_norm": [mask]})
    assert config.plan.normalisation == {"t1": kind}


def test_transposed_axes_are_put_back(tmp_path: Path) -> None:
    # the plan's first axis is nnU-Net's third one, x
    moved: dict[str, Any] = {
        **OLD,
        "patch_size": [32, 16, 40],
        "spacing": [1.0, 3, 1.25],
        "pool_op_kernel_sizes": [[x, z, y] for z, y, x in STRIDES],
        "conv_kernel_sizes": [[x, z, y] for z, y, x in KERNELS],
    }
    found = honoured(tmp_path, moved, {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]})
    assert found.plan.model_dump() == honoured(tmp_path, OLD).plan.model_dump()


def test_a_residual_encoder_gets_the_plans_blocks_unless_they_are_set(tmp_path: Path) -> None:
    config = honoured(tmp_path, RESENC, network__kind="resenc")
    assert planned(config, fingerprint((64, 64, 20))).network.blocks_per_stage == (1, 3, 4)
    config = honoured(tmp_path, RESENC, network__kind="resenc", network__blocks_per_stage=[2])
    assert isinstance(config.network, ResencOptions)
    assert config.network.blocks_per_stage == (2,)


def test_keys_that_are_set_win_and_say_so(tmp_path: Path) -> None:
    keys = {"plan__spacing": [1.0, 1.0, 2.0], "plan__batch": 2, "plan__width": 4, "plan__normalisation": {"t1": "none"}}
    config = honoured(tmp_path, NEW, **keys)
    plan = planned(config, fingerprint((64, 64, 20)))
    assert (plan.preparation.spacing, plan.batch, plan.shape) == ((1.0, 1.0, 2.0), 2, (32, 40, 16))
    assert plan.network.channels == (4, 8, 16)
    assert config.plan.normalisation == {"t1": "none"}
    assert plan.reasons["spacing"] == plan.reasons["batch"] == "set in the configuration"
    strides = [[1, 1, 1], [2, 2, 2]]
    config = honoured(tmp_path, NEW, plan__strides=strides, plan__kernels=[[3, 3, 3]] * 2)
    assert (config.plan.channels, config.plan.shape) == (None, (32, 40, 16))


def test_a_configuration_inherits(tmp_path: Path) -> None:
    path = written(tmp_path, NEW)
    document = json.loads(path.read_text())
    document["configurations"]["small"] = {"inherits_from": "3d_fullres", "batch_size": 5}
    path.write_text(json.dumps(document))
    config = configured(tmp_path, plan__nnunet=str(path), plan__configuration="small")
    assert (config.plan.batch, config.plan.shape) == (5, (32, 40, 16))


def test_a_runs_own_configuration_needs_the_plan_no_more(tmp_path: Path) -> None:
    config = honoured(tmp_path, RESENC, network__kind="resenc")
    (tmp_path / "stored.yaml").write_text(dump(config, tmp_path), encoding="utf-8")
    (tmp_path / "nnUNetPlans.json").unlink()
    again = load(tmp_path / "stored.yaml")
    assert again.plan.model_dump() == config.plan.model_dump()
    assert again.network == config.network


def changed(path: str, value: Any, base: dict[str, Any] = NEW) -> dict[str, Any]:
    """The configuration with another value at a dotted place; None takes the key away."""
    result = copy.deepcopy(base)
    holder: Any = result
    *above, last = path.split(".")
    for part in above:
        holder = holder[part]
    holder[last] = value
    if value is None:
        del holder[last]
    return result


KWARGS = "architecture.arch_kwargs"


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        (changed("spacing", [1.0, 1.0]), "3d_fullres.spacing: three numbers.*2D"),
        (changed("spacing", None), "3d_fullres.spacing: this key is missing"),
        (changed("patch_size", [16, 40.5, 32]), "patch_size: whole numbers"),
        (changed("batch_size", 0), "batch_size: a whole number"),
        (
            changed("normalization_schemes", ["RGBTo01Normalization"]),
            "'RGBTo01Norm.*plan.normalisation.t1",
        ),
        (changed("normalization_schemes", ["NoNormalization"] * 2), "normalization_schemes: .*each of 1 channels"),
        (changed("previous_stage", "3d_lowres"), "previous_stage: a cascade"),
        (changed("inherits_from", "3d_fullres"), "inherits from itself"),
        (changed(f"{KWARGS}.strides", [[1, 1, 1], [2, 2, 2]]), "as many strides as kernels"),
        (changed(f"{KWARGS}.strides", [[2, 2, 2], [1, 2, 2], [2, 2, 2]]), "the first of them 1, 1, 1"),
        (changed(f"{KWARGS}.kernel_sizes", [[2, 3, 3], [3, 3, 3], [3, 3, 3]]), "kernels must be odd"),
        (changed(f"{KWARGS}.features_per_stage", [8, 16]), "4 features or more at each of 3 stages"),
        (changed(f"{KWARGS}.norm_op", "torch.nn.BatchNorm3d"), "norm_op: InstanceNorm3d is supported"),
        (changed(f"{KWARGS}.dropout_op", "torch.nn.Dropout3d"), "dropout_op: null is supported"),
        (changed(f"{KWARGS}.n_conv_per_stage", [3, 3, 3]), "n_conv_per_stage: .*2 convolutions per stage"),
        (changed("UNet_base_num_features", None, OLD), "UNet_base_num_features: this key is missing"),
        (changed("architecture.network_class_name", "x.PrimusM"), "the plan has a PrimusM, and network.kind is unet"),
        (RESENC, "the plan has a ResidualEncoderUNet, and network.kind is unet; set network.kind: resenc"),
    ],
)
def test_a_plan_that_cannot_be_honoured_is_refused_by_the_key(
    tmp_path: Path, configuration: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=f"plan.nnunet.*nnUNetPlans.json, .*{named}") as caught:
        honoured(tmp_path, configuration)
    assert caught.value.code == "B142"


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        ("segresnet", {}, "network.kind segresnet is no network of nnU-Net's"),
        ("resenc", {}, "PlainConvUNet, and network.kind is resenc; set network.kind: unet"),
        ("unet", {"network__blocks": "residual"}, "network.blocks is residual"),
    ],
)
def test_another_network_than_the_plans_is_refused(
    tmp_path: Path, kind: str, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        honoured(tmp_path, NEW, network__kind=kind, **options)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.unlink() or path.mkdir(), "is not a file"),
        (lambda path: path.write_text("{"), "not valid JSON"),
        (lambda path: path.write_text("[]"), "must hold keys"),
        (lambda path: path.write_text("{}"), "configurations: this key is missing"),
        (lambda path: written(path.parent, NEW, name="2d"), "'3d_fullres' is not there.*known: 2d"),
        (lambda path: written(path.parent, NEW, transpose_forward=[0, 1, 1]), "transpose_forward: an order"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, spoil: Callable[[Path], Any], named: str) -> None:
    path = written(tmp_path, NEW)
    spoil(path)
    with pytest.raises(ConfigError, match=named):
        configured(tmp_path, plan__nnunet=str(path))


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in items:
        yield (*above, key)
        yield from places(held, (*above, key))


@pytest.mark.parametrize("form", [OLD, NEW], ids=["old", "new"])
@pytest.mark.parametrize("other", [None, [], {}, "x", -1, True, 1e300, [[]], [1, "a", 2]], ids=str)
def test_whatever_a_plan_holds_it_is_read_or_refused(tmp_path: Path, form: dict[str, Any], other: Any) -> None:
    text = written(tmp_path, form).read_text()
    refused = 0
    for *above, last in places(json.loads(text)):
        document: Any = json.loads(text)
        holder = document
        for part in above:
            holder = holder[part]
        holder[last] = other
        (tmp_path / "nnUNetPlans.json").write_text(json.dumps(document))
        try:
            configured(tmp_path, plan__nnunet=str(tmp_path / "nnUNetPlans.json"))
        except ConfigError as error:
            assert error.code == "B142"
            refused += 1
    assert refused > 10


def test_stages_can_be_set_without_a_plan(tmp_path: Path) -> None:
    strides, kernels = [[1, 1, 1], [2, 2, 1]], [[3, 3, 1], [3, 3, 3]]
    config = configured(tmp_path, plan__strides=strides, plan__kernels=kernels, plan__channels=[6, 9])
    plan = planned(config, fingerprint((33, 40, 30)), device=CPU)
    assert (plan.network.channels, plan.network.strides[1], plan.network.kernels[0]) == ((6, 9), (2, 2, 1), (3, 3, 1))
    assert plan.shape == (34, 40, 30)
    assert plan.reasons["strides"].startswith("set in the configuration")


def test_channels_of_another_number_of_stages_than_planned_are_refused(tmp_path: Path) -> None:
    config = configured(tmp_path, plan__channels=[6, 9])
    with pytest.raises(ConfigError, match=r"plan.channels.* 2 stages, and 4 were planned"):
        planned(config, fingerprint((48, 64, 48)))


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"strides": [[1, 1, 1]]}, "strides and kernels go together"),
        ({"strides": [[1, 1, 1]], "kernels": [[3, 3, 3]] * 2}, "differ in length"),
        ({"strides": [[2, 1, 1]], "kernels": [[3, 3, 3]]}, r"first stride must be \[1, 1, 1\]"),
        ({"strides": [[1, 1, 1]], "kernels": [[3, 2, 3]]}, "kernels must be odd"),
        ({"channels": [8, 16], "width": 8}, "leave width and max_width, or channels, away"),
        ({"channels": [2]}, "plan.channels.0"),
    ],
)
def test_stages_that_contradict_each_other_are_refused(tmp_path: Path, keys: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        configured(tmp_path, **{f"plan__{name}": value for name, value in keys.items()})
