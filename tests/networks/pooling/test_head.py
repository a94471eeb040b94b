"""Pooling of several scales: statistics, running moments, and whether a head learns from instance-normalised maps."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
import torch
from torch import nn
from torch.nn import functional

from medmtl.networks.features import Features, FeatureSpec, Guide
from medmtl.networks.pooling import GAIN, POOLINGS, PooledHead, RunningStandardisation
from medmtl.networks.pooling.guidance import mean_under
from medmtl.networks.pooling.head import ALONE

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


@pytest.mark.parametrize(
    ("seed", "room"), [(0, 32), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((0, 16), (1, 16), (1, 32)))]
)
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


def with_covariates(batch: int, count: int, *, seed: int = 0, image: bool = True) -> tuple[FeatureSpec, Features]:
    """A specification and samples with covariates, and with or without maps."""
    covariates_BN = torch.randn(batch, count, generator=torch.Generator().manual_seed(seed))
    if not image:
        return FeatureSpec((), (), covariates=count), Features((), covariates_BN=covariates_BN)
    return replace(SPEC, covariates=count), replace(maps(batch, seed), covariates_BN=covariates_BN)


def test_without_covariates_the_head_is_what_it_was() -> None:
    torch.manual_seed(0)
    head = PooledHead(SPEC, [0.0]).train()
    torch.manual_seed(0)
    linear = torch.nn.Linear(24, 1)
    torch.nn.init.normal_(linear.weight, std=1e-3)
    assert torch.equal(head.linear.weight, linear.weight)
    pooled = [s for m in maps(4).encoder[-3:] for s in (m.mean((2, 3, 4)), m.amax((2, 3, 4)))]
    torch.manual_seed(1)
    found = head(maps(4))
    torch.manual_seed(1)
    standardised = RunningStandardisation(24).train()(torch.cat(pooled, 1))
    assert torch.equal(found, functional.linear(functional.dropout(standardised, 0.2), linear.weight, torch.zeros(1)))


@pytest.mark.parametrize("image", [True, False])
def test_the_first_output_is_the_bias_whatever_the_covariates(image: bool) -> None:
    spec, features = with_covariates(3, 2, image=image)
    head = PooledHead(spec, [0.5, -2.0]).eval()
    torch.testing.assert_close(head(features), torch.tensor([[0.5, -2.0]]).expand(3, 2), atol=0.05, rtol=0)


@pytest.mark.parametrize("image", [True, False])
def test_covariates_are_neither_dropped_nor_standardised_anew(image: bool) -> None:
    spec, features = with_covariates(5, 2, image=image)
    head = PooledHead(spec, [0.0]).train()
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.weight[0, -2:] = torch.tensor([0.1, -0.2])
    assert features.covariates_BN is not None
    expected = features.covariates_BN @ torch.tensor([[1.0], [-2.0]])
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head.eval()(features), expected)


def test_an_indicator_that_training_never_saw_stays_without_effect() -> None:
    spec, features = with_covariates(4, 2)
    head = PooledHead(spec, [0.0]).train()
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-2)
    assert features.covariates_BN is not None
    seen = replace(features, covariates_BN=features.covariates_BN * torch.tensor([1.0, 0.0]))
    for _ in range(5):
        optimiser.zero_grad()
        torch.autograd.backward((head(seen) - 1).square().mean())
        optimiser.step()
    assert torch.equal(
        head.eval()(seen), head(replace(seen, covariates_BN=seen.covariates_BN + torch.tensor([0, 3.0])))
    )


def test_in_450_steps_at_the_default_rate_covariates_reach_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    true_N = torch.tensor([0.8, -0.5, 0.3])
    covariates_BN = torch.randn(200, 3, generator=generator)
    value_B = covariates_BN @ true_N + 0.1 * torch.randn(200, generator=generator)
    head = PooledHead(FeatureSpec((), (), covariates=3), [0.0]).train()
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=3e-2)
    for step in range(450):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / 450) ** 0.9
        chosen = torch.randint(0, 200, (4,), generator=generator)
        optimiser.zero_grad()
        output = head(Features((), covariates_BN=covariates_BN[chosen]))[:, 0]
        torch.autograd.backward(functional.huber_loss(output, value_B[chosen]))
        optimiser.step()
    fitted = torch.linalg.lstsq(covariates_BN, value_B[:, None]).solution[:, 0]
    assert GAIN * head.linear.weight[0].detach() == pytest.approx(fitted, abs=0.03)


def guided(batch: int, seed: int = 0, scale: float = 1.0) -> tuple[FeatureSpec, Features]:
    """A specification with guides of one and of two labels, and samples with their masks."""
    generator = torch.Generator().manual_seed(seed)
    guides = []
    for labels in (1, 2):
        drawn = scale * torch.rand(batch, labels, 16, 16, 16, generator=generator)
        guides.append(Guide(drawn.amax(1, keepdim=True), drawn.flatten(2).sum(2)))
    return replace(SPEC, guided=(1, 2)), replace(maps(batch, seed), guides=tuple(guides))


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_every_pooling_keeps_the_three_deepest_maps_and_starts_at_the_bias(pooling: str) -> None:
    torch.manual_seed(0)
    head = PooledHead(SPEC, [0.5, -2.0], pooling)
    features = maps(3)
    each = [pool(level) for pool, level in zip(head.pools, features.encoder[1:], strict=True)]
    pooled = head.pool(features)
    assert torch.equal(pooled, torch.cat(each, 1))
    assert pooled.shape == (3, head.width) and head.width == head.linear.in_features
    torch.manual_seed(1)
    whole = head.train()(features)
    torch.manual_seed(1)
    torch.testing.assert_close(head.answer(pooled), whole)
    torch.testing.assert_close(head.eval()(features), torch.tensor([[0.5, -2.0]]).expand(3, 2), atol=0.05, rtol=0)


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_a_guided_head_adds_means_under_each_mask(pooling: str) -> None:
    spec, features = guided(3)
    torch.manual_seed(0)
    head = PooledHead(spec, [0.0], pooling).eval()
    torch.manual_seed(0)
    plain = PooledHead(SPEC, [0.0], pooling).eval()
    masks = [guide.foreground_B1DHW for guide in features.guides]
    added = [mean_under(level, mask) for mask in masks for level in features.encoder[1:]]
    assert torch.equal(head.pool(features), torch.cat([plain.pool(maps(3)), *added], 1))
    assert head.width == plain.width + 2 * (3 + 4 + 5)
    other = replace(
        features, guides=tuple(Guide(guide.foreground_B1DHW.flip(0), guide.total_BL) for guide in features.guides)
    )
    assert not torch.equal(head(features), head(other))


def test_a_guided_head_starts_at_the_bias_and_learns_a_label_that_follows_from_the_extents_first() -> None:
    """Two patients at a time, 32 of them, beside 21 features of noise: others are then told as well as these."""
    generator = torch.Generator().manual_seed(0)
    spec = replace(SPEC, guided=(2,))

    def cases(count: int) -> tuple[Features, torch.Tensor]:
        total_BL = torch.randint(50, 500, (count, 2), generator=generator).float()
        noise = tuple(torch.randn(count, c, 4, 4, 4, generator=generator) for c in SPEC.channels)
        value_B = (total_BL[:, 0] / total_BL[:, 1]).log()
        return Features(noise, guides=(Guide(torch.zeros(count, 1, 4, 4, 4), total_BL),)), value_B

    def chosen(features: Features, rows: torch.Tensor) -> Features:
        (guide,) = features.guides
        taken = Guide(guide.foreground_B1DHW[rows], guide.total_BL[rows])
        return replace(features, encoder=tuple(level[rows] for level in features.encoder), guides=(taken,))

    (known, value_B), (new, new_B) = cases(32), cases(200)
    torch.manual_seed(0)
    head = PooledHead(spec, [0.0])
    torch.testing.assert_close(head.eval()(new), torch.zeros(200, 1), atol=0.05, rtol=0)
    head.train()
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=3e-2)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / 300) ** 0.9
        rows = torch.randint(0, 32, (2,), generator=generator)
        optimiser.zero_grad()
        torch.autograd.backward(functional.huber_loss(head(chosen(known, rows))[:, 0], value_B[rows]))
        optimiser.step()
    error = (head.eval()(new)[:, 0] - new_B).square().mean() / new_B.var()
    assert error < 0.1


def test_in_training_half_of_the_samples_of_a_guided_head_are_answered_from_the_extents_alone() -> None:
    spec, features = guided(400)
    torch.manual_seed(0)
    head = PooledHead(spec, [0.0])
    with torch.no_grad():
        head.linear.weight[:, -3:] = 1e-3
    head.eval()
    pooled = head.pool(features)
    alone = head.answer(torch.zeros_like(pooled) + head.standardise.mean, guides=features.guides)
    for layer in (head.all_or_none, head.standardise, head.standardise_extents):
        layer.train(layer is head.all_or_none)
    trained = head.answer(pooled, guides=features.guides) - alone
    dropped = trained[:, 0] == 0
    assert 150 < dropped.sum() < 250
    whole = head.eval().answer(pooled, guides=features.guides) - alone
    torch.testing.assert_close(trained[~dropped], 2 * whole[~dropped])
    assert isinstance(PooledHead(SPEC, [0.0]).all_or_none, nn.Identity)


def test_a_label_of_a_masks_size_and_chance_is_told_better_where_the_extents_answer_alone_now_and_then() -> None:
    """Beside 320 features of noise, which soon know 40 patients by heart and leave no error to learn a size from."""

    def surprise(chance: float, seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        spec = FeatureSpec((64, 64), SPEC.strides[:2], guided=(1,))

        def cases(count: int) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
            total_BL = torch.randint(50, 500, (count, 1), generator=generator).float()
            noise = tuple(torch.randn(count, 64, 2, 2, 2, generator=generator) for _ in range(2))
            score_B = total_BL[:, 0].log() - 5.5 + 0.5 * torch.randn(count, generator=generator)
            return noise, total_BL, (score_B > 0).long()

        def loss(
            known: tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor], rows: torch.Tensor
        ) -> torch.Tensor:
            noise, total_BL, class_B = known
            guide = Guide(torch.zeros(len(rows), 1, 2, 2, 2), total_BL[rows])
            output = head(Features(tuple(level[rows] for level in noise), guides=(guide,)))
            return functional.cross_entropy(output, class_B[rows])

        known, new = cases(40), cases(400)
        torch.manual_seed(seed)
        head = PooledHead(spec, [0.0, 0.0]).train()
        head.all_or_none.p = chance
        optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=3e-2)
        for step in range(400):
            optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / 400) ** 0.9
            optimiser.zero_grad()
            torch.autograd.backward(loss(known, torch.randint(0, 40, (4,), generator=generator)))
            optimiser.step()
        head.eval()
        return float(loss(new, torch.arange(400)).detach())

    without, by_default = (fmean(surprise(chance, seed) for seed in range(3)) for chance in (0.0, ALONE))
    assert by_default < without - 0.05


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_an_empty_mask_under_bfloat16_gives_finite_answers_and_gradients(pooling: str) -> None:
    spec, features = guided(2, scale=0.0)
    features = replace(features, encoder=tuple(level.bfloat16().requires_grad_() for level in features.encoder))
    head = PooledHead(spec, [0.0], pooling).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(features)
    assert output.dtype == torch.float32 and output.isfinite().all()
    torch.autograd.backward(output.square().sum())
    reached = [level.grad for level in features.encoder[1:]] + [p.grad for p in head.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in reached)


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_a_guided_head_learns_from_no_neighbour(pooling: str) -> None:
    spec, features = guided(4)
    for level in features.encoder:
        level.requires_grad_()
    head = PooledHead(spec, [0.0], pooling).train()
    head.all_or_none.p = 0.0
    torch.autograd.backward(head(features)[1].sum())
    for level in features.encoder[1:]:
        assert level.grad is not None and level.grad[1].count_nonzero() > 0
        assert level.grad[[0, 2, 3]].count_nonzero() == 0
