from __future__ import annotations

from pathlib import Path

import pytest

from medmtl.data.cohort import Cohort, CohortLayout, read_cohort
from medmtl.data.finding import Finding, Findings
from medmtl.errors import CohortError

HEADER = "case_id,patient_id,vendor,image,label,lvef,split"


ROWS = (
    "007,p1,Siemens,images/a.nii.gz,labels/a.nii.gz,61.5,train",
    "7E5,p2,Philips,images/b.nii.gz,,NA,val",
)


def layout_of(folder: Path) -> CohortLayout:
    return CohortLayout(
        table=folder / "cohort.csv",
        case="case_id",
        patient="patient_id",
        channels={"t1": "image"},
        site="vendor",
        value_columns=("lvef",),
        file_columns=("label",),
        split="split",
        missing=("", "NA"),
    )


def write(folder: Path, *rows: str, header: str = HEADER) -> CohortLayout:
    layout = layout_of(folder)
    layout.table.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return layout


def read(layout: CohortLayout) -> tuple[Cohort, list[Finding]]:
    findings = Findings()
    return read_cohort(layout, findings), list(findings)


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [finding.sentence() for finding in findings]
    return findings[0]


def refused(layout: CohortLayout) -> list[Finding]:
    """The findings of a table that cannot be read; the error carries the same ones."""
    findings = Findings()
    with pytest.raises(CohortError) as error:
        read_cohort(layout, findings)
    assert error.value.findings == tuple(findings)
    return list(findings)
