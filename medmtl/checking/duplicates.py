"""Images that lie in two files and are one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmtl.checking.opening import file_place
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.finding import Findings


class Duplicates:
    """Remembers the voxels of every image; one that comes again under another name is a finding on the later row.

    Args:
        folder: the table's.
        config: says the columns.
        places: case id -> its part in each fold, where the user chose the parts.
        findings: gets a warning where both cases are one patient's or lie in the same parts, otherwise a reject.
    """

    def __init__(self, folder: Path, config: Config, places: Mapping[str, tuple[str, ...]], findings: Findings) -> None:
        self._folder = folder
        self._config = config
        self._places = places
        self._findings = findings
        self._first: dict[bytes, tuple[Case, Path]] = {}

    def add(self, case: Case, voxels: Mapping[str, bytes]) -> None:
        """Take in a case's images.

        Args:
            case: of the cohort.
            voxels: channel -> digest of its voxels.
        """
        own: dict[bytes, str] = {}
        for channel, digest in voxels.items():
            path = case.images[channel]
            if own.setdefault(digest, channel) != channel:
                found, fix = f"the same image as channel {own[digest]}", "name the channel's own image"
                place = self._place(case, channel)
                self._findings.reject("B020", **place, found=found, expected="an image per channel", fix=fix)
                return
            first, earlier = self._first.setdefault(digest, (case, path))
            # one file in two rows is a rule of the table, which may be lifted, but not for two patients
            if first is case or (case.patient == first.patient and os.path.samefile(path, earlier)):
                continue
            together = case.case_id in self._places and self._places[case.case_id] == self._places.get(first.case_id)
            report = self._findings.warn if case.patient == first.patient or together else self._findings.reject
            report(
                "B020",
                **self._place(case, channel),
                found=f"the same image as {first.line}",
                expected="one row per image",
                fix="remove one row, or give both the same patient",
            )
            return

    def _place(self, case: Case, channel: str) -> dict[str, Any]:
        return file_place(case, self._config.cohort_of(case).columns[channel], case.images[channel], self._folder)
