"""Shallow maps: right gradients in bfloat16 on a CPU, and nothing else changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medmtl.networks.shallow import ShallowConv3d, with_right_gradients


def spoil_free_memory() -> None:
    """Leave NaN where memory is given out next, so that whoever reads what it did not write is seen."""
    for elements in (100, 500, 1000, 2000, 5000, 8000, 16_000, 64_000, 200_000, 2_000_000):
        torch.full((elements,), float("nan"))


def convolution(channels: int = 16, kernel: tuple[int, int, int] = (3, 3, 3)) -> nn.Module:
    torch.manual_seed(0)
    padding = tuple(edge // 2 for edge in kernel)
    network = nn.Sequential(nn.Conv3d(channels, channels, kernel, padding=padding, bias=False))
    with_right_gradients(network)
    return network


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 1, 1), (1, 3, 3)])
def test_gradients_of_shallow_maps_are_those_of_fp32(depth: int, kernel: tuple[int, int, int]) -> None:
    network = convolution(kernel=kernel)
    (weight,) = network.parameters()
    plain_BCDHW = torch.randn(2, 16, depth, 4, 4).bfloat16().float()
    map_BCDHW = plain_BCDHW.contiguous(memory_format=torch.channels_last_3d)
    (expected,) = torch.autograd.grad(network(plain_BCDHW).square().sum(), weight)
    for _ in range(5):
        spoil_free_memory()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(map_BCDHW)
        assert output.dtype == torch.bfloat16
        spoil_free_memory()
        (found,) = torch.autograd.grad(output.float().square().sum(), weight)
        assert found.dtype == torch.float32
        assert float((found - expected).norm() / expected.norm()) < 0.02


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d], ids=str)
def test_a_shallow_map_keeps_its_memory_format(memory_format: torch.memory_format) -> None:
    map_BCDHW = torch.randn(1, 16, 2, 4, 4).contiguous(memory_format=memory_format)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = convolution()(map_BCDHW)
    assert output.stride() == map_BCDHW.stride()


def test_in_fp32_they_are_torch_s_own_to_the_bit() -> None:
    network, plain = convolution(), nn.Conv3d(16, 16, 3, padding=1, bias=False)
    assert isinstance(network[0], ShallowConv3d)
    plain.load_state_dict(network[0].state_dict())
    map_BCDHW = torch.randn(2, 16, 2, 4, 4)
    assert torch.equal(network(map_BCDHW), plain(map_BCDHW))


def test_a_network_is_changed_whole_and_keeps_its_parameters() -> None:
    network = nn.ModuleDict({"deep": nn.Sequential(nn.Conv3d(1, 2, 3)), "other": nn.ConvTranspose3d(2, 2, 2)})
    before = dict(network.named_parameters())
    with_right_gradients(network)
    assert type(network["deep"][0]) is ShallowConv3d
    assert type(network["other"]) is nn.ConvTranspose3d
    assert all(parameter is before[name] for name, parameter in network.named_parameters())
