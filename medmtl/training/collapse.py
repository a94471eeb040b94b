"""Does a case head say the same for everybody although its features know better?

Heads bolted onto a segmentation network often end as constants beside a good mask. At the end of a training each case
head's predictions on training cases are compared with a linear probe (ridge regression, five-fold cross-validated) on
the same encoder's pooled maps, and on the mask and the clinical covariates where the head reads them:

* predictions vary: ``trained``;
* predictions are nearly constant, and the probe explains the target: ``collapsed``, the head is at fault;
* predictions are nearly constant, and so is the probe: ``no signal found``, the features hold nothing.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medmtl.networks.features import Features
from medmtl.networks.pooling.guidance import mask_summary, mean_under
from medmtl.tasks.base import CaseTask
from medmtl.training.session import Session
from medmtl.training.step import autocast

MAX_CASES = 64
MIN_CASES = 10
CONSTANT_SHARE = 0.1  # spread of the predictions against that of the targets
PROBE_R2 = 0.1


def verdict(
    predicted: npt.NDArray[np.float64], target: npt.NDArray[np.float64], features_NF: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Judge one head.

    Args:
        predicted: one score per training case.
        target: the same cases' targets on the same scale.
        features_NF: pooled features of the same cases.

    Returns:
        ``verdict``, ``sentence`` and the figures behind them.
    """
    spread = float(np.std(predicted) / np.std(target)) if np.std(target) > 0 else 0.0
    probe = _probe_r2(features_NF, target)
    figures = {"spread": round(spread, 4), "probe_r2": round(probe, 4), "cases": len(target)}
    if spread >= CONSTANT_SHARE:
        return {"verdict": "trained", "sentence": "the predictions vary with the cases", **figures}
    if probe >= PROBE_R2:
        sentence = (
            "collapsed: the head's training predictions are nearly constant, yet a linear probe on its features is not"
        )
        return {"verdict": "collapsed", "sentence": sentence, **figures}
    sentence = "no signal found: neither the head nor a linear probe on its features explains the training labels"
    return {"verdict": "no signal found", "sentence": sentence, **figures}


@torch.inference_mode()
def collapse_check(session: Session) -> dict[str, dict[str, Any]]:
    """Judge every case head with at least ten labelled training cases.

    The weights are those in training at the end; the cases are the first 64 of the training fold, not augmented.
    """
    learner = session.learner
    tasks = {name: task for name, task in learner.tasks.items() if isinstance(task, CaseTask)}
    if not tasks:
        return {}
    learner.model.eval()
    rows: dict[str, list[tuple[float, float, npt.NDArray[np.float64]]]] = {name: [] for name in tasks}
    for view in session.training.plain(tasks, limit=MAX_CASES):
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
                rows[name].append((score, target, pooled[b]))
    return {
        name: verdict(np.array([r[0] for r in found]), np.array([r[1] for r in found]), np.stack([r[2] for r in found]))
        for name, found in rows.items()
        if len(found) >= MIN_CASES
    }


def _pool(features: Features) -> npt.NDArray[np.float64]:
    parts = []
    for level in features.encoder:
        flat = level.float().flatten(2)
        parts += [part.reshape(-1, features.tiles, part.shape[1]).mean(1) for part in (flat.mean(2), flat.std(2))]
    if features.guide_B1DHW is not None:
        parts += [mean_under(level, features.guide_B1DHW) for level in features.encoder]
        parts.append(mask_summary(features.guide_B1DHW))
    if features.covariates_BN is not None:
        parts.append(features.covariates_BN)
    return np.asarray(torch.cat(parts, 1).cpu().numpy(), np.float64)


def _probe_r2(features_NF: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> float:
    probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))
    with warnings.catch_warnings():
        # constant features of a dead layer: the scaler divides them by 1 and says so
        warnings.simplefilter("ignore")
        found = cross_val_predict(probe, features_NF, target, cv=KFold(5, shuffle=True, random_state=0))
    residual = float(np.mean((target - found) ** 2))
    return 1 - residual / float(np.var(target)) if np.var(target) > 0 else 0.0
