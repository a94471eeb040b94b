"""Does a case head that reads the image say the same for everybody, or anything, although its features know better?

Heads bolted onto a segmentation network often end as constants, or as noise, beside a good mask. A third of the way
through a training and at its end, each case head's predictions on training cases are compared with the labels, and with
a linear probe (ridge regression, five-fold cross-validated) on the same encoder's maps, pooled as heads pool them (mean
and maximum), and on the mask and the clinical covariates where the head reads them. Two questions:

* does the head follow its labels: its predictions are not nearly constant (``spread``), a line through them explains a
  tenth of the labels' variance (``fit_r2``), and they are not far worse than a constant, whatever their mean
  (``own_r2``);
* do the features hold the labels: the probe explains more of labels that it did not see (``probe_r2``) than of labels
  that were dealt out anew (``chance``, the share of 499 permutations that do as well). Hundreds of features of a few
  cases explain something by chance.

All of that is asked of one case per patient: of a second scan of a patient the probe would have seen the label. Classes
without an order are judged as one vector, 1 for the own class and 0 for the others; its R2 is that of all parts.

The verdicts: ``trained`` if both; ``collapsed``, the training is at fault, if the head does not follow what the probe
explains a tenth of, beyond 99.5 % of permutations, or if it ends far worse than a constant, because labels without a
signal lead to a constant and not away from it; otherwise ``no signal found``. That is also said of a head that follows
its training labels alone: it may have learned them by heart, or the cases are too few to tell. Early a head may be slow
and not dead: unless its predictions are quite constant, or far worse than a constant, it is ``undecided``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medmtl.device import autocast
from medmtl.networks.features import Features
from medmtl.networks.pooling.guidance import extents, mean_under
from medmtl.tasks.base import CaseTask, Numbers
from medmtl.training.average import looking
from medmtl.training.session import Session

MAX_CASES = 192  # a probe of hundreds of features finds nothing in a few dozen cases
MIN_CASES = 10
CONSTANT_SHARE = 0.1  # spread of the predictions against that of the targets
EARLY_SHARE = 0.02  # and early, when a slow head's predictions are still close together
FIT_R2 = 0.1
WORSE_R2 = -0.1
PROBE_R2 = 0.1
PERMUTATIONS = 499
BEYOND_DOUBT = 0.005  # chance up to which a head is called collapsed, which accuses it
LIKELY = 0.05  # and up to which one that follows its labels is called trained


def verdict(
    predicted: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    features_NF: npt.NDArray[np.float64],
    *,
    steps: int,
    early: bool = False,
) -> dict[str, Any]:
    """Judge one head.

    Args:
        predicted: one score per training case (N,), or several (N, K).
        target: the same cases' targets on the same scale.
        features_NF: pooled features of the same cases.
        steps: trained so far.
        early: whether the training goes on.

    Returns:
        ``verdict``, ``sentence`` and the figures behind them.
    """
    predicted_NK, target_NK = predicted.reshape(len(predicted), -1), target.reshape(len(target), -1)
    variance = _variance(target_NK)
    spread = float(np.sqrt(_variance(predicted_NK) / variance)) if variance else 0.0
    fit = max(0.0, _correlation(predicted_NK, target_NK)) ** 2 if spread > 0 else 0.0
    own = 1 - _variance(target_NK - predicted_NK) / variance if variance else 0.0
    probe, chance = _probe(features_NF, target_NK)
    figures = {"spread": spread, "fit_r2": fit, "own_r2": own, "probe_r2": probe, "chance": chance}
    follows = spread >= CONSTANT_SHARE and fit >= FIT_R2 and own >= WORSE_R2
    if follows and chance <= LIKELY:
        word, sentence = "trained", "the predictions vary with the cases"
    elif follows:
        word = "no signal found"
        sentence = (
            f"{word}: the head follows its training labels, but a linear probe on its features does no better than "
            "chance; it may have learned them by heart, or the cases are too few to tell"
        )
    elif own < WORSE_R2 and not early:
        word = "collapsed"
        sentence = f"{word}: the head's training predictions are far worse than a constant, which is no lack of signal"
    elif probe < PROBE_R2 or chance > BEYOND_DOUBT:
        word = "no signal found"
        sentence = (
            f"{word}: after {steps} steps its features do not explain its training labels clearly better than chance; "
            f"possible causes: too few steps, too few labelled cases ({len(target)} judged), or an image that does not "
            "show it; see docs/heads.md"
        )
    elif early and spread >= EARLY_SHARE and own >= WORSE_R2:
        word = "undecided"
        sentence = f"{word}: the head does not follow the training labels yet, and a linear probe on its features does"
    else:
        word = "collapsed"
        what = "do not follow the labels" if fit < FIT_R2 else "are far worse than a constant"
        what = what if spread >= CONSTANT_SHARE else "are nearly constant"
        known = "yet a linear probe on its features explains the labels"
        sentence = f"{word}: the head's training predictions {what}, {known}"
    return {
        "verdict": word,
        "sentence": sentence,
        **{name: round(value, 4) for name, value in figures.items()},
        "cases": len(target),
    }


def _variance(values_NK: npt.NDArray[np.float64]) -> float:
    return float(np.var(values_NK, axis=0).sum())


def _correlation(one_NK: npt.NDArray[np.float64], other_NK: npt.NDArray[np.float64]) -> float:
    """Pearson's, over all columns about their own means."""
    one, other = ((values - values.mean(axis=0)).ravel() for values in (one_NK, other_NK))
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


