from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from medmtl.cli import main
from tests.checking.scans import Scans
from tests.data.formats.nifti_files import Hostile, hostile

IMAGES = [pytest.param(bad, id=bad.id, marks=pytest.mark.covers(bad.code)) for bad in hostile() if not bad.label]
MAX_SECONDS = 30.0  # a hang, and not a slow machine


@pytest.mark.parametrize("bad", IMAGES)
def test_each_bad_image_is_one_finding_at_its_place(tmp_path: Path, bad: Hostile) -> None:
    scans = Scans(tmp_path)
    file = scans.plant(bad)
    scans.write()
    before, start = scans.hashes(), time.perf_counter()

    findings = scans.findings()

    assert time.perf_counter() - start < MAX_SECONDS
    assert scans.hashes() == before
    if bad.severity is None:
        assert findings == []
        return
    (finding,) = findings
    assert (finding.code, finding.severity) == (bad.code, bad.severity)
    assert (finding.case, finding.row, finding.column, finding.file) == ("case1", 3, "t1", file)
    assert finding.found
    assert finding.fix or finding.severity == "fixed"
    assert finding.expected or finding.severity != "reject"


@pytest.mark.covers(*sorted({bad.code for bad in hostile() if not bad.label}))
def test_one_run_of_the_program_finds_every_bad_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = Scans(tmp_path)
    # what is unusual only beside the others is no longer so in a cohort of oddities
    planted = [bad for bad in hostile() if not bad.label and bad.code != "B087"]
    for bad in planted:
        # what is not refused holds the same voxels: one person's, so that this is a warning of its own
        person = bad.id if bad.severity == "reject" else "one"
        scans.rows.append({"id": bad.id, "person": person, "t1": "", "size": "1"})
        scans.plant(bad, len(scans.rows) - 1)
    config, report = scans.write(), tmp_path / "findings.json"
    before = scans.hashes()

    assert main(["check", str(config), "--json", str(report)]) == 2

    found = [finding for finding in json.loads(report.read_text()) if finding["code"] != "B020"]
    by_case = {finding["case"]: (finding["code"], finding["severity"]) for finding in found if finding["case"]}
    assert by_case == {bad.id: (bad.code, bad.severity) for bad in planted if bad.severity}
    assert sum(finding["case"] is not None for finding in found) == len(by_case)
    assert [finding for finding in found if finding["case"] is None] == []
    report.unlink()
    assert scans.hashes() == before
    assert "Traceback" not in capsys.readouterr().err
