from __future__ import annotations

import pytest
import torch

from medmtl.networks.box_head import BoxHead, grid_anchors
from medmtl.networks.features import Features
from tests.tasks.contract import SPEC, features

ANCHORS = ([2.0, 2.0, 2.0], [6.0, 5.0, 3.0], [12.0, 10.0, 5.0])


def test_an_anchor_stands_on_the_coarsest_map_that_is_fine_enough() -> None:
    assert BoxHead(SPEC, ANCHORS).stages == [0, 1, 2]
    assert BoxHead(SPEC, [[10.0, 10.0, 4.9]]).stages == [1]  # z has stride 2 on the third map
    assert BoxHead(SPEC, [[0.5, 0.5, 0.5]]).stages == [0]


def test_decoder_maps_are_read_where_there_are_any() -> None:
    maps = features(2)
    prediction, _ = BoxHead(SPEC, ANCHORS)(maps)
    torch.autograd.backward(prediction.square().sum())
    assert [level.grad is not None for level in maps.encoder] == [False, False, True]
    assert all(level.grad is not None for level in maps.decoder)


def test_each_number_is_that_of_its_anchor() -> None:
    torch.manual_seed(0)
    head, maps = BoxHead(SPEC, [[2.0, 2.0, 2.0], [2.0, 1.0, 2.0], [6.0, 5.0, 3.0]]).eval(), features(1)
    prediction, anchors = head(maps)
    assert prediction.shape == anchors.shape == (1, 256 + 256 + 64, 7)
    assert anchors[0, :, 6].tolist() == [0.0] * 256 + [1.0] * 256 + [2.0] * 64
    values = head.towers[0](maps.decoder[0])
    for x, y, z in ((0, 0, 0), (3, 5, 2), (7, 7, 3)):
        index = 256 + (x * 8 + y) * 4 + z
        assert torch.equal(prediction[0, index], values[0, 7:14, x, y, z])
        middle = (anchors[0, index, :3] + anchors[0, index, 3:6]) / 2
        assert middle.tolist() == [x + 0.5, y + 0.5, z + 0.5]


def test_anchors_cover_the_sample_evenly() -> None:
    boxes = grid_anchors((4, 2, 3), (2, 4, 1), (3.0, 2.0, 5.0))
    middle = (boxes[:, :3] + boxes[:, 3:]) / 2
    assert (boxes[:, 3:] - boxes[:, :3]).unique(dim=0).tolist() == [[3, 2, 5]]
    assert middle.amin(dim=0).tolist() == [1, 2, 0.5]
    assert middle.amax(dim=0).tolist() == [7, 6, 2.5]


def test_at_first_hardly_anything_is_a_lesion() -> None:
    prediction, _ = BoxHead(SPEC, ANCHORS)(features(1))
    assert prediction[..., 0].sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)


def test_anchors_stay_fp32_under_autocast() -> None:
    head, maps = BoxHead(SPEC, ANCHORS), features(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction, anchors = head(Features(maps.encoder, maps.decoder))
    assert prediction.dtype == torch.bfloat16
    assert anchors.dtype == torch.float32
