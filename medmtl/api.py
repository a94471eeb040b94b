"""The library as a researcher calls it; every command of the program is one of these calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medmtl import config as configuration
from medmtl import tasks
from medmtl.build import build_tasks
from medmtl.catalogue import describe_kinds
from medmtl.checking import Expectation, check_cohort, expectations
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.finding import Finding, Findings
from medmtl.data.synthetic import write_cohort
from medmtl.device import describe_device
from medmtl.errors import CohortError, InputError
from medmtl.evaluation.report import write_report
from medmtl.evaluation.score import Scores, evaluate_split, load_scores
from medmtl.inference.batch import predict_all
from medmtl.inference.inputs import case_of_files, cases_of
from medmtl.inference.predict import CasePrediction, Predictor
from medmtl.inference.write import TABLE, open_output, prediction_row, write_masks, write_table
from medmtl.planning import Plan, decoder_count, with_duration
from medmtl.progress import Progress, silent
from medmtl.run_folder import RunFolder, open_folds
from medmtl.tasks.base import Task
from medmtl.training.loop import train_run
from medmtl.training.start import FoldName, Ready, divide, make_ready, plan_fold, start_run

DeviceName = Literal["auto", "cpu", "cuda"]
PathLike = str | Path
Overrides = Mapping[str, Any]

DEMO_CASES = 100  # enough that a fifth of them holds lesions, lesion-free cases and both classes
FREE_ON_RESUME = ("training.keep", "plan.workers", "cache.folder")  # what may differ without changing the result


@dataclass(frozen=True)
class CheckReport:
    """What a check says.

    Attributes:
        findings: everything found.
        expectations: per task, labelled cases and expected widths; empty where anything was rejected.
    """

    findings: tuple[Finding, ...]
    expectations: tuple[Expectation, ...]


def check(config: PathLike, *, overrides: Overrides | None = None, progress: Progress = silent) -> list[Finding]:
    """Run every check on every row and file of a cohort.

    Raises:
        ConfigError: if the configuration is wrong.
        CohortError: only if the table cannot be read at all; every other fault is a finding.
    """
    return list(check_report(config, overrides=overrides, progress=progress).findings)


def check_report(config: PathLike, *, overrides: Overrides | None = None, progress: Progress = silent) -> CheckReport:
    """As :func:`check`, with what the cohort will let be said."""
    resolved = configuration.load(Path(config), overrides)
    built = build_tasks(resolved)
    checked = check_cohort(resolved, built, progress)
    if checked.findings.rejected():
        return CheckReport(tuple(checked.findings), ())
    try:
        splits = divide(resolved, built, checked)
    except CohortError as error:
        return CheckReport((*checked.findings, *error.findings), ())
    return CheckReport(tuple(checked.findings), expectations(checked, built, splits))


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
        CohortError: if the check rejects anything.
    """
    ready = make_ready(configuration.load(Path(config), overrides), progress=progress)
    return with_duration(plan_fold(ready, fold, describe_device(device)), decoder_count(ready.config, ready.tasks))


def train(
    config: PathLike,
    out: PathLike,
    *,
    fold: FoldName | Literal["all"] = 0,
    device: DeviceName = "auto",
    resume: bool = False,
    strict: bool = False,
    overrides: Overrides | None = None,
    progress: Progress = silent,
) -> Path:
    """Check, plan, prepare and train.

    Args:
        config: the experiment.
        out: the run folder to make; with ``fold="all"`` a folder of ``fold-K/``.
        fold: a fold's number, ``all``, or ``none`` for all cases but the test split.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: go on with the run at ``out``; it ends with the same bytes as if it had not been stopped.
        strict: also refuse what the check only warns about.
        overrides: dotted key -> value, as ``--set`` gives them.
        progress: called at every unit of work.

    Returns:
        ``out``, which :func:`evaluate`, :func:`predict` and :func:`load` take.
    """
    resolved = configuration.load(Path(config), overrides)
    place = Path(out)
    ready: Ready | None = None
    folds: list[FoldName] = [fold] if fold != "all" else []
    if fold == "all":
        started = [path for path in place.glob("fold-*") if resume and _exists(path)]
        ready = None if started else make_ready(resolved, strict=strict, progress=progress)
        splits = ready.splits if ready else RunFolder.open(started[0]).load_splits()
        folds = list(range(len(splits.folds)))
    for number in folds:
        target = place / f"fold-{number}" if fold == "all" else place
        if resume and _exists(target):
            run = RunFolder.open(target)
            _refuse_changes(resolved, run)
        elif resume and fold != "all":
            raise InputError(f"there is no run at {out} to resume; leave --resume away to start one")
        else:
            ready = ready or make_ready(resolved, strict=strict, progress=progress)
            run = start_run(ready, target, number, device, progress)
        train_run(run, resumed=resume, progress=progress)
    return place


def evaluate(
    run: PathLike,
    *,
    split: Literal["val", "test", "all"] = "val",
    out: PathLike | None = None,
    device: DeviceName = "auto",
    progress: Progress = silent,
) -> dict[str, Scores]:
    """Predict and score a run's own cases, and write the report.

    Args:
        run: a run folder or a folder of folds; of the latter ``val`` is pooled out of fold.
        split: ``val``, ``test``, or ``all`` for train, val and test apart.
        out: where to write; by default into the run, under ``evaluation/SPLIT``.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called once per case.

    Returns:
        Split -> scores.
    """
    runs = open_folds(Path(run))
    splits = runs[0].load_splits()
    chosen = [split] if split != "all" else ["train", "val", *(["test"] if splits.test else [])]
    found: dict[str, Scores] = {}
    for name in chosen:
        folder = _evaluation(runs, run, name) if out is None else Path(out) / name if split == "all" else Path(out)
        found[name] = evaluate_split(runs, name, folder, device=device, progress=progress)
        write_report(found[name], runs)
    return found


