from __future__ import annotations

import math

import pytest

from medmtl.networks.features import FeatureSpec, Stride
from medmtl.networks.shape import NetworkShape, pooling_plan

FLAT = (2, 2, 1)
CUBE = (2, 2, 2)


def test_isotropic_voxels_are_pooled_on_every_axis() -> None:
    strides, kernels = pooling_plan((48, 64, 48), (1.0, 1.0, 1.0), 6)
    # 48 -> 24 -> 12 -> 6, and 64 -> 32 -> 16 -> 8: the longer axis alone would be left 4
    assert strides == ((1, 1, 1), CUBE, CUBE, CUBE)
    assert kernels == ((3, 3, 3),) * 4


@pytest.mark.parametrize(("length", "halved"), [(88, False), (95, False), (96, True), (128, True)])
def test_a_lone_axis_is_halved_where_it_keeps_six_voxels(length: int, halved: bool) -> None:
    strides, _ = pooling_plan((48, length, 48), (1.0, 1.0, 1.0), 6)
    assert strides == ((1, 1, 1), CUBE, CUBE, CUBE, *([(1, 2, 1)] if halved else []))


def test_thick_slices_wait_for_the_axes_in_plane() -> None:
    strides, kernels = pooling_plan((192, 192, 14), (1.3, 1.3, 9.6), 6)
    # in plane 1.3 -> 2.6 -> 5.2 mm, which is within twice 9.6 mm; 14 slices halve once, to 7
    assert strides == ((1, 1, 1), FLAT, FLAT, CUBE, FLAT, FLAT)
    assert kernels == ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))


def test_the_number_of_stages_is_bounded() -> None:
    strides, kernels = pooling_plan((256, 256, 256), (1.0, 1.0, 1.0), 3)
    assert len(strides) == len(kernels) == 3


def test_a_small_volume_has_one_stage() -> None:
    assert pooling_plan((7, 7, 7), (1.0, 1.0, 1.0), 6) == (((1, 1, 1),), ((3, 3, 3),))


def test_an_axis_too_short_to_be_pooled_does_not_hold_back_the_others() -> None:
    strides, _ = pooling_plan((64, 64, 4), (2.0, 2.0, 0.5), 3)
    assert strides == ((1, 1, 1), FLAT, FLAT)


@pytest.mark.parametrize(
    ("size", "spacing"),
    [((48, 64, 48), (1.0, 1.0, 1.0)), ((192, 192, 14), (1.3, 1.3, 9.6)), ((9, 130, 33), (5.0, 0.4, 0.9))],
)
def test_every_axis_keeps_four_voxels_after_rounding_up(size: Stride, spacing: tuple[float, float, float]) -> None:
    strides, _ = pooling_plan(size, spacing, 8)
    for axis in range(3):
        assert -(-size[axis] // math.prod(stride[axis] for stride in strides)) >= 4


def network(levels: int) -> NetworkShape:
    return NetworkShape(1, (4, 8, 16), ((3, 3, 1), (3, 3, 3), (3, 3, 3)), ((1, 1, 1), FLAT, CUBE), levels=levels)


def test_strides_accumulate() -> None:
    assert network(1).cumulative_strides() == ((1, 1, 1), (2, 2, 1), (4, 4, 2))
    assert network(1).divisor == (4, 4, 2)


def test_only_a_voxel_task_is_promised_decoder_maps() -> None:
    strides: tuple[Stride, ...] = ((1, 1, 1), (2, 2, 1), (4, 4, 2))
    assert network(2).spec(voxel=False) == FeatureSpec((4, 8, 16), strides)
    assert network(2).spec(voxel=True) == FeatureSpec((4, 8, 16), strides, (4, 8))
