"""Segmentation losses of labels and regions against MONAI and torch, and voxels that do not count."""

from __future__ import annotations

import pytest
import torch
from monai.losses.dice import DiceLoss
from monai.losses.focal_loss import FocalLoss
from monai.losses.tversky import TverskyLoss
from torch.nn import functional

from medmtl.losses.dice import dice_entropy_loss
from medmtl.losses.terms import Terms, label_terms, region_terms
from medmtl.losses.tversky import tversky_loss

SHAPE = (5, 4, 6)
# background and three labels; whole tumour, core, enhancing
MEMBERSHIP = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)
GAMMAS = pytest.mark.parametrize("gamma", [0.0, 2.0])


def labels(classes: int, batch: int = 3, absent: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(batch, classes, *SHAPE, generator=generator)
    target = torch.randint(classes, (batch, *SHAPE), generator=generator)
    if absent is not None:
        target[0][target[0] == absent] = 0
    return logits, target.to(torch.uint8)


def regions() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 3, *SHAPE, generator=generator)
    target = torch.randint(4, (2, *SHAPE), generator=generator, dtype=torch.uint8)
    return logits, target, torch.stack([target >= 1, target >= 2, target == 3], dim=1).float()


def per_sample(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(1).mean(1)


def assert_same(ours: torch.Tensor, loss: torch.Tensor, theirs: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal values and equal gradients of the logits."""
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    torch.autograd.backward(loss.sum())
    torch.autograd.backward(expected.sum())
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


@GAMMAS
@pytest.mark.parametrize(("classes", "absent"), [(2, None), (4, 2), (2, 1)])
def test_dice_with_cross_entropy_or_focal_loss_of_labels(gamma: float, classes: int, absent: int | None) -> None:
    logits, target = labels(classes, absent=absent)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    index = target.long()[:, None]
    kept = {"softmax": True, "to_onehot_y": True, "reduction": "none", "smooth_nr": 1, "smooth_dr": 1}
    expected = per_sample(DiceLoss(include_background=False, **kept)(theirs, index))
    if gamma:
        focal = FocalLoss(include_background=True, to_onehot_y=True, use_softmax=True, gamma=gamma, reduction="none")
        expected = expected + per_sample(focal(theirs, index).sum(1))
    else:
        expected = expected + per_sample(functional.cross_entropy(theirs, target.long(), reduction="none"))
    assert_same(ours, dice_entropy_loss(label_terms(ours, target, None, gamma)), theirs, expected)


@GAMMAS
def test_dice_with_cross_entropy_or_focal_loss_of_regions(gamma: float) -> None:
    logits, target, members = regions()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = per_sample(DiceLoss(sigmoid=True, reduction="none", smooth_nr=1, smooth_dr=1)(theirs, members))
    if gamma:
        expected = expected + per_sample(FocalLoss(gamma=gamma, reduction="none")(theirs, members))
    else:
        entropy = functional.binary_cross_entropy_with_logits(theirs, members, reduction="none")
        expected = expected + per_sample(entropy)
    assert_same(ours, dice_entropy_loss(region_terms(ours, target, MEMBERSHIP, None, gamma)), theirs, expected)


@pytest.mark.parametrize("beta", [0.7, 0.3])
def test_tversky_is_monais(beta: float) -> None:
    kept = {"alpha": 1 - beta, "beta": beta, "reduction": "none", "smooth_nr": 0.5, "smooth_dr": 0.5}
    logits, target = labels(3)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    reference = TverskyLoss(include_background=False, softmax=True, to_onehot_y=True, **kept)
    expected = per_sample(reference(theirs, target.long()[:, None]))
    assert_same(ours, tversky_loss(label_terms(ours, target), beta), theirs, expected)
    logits, target, members = regions()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = per_sample(TverskyLoss(sigmoid=True, **kept)(theirs, members))
    assert_same(ours, tversky_loss(region_terms(ours, target, MEMBERSHIP), beta), theirs, expected)


def test_tversky_at_one_half_is_dice() -> None:
    terms = label_terms(*labels(3))
    torch.testing.assert_close(tversky_loss(terms, 0.5), dice_entropy_loss(terms) - terms.entropy_B)


def ignoring(kind: str, logits: torch.Tensor, target: torch.Tensor, counted: torch.Tensor | None) -> Terms:
    if kind == "labels":
        return label_terms(logits, target, counted, 2.0)
    return region_terms(logits[:, :3], target, MEMBERSHIP, counted, 2.0)


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_voxels_that_do_not_count_might_as_well_not_be_there(kind: str) -> None:
    logits, target = labels(4)
    counted = torch.zeros(target.shape, dtype=torch.bool)
    counted[:, :3] = True
    logits.requires_grad_()
    loss = dice_entropy_loss(ignoring(kind, logits, target, counted))
    cut = dice_entropy_loss(ignoring(kind, logits[:, :, :3], target[:, :3], None))
    torch.testing.assert_close(loss, cut)
    torch.autograd.backward(loss.sum())
    assert logits.grad is not None
    assert logits.grad[:, :, 3:].count_nonzero() == 0
    assert logits.grad[:, :, :3].abs().sum() > 0


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_a_sample_of_which_no_voxel_counts_costs_nothing(kind: str) -> None:
    logits, target = labels(4)
    terms = ignoring(kind, logits.requires_grad_(), target, torch.zeros(target.shape, dtype=torch.bool))
    for loss in (dice_entropy_loss(terms), tversky_loss(terms, 0.7)):
        assert loss.tolist() == [0.0, 0.0, 0.0]
        (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
        assert gradient.count_nonzero() == 0


HIDDEN = torch.tensor([[False, True, False], [False, False, False], [True, False, True]])  # label 1 to 3 per sample


def hiding(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that want a gradient, and a target in whose background every sample's hidden labels lie."""
    target = target.clone()
    for sample, hidden in enumerate(HIDDEN):
        target[sample][torch.isin(target[sample], 1 + torch.nonzero(hidden).flatten())] = 0
    return logits.clone().requires_grad_(), target


@GAMMAS
def test_hidden_labels_make_one_class_with_the_background(gamma: float) -> None:
    logits, target = labels(4)
    ours, target = hiding(logits, target)
    theirs = logits.clone().requires_grad_()
    expected = []
    for sample, hidden in enumerate(HIDDEN):
        merged = [0, *(1 + torch.nonzero(hidden).flatten()).tolist()]
        kept = [index for index in range(4) if index not in merged]
        # a sum of softmax probabilities is that of the logits' logsumexp
        fewer = torch.stack([theirs[sample, merged].logsumexp(0), *theirs[sample, kept]])[None]
        index = torch.zeros_like(target[sample])
        for new, old in enumerate(kept, start=1):
            index[target[sample] == old] = new
        expected.append(dice_entropy_loss(label_terms(fewer, index[None], None, gamma)))
    assert_same(ours, dice_entropy_loss(label_terms(ours, target, None, gamma, HIDDEN)), theirs, torch.cat(expected))


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_where_nothing_is_hidden_the_loss_is_the_usual_one(kind: str) -> None:
    logits, target = labels(4)
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    if kind == "labels":
        usual, found = label_terms(logits, target, None, 2.0), label_terms(logits, target, None, 2.0, nothing)
    else:
        usual = region_terms(logits[:, :3], target, MEMBERSHIP, None, 2.0)
        found = region_terms(logits[:, :3], target, MEMBERSHIP, None, 2.0, nothing)
    torch.testing.assert_close(dice_entropy_loss(found), dice_entropy_loss(usual), rtol=1e-6, atol=0)
    torch.testing.assert_close(tversky_loss(found, 0.7), tversky_loss(usual, 0.7), rtol=1e-6, atol=0)


@GAMMAS
def test_a_hidden_label_is_never_pushed_down_in_the_background(gamma: float) -> None:
    ours, target = hiding(*labels(4))
    loss = dice_entropy_loss(label_terms(ours, target, None, gamma, HIDDEN))
    (gradient,) = torch.autograd.grad(loss.sum(), ours)
    hidden = HIDDEN[:, :, None, None, None] & (target == 0)[:, None]
    # a step goes against the gradient
    assert (gradient[:, 1:][hidden] <= 1e-9).all()
    assert (gradient[:, 1:][hidden] < 0).any()
    (usual,) = torch.autograd.grad(dice_entropy_loss(label_terms(ours, target, None, gamma)).sum(), ours)
    assert (usual[:, 1:][hidden] > 0).all()
    # a label that was annotated is pushed down there as ever
    shown = ~HIDDEN[:, :, None, None, None] & (target == 0)[:, None]
    assert (gradient[:, 1:][shown] > 0).all()


def test_a_hidden_region_might_as_well_not_be_there() -> None:
    logits, target = labels(4)
    logits = logits[:, :3].clone().requires_grad_()
    terms = region_terms(logits, target, MEMBERSHIP, None, 2.0, HIDDEN)
    for loss in (dice_entropy_loss, lambda terms: tversky_loss(terms, 0.7)):
        alone = [
            loss(region_terms(logits[b : b + 1, ~hidden], target[b : b + 1], MEMBERSHIP[:, ~hidden], None, 2.0))
            for b, hidden in enumerate(HIDDEN)
        ]
        torch.testing.assert_close(loss(terms), torch.cat(alone))
    (gradient,) = torch.autograd.grad(dice_entropy_loss(terms).sum(), logits)
    assert gradient[HIDDEN].count_nonzero() == 0
    assert gradient[~HIDDEN].count_nonzero() == gradient[~HIDDEN].numel()


def test_a_sample_of_which_no_region_is_known_costs_nothing() -> None:
    logits, target = labels(4)
    logits = logits[:, :3].clone().requires_grad_()
    loss = dice_entropy_loss(region_terms(logits, target, MEMBERSHIP, None, 0.0, torch.ones(3, 3, dtype=torch.bool)))
    assert loss.tolist() == [0.0, 0.0, 0.0]
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.count_nonzero() == 0


def test_hidden_labels_and_voxels_that_do_not_count_go_together() -> None:
    ours, target = hiding(*labels(4))
    counted = torch.zeros(target.shape, dtype=torch.bool)
    counted[:, :3] = True
    loss = dice_entropy_loss(label_terms(ours, target, counted, 2.0, HIDDEN))
    cut = dice_entropy_loss(label_terms(ours[:, :, :3], target[:, :3], None, 2.0, HIDDEN))
    torch.testing.assert_close(loss, cut)


def test_a_perfect_prediction_costs_nothing() -> None:
    _, target = labels(3)
    logits = (60 * functional.one_hot(target.long(), 3).movedim(-1, 1).float()).requires_grad_()
    loss = dice_entropy_loss(label_terms(logits, target, None, 2.0))
    assert loss.max() < 1e-5
    torch.autograd.backward(loss.sum())
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_class_that_the_sample_lacks_is_emptied_faster_than_by_cross_entropy_alone() -> None:
    _, target = labels(2, batch=1, absent=1)
    logits = torch.zeros(1, 2, *SHAPE)
    logits[:, 0] = 3.0
    logits.requires_grad_()
    torch.autograd.backward(dice_entropy_loss(label_terms(logits, target)))
    (alone,) = torch.autograd.grad(functional.cross_entropy(logits, target.long()), logits)
    assert logits.grad is not None
    assert (logits.grad[:, 1] > 1.5 * alone[:, 1]).all()


def test_half_precision_logits_are_computed_in_fp32() -> None:
    logits, target = labels(3)
    half = logits.bfloat16()
    for gamma in (0.0, 2.0):
        found = dice_entropy_loss(label_terms(half, target, None, gamma))
        expected = dice_entropy_loss(label_terms(half.float(), target, None, gamma))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