def report(run: PathLike, *, split: str = "val", share: bool = False) -> Path:
    """Write the page of an evaluated split again; ``share`` leaves out ids, images and per-case values.

    Raises:
        InputError: if the split was not evaluated yet.
    """
    runs = open_folds(Path(run))
    return write_report(load_scores(runs, split, _evaluation(runs, run, split)), runs, share=share)


@dataclass(frozen=True)
class Prediction(CasePrediction):
    """What a model says of one case, by task.

    Attributes:
        model_sha256: of the weights that said it.
    """

    model_sha256: str

    def save(self, out: PathLike) -> Path:
        """Write the masks and a one-row ``predictions.csv`` into ``out``; returns the table."""
        open_output(Path(out))
        write_masks(self, Path(out))
        table = Path(out) / TABLE
        write_table([prediction_row(self, self.model_sha256)], table)
        return table


class Model:
    """A trained run ready to predict.

    Args:
        run: a run folder, or a folder of folds, whose predictions are averaged.
        device: where to compute.
    """

    def __init__(self, run: PathLike, device: DeviceName = "auto") -> None:
        self._predictor = Predictor(open_folds(Path(run)), device)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names that :meth:`predict` wants."""
        return self._predictor.channels

    def predict(
        self, images: Mapping[str, PathLike], *, case_id: str = "case", covariates: Mapping[str, Any] | None = None
    ) -> Prediction:
        """Predict one case.

        Args:
            images: channel -> file.
            covariates: clinical inputs; not in this version, which refuses any.
            case_id: the case's name in files that are saved.

        Raises:
            InputError: if a channel is missing or unknown, or a file cannot be used.
        """
        if covariates:
            raise InputError("clinical covariates are not in this version")
        found = self._predictor.predict(case_of_files(images, self.channels, case_id))
        return Prediction(**vars(found), model_sha256=self._predictor.model_sha256)

    def training_cohort(self) -> tuple[Case, ...]:
        """The cases of the cohort that the model was trained on, where its table is still in place."""
        return cases_of([], self._predictor.config, self.channels)


def load(run: PathLike, device: DeviceName = "auto") -> Model:
    """A trained run as a model."""
    return Model(run, device)


def predict(
    run: PathLike,
    inputs: Sequence[PathLike],
    out: PathLike,
    *,
    device: DeviceName = "auto",
    progress: Progress = silent,
) -> Path:
    """Predict cases that need no labels.

    Args:
        run: a run folder or a folder of folds.
        inputs: one cohort configuration, one table, ``CHANNEL=FILE`` for one case, or bare files for a model of one
            channel.
        out: folder for masks and ``predictions.csv``; of earlier predictions there, those of equal names are replaced.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called once per case.

    Returns:
        The table.

    Raises:
        InputError: if a row or a file cannot be used; the cases that can are predicted and written first.
        NumericError: if the only cases that failed got an answer that is not finite; as above.
    """
    predictor = Predictor(open_folds(Path(run)), device)
    findings = Findings()
    cases = cases_of([str(item) for item in inputs], predictor.config, predictor.channels, findings)
    return predict_all(predictor, cases, findings, Path(out), progress)


def kinds() -> dict[str, list[dict[str, Any]]]:
    """Every kind with its options: name, type, default, and what it is for."""
    return describe_kinds()


def register(kind: type[Task]) -> type[Task]:
    """Add a task kind of your own, from Python only; a run that uses it loads once it is registered again."""
    return tasks.kinds.add(kind)


def synth(
    out: PathLike, *, cases: int = 60, seed: int = 0, preset: Literal["easy", "hard"] = "easy", channels: int = 1
) -> Path:
    """Write a synthetic tumour cohort with its configuration; returns the configuration's path."""
    return write_cohort(Path(out), cases=cases, seed=seed, preset=preset, channels=channels).parent / "config.yaml"


def demo(out: PathLike | None = None, *, progress: Progress = silent) -> Path:
    """Make a cohort, train on it, evaluate, and predict one held-out case; returns the report's path."""
    place = Path(out) if out is not None else _free_demo_folder()
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


def _evaluation(runs: Sequence[RunFolder], run: PathLike, split: str) -> Path:
    return runs[0].evaluation(split) if runs[0].path == Path(run).absolute() else Path(run) / "evaluation" / split


def _exists(path: Path) -> bool:
    return (path / "manifest.json").is_file()


def _refuse_changes(config: Config, run: RunFolder) -> None:
    stored = _flat(run.load_config().model_dump(mode="json", by_alias=True, serialize_as_any=True))
    asked = _flat(config.model_dump(mode="json", by_alias=True, serialize_as_any=True))
    changed = [k for k in sorted({*stored, *asked}) if stored.get(k) != asked.get(k) and k not in FREE_ON_RESUME]
    if changed:
        raise InputError(
            f"[B145] the configuration differs from the run's in {', '.join(changed)}; resume with the run's own, or "
            "start a new run"
        )


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found
