"""Opening the files of a case, with every fault as a finding."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.data.formats.nifti import ImageError, read_header, read_image, read_label
from medmtl.data.volume import Grid, Volume
from medmtl.errors import WorkError

Found = TypeVar("Found")

_COUNTED = "B091"  # so common that one line for the cohort says it all
_WARNED = {"B054": "the image is whole; copy or export the file again", "B065": "the datatype decides"}


def file_place(case: Case, column: str, path: Path, folder: Path) -> dict[str, Any]:
    """The fields of a finding that say which file it is about; ``folder`` is the table's."""
    return {"case": case.case_id, "row": case.row, "column": column, "file": os.path.relpath(path, folder)}


class Opening:
    """The files of one case as they are opened.

    Args:
        case: the case.
        folder: the table's; files are named relative to it.

    Attributes:
        findings: every fault so far.
        sha256: file -> hash of its bytes, for files that were not refused.
        with_text: how many of them hold free text in their header.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.findings = Findings()
        self.sha256: dict[str, str] = {}
        self.with_text = 0
        self._folder = folder

    def where(self, column: str, path: Path) -> dict[str, Any]:
        """See :func:`file_place`."""
        return file_place(self.case, column, path, self._folder)

    def grid(self, column: str, path: Path) -> Grid | None:
        """What a file's header says, or None where it was refused; its voxels are not looked at."""
        return self._read(column, path, read_header)

    def image(self, column: str, path: Path) -> Volume | None:
        """A channel, or None where the file was refused."""
        return self._open(column, path, read_image)

    def label(self, column: str, path: Path) -> Volume | None:
        """A mask, or None where the file was refused."""
        return self._open(column, path, read_label)

    def _read(self, column: str, path: Path, read: Callable[[Path], Found]) -> Found | None:
        try:
            return read(path)
        except ImageError as error:
            self.findings.reject_fault(error, **self.where(column, path))
            return None
        except WorkError as error:
            raise self.case.failed(error) from error

    def _open(self, column: str, path: Path, read: Callable[[Path], Volume]) -> Volume | None:
        where, volume = self.where(column, path), self._read(column, path, read)
        if volume is None:
            return None
        for code, text in volume.notes:
            if code == _COUNTED:
                self.with_text += 1
            elif code in _WARNED:
                self.findings.warn(code, **where, found=text, fix=_WARNED[code])
            else:
                self.findings.fixed(code, **where, found=text)
        if volume.sha256 is not None:
            self.sha256[where["file"]] = volume.sha256
        return volume
