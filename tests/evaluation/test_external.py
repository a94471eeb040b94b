"""Another cohort: matched by name, checked first, and not called external where it overlaps."""

# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import csv
import gzip
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import medmtl
from medmtl.build import build_tasks
from medmtl.checking import check_cohort
from medmtl.checking.known import known_of
from medmtl.cli import main
from medmtl.errors import ArtefactError, CohortError, InputError
from medmtl.evaluation import external
from medmtl.files import sha256_file
from medmtl.tasks.segmentation import Segmentation
from tests.conftest import TINY
from tests.evaluation.test_score import brightest, metrics_of, rows_of

pytestmark = pytest.mark.usefixtures("undrawn")

TASKS = {
    "risk": "{kind: regression, column: punkte, unit: points, range: [0, 100]}",
    "malignancy": "{kind: classification, column: dignity, classes: [benign, malignant]}",
    "lesion": "{kind: segmentation, column: tumour_file, labels: {lesion: 5}}",
}
COLUMNS = {"case_id": "id", "patient_id": "person", "site": "hospital", "image": "scan", "lesion": "tumour_file"}
COLUMNS |= {"malignancy": "dignity", "risk": "punkte"}


def write_config(
    folder: Path, name: str = "oslo.yaml", channels: str = "{other: scan, mr: scan}", **tasks: str
) -> Path:
    """A configuration whose columns, label values and order of tasks are its own."""
    lines = [
        "schema: 1",
        f"cohort: {{table: table.csv, case: id, patient: person, site: hospital, channels: {channels},",
        "         allow: [shared-image]}",
        "tasks:",
        *(f"  {task}: {options}" for task, options in (tasks or TASKS).items()),
        "training: {steps: 1}",
    ]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def rows_in(config: Path) -> list[dict[str, str]]:
    with (config.parent / "table.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(config: Path, rows: list[dict[str, str]]) -> None:
    with (config.parent / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def other_cohort(folder: Path, seed: int = 7) -> Path:
    """Ten new patients; columns have other names, and the lesion has the value 5."""
    source = medmtl.synth(folder, cases=10, seed=seed)
    with (folder / "cohort.csv").open(newline="", encoding="utf-8") as file:
        rows = [{new: row[old] for old, new in COLUMNS.items()} for row in csv.DictReader(file)]
    for row in rows:
        row["person"] = f"oslo-{row['person']}"
    for path in (folder / "labels").iterdir():
        label = nib.Nifti1Image.from_filename(path)
        nib.Nifti1Image((5 * np.asarray(label.dataobj)).astype(np.uint8), label.affine).to_filename(path)
    config = write_config(folder, channels=f"{{{channel_of(source)}: scan}}")
    write_rows(config, rows)
    return config


def channel_of(config: Path) -> str:
    return next(iter(medmtl.config.load(config).cohort.channels))


@pytest.fixture(scope="module")
def run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of two steps. Read only, but for its evaluations."""
    place = tmp_path_factory.mktemp("trained") / "run"
    overrides = {**TINY, "training.steps": 2, "split.folds": 2, "split.test": 0.25}
    return medmtl.train(tiny_cohort, place, fold="all", device="cpu", overrides=overrides)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return other_cohort(tmp_path_factory.mktemp("other") / "oslo")


@pytest.fixture
def oslo(untouched: Path, tmp_path: Path) -> Path:
    """The other cohort, to be changed at will."""
    return shutil.copytree(untouched.parent, tmp_path / "oslo") / untouched.name


def test_every_case_of_another_cohort_is_scored_by_its_own_columns_and_values(
    run: Path, oslo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmentation, "decide", brightest)
    before = {path: sha256_file(path) for path in oslo.parent.rglob("*") if path.is_file()}
    (scores,) = medmtl.evaluate(run, config=oslo, device="cpu").values()
    assert scores.folder == run / "evaluation" / "oslo-all"
    body, rows = metrics_of(scores.folder), {row["case_id"]: row for row in rows_of(scores.folder)}
    assert (body["split"], body["cohort"], body["external"], body["folds"]) == ("all", "oslo", True, [0, 1])
    assert (body["cases"], body["skipped"]) == (10, [])
    assert body["note"].startswith("external validation")
    assert list(body["tasks"]) == ["lesion", "malignancy", "risk"]
    table = {row["id"]: row for row in rows_in(oslo)}
    assert list(rows) == list(table)
    dice = []
    for case_id, row in rows.items():
        assert (row["patient"], row["site"]) == (table[case_id]["person"], table[case_id]["hospital"])
        assert row["malignancy_true"] == table[case_id]["dignity"]
        if table[case_id]["tumour_file"]:
            label = np.asarray(nib.Nifti1Image.from_filename(oslo.parent / table[case_id]["tumour_file"]).dataobj)
            found = np.asarray(nib.Nifti1Image.from_filename(scores.folder / row["lesion"]).dataobj) == 1
            dice.append(2 * (found & (label == 5)).sum() / (found.sum() + (label == 5).sum()))
            assert float(row["lesion/dice"]) == pytest.approx(dice[-1], abs=1e-5)
    assert max(dice) > 0
    assert body["tasks"]["lesion"]["metrics"]["dice"]["value"] == pytest.approx(np.mean(dice))
    malignancy = body["tasks"]["malignancy"]["metrics"]
    assert malignancy["sensitivity"]["threshold"] == 0.5
    # what the site alone reaches cannot be told of sites that the model has not seen
    assert "auc_within_site" in malignancy and "auc_site_alone" not in malignancy
    assert {path: sha256_file(path) for path in before} == before
    page = (scores.folder / "report.html").read_text()
    assert "10 cases of the cohort oslo" in page
    assert "External validation" in page
    assert medmtl.report(run, config=oslo).read_text() == page
    assert "oslo" not in medmtl.report(run, config=oslo, share=True).read_text()
    assert json.loads((scores.folder / "findings.json").read_text())
    assert not list(run.glob("fold-*/test_access.jsonl"))
    write_rows(oslo, rows_in(oslo)[:-1])
    with pytest.raises(InputError, match="oslo-all was evaluated on other cases than there are now"):
        medmtl.report(run, config=oslo)


def test_the_models_of_all_folds_answer_together(run: Path, oslo: Path, tmp_path: Path) -> None:
    (scores,) = medmtl.evaluate(run, config=oslo, split="all", out=tmp_path / "out", device="cpu").values()
    case = scores.cases["risk"][0]
    expected = medmtl.load(run, device="cpu").predict(scores.images[case.case_id])["risk"]
    assert case.result.cells("r") == expected.cells("r")
    medians = [
        json.loads((run / f"fold-{k}" / "plan.json").read_text())["tasks"]["risk"]["median_value"] for k in (0, 1)
    ]
    assert case.reference["training_median"] == pytest.approx(sum(medians) / 2)


def test_a_task_that_the_cohort_lacks_is_skipped_with_a_warning(
    run: Path, oslo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    channels = f"{{{channel_of(oslo)}: scan}}"
    config = write_config(oslo.parent, "part.yaml", channels, malignancy=TASKS["malignancy"], size=TASKS["risk"])
    with caplog.at_level(logging.WARNING, "medmtl"):
        (scores,) = medmtl.evaluate(run, config=config, out=tmp_path / "out", device="cpu").values()
    *skipped, checked = [r.getMessage() for r in caplog.records]
    assert skipped == [
        "part.yaml has no task lesion; it is not scored",
        "part.yaml has no task risk; it is not scored",
    ]
    assert checked.startswith("the check warned about ")
    assert checked.endswith("; findings.json of the evaluation lists all")
    body = metrics_of(tmp_path / "out")
    assert list(body["tasks"]) == list(scores.tasks) == ["malignancy"]
    assert body["skipped"] == ["lesion", "risk"]
    assert "no such task: lesion, risk" in (tmp_path / "out" / "report.html").read_text()
    assert not any(column.startswith(("risk", "lesion")) for column in rows_of(tmp_path / "out")[0])


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        (
            "malignancy",
            "{kind: classification, column: dignity, classes: [malignant, benign]}",
            "classes are malignant",
        ),
        ("risk", '{kind: regression, column: punkte, unit: "%"}', "unit is %"),
        ("lesion", "{kind: segmentation, column: tumour_file, labels: {tumour: 5}}", "labels are tumour"),
        ("risk", "{kind: classification, column: dignity, classes: [benign, malignant]}", "is a classification"),
        ("depth", "{kind: regression, column: punkte}", "none of the model's tasks"),
    ],
)
def test_a_task_of_the_same_name_must_mean_the_same(run: Path, oslo: Path, task: str, options: str, words: str) -> None:
    config = write_config(oslo.parent, "other.yaml", f"{{{channel_of(oslo)}: scan}}", **{task: options})
    with pytest.raises(InputError, match=words):
        medmtl.evaluate(run, config=config, device="cpu")
    assert not (run / "evaluation" / "other-all").exists()


def test_channels_are_matched_by_name(run: Path, oslo: Path, tmp_path: Path) -> None:
    name = channel_of(oslo)
    more = write_config(oslo.parent, "more.yaml", f"{{extra: hospital, {name}: scan}}", risk=TASKS["risk"])
    assert medmtl.evaluate(run, config=more, out=tmp_path / "out", device="cpu")["all"].metrics["cases"] == 10
    less = write_config(oslo.parent, "less.yaml", "{extra: scan}", risk=TASKS["risk"])
    with pytest.raises(InputError, match=f"less.yaml has no channel {name}"):
        medmtl.evaluate(run, config=less, device="cpu")


def test_what_the_model_does_not_read_need_not_be_sound_in_another_cohort(tiny_cohort: Path) -> None:
    own = medmtl.config.load(tiny_cohort)
    cohort = own.cohort.model_copy(update={"covariates": {"age": "number"}})
    split = own.split.model_copy(update={"column": "part"})
    other = own.model_copy(update={"cohort": cohort, "split": split})
    matched, skipped = external._matched(other, tiny_cohort, own, build_tasks(own))
    assert (matched.cohort.covariates, matched.split.column, skipped) == ({}, None, [])
    assert list(matched.tasks) == list(own.tasks)


def test_the_other_cohort_is_checked_first(run: Path, oslo: Path, tmp_path: Path) -> None:
    rows = rows_in(oslo)
    rows[3]["dignity"] = "maybe"
    write_rows(oslo, rows)
    with pytest.raises(CohortError, match="B112") as caught:
        medmtl.evaluate(run, config=oslo, out=tmp_path / "out", device="cpu")
    assert [finding.code for finding in caught.value.findings if finding.severity == "reject"] == ["B112"]
    assert not (tmp_path / "out").exists()


def test_the_runs_own_test_cases_as_another_cohorts_are_an_access(run: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    test = json.loads((run / "fold-0" / "splits.json").read_text())["test"]
    assert len(test) == 3
    copy = shutil.copytree(run, tmp_path / "copy")
    medmtl.evaluate(copy, config=tiny_cohort, allow_overlap=True, out=tmp_path / "out", device="cpu")
    for fold in ("fold-0", "fold-1"):
        assert (copy / fold / "test_access.jsonl").read_text() == '{"split": "test", "cases": 3}\n'
    with (tiny_cohort.parent / "cohort.csv").open(newline="", encoding="utf-8") as file:
        kept = [row for row in csv.DictReader(file) if row["case_id"] not in test]
    write_rows(shutil.copytree(tiny_cohort.parent, tmp_path / "rest") / tiny_cohort.name, kept)
    (tmp_path / "rest" / "table.csv").rename(tmp_path / "rest" / "cohort.csv")
    config = tmp_path / "rest" / tiny_cohort.name
    medmtl.evaluate(copy, config=config, allow_overlap=True, out=tmp_path / "rest-out", device="cpu")
    assert len((copy / "fold-0" / "test_access.jsonl").read_text().splitlines()) == 1


def overlapping(oslo: Path, tiny_cohort: Path, kind: str) -> None:
    """One patient, or one image, of the run's own cohort."""
    rows = rows_in(oslo)
    with (tiny_cohort.parent / "cohort.csv").open(newline="", encoding="utf-8") as file:
        own = next(csv.DictReader(file))
    if kind == "patient":
        # another spelling, which a table on its own would be warned of
        rows[0]["person"] = f" {own['patient_id'].upper()}"
        assert rows[0]["person"].strip() != own["patient_id"]
        write_rows(oslo, rows)
    else:
        # the same voxels, in a file that has been packed anew
        whole = gzip.decompress((tiny_cohort.parent / own["image"]).read_bytes())
        (oslo.parent / rows[0]["scan"]).write_bytes(gzip.compress(whole, 9, mtime=1))
        rows[0]["tumour_file"] = ""
        write_rows(oslo, rows)


@pytest.mark.parametrize("kind", ["patient", "image"])
def test_a_patient_or_an_image_of_the_runs_own_cohort_is_refused(
    run: Path, oslo: Path, tiny_cohort: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    overlapping(oslo, tiny_cohort, kind)
    out = tmp_path / "out"
    command = ["evaluate", str(run), "--config", str(oslo), "--out", str(out), "--device", "cpu", "--quiet"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"oslo.yaml is no external cohort: 1 {kind} of it in the run's own cohort" in error
    assert "--allow-overlap" in error
    assert not out.exists()
    if kind == "image":
        return
    assert main([*command, "--allow-overlap"]) == 0
    body = metrics_of(out)
    assert body["external"] is False
    assert body["note"] == (
        "not external: 1 patient of it in the run's own cohort, and 1 of its 10 cases were trained on"
    )
    assert '<p class="warning">Not external: ' in (out / "report.html").read_text()
    assert "not external" in capsys.readouterr().out


@pytest.mark.covers("B162")
def test_cases_unlike_those_of_the_training_are_told_of(
    run: Path, oslo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = oslo.rename(oslo.with_name("bright.yaml"))
    for row in rows_in(config)[:3]:
        image = nib.Nifti1Image.from_filename(oslo.parent / row["scan"])
        brighter = 20 * np.asarray(image.dataobj).astype(np.float32)
        nib.Nifti1Image(brighter, image.affine, image.header).to_filename(oslo.parent / row["scan"])
    (scores,) = medmtl.evaluate(run, config=config, device="cpu").values()
    found = metrics_of(scores.folder)["outside_training"]
    assert found["in"]["intensity_image"] == 3 <= found["cases"]
    assert f"[B162] {found['cases']} of 10 cases lie outside what the model was trained on" in caplog.text
    page = scores.folder / "report.html"
    before = page.read_bytes()
    assert "intensity_image in 3" in before.decode()
    assert medmtl.report(run, config=config) == page and page.read_bytes() == before


def test_the_runs_own_cohort_is_no_external_one(run: Path, tiny_cohort: Path) -> None:
    with pytest.raises(InputError, match="12 patients and 12 images of it in the run's own cohort"):
        medmtl.evaluate(run, config=tiny_cohort, device="cpu")


@contextmanager
def changed_manifest(run: Path) -> Iterator[dict[str, Any]]:
    """What the second fold's manifest holds, to be changed; the file is restored."""
    manifest = run / "fold-1" / "manifest.json"
    text = manifest.read_text()
    content: dict[str, Any] = json.loads(text)
    try:
        yield content
    finally:
        manifest.write_text(text)


def refused(run: Path, content: dict[str, Any], config: Path) -> str:
    (run / "fold-1" / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        medmtl.evaluate(run, config=config, device="cpu")
    return str(caught.value)


def test_what_the_run_it_started_from_had_seen_is_not_external(run: Path, oslo: Path) -> None:
    """The trunk of a third run, which was trained on the other cohort."""
    config = medmtl.config.load(oslo)
    cohort = check_cohort(config, build_tasks(config), to_learn=False)
    seen = known_of(cohort, cohort.cohort.cases[:3]).to_json()
    with changed_manifest(run) as content:
        content["init"] = {"seen": [seen]}
        error = refused(run, content, oslo)
        assert "3 patients and 3 images of it in the run's own cohort, or in what its init.run had seen" in error
        content["init"] = {"seen": [{"patients": ["p1"]}]}
        (run / "fold-1" / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(ArtefactError, match=r"manifest\.json was refused"):
            medmtl.evaluate(run, config=oslo, device="cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "test"}, "leave --split test away"),
        ({"config": None, "allow_overlap": True}, "give its configuration"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run: Path, oslo: Path, options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        medmtl.evaluate(run, **{"config": oslo, "device": "cpu", **options})
