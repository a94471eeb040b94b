"""A trained run, or the folds of one, applied to whole cases."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from medmtl.build import build_model, build_tasks
from medmtl.checking.known import images_learned_from
from medmtl.config import Config
from medmtl.data.augmentation import AXES
from medmtl.data.case import Case
from medmtl.data.channels import held_channels, refuse_other_channels
from medmtl.data.covariates import CovariateFault, CovariateKind, encode_case, read
from medmtl.data.crop import Triple
from medmtl.data.lesion import lesion_centre, marked
from medmtl.data.preparation import normalise, prepare_case
from medmtl.data.prepared import Intensity, Preparation, Prepared
from medmtl.data.training_range import is_alike
from medmtl.device import describe_device, true_fp32
from medmtl.errors import ArtefactError, InputError, NumericError
from medmtl.files import sha256_bytes
from medmtl.inference.ask import Ask, chosen_precision
from medmtl.inference.boxes import in_the_patient
from medmtl.inference.case_prediction import CasePrediction, assemble
from medmtl.inference.case_view import SecondScan, case_view_activations
from medmtl.inference.forward import stream
from medmtl.inference.fusion import fused
from medmtl.inference.mirrors import Mirrors, mirrors_of
from medmtl.inference.native import NativeAnswer
from medmtl.inference.planes import Drained, Found, Stream, averaged
from medmtl.inference.unfinished import unfinished
from medmtl.model import MultiTaskModel
from medmtl.planning import Plan, observed_range
from medmtl.run_folder import RunFolder, no_checkpoint
from medmtl.tasks.base import Task
from medmtl.tasks.box_task import BoxTask
from medmtl.tasks.learning import load_states
from medmtl.tasks.voxel import VoxelTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadCase:
    """A case whose files were read.

    Attributes:
        case: the case.
        prepared: its scan at working spacing.
        coarse: the same for a second view with a spacing of its own.
        strange: covariates that no fold was trained on the like of.
        with_reference: whether to answer around the reference's lesion as well.
    """

    case: Case
    prepared: Prepared
    coarse: Prepared | None
    strange: tuple[str, ...]
    with_reference: bool


@dataclass(frozen=True)
class _Member:
    plan: Plan
    tasks: dict[str, Task]
    model: MultiTaskModel
    sha256: str
    unfinished: dict[str, Any] | None


def reference_centre(prepared: Prepared, plan: Plan) -> Triple | None:
    """Voxel at working spacing in the middle of the largest lesion of the case's own mask; None without one."""
    around = plan.case_view.around if plan.case_view is not None else None
    if around is None or around not in prepared.labels:
        return None
    return lesion_centre(marked(prepared.labels[around], plan.preparation.ignored.get(around)))


def _normalised(prepared: Prepared, plan: Plan, *, in_place: bool = False) -> torch.Tensor:
    out = prepared.image_CDHW if in_place else None
    return torch.from_numpy(normalise(prepared.image_CDHW, prepared.statistics, plan.intensities, out))


def _is_finite(value: torch.Tensor) -> bool:
    """By its ends, which takes no memory; NaN is one of them."""
    return value.numel() == 0 or all(bool(torch.isfinite(end)) for end in torch.aminmax(value))


def _mirrors(config: Config, tta: bool) -> Mirrors:
    if not tta and config.inference.tta == "none":
        return ()
    if config.augmentation.flips == "none":
        raise InputError(
            "mirror images were asked for, and augmentation.flips of this run declares no axis along which one is a "
            "plausible patient",
            code="B142",
        )
    return mirrors_of([AXES[name] for name in config.augmentation.flips])


def _prepared_by(plan: Plan) -> tuple[Preparation, ...]:
    return (plan.preparation,) if plan.case_view is None else (plan.preparation, plan.case_view.preparation)


