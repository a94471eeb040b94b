from __future__ import annotations

import torch

from medmtl.sharing.gate import Gate


def maps(size: int, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, 3, size // k, size, size, generator=generator) for k in (1, 2))


def test_at_first_the_maps_are_the_mean_of_the_experts() -> None:
    experts = [maps(4, 0), maps(4, 1), maps(4, 2)]
    for found, level in zip(Gate(3, 3)(experts), zip(*experts, strict=True), strict=True):
        torch.testing.assert_close(found, torch.stack(level).mean(0))


def test_weights_are_a_softmax_of_the_pooled_deepest_maps_of_any_size() -> None:
    gate = Gate(3, 2)
    torch.nn.init.normal_(gate.linear.weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(gate.linear.bias, generator=torch.Generator().manual_seed(1))
    for size in (4, 6):
        experts = [maps(size, 0), maps(size, 1)]
        pooled = torch.cat([one[-1].mean((2, 3, 4)) for one in experts], 1)
        expected = torch.softmax(pooled @ gate.linear.weight.T + gate.linear.bias, 1)
        torch.testing.assert_close(gate.weights(experts), expected)
        shares = expected.view(2, 2, 1, 1, 1, 1)
        for found, one, other in zip(gate(experts), *experts, strict=True):
            torch.testing.assert_close(found, shares[:, 0] * one + shares[:, 1] * other)
    constant = [tuple(torch.full((1, 3, n, n, n), 0.5) for _ in range(2)) for n in (2, 2)]
    larger = [tuple(torch.full((1, 3, n, n, n), 0.5) for _ in range(2)) for n in (6, 6)]
    torch.testing.assert_close(gate.weights(constant), gate.weights(larger))


def test_a_gate_that_is_sure_gives_one_expert_in_the_maps_own_type() -> None:
    gate = Gate(3, 2)
    gate.linear.bias.data = torch.tensor([200.0, -200.0])
    experts = [tuple(level.bfloat16() for level in maps(4, seed)) for seed in (0, 1)]
    for found, expected in zip(gate(experts), experts[0], strict=True):
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected)


def test_experts_do_not_learn_from_being_chosen() -> None:
    gate = Gate(3, 2)
    torch.nn.init.normal_(gate.linear.weight, generator=torch.Generator().manual_seed(0))
    experts = [tuple(level.requires_grad_() for level in maps(4, seed)) for seed in (0, 1)]
    weights = gate.weights(experts)
    weights[:, 0].sum().backward()
    assert gate.linear.weight.grad is not None
    assert all(level.grad is None for one in experts for level in one)


def test_weights_are_computed_in_fp32_under_autocast() -> None:
    torch.manual_seed(0)
    gate, experts = Gate(32, 4), [(torch.randn(2, 32, 4, 4, 4) + 0.5,) for _ in range(4)]
    torch.nn.init.normal_(gate.linear.weight, std=0.3)
    expected = gate.weights(experts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gate.weights(experts)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
