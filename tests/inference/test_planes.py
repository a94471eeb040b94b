"""Planes that leave as soon as no window can reach them, and several models' planes as one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from monai.inferers.utils import sliding_window_inference

from medmtl.inference.plane_sums import PlaneSums
from medmtl.inference.planes import Drained, Found, Planes, Stream, averaged
from medmtl.inference.windows import windows_over

WINDOW = (6, 8, 4)


def ordered(total: torch.Tensor, sizes: Sequence[int], found: Found) -> Stream:
    for part in total.split(list(sizes), dim=1):
        yield Planes({"voxels": part})
    return found


def drained(streams: Sequence[Stream]) -> tuple[list[torch.Tensor], list[Found]]:
    stream = Drained(averaged(streams))
    parts = [planes.values["voxels"].clone() for planes in stream]
    return parts, stream.found


def test_models_that_give_parts_of_other_sizes_are_averaged_plane_by_plane() -> None:
    one, other = torch.rand(3, 10, 2, 2), torch.rand(3, 10, 2, 2)
    grade = {"grade": torch.ones(1)}
    parts, found = drained([ordered(one, (4, 3, 3), grade), ordered(other, (1, 9), {})])
    assert [part.shape[1] for part in parts] == [1, 3, 3, 3]
    torch.testing.assert_close(torch.cat(parts, dim=1), (one + other) / 2)
    assert found == [grade, {}]


def test_one_models_planes_are_passed_on_as_they_are() -> None:
    values = torch.rand(3, 5, 2, 2)
    (planes,) = averaged([ordered(values, (5,), {})])
    assert planes.values["voxels"].data_ptr() == values.data_ptr()


def test_a_case_without_voxel_tasks_has_no_planes() -> None:
    def stream() -> Stream:
        return {"grade": torch.ones(2)}
        yield

    parts, (found, _) = drained([stream(), stream()])
    assert not parts
    assert found["grade"].tolist() == [1, 1]


@pytest.mark.parametrize("size", [(6, 8, 4), (7, 9, 11), (31, 8, 5), (20, 13, 4)], ids=str)
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_sums_of_a_few_planes_give_what_monai_gives_with_all(size: tuple[int, int, int], overlap: float) -> None:
    image = torch.randn((2, *size), generator=torch.Generator().manual_seed(1))
    ramp = torch.linspace(-1, 2, WINDOW[0])[:, None, None]
    sums, planes = PlaneSums(WINDOW, size), []
    for place in windows_over(size, WINDOW, overlap):
        _, means = sums.final(place[0].start)
        planes += [value.clone() for value in means.values()]
        sums.add(place, {"voxels": image[(slice(None), *place)] * ramp})
        held = [tensor for tensor in (sums._total, *sums._sums.values())]
        assert all(tensor.shape[-3] == WINDOW[0] for tensor in held)
    start, means = sums.final(size[0])
    assert start == size[0] - WINDOW[0]
    found = torch.cat([*planes, means["voxels"]], dim=1)
    expected = sliding_window_inference(
        image[None], WINDOW, 1, lambda window: window * ramp, overlap=overlap, mode="gaussian", sigma_scale=0.125
    )
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(found, expected[0], rtol=1e-5, atol=1e-5)