class Predictor:
    """The models of one run or of several folds; activations are averaged over them, and boxes fused.

    Args:
        runs: one run folder, or one per fold.
        device: where to compute.
        tta: also look at mirror images, whatever ``inference.tta`` says.
        to_first: bring a case's channels to the first one's grid, as its own cohort's ``resample`` says, also where
            the training had none to bring.

    Attributes:
        model_sha256: hash of the weights; of several folds, the hash of their hashes in order.
        unfinished: of each run that is not trained to its end, which is warned about, what
            :func:`medmtl.inference.unfinished.unfinished` says.

    Raises:
        InputError: for mirror images where the run declares no axis along which one is a plausible patient.
        ArtefactError: if a run has no whole checkpoint, or not yet the one that a task needs to answer, or the folds
            were not trained for the same tasks and channels.
    """

    def __init__(
        self,
        runs: Sequence[RunFolder],
        device: Literal["auto", "cpu", "cuda"] = "auto",
        *,
        tta: bool = False,
        to_first: bool = False,
    ) -> None:
        self._machine = describe_device(device)
        self.device = torch.device(self._machine.kind)
        self.config: Config = runs[0].load_config()
        self._mirrors = _mirrors(self.config, tta)
        self._to_first = to_first
        self._members = [self._load(run) for run in runs]
        self._learned_from = frozenset[str]().union(*(images_learned_from(run.load_manifest()) for run in runs))
        self._told: set[tuple[str, str]] = set()
        self.unfinished = [member.unfinished for member in self._members if member.unfinished is not None]
        first = self._members[0]
        hashes = [member.sha256 for member in self._members]
        self.model_sha256 = hashes[0] if len(hashes) == 1 else sha256_bytes("".join(hashes).encode())
        for member in self._members[1:]:
            if list(member.tasks) != list(first.tasks) or _prepared_by(member.plan) != _prepared_by(first.plan):
                raise ArtefactError("the folds of this run were trained for different tasks, channels or spacings")

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks by name."""
        return self._members[0].tasks

    @property
    def plan(self) -> Plan:
        """The plan of the first fold."""
        return self._members[0].plan

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names in input order."""
        return self._members[0].plan.preparation.channels

    @property
    def optional(self) -> tuple[str, ...]:
        """Channels that a case may lack."""
        return self._members[0].plan.preparation.optional

    @property
    def covariates(self) -> dict[str, CovariateKind]:
        """Name -> kind of the clinical covariates that the model reads."""
        return {covariate.name: covariate.kind for covariate in self._members[0].plan.covariates}

    def _load(self, run: RunFolder) -> _Member:
        config, plan = run.load_config(), run.load_plan()
        tasks = build_tasks(config, plan.tasks)
        model = build_model(config, plan, tasks)
        stored = run.newest(first_of=("average", "model"))
        if stored is None:
            raise no_checkpoint(run)
        (group,) = stored.tensors
        model.load_weights(stored.tensors[group])
        try:
            load_states(tasks, stored.state.get("tasks", {}))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"what the tasks of {run.path.name} remember does not fit them ({error}); train again", code="B155"
            ) from error
        for name, task in tasks.items():
            if not task.is_finished:
                raise ArtefactError(
                    f"{run.path.name} stopped at step {stored.step}, and tasks.{name} can answer only after the last "
                    "one; go on with medmtl train --resume",
                    code="B155",
                )
        plan = replace(plan, precision=chosen_precision(self.config.inference.precision, plan.precision, self._machine))
        return _Member(plan, tasks, model.to(self.device).eval(), stored.sha256[group], unfinished(run, stored.step))

    def predict(self, case: Case, *, with_reference: bool = False) -> CasePrediction:
        """Predict every task for one case; no labels are needed.

        Args:
            case: its files.
            with_reference: also say what the tasks that look at a lesion's window answer where the case's own mask
                tells where the lesion is.

        Raises:
            InputError: if the case's channels or covariates are not the model's, or a file cannot be used.
            NumericError: if an answer is NaN or infinite.
        """
        return self.answer(self.read(case, with_reference=with_reference))

    def read(self, case: Case, *, with_reference: bool = False) -> ReadCase:
        """The first half of :meth:`predict`, which needs no model: another thread may do it.

        Raises:
            InputError: as :meth:`predict`.
        """
        refuse_other_channels(case.images, self.channels, self.optional)
        strange = self._strange_covariates(case)
        view = self.plan.case_view
        with_reference = with_reference and view is not None and view.kind == "lesion"
        prepared = prepare_case(case, self._own(self.plan.preparation), with_labels=with_reference)
        return ReadCase(case, prepared, self._coarse(case), strange, with_reference)

    @true_fp32()
    @torch.inference_mode()
    def answer(self, reading: ReadCase) -> CasePrediction:
        """The second half of :meth:`predict`; a case that was read is answered once.

        Raises:
            NumericError: if an answer is NaN or infinite.
        """
        prepared = reading.prepared
        voxels = {
            name: NativeAnswer(prepared.grid, prepared.native, task.decide)
            for name, task in self.tasks.items()
            if isinstance(task, VoxelTask)
        }
        outside = (*self._outside(prepared), *reading.strange)
        broken: set[str] = set()
        parts = Drained(averaged(self._streams(reading)))
        for planes in parts:
            for name, value in planes.values.items():
                if not _is_finite(value):
                    broken.add(name)
                voxels[name].take(value)
        answers = self._joined(parts.found, prepared, broken)
        if broken:
            named = ", ".join(name for name in self.tasks if name in broken)
            raise NumericError(f"case {prepared.case_id!r}: the model's answer is not finite for {named}")
        masks = {name: answer.volume() for name, answer in voxels.items()}
        results = assemble(self.tasks, masks, answers)
        at_reference = self._at_reference(reading) if reading.with_reference else {}
        trained_on = not self._learned_from.isdisjoint(prepared.sha256.values())
        return CasePrediction(prepared.case_id, results, answers, outside, at_reference, prepared.notes, trained_on)

    def _streams(self, reading: ReadCase) -> list[Stream]:
        prepared, coarse = reading.prepared, reading.coarse
        images: dict[tuple[Intensity, ...], torch.Tensor] = {}
        streams = []
        for member in self._members:
            plan = member.plan
            if plan.intensities not in images:
                # of one model nobody reads the scan again, which then need not be in memory twice
                alone = len(self._members) == 1 and not reading.with_reference
                images[plan.intensities] = _normalised(prepared, plan, in_place=alone)
            streams.append(
                stream(
                    member.model,
                    member.tasks,
                    plan,
                    images[plan.intensities],
                    overlap=self.config.inference.overlap,
                    covariates_N=encode_case(plan.covariates, reading.case),
                    coarse_CDHW=None if coarse is None else _normalised(coarse, plan),
                    held=held_channels(prepared.statistics),
                    mirrors=self._mirrors,
                )
            )
        return streams

    def _joined(self, found: Sequence[Found], prepared: Prepared, broken: set[str]) -> dict[str, tuple[Any, ...]]:
        """Activations of all models as one: the mean, or of boxes, which have none, what :func:`fused` makes of them.

        Tasks whose answer is not finite join ``broken``.
        """
        answers: dict[str, tuple[Any, ...]] = {}
        for name in found[0]:
            if isinstance(self.tasks[name], BoxTask):
                rows = fused([one[name].double().numpy() for one in found])
                if not np.isfinite(rows).all():
                    broken.add(name)
                else:
                    answers[name] = tuple(box.row() for box in in_the_patient(rows, prepared.grid, prepared.native))
            else:
                mean = torch.stack([one[name] for one in found]).mean(0)
                if not _is_finite(mean):
                    broken.add(name)
                answers[name] = tuple(mean.tolist())
        return {name: answers[name] for name in self.tasks if name in answers}

    def _coarse(self, case: Case) -> Prepared | None:
        """The case as a second view with a spacing of its own prepares it."""
        view = self.plan.case_view
        if view is None or view.preparation == self.plan.preparation:
            return None
        return prepare_case(case, self._own(view.preparation), with_labels=False)

    def _own(self, preparation: Preparation) -> Preparation:
        return replace(preparation, resample_to_first=preparation.resample_to_first or self._to_first)

    def _at_reference(self, reading: ReadCase) -> dict[str, tuple[float, ...]]:
        prepared = reading.prepared
        centre = reference_centre(prepared, self.plan)
        if centre is None:
            return {}
        found = []
        for member in self._members:
            held = held_channels(prepared.statistics)
            scan = SecondScan(_normalised(prepared, member.plan), None, centre, held)
            ask = Ask(member.model, encode_case(member.plan.covariates, reading.case), self._mirrors)
            found.append(case_view_activations(ask, member.tasks, member.plan, scan, self.config.inference.overlap))
        return {name: tuple(torch.stack([one[name] for one in found]).mean(0).tolist()) for name in found[0]}

    def _strange_covariates(self, case: Case) -> tuple[str, ...]:
        """``covariate_NAME`` of those that no fold was trained on the like of.

        An unknown level counts as missing, which is said once per level.
        """
        try:
            found = read(self.covariates, case)
        except CovariateFault as fault:
            raise InputError(f"case {case.case_id!r}: {fault}", code=fault.code) from None
        learned = list(zip(*(member.plan.covariates for member in self._members), strict=True))
        strange = [folds[0] for folds in learned if not any(fold.knows(found[fold.name]) for fold in folds)]
        for covariate in strange:
            level = found[covariate.name]
            if isinstance(level, str) and (covariate.name, level) not in self._told:
                self._told.add((covariate.name, level))
                logger.warning(
                    "[B162] covariate %s: %r was not learned in training and counts as missing", covariate.name, level
                )
        return tuple(f"covariate_{covariate.name}" for covariate in strange)

    def _outside(self, prepared: Prepared) -> tuple[str, ...]:
        """What lies outside the range that the folds together were trained on."""
        outside = []
        for name, value in observed_range(prepared, self.channels, self.plan.intensities).items():
            # what a run of an earlier version did not note is not compared
            ranges = [found for member in self._members if (found := member.plan.training_range.get(name)) is not None]
            if ranges and not is_alike(value, min(low for low, _ in ranges), max(high for _, high in ranges)):
                outside.append(name)
        return tuple(outside)
