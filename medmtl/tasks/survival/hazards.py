"""Learning by a likelihood in discrete time: one hazard per interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from medmtl.losses.hazards import constant_hazards_loss, cut_points, hazards_loss, kaplan_meier_hazards
from medmtl.metrics.intervals import BoolArray, FloatArray
from medmtl.tasks.survival.curve import lived_share
from medmtl.tasks.survival.objective import Objective

EVENTS_PER_INTERVAL = 10
INTERVALS = (5, 20)  # fewest and most, where the option says nothing


class Hazards(Objective):
    """The head answers the logit of the hazard of each interval; intervals hold about equally many events.

    See :mod:`medmtl.losses.hazards`.

    Args:
        horizon, fitted: as of :class:`Objective`.
        intervals: how many; None for one per 10 events, 5 to 20.
    """

    positive = True

    def __init__(self, horizon: float, fitted: Mapping[str, Any], intervals: int | None) -> None:
        super().__init__(horizon, fitted)
        self.intervals = intervals

    def fit(self, time_N: FloatArray, event_N: BoolArray) -> dict[str, Any]:
        """``cuts`` and ``hazards`` of the intervals, and their likelihood."""
        cuts = cut_points(
            time_N, event_N, self.intervals or int(np.clip(event_N.sum() // EVENTS_PER_INTERVAL, *INTERVALS))
        )
        return {
            "cuts": cuts,
            "hazards": kaplan_meier_hazards(time_N, event_N, np.array(cuts)),
            "loss_scale": constant_hazards_loss(time_N, event_N, np.array(cuts)),
        }

    def first_output(self) -> list[float]:
        """Logits of Kaplan-Meier's hazards."""
        hazard_K = np.array(self.fitted["hazards"])
        logits: list[float] = (np.log(hazard_K) - np.log1p(-hazard_K)).tolist()
        return logits

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See :func:`medmtl.losses.hazards.hazards_loss`."""
        cuts_K = torch.tensor(self.fitted["cuts"], dtype=torch.float32, device=output.device)
        return hazards_loss(output, target[:, 0], target[:, 1], cuts_K)

    def curve(self, output_BK: torch.Tensor) -> torch.Tensor:
        """Constant hazards within the intervals; see :func:`medmtl.tasks.survival.curve.lived_share`."""
        lived_KG = lived_share(np.array(self.fitted["cuts"]), self.horizon)
        weight_KG = torch.from_numpy(lived_KG).to(output_BK.device, torch.float32)
        # log(1 - hazard) = -softplus(logit); no matrix product, which autocast would compute in half precision
        return (-(functional.softplus(output_BK.float())[:, :, None] * weight_KG).sum(dim=1)).exp()
