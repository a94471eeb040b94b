from __future__ import annotations

import pytest
import torch
from torch import nn

from medmtl.networks.norm import GroupNorm, InstanceNorm

FORMATS = [torch.contiguous_format, torch.channels_last_3d]


def example(memory_format: torch.memory_format, offset: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    value = offset + 3 * torch.randn(2, 5, 4, 6, 3, generator=generator)
    return value.contiguous(memory_format=memory_format).requires_grad_()


def pair() -> tuple[InstanceNorm, nn.InstanceNorm3d]:
    ours, torchs = InstanceNorm(5), nn.InstanceNorm3d(5, affine=True)
    for parameter, other in ((ours.weight, torchs.weight), (ours.bias, torchs.bias)):
        with torch.no_grad():
            other.copy_(parameter.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(1)))
    return ours, torchs


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_outputs_and_gradients_are_those_of_torchs_instance_norm(
    memory_format: torch.memory_format, training: bool, offset: float
) -> None:
    ours, torchs = pair()
    given, same = example(memory_format, offset), example(torch.contiguous_format, offset)
    output, expected = ours.train(training)(given), torchs.train(training)(same)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
    outer = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    output.backward(outer.contiguous(memory_format=memory_format))
    expected.backward(outer)
    torch.testing.assert_close(given.grad, same.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.weight.grad, torchs.weight.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.bias.grad, torchs.bias.grad)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_type_and_memory_format_are_kept(memory_format: torch.memory_format, dtype: torch.dtype) -> None:
    value = example(memory_format).detach().to(dtype)
    output = InstanceNorm(5)(value)
    assert output.dtype == dtype
    assert output.stride() == value.stride()


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_bfloat16_maps_are_summed_in_fp32(memory_format: torch.memory_format) -> None:
    value = example(memory_format, 20.0).detach().bfloat16()
    expected = nn.InstanceNorm3d(5)(value.float())
    torch.testing.assert_close(InstanceNorm(5)(value).float(), expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_samples_do_not_see_each_other(memory_format: torch.memory_format) -> None:
    value = example(memory_format).detach()
    changed = value.clone()
    changed[1] *= 7
    norm = InstanceNorm(5)
    assert torch.equal(norm(value)[0], norm(changed)[0])


def test_a_map_of_one_voxel_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        InstanceNorm(5)(torch.ones(1, 5, 1, 1, 1))


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 4), (5, 1)])
def test_a_group_norm_is_torchs_with_groups_that_divide_the_channels(
    memory_format: torch.memory_format, channels: int, groups: int
) -> None:
    value = torch.randn(2, channels, 4, 6, 3, generator=torch.Generator().manual_seed(0))
    ours, torchs = GroupNorm(channels, 8), nn.GroupNorm(groups, channels)
    for parameter, other in ((ours.weight, torchs.weight), (ours.bias, torchs.bias)):
        with torch.no_grad():
            other.copy_(parameter.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(1)))
    output = ours(value.contiguous(memory_format=memory_format))
    torch.testing.assert_close(output, torchs(value))
    assert output.is_contiguous(memory_format=memory_format)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours(value.bfloat16()).dtype == torch.bfloat16
