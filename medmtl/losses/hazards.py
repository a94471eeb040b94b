"""Likelihood of a time to an event in discrete time: one hazard per interval."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def hazards_loss(
    logits_BK: torch.Tensor, time_B: torch.Tensor, event_B: torch.Tensor, cuts_K: torch.Tensor
) -> torch.Tensor:
    """Negative log likelihood of each sample, in nats.

    Interval k is (c_(k-1), c_k] with c_0 = 0; its hazard h_k = sigmoid(z_k) is the chance to have the event in it for
    who reaches it. With l(k) = 1 for every interval that was survived and d(k) = 1 for the one that holds the event::

        loss = - sum_k [ d(k) log h_k + l(k) log(1 - h_k) ]

    Brown 1975, https://doi.org/10.2307/2529811; Gensheimer and Narasimhan 2019, https://doi.org/10.7717/peerj.6257. As
    in the latter, a censored sample has survived an interval if it was followed to its middle. After the last cut
    nothing is modelled: who is known to have reached it survived all intervals, whatever came then.

    Args:
        logits_BK: z, of any floating type; computed in fp32.
        time_B: time of the event or of the end of follow-up, above 0, in the unit of the cuts.
        event_B: 1 for an event, 0 for a censored sample.
        cuts_K: ends of the intervals, increasing.

    Returns:
        Loss per sample, shape (B,), fp32; 0 for who was censored before the middle of the first interval.
    """
    logits_BK = logits_BK.float()
    time_B1, event_B1, cuts_K = time_B.float()[:, None], event_B[:, None] > 0, cuts_K.float()
    starts_K = functional.pad(cuts_K[:-1], (1, 0))
    died_BK = event_B1 & (starts_K < time_B1) & (time_B1 <= cuts_K)
    survived_BK = torch.where(event_B1, time_B1 > cuts_K, time_B1 >= (starts_K + cuts_K) / 2)
    log_BK = died_BK * functional.logsigmoid(logits_BK) + survived_BK * functional.logsigmoid(-logits_BK)
    return -log_BK.sum(dim=1)


def cut_points(time_N: FloatArray, event_N: BoolArray, intervals: int) -> list[float]:
    """Ends of intervals that hold about equally many events; the last one is the last event's time.

    Args:
        time_N, event_N: at least one event.
        intervals: how many there shall be; there are fewer where events share a time.
    """
    levels = np.arange(1, intervals + 1) / intervals
    cuts = np.quantile(time_N[event_N], levels, method="inverted_cdf")
    return [float(cut) for cut in np.unique(cuts)]


def kaplan_meier_hazards(time_N: FloatArray, event_N: BoolArray, cuts_K: FloatArray) -> list[float]:
    """The hazards that, predicted for every sample, have the least mean :func:`hazards_loss`.

    They are the discrete Kaplan-Meier estimate d_k / (d_k + l_k), of the samples that died in or survived the interval,
    kept half a sample away from 0 and 1: a hazard of exactly 1 would call a later death impossible.

    Args:
        time_N, event_N: of the training fold.
        cuts_K: ends of the intervals, increasing.
    """
    starts_K = np.concatenate([[0.0], cuts_K[:-1]])
    time_N1, event_N1 = time_N[:, None], event_N[:, None]
    died_K = (event_N1 & (starts_K < time_N1) & (time_N1 <= cuts_K)).sum(axis=0)
    survived_K = np.where(event_N1, time_N1 > cuts_K, time_N1 >= (starts_K + cuts_K) / 2).sum(axis=0)
    risk_K = np.maximum(died_K + survived_K, 1)
    return [float(hazard) for hazard in np.clip(died_K / risk_K, 0.5 / risk_K, 1 - 0.5 / risk_K)]


def constant_hazards_loss(time_N: FloatArray, event_N: BoolArray, cuts_K: FloatArray) -> float:
    """Mean :func:`hazards_loss` of :func:`kaplan_meier_hazards`; above 0."""
    hazard_K = np.array(kaplan_meier_hazards(time_N, event_N, cuts_K))
    logits_K = torch.from_numpy(np.log(hazard_K) - np.log1p(-hazard_K))
    loss_N = hazards_loss(
        logits_K.expand(len(time_N), -1), torch.from_numpy(time_N), torch.from_numpy(event_N), torch.from_numpy(cuts_K)
    )
    return float(loss_N.double().mean())
