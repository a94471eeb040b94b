"""How the tasks' gradients lie to each other on the shared weights: a measurement that changes nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

DIGITS = 6  # significant ones that the log keeps

Scale = Callable[[torch.Tensor], torch.Tensor]
Add = Callable[[Sequence[torch.Tensor | None], Sequence[nn.Parameter]], Sequence[torch.Tensor | None]]


def measure(
    losses: Mapping[str, torch.Tensor],
    stages: Mapping[str, Sequence[nn.Parameter]],
    scale: Scale = lambda loss: loss,
    add: Add | None = None,
) -> dict[str, Any] | None:
    """Inner products of the tasks' gradients on the shared parameters, overall and stage by stage.

    Neither ``.grad`` nor the graph is touched, so that the backward pass after it fills what it would have filled. It
    costs one backward pass through the shared part per task, and memory for one gradient of it per task.

    Args:
        losses: scalar loss of each present task, in order.
        stages: name -> shared parameters; none twice. Frozen ones are left out.
        scale: the gradient scaler's factor. It is applied, so that small gradients survive half precision, and divided
            away: the result is that of the losses themselves.
        add: sums a loss's gradients over the processes that each hold a part of the batch; None for a single process.

    Returns:
        ``tasks``, their ``gram`` matrix and ``norms``, ``cosines`` by ``"a|b"``, and ``stages``: name -> cosines; JSON,
        rounded. None stands for what is not finite and for the cosine with a gradient of zero. None altogether where
        there is no loss or every shared parameter is frozen.
    """
    trained = {name: kept for name, held in stages.items() if (kept := [p for p in held if p.requires_grad])}
    parameters = [parameter for held in trained.values() for parameter in held]
    if not losses or not parameters:
        return None
    factor = float(scale(torch.ones((), device=parameters[0].device)))
    found = [_gradients(scale(loss), parameters, add) for loss in losses.values()]
    names, first, grams = tuple(losses), 0, {}
    for stage, held in trained.items():
        rows = [torch.cat([g.reshape(-1) for g in gradients[first : first + len(held)]]) for gradients in found]
        matrix_TP = torch.stack(rows).double() / factor
        grams[stage] = (matrix_TP @ matrix_TP.T).cpu()
        first += len(held)
    gram_TT = torch.stack(list(grams.values())).sum(0)
    norms = gram_TT.diagonal().sqrt().tolist()
    return {
        "tasks": list(names),
        "gram": [[significant(value) for value in row] for row in gram_TT.tolist()],
        "norms": rounded(dict(zip(names, norms, strict=True))),
        "cosines": _cosines(names, gram_TT),
        "stages": {stage: _cosines(names, gram) for stage, gram in grams.items()},
    }


def rounded(values: Mapping[str, float]) -> dict[str, float | None]:
    """Each value as :func:`significant` gives it."""
    return {name: significant(value) for name, value in values.items()}


def significant(value: float) -> float | None:
    """A number to six significant digits; None where it is not finite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _gradients(loss: torch.Tensor, parameters: Sequence[nn.Parameter], add: Add | None) -> list[torch.Tensor]:
    if not loss.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    # a parameter that the loss does not reach has a gradient of zero
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [total for total in (found if add is None else add(found, parameters)) if total is not None]


def _cosines(names: Sequence[str], gram_TT: torch.Tensor) -> dict[str, float | None]:
    norms = gram_TT.diagonal().sqrt()
    cosines = (gram_TT / torch.outer(norms, norms)).clamp(-1, 1).tolist()
    pairs = itertools.combinations(enumerate(names), 2)
    return {f"{one}|{other}": significant(cosines[row][column]) for (row, one), (column, other) in pairs}
