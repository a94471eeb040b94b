"""Learning by Cox's partial likelihood: one log risk per case, compared with the other patients'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from medmtl.losses.cox import constant_cox_loss, efron_terms
from medmtl.metrics.breslow import CumulativeHazard, breslow
from medmtl.metrics.intervals import BoolArray, FloatArray
from medmtl.tasks.learning import Samples
from medmtl.tasks.survival.bank import Entry, RiskBank
from medmtl.tasks.survival.curve import grid_times
from medmtl.tasks.survival.objective import Objective

MAX_LOG = 80.0  # a hazard of e^80 times the average leaves nobody


class Cox(Objective):
    """The head answers a log risk r; the hazard of a case is exp(r) times one that all cases share.

    The likelihood of who of those at risk has the event needs many patients at once, and a batch of a 3D training
    holds two. So the newest log risk of every other case is remembered for one epoch, as a number. With PL(S) the
    partial likelihood of a set of cases (:func:`medmtl.losses.cox.efron_terms`), the loss of a batch of b cases beside
    the remembered ones M is what the batch adds, per case::

        loss = ( log PL(M) - log PL(M and batch) ) / b

    The first term is a constant. The gradient of each case is minus its martingale residual, over b: the mean of this
    over the steps of an epoch is the gradient of -log PL / N of the whole fold, but for how old the others' risks are.
    So neither the gradient nor its scale depends on how many cases are remembered, and it is that of a mean over
    samples, as for other kinds. The value depends on it as log n does, and settles within the first epoch.
    ``loss_scale`` is -log PL / N of the training fold where all cases have one risk.

    A batch of censored cases lowers their risk in the denominators of the remembered events that they lived to see. A
    case counts once: its last sample of the batch, else its entry. The loss is 0, and has a gradient of 0, where nobody
    of the batch was at risk together with another at an event. Drawing cases with an event more often than others
    would change who is at risk, and must not be combined with this.

    The shared hazard is Breslow's, from the log risks that the final weights give the training cases. Whatever trains
    afterwards makes it void.
    """

    positive = False
    needs_finish = True
    per_sample = False

    def __init__(self, horizon: float, fitted: Mapping[str, Any]) -> None:
        super().__init__(horizon, fitted)
        self.bank = RiskBank()
        self.baseline: CumulativeHazard | None = None

    def fit(self, time_N: FloatArray, event_N: BoolArray) -> dict[str, Any]:
        """The loss scale alone."""
        return {"loss_scale": constant_cox_loss(torch.from_numpy(time_N), torch.from_numpy(event_N))}

    def first_output(self) -> list[float]:
        """One risk for all."""
        return [0.0]

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Terms of the samples' own events, with nobody at risk but these samples."""
        return efron_terms(output[:, 0].double(), target[:, 0], target[:, 1] > 0).float()

    def batch_loss(
        self, output: torch.Tensor, target: torch.Tensor, present_B: torch.Tensor, samples: Samples
    ) -> torch.Tensor:
        """What the batch adds; computed on the CPU in fp64, as a difference of sums over the whole cohort."""
        labelled = [slot for slot, present in enumerate(present_B.tolist()) if present]
        slots = list({samples.case_ids[slot]: slot for slot in labelled}.values())
        names = [samples.case_ids[slot] for slot in slots]
        risk_M = output[slots, 0].double().cpu()
        time_M, event_M = target[slots, 0].double().cpu(), target[slots, 1].cpu() > 0
        others = self.bank.others(set(names), samples.step, samples.epoch)
        risk_O = torch.tensor([entry.log_risk for entry in others], dtype=torch.float64)
        time_O = torch.tensor([entry.time for entry in others], dtype=torch.float64)
        event_O = torch.tensor([entry.event for entry in others], dtype=torch.bool)
        together = efron_terms(
            torch.cat([risk_M, risk_O]), torch.cat([time_M, time_O]), torch.cat([event_M, event_O])
        ).sum()
        loss = (together - efron_terms(risk_O, time_O, event_O).sum()) / len(slots)
        if samples.remember:
            said = zip(names, risk_M.tolist(), time_M.tolist(), event_M.tolist(), strict=True)
            self.bank.add((Entry(*one, samples.step) for one in said), samples.step, samples.epoch)
            self.baseline = None
        return loss.to(output.device, torch.float32)

    def curve(self, output_BK: torch.Tensor) -> torch.Tensor:
        """``S(t) = exp(-H(t) exp(r))`` with Breslow's H."""
        assert self.baseline is not None, "asked before the training is finished"
        grown_G = torch.from_numpy(self.baseline.at(grid_times(self.horizon)[1:])).to(output_BK.device)
        log_ratio_B1 = (output_BK.double() - self.baseline.centre).clamp(max=MAX_LOG)
        return (-grown_G * log_ratio_B1.exp()).exp().float()

    def extra_state(self) -> dict[str, Any]:
        """The bank, and the baseline once the training is finished."""
        return {"bank": self.bank.to_json(), "baseline": self.baseline.to_json() if self.baseline else None}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore both."""
        bank, baseline = RiskBank.from_json(state["bank"]), state["baseline"]
        self.baseline = None if baseline is None else CumulativeHazard.from_json(baseline)
        self.bank = bank

    def finish(self, output_NK: torch.Tensor, target_N: torch.Tensor) -> None:
        """Breslow's estimate, up to the horizon."""
        risk_N, target_N2 = output_NK[:, 0].double().numpy(), target_N.double().numpy()
        self.baseline = breslow(risk_N, target_N2[:, 0], target_N2[:, 1] > 0).until(self.horizon)

    @property
    def is_finished(self) -> bool:
        """Whether the shared hazard is known."""
        return self.baseline is not None
