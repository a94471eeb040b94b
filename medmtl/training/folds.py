"""The runs of a training, one per fold: new ones, or those to go on with."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medmtl.config import Config, dotted
from medmtl.device import DeviceName
from medmtl.errors import InputError
from medmtl.progress import Progress
from medmtl.run_cohort import other_data, refuse_mixed
from medmtl.run_folder import RunFolder
from medmtl.run_place import folds_in, holds_folds, is_run
from medmtl.training.start import (
    FoldName,
    Ready,
    default_cache,
    make_ready,
    refuse_out,
    refuse_out_unchecked,
    start_run,
)

# what may differ without changing the result: a resume takes it as asked for, and the run's own files stay as they are
FREE_ON_RESUME = ("training.keep", "plan.workers", "cache.folder")


@dataclass
class Folds:
    """How a training comes to the run of each fold: what was asked for, and the cohort once it was checked."""

    config: Config
    out: Path
    fold: FoldName | Literal["all"]
    device: DeviceName
    resume: bool
    progress: Progress
    checked: Ready | None = None
    compared: bool = False

    def __post_init__(self) -> None:
        """One cache for all folds, beside the folder that they lie in."""
        if self.fold == "all" and self.config.cache.folder is None:
            cache = self.config.cache.model_copy(update={"folder": default_cache(self.out)})
            self.config = self.config.model_copy(update={"cache": cache})

    def numbers(self) -> list[FoldName]:
        """Those to train.

        Raises:
            InputError: all of them are wanted in a run, their folder is no place for new ones, or there is none to go
                on with.
        """
        if self.fold != "all":
            return [self.fold]
        if is_run(self.out):
            raise InputError(f"{self.out} is a run, and no folds are made in one; choose another --out", code="B165")
        started = [path for path in self.out.glob("fold-*") if self.resume and is_run(path)]
        if started:
            return list(range(len(RunFolder.open(started[0]).load_splits().folds)))
        if self.resume and not self.out.exists():
            raise self._nothing_to_resume()
        refuse_out(self.ready(), self.out, folds=True)
        return list(range(len(self.ready().splits.folds)))

    def ready(self) -> Ready:
        """The checked cohort.

        Raises:
            InputError: there is no place for a new run, which is told before a check that may take hours.
        """
        if self.checked is None:
            if not (self.resume and holds_folds(self.out)):
                refuse_out_unchecked(self.config, self.out, folds=self.fold == "all")
            self.checked = make_ready(self.config, progress=self.progress)
        return self.checked

    def run(self, number: FoldName, processes: int) -> RunFolder:
        """The run of a fold: that to go on with, or a new one."""
        self._refuse_other_folds()
        target = self.out / f"fold-{number}" if self.fold == "all" else self.out
        if self.resume and is_run(target):
            run = RunFolder.open(target)
            self._refuse_changes(run, number, target)
            return run
        if self.resume and self.fold != "all":
            raise self._nothing_to_resume()
        return start_run(self.ready(), target, number, self.device, self.progress, processes)

    def _nothing_to_resume(self) -> InputError:
        folds = "it is a folder of folds: resume it with --fold all"
        way = folds if holds_folds(self.out) else "leave --resume away to start one"
        return InputError(f"there is no run at {self.out} to resume; {way}", code="B165")

    def _refuse_other_folds(self) -> None:
        """Compare every fold that is there with what is asked for, before a step that would not fit to them."""
        if self.compared or self.fold != "all" or not self.resume:
            return
        runs = {path: RunFolder.open(path) for path in folds_in(self.out) if is_run(path)}
        for path, run in runs.items():
            self._refuse_changes(run, int(path.name.removeprefix("fold-")), path)
        refuse_mixed(list(runs.values()))
        self.compared = True
        first = next(iter(runs.values()), None)
        if first is None or len(runs) == len(first.load_splits().folds):
            return  # each goes on with the cohort that it knows
        ready = self.ready()
        other = other_data(first, ready.checked.cohort.sha256, ready.checked.sha256, ready.splits)
        if other:
            raise InputError(
                f"the folds in {self.out} were trained on other data than there is now: not the same are "
                f"{', '.join(other.values())}; put the old data back, or train all folds anew with another --out",
                code=next(iter(other)),
            )

    def _refuse_changes(self, run: RunFolder, number: FoldName, place: Path) -> None:
        trained = run.load_manifest()["fold"]
        if trained != number:
            raise InputError(
                f"the run at {run.path} is of fold {trained}; resume it with --fold {trained}", code="B145"
            )
        own = run.load_config()
        stored = dotted(own.model_dump(mode="json", by_alias=True, serialize_as_any=True))
        asked = dotted(self.config.model_dump(mode="json", by_alias=True, serialize_as_any=True))
        changed = [k for k in sorted({*stored, *asked}) if stored.get(k) != asked.get(k) and k not in FREE_ON_RESUME]
        if changed:
            way = f"{_found_again(run, own)}resume with its own: {self._own_words(place)}"
            raise InputError(
                f"the configuration differs from the run's in {', '.join(changed)}; give the same --set as at its "
                f"start, or {way}; with other settings, start a new run",
                code="B145",
            )

    def _own_words(self, place: Path) -> str:
        """The command that goes on with the run at a place as it was configured."""
        words = ["medmtl", "train", str(place / "config.yaml"), "--out", str(self.out)]
        words += [] if self.fold == 0 else ["--fold", str(self.fold)]
        return shlex.join([*words, "--resume"])


def _found_again(run: RunFolder, own: Config) -> str:
    """What must be done before a run can be resumed by its own configuration; empty where its tables are in place."""
    absent = [section.table for section in own.cohorts or (own.cohort,) if not os.path.isfile(section.table)]
    return f"write into {run.config} where {absent[0]} is now, and " if absent else ""


def as_asked(stored: Config, asked: Config) -> Config:
    """The run's configuration with what is free on resume as it is asked for; what is not set there stays."""
    for key in FREE_ON_RESUME:
        section, _, name = key.partition(".")
        given = getattr(asked, section)
        if name in given.model_fields_set:
            changed = getattr(stored, section).model_copy(update={name: getattr(given, name)})
            stored = stored.model_copy(update={section: changed})
    return stored