@torch.inference_mode()
def collapse_check(
    session: Session, *, early: int = 0, stopped: Callable[[], bool] = lambda: False
) -> dict[str, dict[str, Any]]:
    """Judge every case head with ten labelled training patients or more; early, if it trained in half of the steps.

    A head that reads no image is not judged, and one that can answer only when the training is finished not before.

    The weights are those in training; the cases are those among the first 192 of the training fold that are their
    patient's first labelled one, not augmented. The training
    goes on as if nothing had been: no weight, no buffer, no random number changes.

    Args:
        session: of the training.
        early: the steps done where the training goes on; 0 at its end.
        stopped: asked before every case; where it says yes, nothing is judged.
    """
    learner = session.learner
    judged = learner.times.mostly(early) if early else tuple(learner.tasks)
    tasks = {
        name: task
        for name in judged
        if isinstance(task := learner.tasks[name], CaseTask) and task.is_finished and task.reads_image
    }
    if not tasks:
        return {}
    with looking(learner.model, average=None), torch.random.fork_rng(devices=[]):
        rows = _observe(session, tasks, stopped)
    return {
        name: verdict(
            np.array([row.predicted for row in found]),
            np.array([row.target for row in found]),
            np.stack([row.features for row in found]),
            steps=early or session.plan.steps or 0,
            early=early > 0,
        )
        for name, found in rows.items()
        if len(found) >= MIN_CASES
    }


@dataclass(frozen=True)
class _Row:
    """A case as :func:`verdict` takes it."""

    predicted: Numbers
    target: Numbers
    features: npt.NDArray[np.float64]


def _observe(session: Session, tasks: Mapping[str, CaseTask], stopped: Callable[[], bool]) -> dict[str, list[_Row]]:
    """Per task the first labelled case of each patient; nothing where it was stopped."""
    learner = session.learner
    patients = {case.case_id: case.patient for view in session.training.views for case in view.cases}
    rows: dict[str, dict[str, _Row]] = {name: {} for name in tasks}
    for view in session.training.plain(tasks, limit=MAX_CASES):
        if stopped():
            return {}
        names = tuple(name for name in view.labelled() if name in tasks)
        with autocast(learner.device, learner.precision):
            outputs, features = learner.model.outputs_and_features(
                view.image_BCDHW.to(learner.device), names, view.covariates_BN.to(learner.device), view.tiles
            )
        for name in names:
            activation = tasks[name].activate(outputs[name]).cpu()
            pooled = _pool(features[name])
            for b in np.flatnonzero(view.present[name].numpy()):
                score, target = tasks[name].probe_pair(activation[b], view.targets[name][b])
                rows[name].setdefault(patients[view.case_ids[b]], _Row(score, target, pooled[b]))
    return {name: list(found.values()) for name, found in rows.items()}


def _pool(features: Features) -> npt.NDArray[np.float64]:
    parts = []
    for level in features.encoder:
        flat = level.float().flatten(2)
        parts += [part.reshape(-1, features.tiles, part.shape[1]).mean(1) for part in (flat.mean(2), flat.amax(2))]
    if features.guides:
        parts += [mean_under(level, guide.foreground_B1DHW) for guide in features.guides for level in features.encoder]
        parts.append(extents(features.guides))
    if features.covariates_BN is not None:
        parts.append(features.covariates_BN)
    return np.asarray(torch.cat(parts, 1).cpu().numpy(), np.float64)


def _probe(features_NF: npt.NDArray[np.float64], target_NK: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Out-of-fold R2 of a linear probe, and the share of permuted targets for which it is as high.

    With few cases and hundreds of features R2 is above zero by chance now and then, so that the same probe, on the same
    features and folds, is asked for targets that were dealt out anew; the share is (1 + c) / (1 + n), where c of n
    permutations reach the R2 of the true targets.
    """
    variance = _variance(target_NK)
    if not variance:
        return 0.0, 1.0
    rng = np.random.default_rng(0)
    dealt = [target_NK[rng.permutation(len(target_NK))] for _ in range(PERMUTATIONS)]
    target_NP = np.column_stack([target_NK, *dealt])
    # one decomposition of the features serves all targets, each with a penalty of its own
    probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11), alpha_per_target=True))
    with warnings.catch_warnings():
        # constant features of a dead layer: the scaler divides them by 1 and says so
        warnings.simplefilter("ignore")
        found_NP = cross_val_predict(probe, features_NF, target_NP, cv=KFold(5, shuffle=True, random_state=0))
    error_PK = ((target_NP - found_NP) ** 2).mean(axis=0).reshape(1 + PERMUTATIONS, -1)
    r2_P = 1 - error_PK.sum(axis=1) / variance
    return float(r2_P[0]), float((1 + np.sum(r2_P[1:] >= r2_P[0])) / (1 + PERMUTATIONS))
