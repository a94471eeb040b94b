"""Whose an evaluation is: so it takes the place of no other one, and nothing of other cases stays beside it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from medmtl.errors import ArtefactError, InputError
from medmtl.evaluation.selection import Selection
from medmtl.files import json_bytes, read_bytes, read_json, sha256_bytes, write_json
from medmtl.inference.write import answer_file
from medmtl.run_folder import MAX_JSON_BYTES, RunFolder

SOURCE = "source.json"


@dataclass(frozen=True)
class Source:
    """Whose an evaluation is.

    Attributes:
        run: the run, or the folder of its folds, relative to the evaluation; to be told, since either may be moved.
        run_sha256: of what the run, or its folds, were made with; that of a resumed or moved run is the same.
        split: as in ``metrics.json``.
        config: the other cohort's configuration, relative to the evaluation, to be told; None for the run's own cohort.
        images: of another cohort, the hash of the first image of each case, sorted.
        cases: ids of the cases, which have masks beside this.
    """

    run: str
    run_sha256: str
    split: str
    config: str | None
    images: list[str]
    cases: list[str]

    def told(self, folder: Path) -> str:
        """In words, with the places as seen from the folder of the evaluation."""
        places = [os.path.normpath(folder.resolve() / place) for place in (self.run, self.config) if place is not None]
        cohort = f"split {self.split}" if self.config is None else f"the cohort of {places[1]}"
        return f"{cohort} by the run {places[0]}"

    def has_cohort_of(self, other: Source) -> bool:
        """Whether both are of one split of the runs' own cohorts, or of one other cohort.

        A table to which rows were added, or of which some were taken, is that of the same cohort, wherever it lies.
        """
        if self.config is None or other.config is None:
            return self.config is other.config and self.split == other.split
        ours, theirs = set(self.images), set(other.images)
        return 2 * len(ours & theirs) >= min(len(ours), len(theirs))


def source_of(selection: Selection, folder: Path) -> Source:
    """Whose an evaluation of a selection into a folder would be."""
    runs = list({run.path: run for group in selection.groups for run in group.models}.values())
    case_ids = [case_id for group in selection.groups for case_id in group.case_ids]
    return Source(
        _seen_from(folder, runs[0].path if len(runs) == 1 else runs[0].path.parent),
        sha256_bytes(json_bytes([_made_with(run) for run in runs])),
        selection.split,
        None if selection.config is None else _seen_from(folder, selection.config),
        sorted(selection.images),
        case_ids,
    )


def refuse_other(selection: Selection, folder: Path, *, own: bool) -> None:
    """Refuse a folder that holds the evaluation of another run, another cohort or another split.

    Args:
        selection: what would be scored, or told anew, there.
        folder: may be absent, or hold an evaluation of a version that did not say whose it is.
        own: whether it is one of the run's own, whose run may have got further folds since.

    Raises:
        InputError: B042, naming both.
    """
    there, here = read_source(folder), source_of(selection, folder)
    if there is None or (there.has_cohort_of(here) and (own or there.run_sha256 == here.run_sha256)):
        return
    way = "choose another --out"
    if own:
        way = "rename the configuration, or choose a folder for its evaluation by --out"
    raise InputError(
        f"{folder} holds the evaluation of {there.told(folder)}, and not that of {here.told(folder)}; {way}",
        code="B042",
    )


def take_over(selection: Selection, folder: Path) -> None:
    """Say in a folder whose evaluation it holds, and remove the files of cases that only the last one there had."""
    before, now = read_source(folder), source_of(selection, folder)
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
    held = read_json(path, limit_bytes=MAX_JSON_BYTES)
    kinds = {"run": str, "run_sha256": str, "split": str, "config": str | None, "images": list, "cases": list}
    if not isinstance(held, dict) or not (
        all(isinstance(held.get(name, 0), kind) for name, kind in kinds.items())
        and all(isinstance(item, str) for item in (*held["images"], *held["cases"]))
    ):
        raise ArtefactError(f"{path} does not say whose evaluation this is; remove the folder, and evaluate again")
    return Source(**{field.name: held[field.name] for field in fields(Source)})


def _made_with(run: RunFolder) -> dict[str, object]:
    """Of two runs on equal cohorts, also what they started from and how long they were to be trained."""
    training = run.load_config().training
    return {
        **run.made_with(),
        "manifest": sha256_bytes(read_bytes(run.manifest, limit_bytes=MAX_JSON_BYTES)),
        "length": [training.steps, training.minutes],
    }


def _seen_from(folder: Path, place: Path) -> str:
    return os.path.relpath(place.resolve(), folder.resolve())
