"""The library as a researcher calls it; every command of the program is one of these calls."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from medmtl import config as configuration
from medmtl import tasks, weighting
from medmtl.build import build_tasks
from medmtl.catalogue import describe_kinds
from medmtl.checking import Expectation, check_cohort, check_headers, expectations, labels_in_words
from medmtl.checking.outputs import cohort_files, refuse_overwriting
from medmtl.config import Config
from medmtl.data.finding import Finding, Findings
from medmtl.data.synthetic import refuse_filled, write_cohort
from medmtl.device import DeviceName, describe_device
from medmtl.distributed import joined
from medmtl.errors import InputError, not_in_this_version
from medmtl.evaluation.again import load_evaluation
from medmtl.evaluation.external import external_name, external_selection, refuse_part
from medmtl.evaluation.place import own_folder, own_folders, refuse_folder
from medmtl.evaluation.report import write_report
from medmtl.evaluation.score import Scores, evaluate_selection, own_selection
from medmtl.evaluation.selection import Selection
from medmtl.evaluation.source import refuse_other
from medmtl.inference.batch import predict_all
from medmtl.inference.inputs import cases_of, config_of, names_of
from medmtl.inference.predict import Predictor
from medmtl.inference.unfinished import open_models
from medmtl.inference.write import TABLE, answer_file
from medmtl.loaded import Model
from medmtl.planning import Plan, passes_per_step, plan_towers, towers_by_view, with_duration
from medmtl.progress import Progress, silent
from medmtl.run_folder import RunFolder
from medmtl.run_place import folder_of, refuse_run
from medmtl.studies import StepProfile, profile_steps
from medmtl.tasks.base import Task
from medmtl.training.folds import Folds
from medmtl.training.loop import train_run
from medmtl.training.ranks import refuse_ranks
from medmtl.training.start import FoldName, make_ready, plan_fold, refuse_fold, start_run

logger = logging.getLogger(__name__)

PathLike = str | Path
Overrides = Mapping[str, Any]

DEMO_CASES = 100  # enough that a fifth of them holds lesions, lesion-free cases and both classes


@dataclass(frozen=True)
class CheckReport:
    """What a check says.

    Attributes:
        findings: everything found.
        expectations: per task, labelled cases and expected widths; empty where anything was rejected or voxels were
            not read.
        labels: task -> how many labels were read and what they hold, such as ``25 masks, core in 25, rim in 15``; of
            files that are not in order, or of which headers alone were read, their number.
        label_files: column -> cases that have one in it.
    """

    findings: tuple[Finding, ...]
    expectations: tuple[Expectation, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    label_files: Mapping[str, int] = field(default_factory=dict)


def check(
    config: PathLike,
    *,
    headers: bool = False,
    overrides: Overrides | None = None,
    progress: Progress = silent,
) -> list[Finding]:
    """Run every check on every row and file of a cohort.

    Args:
        config: the experiment.
        headers: read the header of each file only. That is quick and says nothing about voxels, so that
            :func:`train` checks the whole files all the same.
        overrides: dotted key -> value, as ``--set`` gives them.
        progress: called once per case.

    Raises:
        ConfigError: if the configuration is wrong.
        CohortError: only if the table cannot be read at all; every other fault is a finding.
    """
    return list(check_report(config, headers=headers, overrides=overrides, progress=progress).findings)


def check_report(
    config: PathLike, *, headers: bool = False, overrides: Overrides | None = None, progress: Progress = silent
) -> CheckReport:
    """As :func:`check`, with what the cohort will let be said."""
    resolved = configuration.load(configuration.path_of(config), overrides)
    built = build_tasks(resolved)
    checked = (check_headers if headers else check_cohort)(resolved, built, progress)
    splits = None if headers or checked.findings.rejected() else checked.splits
    expected = () if splits is None else expectations(checked, built, splits)
    labels = labels_in_words(built, checked.truths, checked.cohort.identified, checked.fingerprints)
    return CheckReport(tuple(checked.findings), expected, labels, checked.label_files)


def plan(
    config: PathLike,
    *,
    overrides: Overrides | None = None,
    fold: FoldName = 0,
    device: DeviceName = "auto",
    progress: Progress = silent,
) -> Plan:
    """What a training of a fold would do, and why; nothing is prepared or written.

    The run time of a number of steps is predicted from a measurement of about a second.

    Raises:
        InputError: if there is no such fold.
        CohortError: if the check rejects anything.
    """
    refuse_fold(fold, "none")
    ready = make_ready(configuration.load(configuration.path_of(config), overrides), progress=progress)
    planned = plan_fold(ready, fold, describe_device(device))
    first, second = plan_towers(ready.config, ready.tasks, planned.network), None
    if planned.case_view is not None:
        first, second, _ = towers_by_view(ready.config, ready.tasks, planned.network, planned.case_view.tasks)
    needs = weighting.kinds.get(ready.config.weighting.kind).needs
    passes = passes_per_step(needs, sum(task.reads_image for task in ready.tasks.values()))
    return with_duration(planned, first, second, passes)


def train(
    config: PathLike,
    out: PathLike,
    *,
    fold: FoldName | Literal["all"] = 0,
    device: DeviceName = "auto",
    resume: bool = False,
    overrides: Overrides | None = None,
    progress: Progress = silent,
    transforms: object = None,
    callbacks: object = None,
) -> Path:
    """Check, plan, prepare and train.

    Args:
        config: the experiment.
        out: the run folder to make; with ``fold="all"`` a folder of ``fold-K/``.
        fold: a fold's number, ``all``, or ``none`` for all cases but the test split.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: go on with the run at ``out``; on a CPU it ends with the same bytes as if it had not been stopped.
        overrides: dotted key -> value, as ``--set`` gives them.
        progress: called at every unit of work.
        transforms, callbacks: not in this version, and refused where given.

    Returns:
        ``out``, which :func:`evaluate`, :func:`predict` and :func:`load` take.
    """
    for name, given in (("transforms", transforms), ("callbacks", callbacks)):
        if given is not None:
            raise not_in_this_version(f"train(..., {name}=)")
    refuse_fold(fold, "all", "none")
    resolved = configuration.load(configuration.path_of(config), overrides)
    place = folder_of(out, "out")
    folds = Folds(resolved, place, fold, device, resume, progress)
    with joined() as ranks:
        refuse_ranks(ranks, build_tasks(resolved), resolved.training.alternate)
        # one that is absent is told before the check, which may be long
        ranks.first(lambda: describe_device(device).kind)
        numbers = ranks.first(folds.numbers)
        for number in numbers:
            path = ranks.first(lambda number=number: str(folds.run(number, ranks.size).path))  # type: ignore[misc]
            run, more = RunFolder.open(Path(path)), number != numbers[-1]
            train_run(run, asked=resolved, resumed=resume, more=more, progress=progress, ranks=ranks)
    return place


def profile(
    config: PathLike,
    *,
    steps: int = 30,
    device: DeviceName = "auto",
    overrides: Overrides | None = None,
    progress: Progress = silent,
) -> StepProfile:
    """Time the parts of fold 0's training step; the run that it takes is made in a temporary folder and thrown away.

    Args:
        config: the experiment; set ``cache.folder`` to prepare its cases once and not anew at every call.
        steps: to time, 1 or more.
        device: ``auto``, ``cpu`` or ``cuda``.
        overrides: dotted key -> value.
        progress: called at every unit of work.

    Raises:
        InputError: fewer than 1 step.
        CohortError: if the check rejects anything.
    """
    if steps < 1:
        raise InputError(f"a profile wants 1 step or more, found {steps}", code="B164")
    ready = make_ready(configuration.load(configuration.path_of(config), overrides), progress=progress)
    with tempfile.TemporaryDirectory(prefix="medmtl-profile-") as folder:
        run = start_run(ready, Path(folder) / "run", 0, device, progress)
        return profile_steps(run, steps, progress)


def evaluate(
    run: PathLike,
    *,
    config: PathLike | None = None,
    split: Literal["val", "test", "all"] | None = None,
    out: PathLike | None = None,
    allow_overlap: bool = False,
    device: DeviceName = "auto",
    progress: Progress = silent,
) -> dict[str, Scores]:
    """Predict and score a run's own cases, or those of another cohort, and write the report.

    Args:
        run: a run folder or a folder of folds; of the latter ``val`` is pooled out of fold, and the average of all
            predicts ``test`` and another cohort.
        config: another cohort's configuration: an external validation on all of its cases. Tasks and channels are
            matched by name.
        split: of the run's own cohort ``val`` (default), ``test``, or ``all`` for train, val and test apart; of another
            cohort ``all``.
        out: where to write; by default into the run, under ``evaluation/SPLIT`` or ``evaluation/CONFIGSTEM-all``.
        allow_overlap: score another cohort although it holds a patient or an image of the run's own, and mark the
            result as not external.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called once per case.

    Returns:
        Split -> scores.

    Raises:
        InputError: if there is nothing to score, ``out`` holds anything that is no evaluation, or that of another run,
            cohort or split, or another cohort does not fit the model or overlaps with its own.
        CohortError: if the check rejects another cohort, or the run's own changed since training.
    """
    if out is not None:
        refuse_run(folder_of(out, "out"), evaluation=True)
    runs = open_models(folder_of(run, "run"))
    chosen: dict[Path, Selection] = {}
    own = runs[0].load_config()
    if config is not None:
        refuse_part(split)
        other = configuration.path_of(config)
        folder = own_folder(runs, run, external_name(other)) if out is None else Path(out)
        refuse_folder(folder, _files_of(own, configuration.load(other)), out=out)
        chosen[folder] = external_selection(runs, other, allow_overlap=allow_overlap, progress=progress)
    elif allow_overlap:
        raise InputError("--allow-overlap is for another cohort; give its configuration by --config")
    else:
        folders = own_folders(runs, run, split, out)
        for folder in folders.values():
            refuse_folder(folder, _files_of(own), out=out)
        chosen = {folder: own_selection(runs, name) for name, folder in folders.items()}
    for folder, selection in chosen.items():
        refuse_other(selection, folder, own=out is None)
        if selection.checked is not None:
            selection.checked.tell("findings.json of the evaluation lists all")
    found = {
        selection.split: evaluate_selection(selection, folder, device=device, progress=progress)
        for folder, selection in chosen.items()
    }
    for scores in found.values():
        write_report(scores, runs)
    return found


def report(run: PathLike, *, config: PathLike | None = None, split: str | None = None, share: bool = False) -> Path:
    """Write the page of an evaluated split, or of another cohort, again.

    Args:
        run: a run folder or a folder of folds.
        config: another cohort's configuration, where that was evaluated.
        split: of the run's own cohort ``val`` (default), ``test`` or ``train``; of another cohort ``all``. Of the
            ``test`` split the labels are read again, which leaves its line in ``test_access.jsonl``.
        share: leave out ids, images and per-case values.

    Raises:
        InputError: if it was not evaluated yet, its folder is a link, or another cohort was evaluated there.
    """
    scores, runs = load_evaluation(run, None if config is None else configuration.path_of(config), split)
    return write_report(scores, runs, share=share)


def load(run: PathLike, device: DeviceName = "auto") -> Model:
    """A trained run as a model."""
    return Model(run, device)


def predict(
    run: PathLike,
    inputs: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    covariates: Mapping[str, Any] | None = None,
    device: DeviceName = "auto",
    tta: bool = False,
    progress: Progress = silent,
) -> Path:
    """Predict cases that need no labels.

    Args:
        run: a run folder or a folder of folds.
        inputs: one cohort configuration, one table, ``CHANNEL=FILE`` for one case, or bare files for a model of one
            channel; a single one need not be in a list.
        out: folder for masks and ``predictions.csv``; files of equal names are replaced, and all earlier rows.
        covariates: for one case given as files, the value of each covariate that the model reads; None is a missing
            one. A table has them as columns.
        device: ``auto``, ``cpu`` or ``cuda``.
        tta: also look at mirror images along the axes that the run declares, whatever ``inference.tta`` says.
        progress: called once per case.

    Returns:
        The table.

    Raises:
        WorkError: if the system does not read a file; the other cases are predicted and written first, unless three in
            a row fail so.
        InputError: if no input is given, or a row or a file cannot be used; as above, whatever their number.
        MachineError: if no row and no file was at fault, and the memory does not hold a case; as above.
        NumericError: if the only cases that failed got an answer that is not finite; as above.
    """
    names = names_of(inputs)
    place = folder_of(out, "out")
    refuse_run(place)
    given = config_of(names)
    to_first = given is not None and given.cohort.resample == "to_first"
    predictor = Predictor(open_models(folder_of(run, "run")), device, tta=tta, to_first=to_first)
    findings = Findings()
    cases = cases_of(names, predictor.config, predictor.channels, findings, covariates)
    table = place / TABLE
    answers = (answer_file(name, c.case_id, task) for c in cases for name, task in predictor.tasks.items())
    outputs = (table, *(place / file for file in answers if file is not None))
    images = (path for case in cases for path in case.images.values())
    refuse_overwriting(outputs, chain(map(Path, names), images, _files_of(given)))
    return predict_all(predictor, cases, findings, place, progress)


def kinds() -> dict[str, list[dict[str, Any]]]:
    """Every kind with its options: name, type, default, and what it is for."""
    return describe_kinds()


def register(kind: type[Task]) -> type[Task]:
    """Add a task kind of your own, from Python only; a run that uses it loads once it is registered again.

    Raises:
        InputError: if it is no subclass of :class:`medmtl.tasks.base.Task` with a ``kind`` for a name.
        ConfigError: if another class has that name.
    """
    return tasks.register(kind)


def synth(
    out: PathLike, *, cases: int = 60, seed: int = 0, preset: Literal["easy", "hard"] = "easy", channels: int = 1
) -> Path:
    """Write a synthetic tumour cohort with its configuration; returns the configuration's path."""
    return (
        write_cohort(folder_of(out, "out"), cases=cases, seed=seed, preset=preset, channels=channels).parent
        / "config.yaml"
    )


def demo(out: PathLike | None = None, *, progress: Progress = silent) -> Path:
    """Make a cohort, train on it, evaluate, and predict one held-out case; returns the report's path."""
    place = _free_demo_folder() if out is None else folder_of(out, "out")
    refuse_filled(place)
    config = synth(place / "cohort", cases=DEMO_CASES)
    train(config, place / "run", device="cpu", progress=progress)
    scores = evaluate(place / "run", device="cpu", progress=progress)["val"]
    held_out = RunFolder.open(place / "run").load_splits().folds[0].val[0]
    model = load(place / "run", device="cpu")
    case = next(case for case in model.training_cohort() if case.case_id == held_out)
    model.predict(case.images, case_id=held_out).save(place / "prediction")
    return scores.folder / "report.html"


def _free_demo_folder() -> Path:
    number = 1
    while Path(f"medmtl-demo-{number}").exists():
        number += 1
    return Path(f"medmtl-demo-{number}")


def _files_of(*configs: Config | None) -> Iterator[Path]:
    """The files of the cohorts, None having none; no table is read before somebody asks for the first file."""
    for config in configs:
        if config is not None:
            yield from cohort_files(config, build_tasks(config))
