"""Whose an evaluation is: so it takes the place of no other one, and nothing of other cases stays beside it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from medmtl.errors import ArtefactError, InputError
from medmtl.evaluation.selection import Selection
from medmtl.files import json_bytes, read_json, sha256_bytes, write_json
from medmtl.inference.write import answer_file
from medmtl.run_folder import MAX_JSON_BYTES, RunFolder

SOURCE = "source.json"


@dataclass(frozen=True)
class Source:
    """Whose an evaluation is.

    Attributes:
        run: the run, or the folder of its folds, relative to the evaluation; to be told, since either may be moved.
        runs_sha256: of what each fold was made with; that of a resumed or moved run is the same.
        split: as in ``metrics.json``.
        config: the other cohort's configuration, relative to the evaluation; None for the run's own cohort.
        config_sha256: of its absolute path, which itself is not kept.
        cases: ids of the cases, which have masks beside this.
    """

    run: str
    runs_sha256: list[str]
    split: str
    config: str | None
    config_sha256: str | None
    cases: list[str]

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def told(self, folder: Path) -> str:
        """In words, with the places as seen from the folder of the evaluation."""
        places = [os.path.normpath(folder.resolve() / place) for place in (self.run, self.config) if place is not None]
        cohort = f"split {self.split}" if self.config is None else f"the cohort of {places[1]}"
        return f"{cohort} by the run {places[0]}"

    def has_cohort_of(self, other: Source) -> bool:
        """Whether both are of one split of the runs' own cohorts, or of one file that declares another cohort.

        That file is the same one where it was, and where it was moved together with the evaluation.
        """
        if self.config is None or other.config is None:
            return self.config == other.config and self.split == other.split
        return self.config == other.config or self.config_sha256 == other.config_sha256


def source_of(selection: Selection, folder: Path) -> Source:
    """Whose an evaluation of a selection into a folder would be."""
    runs = list({run.path: run for group in selection.groups for run in group.models}.values())
    other = selection.config
    return Source(
        _seen_from(folder, runs[0].path if len(runs) == 1 else runs[0].path.parent),
        [sha256_bytes(json_bytes(_made_with(run))) for run in runs],
        selection.split,
        None if other is None else _seen_from(folder, other),
        None if other is None else sha256_bytes(os.fsencode(other.resolve())),
        [case_id for group in selection.groups for case_id in group.case_ids],
    )


def refuse_other(selection: Selection, folder: Path, *, own: bool) -> None:
    """Refuse a folder that holds the evaluation of another run, another cohort or another split.

    A folder of folds of which more are trained by now is the same run.

    Args:
        selection: what would be scored, or told anew, there.
        folder: may be absent, or hold an evaluation of a version that did not say whose it is.
        own: whether it lies in the run, where nothing but that run's evaluations are.

    Raises:
        InputError: B042, naming both.
        ArtefactError: if the file that says whose it is, is damaged.
    """
    if own and selection.config is None:
        return
    there, here = read_source(folder), source_of(selection, folder)
    if there is None or (there.has_cohort_of(here) and (own or {*there.runs_sha256} <= {*here.runs_sha256})):
        return
    way = "rename the configuration, or choose a folder by --out" if own else "choose another --out"
    raise InputError(
        f"{folder} holds the evaluation of {there.told(folder)}, and not that of {here.told(folder)}; {way}; or remove "
        "that folder, if it is to be replaced",
        code="B042",
    )


def take_over(selection: Selection, folder: Path) -> None:
    """Say in a folder whose evaluation it holds, and remove the files of cases that only the last one there had."""
    try:
        before = read_source(folder)
    except ArtefactError:  # of the run's own cohort; of another it was refused
        before = None
    now = source_of(selection, folder)
    for case_id in () if before is None else sorted({*before.cases} - {*now.cases}):
        for name, task in selection.tasks.items():
            file = answer_file(name, case_id, task)
            if file is not None:
                (folder / file).unlink(missing_ok=True)
    write_json(folder / SOURCE, asdict(now))  # last: a killed removal is done again


def read_source(folder: Path) -> Source | None:
    """Whose the evaluation in a folder is; None where nothing says it.

    Raises:
        ArtefactError: if the file that says it is damaged.
    """
    path = folder / SOURCE
    if not os.path.lexists(path):
        return None
    try:
        return TypeAdapter(Source).validate_python(read_json(path, limit_bytes=MAX_JSON_BYTES))
    except (ArtefactError, ValidationError):
        raise ArtefactError(
            f"{path} does not say whose evaluation this is; remove that file, if the folder may be replaced, and "
            "evaluate again"
        ) from None


def _made_with(run: RunFolder) -> dict[str, object]:
    """Of two runs on equal cohorts, also what they started from and how long they were to be trained."""
    training = run.load_config().training
    # but for the names of variables, on which nothing depends
    manifest = {name: value for name, value in run.load_manifest().items() if name != "environment"}
    return {
        **run.made_with(),
        "manifest": sha256_bytes(json_bytes(manifest)),
        "length": [training.steps, training.minutes],
    }


def _seen_from(folder: Path, place: Path) -> str:
    try:
        return os.path.relpath(place.resolve(), folder.resolve())
    except ValueError:  # on another drive of Windows
        return str(place.resolve())
