from __future__ import annotations

import base64
import html
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from medmtl.evaluation.report import write_report
from medmtl.evaluation.score import Scores, metrics_json
from medmtl.evaluation.tables import number
from medmtl.metrics.ranking import auc
from medmtl.run_folder import RunFolder
from medmtl.tasks.base import CaseTask
from medmtl.tasks.classification import ClassificationResult
from tests.evaluation.scored_run import CASES, LEARNED


class Rows(HTMLParser):
    """The page's tables as heading -> rows of text, its pictures, and everything that would load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.pictures: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self._title = self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if tag == "div" and given.get("class") == "wide":
            self._title = given["aria-label"]
            self.tables.setdefault(self._title, [])
        elif tag == "tr":
            self.tables[self._title].append([])
        elif tag in ("td", "th"):
            self._open = tag
            self.tables[self._title][-1].append("")
        elif tag == "img":
            self.pictures.append((given["src"], given["alt"]))

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.tables[self._title][-1][-1] += data


def test_every_metric_stands_in_the_page(page: str, scores: Scores) -> None:
    rows = [row for title, rows in Rows(page).tables.items() if title.startswith("Metrics") for row in rows]
    names = {row[0] for row in rows}
    for body in scores.metrics["tasks"].values():
        assert set(body["metrics"]) <= names
    dice = next(row for row in rows if row[0] == "dice")
    metric = scores.metrics["tasks"]["lesion"]["metrics"]["dice"]
    assert dice[1] == f"{metric['value']:.3f}"
    assert dice[2] == f"{metric['ci95'][0]:.3f} to {metric['ci95'][1]:.3f}"
    assert dice[4:6] == ["24", "higher"]
    assert "missed 0 of 48; false 0" in dice[6]


def test_the_page_is_one_file_without_scripts_or_network(page: str) -> None:
    found = Rows(page)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(found.tags)
    assert len(found.pictures) == 2 + 3 + 4
    assert all(source.startswith("data:image/") and alt for source, alt in found.pictures)
    assert not re.search(r"https?://", page)
    assert "url(" not in page and "@import" not in page


def test_pictures_are_well_formed_and_refer_to_nothing_outside(page: str) -> None:
    for source, _ in Rows(page).pictures:
        kind, _, data = source.partition(",")
        content = base64.b64decode(data, validate=True)
        if "svg" in kind:
            root = ElementTree.fromstring(content)
            links = [value for node in root.iter() for name, value in node.attrib.items() if name.endswith("href")]
            assert all(link.startswith("#") for link in links)
        else:
            assert content.startswith(b"\x89PNG")


def test_equal_input_gives_equal_bytes(page: str, scores: Scores, run: RunFolder) -> None:
    assert write_report(scores, [run]).read_text(encoding="utf-8") == page


def test_the_file_is_private(page: str, scores: Scores) -> None:
    assert (scores.folder / "report.html").stat().st_mode & 0o077 == 0


def test_texts_of_the_cohort_are_escaped(page: str) -> None:
    assert "South & <Sons>" not in page
    assert html.escape("South & <Sons>") in page
    assert "no voxel <b>" not in page


def test_overlays_are_the_best_the_median_and_the_worst_case(page: str, scores: Scores) -> None:
    ranked = sorted(scores.cases["lesion"], key=lambda case: -(case.scores["dice"] or 0))
    captions = re.findall(r"<b><bdi>(subject-\d+)</bdi></b> (\w+): dice ([0-9.]+)", page)
    expected = [("Best", ranked[0]), ("Median", ranked[CASES // 2]), ("Worst", ranked[-1])]
    assert captions == [(case.case_id, rank, f"{case.scores['dice']:.3f}") for rank, case in expected]


def test_site_table_counts_classes_and_scores_each_site(page: str, scores: Scores) -> None:
    cases = scores.cases["grade"]
    rows = {row[0]: row for row in Rows(page).tables["By site"] if len(row) == 7}
    assert rows["site"][:5] == ["site", "cases", "high", "low", "auc"]
    for site in ("North", "South & <Sons>"):
        mine = [case for case in cases if case.site == site]
        high = sum(case.truth == "high" for case in mine)
        assert rows[site][1:4] == [str(len(mine)), str(high), str(len(mine) - high)]
        area = scores.tasks["grade"].metrics(mine)["auc"].value
        assert rows[site][4] == number(area)


def test_within_site_score_compares_pairs_of_one_fold_and_site(page: str, scores: Scores) -> None:
    cases = scores.cases["grade"]
    positive = np.array([case.truth == "high" for case in cases])
    results = [case.result for case in cases]
    score = np.array([r.probabilities["high"] for r in results if isinstance(r, ClassificationResult)])
    place = np.array([2 * case.fold + (case.site == "North") for case in cases])
    wins: list[float] = []
    for i in np.flatnonzero(positive):
        for j in np.flatnonzero(~positive & (place == place[i])):
            wins.append(float(score[i] > score[j]) + 0.5 * float(score[i] == score[j]))
    row = next(row for row in Rows(page).tables["Within sites"] if row[0] == "auc")
    assert row[3] == number(float(np.mean(wins)))
    pooled = auc(positive, score, np.array([case.fold for case in cases])).value
    assert row[1] == number(pooled) != row[3]
    # an absolute error compares no pairs
    assert not any(row[0] == "mae" for row in Rows(page).tables["Within sites"])


def test_findings_are_grouped_and_counted(page: str) -> None:
    rows = Rows(page).tables["What check found"]
    assert [row[:3] for row in rows[1:]] == [["B003", "fixed", "1"], ["B105", "warn", "2"]]


def test_training_and_plan_are_shown(page: str) -> None:
    tables = Rows(page).tables
    assert "Machine" not in tables  # measured times and memory differ from run to run, and the page must not
    assert tables["Do the case heads that read the image follow their labels?"][1][:3] == ["0", "grade", "collapsed"]
    assert tables["Decisions and reasons"][1] == ["spacing", "1 x 1 x 4 mm", "median voxel size of the cohort"]
    planned = {row[0]: row[1] for row in tables["Decisions and reasons"][1:]}
    assert planned["normalisation.t1"] == "zscore"
    assert all(value not in ("", "-", "–") for value in planned.values())
    assert [row[0] for row in tables["Balance of the split"][1:]] == ["patients", "cases", "grade: low", "grade: high"]
    assert tables["Balance of the split"][0] == ["number of", *(f"fold {fold}: train / val" for fold in range(3))]
    assert "Intervals are conditional on the trained models." in page


def test_a_collapsed_head_is_said_at_the_top(page: str) -> None:
    assert '<p class="warning">grade, fold 0: nearly constant</p>' in page.partition("<main>")[0]


def test_the_page_says_which_models_predicted(page: str, tmp_path: Path, scores: Scores, run: RunFolder) -> None:
    assert "24 validation cases, 3 tasks, folds 0, 1, 2" in page
    assert "ranked against others of their fold only." in page
    tested = replace(scores, split="test", folder=tmp_path)
    again = write_report(tested, [run], share=True).read_text(encoding="utf-8")
    assert "The models of all folds answered together" in again
    assert "ranked against others" not in again


def test_fitted_thresholds_are_shown_by_fold(tmp_path: Path, scores: Scores, run: RunFolder) -> None:
    grade = scores.tasks["grade"]
    assert isinstance(grade, CaseTask)
    cases = {**scores.cases, "grade": grade.out_of_fold(scores.cases["grade"])}
    metrics = metrics_json("val", [0, 1, 2], CASES, scores.tasks, cases, LEARNED)
    fitted = replace(scores, cases=cases, metrics=metrics, folder=tmp_path)
    rows = Rows(write_report(fitted, [run], share=True).read_text(encoding="utf-8")).tables["Metrics"]
    row = next(row for row in rows if row[0] == "sensitivity")
    by_fold = metrics["tasks"]["grade"]["metrics"]["sensitivity"]["threshold_by_fold"]
    assert f"threshold by fold {', '.join(f'{number(by_fold[key])} ({key})' for key in '012')}" in row[6]
    assert "Youden" in row[6]
    assert "brier_calibrated" in {row[0] for row in rows}


def test_training_scores_are_marked_as_resubstitution(tmp_path: Path, scores: Scores, run: RunFolder) -> None:
    note = metrics_json("train", [0], CASES, {}, {}, {})["note"]
    trained = replace(scores, split="train", metrics={**scores.metrics, "note": note}, folder=tmp_path)
    page = write_report(trained, [run], share=True).read_text(encoding="utf-8")
    assert '<p class="warning">Resubstitution: these cases were trained on.</p>' in page
    assert "Intervals are conditional on the trained models." in page


def test_a_shared_page_tells_nothing_of_single_cases(tmp_path: Path, scores: Scores, run: RunFolder) -> None:
    first, *others = scores.cases["size"]
    cases = {**scores.cases, "size": [replace(first, site="Lonely"), *others]}
    page = write_report(replace(scores, cases=cases, folder=tmp_path), [run], share=True).read_text(encoding="utf-8")
    found = Rows(page)
    folder = str(scores.folder.parent)
    for secret in ("subject-", "patient-", "image/png", "secret", folder, "fold-0", number(first.truth)):
        assert secret not in page, secret
    alternatives = [alt for _, alt in found.pictures]
    assert alternatives[0] == "grade: ROC"
    assert len(alternatives) == 3
    assert all(": loss" in text for text in alternatives[1:])
    balance = [row[0] for row in found.tables["Balance of the split"]]
    assert balance == ["number of", "patients", "cases"]  # 4 of each grade
    assert ["Lonely", "–", "–", "–", "–", "fewer than 5 patients"] in found.tables["By site"]


def test_a_metric_without_a_value_says_why(tmp_path: Path, scores: Scores, run: RunFolder) -> None:
    alike = [case for case in scores.cases["grade"] if case.truth == "low"]
    cases = {**scores.cases, "grade": alike, "size": []}
    metrics = metrics_json("val", [0], CASES, scores.tasks, cases, LEARNED)
    few = replace(scores, cases=cases, metrics=metrics, folder=tmp_path)
    tables = Rows(write_report(few, [run], share=True).read_text(encoding="utf-8")).tables
    for name, metric in (("grade", "auc"), ("size", "mae")):
        row = next(row for row in tables["Metrics"] if row[0] == metric)
        assert row[1] == row[2] == "–"
        assert row[6].startswith(metrics["tasks"][name]["metrics"][metric]["why"])


def test_two_cases_are_the_best_and_the_worst(tmp_path: Path, scores: Scores, run: RunFolder) -> None:
    cases = {**scores.cases, "lesion": scores.cases["lesion"][:2]}
    shutil.copytree(scores.folder / "masks", tmp_path / "masks")
    page = write_report(replace(scores, cases=cases, folder=tmp_path), [run]).read_text(encoding="utf-8")
    assert re.findall(r"</bdi></b> (\w+): dice", page) == ["Best", "Worst"]
