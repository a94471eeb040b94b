"""Cox's partial likelihood: who of those at risk has the event."""

from __future__ import annotations

import torch


def efron_terms(log_risk_N: torch.Tensor, time_N: torch.Tensor, event_N: torch.Tensor) -> torch.Tensor:
    """What each case's event adds to the negative log partial likelihood, in nats.

    With r the log risks, R(t) the cases whose time is t or later, and the d cases that have the event at t numbered
    l = 0 ... d - 1::

        term = log( sum over R(t) of exp r_j  -  l/d * sum over the d of exp r_k ) - r

    Cox 1972, https://doi.org/10.1111/j.2517-6161.1972.tb00899.x; ties by Efron 1977,
    https://doi.org/10.1080/01621459.1977.10480613. Which of the tied cases carries which l is arbitrary, their sum is
    not. Without ties this is also Breslow's likelihood.

    Args:
        log_risk_N: r, of a floating type; higher means an earlier event.
        time_N: of the event or of the end of follow-up. Who is censored at a time is still at risk then.
        event_N: true for an event.

    Returns:
        Shape (N,), in the type of ``log_risk_N``; 0 for a censored case, and for an event with nobody else at risk.
    """
    order_N = torch.argsort(time_N, descending=True, stable=True)
    risk_N, late_N, dead_N = log_risk_N[order_N], time_N[order_N], event_N[order_N].bool()
    _, group_N, size_G = torch.unique_consecutive(late_N, return_inverse=True, return_counts=True)
    at_risk_G = torch.logcumsumexp(risk_N, dim=0)[size_G.cumsum(0) - 1]
    group_E, risk_E = group_N[dead_N], risk_N[dead_N]
    at_risk_E = at_risk_G[group_E]
    share_G = torch.zeros_like(at_risk_G).index_add(0, group_E, (risk_E - at_risk_E).exp())
    deaths_G = torch.bincount(group_E, minlength=len(size_G))
    # events are sorted by group: a case's number is its place less that of the group's first
    number_E = torch.arange(len(group_E), device=group_E.device) - (deaths_G.cumsum(0) - deaths_G)[group_E]
    removed_E = (number_E / deaths_G[group_E]).to(risk_E.dtype) * share_G[group_E]
    term_E = at_risk_E + torch.log1p(-removed_E) - risk_E
    return torch.zeros_like(log_risk_N).index_add(0, order_N[dead_N], term_E)


def constant_cox_loss(time_N: torch.Tensor, event_N: torch.Tensor) -> float:
    """Mean over all cases of :func:`efron_terms` where every case has the same risk; 0 if no event tells anything."""
    return float(efron_terms(torch.zeros(len(time_N), dtype=torch.float64), time_N, event_N).mean())
