"""Opening one file of a case, with every fault as a finding."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.data.formats.nifti import ImageError, read_image, read_label
from medmtl.data.volume import Volume

GRID_TOLERANCE = 0.1  # voxels; the contract's bound for "the same grid"


def open_volume(
    path: Path, label: bool, case: Case, column: str, folder: Path, findings: Findings, hashes: dict[str, str]
) -> Volume | None:
    """The volume, or None where it was refused; its hash joins ``hashes`` under its place below ``folder``."""
    file = os.path.relpath(path, folder)
    where: dict[str, Any] = {"case": case.case_id, "row": case.row, "column": column, "file": file}
    try:
        volume = read_label(path) if label else read_image(path)
    except ImageError as error:
        findings.reject(error.code, **where, found=error.found, expected=error.expected, fix=error.fix)
        return None
    for code, text in volume.notes:
        findings.fixed(code, **where, found=text)
    if volume.sha256 is not None:
        hashes[file] = volume.sha256
    return volume
