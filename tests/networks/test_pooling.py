"""Pooling of several scales: statistics, running moments, and whether a head learns from instance-normalised maps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medmtl.networks.features import Features, FeatureSpec
from medmtl.networks.pooling import PooledHead, RunningStandardisation

SPEC = FeatureSpec(channels=(2, 3, 4, 5), strides=((1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8)))


def maps(batch: int, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return Features(
        tuple(
            torch.randn(batch, c, *(16 // s for s in stride), generator=generator)
            for c, stride in zip(SPEC.channels, SPEC.strides, strict=True)
        )
    )


def test_the_first_output_is_the_bias() -> None:
    head = PooledHead(SPEC, [0.5, -2.0]).eval()
    torch.testing.assert_close(head(maps(3)), torch.tensor([[0.5, -2.0]]).expand(3, 2), atol=0.05, rtol=0)


def test_running_moments_are_exact_over_the_first_batches() -> None:
    layer = RunningStandardisation(3).train()
    value = 5 + 2 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    for batch in value.reshape(10, 4, 3):
        layer(batch)
    torch.testing.assert_close(layer.mean, value.mean(0))
    torch.testing.assert_close(layer.variance, value.var(0, correction=0))
    standardised = layer.eval()(value)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardised.var(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_running_moments_follow_a_drift() -> None:
    layer = RunningStandardisation(1).train()
    generator = torch.Generator().manual_seed(0)
    for step in range(300):
        layer(torch.randn(4, 1, generator=generator) + (0 if step < 150 else 10))
    assert float(layer.mean) == pytest.approx(10, abs=0.5)
    assert float(layer.variance) == pytest.approx(1, abs=0.6)


def test_nothing_moves_in_evaluation_and_one_sample_is_enough_in_training() -> None:
    head = PooledHead(SPEC, [0.0])
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    head.eval()(maps(2))
    for name, tensor in head.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert torch.isfinite(head.train()(maps(1))).all()


def test_no_samples_answer_depends_on_its_neighbours_gradient() -> None:
    features = maps(4)
    for level in features.encoder:
        level.requires_grad_()
    torch.autograd.backward(PooledHead(SPEC, [0.0]).train()(features)[1].sum())
    for level in features.encoder[-3:]:
        assert level.grad is not None
        assert level.grad[[0, 2, 3]].count_nonzero() == 0
    assert features.encoder[0].grad is None


def test_it_computes_in_fp32_under_autocast() -> None:
    head = PooledHead(SPEC, [0.0]).eval()
    features = Features(tuple(level.bfloat16() for level in maps(2).encoder))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(features).dtype == torch.float32


@pytest.mark.parametrize("room", [16, 32])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_extent_from_instance_normalised_maps(seed: int, room: int) -> None:
    """One channel of each map shows a box among noise; its volume is the target. All are instance-normalised.

    Every other batch has its boxes in a frame of another depth.
    """
    torch.manual_seed(seed)
    side = torch.randint(4, 11, (96,))
    volume = (side.float() ** 3 - 300) / 400
    image = 0.3 * torch.randn(96, 1, 16, 16, 16)
    for box, n in zip(image, side.tolist(), strict=True):
        box[:, :n, :n, :n] += 1

    def encode(start: int, stop: int) -> Features:
        levels = []
        for channels, stride in zip(SPEC.channels, SPEC.strides, strict=True):
            depth = room if start % 8 else 16
            whole = torch.cat([image, 0.3 * torch.randn(96, 1, 16, 16, 16)], dim=4)[start:stop, ..., :depth]
            pooled = functional.avg_pool3d(whole, stride)
            noise = torch.randn(stop - start, channels - 1, *pooled.shape[2:])
            levels.append(functional.leaky_relu(functional.instance_norm(torch.cat([pooled, noise], 1)), 0.01))
        return Features(tuple(levels))

    head = PooledHead(SPEC, [0.0]).train()
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for step in range(300):
        start = 4 * (step % 20)
        optimiser.zero_grad()
        torch.autograd.backward(functional.mse_loss(head(encode(start, start + 4))[:, 0], volume[start : start + 4]))
        optimiser.step()
    predicted = head.eval()(encode(80, 96))[:, 0].detach()
    r2 = 1 - functional.mse_loss(predicted, volume[80:]) / volume[80:].var(correction=0)
    assert float(r2) > 0.8
