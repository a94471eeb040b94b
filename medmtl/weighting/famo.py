"""FAMO: weights that let all losses fall by the same share, learned from what each step did to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from pydantic import Field

from medmtl.weighting.base import WeightingOptions
from medmtl.weighting.scalarise import FLOOR, LossMethod, read_positive, softmax

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam


class FamoOptions(WeightingOptions):
    """Options of FAMO.

    Attributes:
        rate: of the weights' own Adam.
        decay: pull of the weights towards equal ones.
    """

    rate: float = Field(default=0.025, gt=0, allow_inf_nan=False)
    decay: float = Field(default=0.001, ge=0, allow_inf_nan=False)


class Famo(LossMethod):
    """L = K c sum_t z_t log L_t with z = softmax(x) over the K tasks present in the step, x learned from each step.

    Liu et al. 2023, https://arxiv.org/abs/2306.03792; c = 1 / sum_t (z_t / L_t), held constant, makes the weights
    K c z_t / L_t, which sum to K, as equal ones do. After the step the losses of the same samples are computed again,
    and Adam moves x against the gradient of sum_t z_t (log L_t before - log L_t after), so that what fell less counts
    more. An absent task's x and moments stay; a step with one task says nothing about weights and moves none. A loss
    below 1e-6 counts as 1e-6.
    """

    kind = "famo"
    Options = FamoOptions
    needs = "second forward"
    positive_losses = True
    weighs_alone = False

    def __init__(self, options: WeightingOptions, tasks: Sequence[str]) -> None:
        super().__init__(options, tasks)
        assert isinstance(options, FamoOptions)
        self.rate, self.decay = options.rate, options.decay
        for name in tasks:
            # x, Adam's two moments, and its steps
            self.register_buffer(f"adam_{name}", torch.zeros(4, dtype=torch.float64))

    def weigh(self, losses: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """The derivatives of the weighted logarithms."""
        values = read_positive(losses)
        shares = softmax({name: row[0] for name, row in self._read(list(losses)).items()})
        quotients = {name: share / values[name] for name, share in shares.items()}
        factor = len(values) / sum(quotients.values())
        return {name: factor * quotient for name, quotient in quotients.items()}

    @torch.no_grad()
    def after_step(self, losses: Mapping[str, float], again: Mapping[str, float], epoch: int) -> None:
        """Move the present tasks' weights by what the step did to their losses; not after a step that was left out."""
        if len(again) < 2:
            return
        fell = {name: math.log(max(losses[name], FLOOR) / max(after, FLOOR)) for name, after in again.items()}
        rows = self._read(list(again))
        shares = softmax({name: row[0] for name, row in rows.items()})
        mean = sum(shares[name] * fell[name] for name in fell)
        for name, (logit, first, second, steps) in rows.items():
            gradient = shares[name] * (fell[name] - mean) + self.decay * logit
            first = BETAS[0] * first + (1 - BETAS[0]) * gradient
            second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
            steps += 1
            size = math.sqrt(second / (1 - BETAS[1] ** steps)) + EPSILON
            logit -= self.rate * first / (1 - BETAS[0] ** steps) / size
            buffer = self.get_buffer(f"adam_{name}")
            buffer.copy_(torch.tensor([logit, first, second, steps], dtype=buffer.dtype))

    def _read(self, tasks: Sequence[str]) -> dict[str, list[float]]:
        rows: list[list[float]] = torch.stack([self.get_buffer(f"adam_{name}") for name in tasks]).tolist()
        return dict(zip(tasks, rows, strict=True))
