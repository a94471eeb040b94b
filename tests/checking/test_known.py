"""Who is known: patients by their table and id, images by file and voxels."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest

from medmtl.checking.known import images_learned_from, inherited, known_of, trained_on, whole_cohort
from medmtl.errors import ArtefactError
from tests.checking.cohort_folder import Folder


def test_images_are_known_by_their_file_and_by_their_voxels(folder: Folder) -> None:
    before = folder.check()
    known = known_of(before, before.cohort.cases[:2])
    whole = gzip.decompress((folder.path / "t1_0.nii.gz").read_bytes())
    (folder.path / "t1_0.nii.gz").write_bytes(gzip.compress(whole, 9, mtime=1))
    now = folder.check()
    assert now.sha256["t1_0.nii.gz"] not in known.files_sha256
    found = [known.has_image(path, now) for case in now.cohort.cases for path in case.images.values()]
    assert found == [True] * 4 + [False] * 12
    files = whole_cohort({"patients": [], "files_sha256": before.sha256, "voxels_sha256": {}})
    assert [files.has_image(path, now) for path in now.cohort.cases[0].images.values()] == [False, True]


def test_an_id_is_one_person_within_its_table_and_read_with_care_between_tables(folder: Folder) -> None:
    for row, person in zip(folder.rows, ("7", "007", "P1"), strict=False):
        row["person"] = person
    checked = folder.check()
    cohort, cases = checked.cohort, checked.cohort.cases
    known = known_of(checked, [cases[0], cases[2]])
    assert known.patients == {cohort.sha256: ("7", "P1")}
    assert [known.has_patient(case, cohort) for case in cases[:4]] == [True, False, True, False]
    other = replace(cohort, sha256="other")
    assert [known.has_patient(case, other) for case in cases[:4]] == [True, True, True, False]
    assert known.has_patient(replace(cases[3], patient=" p1"), other)
    joined = replace(other, tables={"south": cohort.sha256, "north": "other"})
    south = replace(cases[1], patient="south/007", cohort="south")
    assert not known.has_patient(south, joined)
    assert known.has_patient(replace(south, patient="north/007", cohort="north"), joined)
    everybody = whole_cohort({"patients": ["7"], "files_sha256": {}, "voxels_sha256": {}})
    assert everybody.has_patient(cases[1], cohort)


def test_a_manifest_keeps_it(folder: Folder) -> None:
    checked = folder.check()
    known = known_of(checked, checked.cohort.cases)
    manifest = json.loads(json.dumps({"trained": known.to_json(), "init": {"seen": [known.to_json()]}}))
    assert trained_on(manifest) == known
    assert inherited(manifest) == [known]
    assert inherited({}) == []
    earlier = replace(known, files_sha256=("earlier",))
    manifest["init"]["seen"].append(earlier.to_json())
    assert images_learned_from(manifest) == {*known.files_sha256, "earlier"}
    assert known.files_sha256


@pytest.mark.parametrize("seen", [None, 5, [5], [{"patients": []}], [{"patients": {}, "files_sha256": []}]])
def test_a_manifest_that_says_something_else_is_refused(seen: object) -> None:
    with pytest.raises(ArtefactError, match=r"manifest\.json was refused"):
        inherited({"init": {"seen": seen}})
    with pytest.raises(ArtefactError, match=r"manifest\.json was refused"):
        trained_on({"trained": seen})
