"""Two hospitals in one training: different labels, equal ids, different tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medmtl import api
from medmtl import config as configuration
from medmtl.build import build_tasks
from medmtl.checking import Checked, check_cohort
from medmtl.data.cohort_order import CohortOrder
from medmtl.errors import CohortError, ConfigError, InputError
from medmtl.files import sha256_file
from medmtl.run_folder import RunFolder
from medmtl.training import session
from medmtl.training.session import open_session
from medmtl.training.start import make_ready
from medmtl.training.transfer import refuse_leak, seen_by
from tests.conftest import TINY
from tests.stopping import resumed_copy
from tests.tables import predicted, rewrite
from tests.weights import weights_sha256

pytestmark = pytest.mark.usefixtures("undrawn")

SIZES = {"north": 12, "south": 10}
TABLES = {"north": "cohort.csv", "south": "list.csv"}
COHORTS = """\
cohorts:
  - name: north
    table: north/cohort.csv
    case: case_id
    patient: patient_id
    channels: {image: image}
  - name: south
    table: south/list.csv
    case: id
    patient: who
    site: vendor
    channels: {image: scan}
"""
RENAMED = {"case_id": "id", "patient_id": "who", "image": "scan"}


def south_row(_: int, row: dict[str, str]) -> dict[str, str]:
    """Other names of columns, sites in a column, and no risk."""
    kept = {RENAMED.get(name, name): value for name, value in row.items() if name != "risk"}
    return {**kept, "vendor": "two" if row["case_id"][-1] in "02468" else "one"}


def write_config(folder: Path, name: str = "both.yaml", *changes: tuple[str, str]) -> Path:
    """The synthetic cohort's configuration, with the two cohorts in the place of its one."""
    text = (folder / "north" / "config.yaml").read_text(encoding="utf-8")
    before, rest = text.split("cohort:\n", 1)
    text = before + COHORTS + rest[rest.index("tasks:") :]
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    for seed, (name, size) in enumerate(SIZES.items()):
        api.synth(folder / name, cases=size, seed=seed)
    (folder / "south" / "cohort.csv").rename(folder / "south" / "list.csv")
    rewrite(folder / "south" / "list.csv", south_row)
    return folder


@pytest.fixture(scope="module")
def run(made: Path) -> Path:
    return api.train(write_config(made), made / "run", device="cpu", overrides=TINY)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy in which a test breaks something."""
    for name in SIZES:
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def check(config: Path) -> Checked:
    resolved = configuration.load(config)
    return check_cohort(resolved, build_tasks(resolved))


def test_cases_and_patients_carry_the_name_of_their_cohort(made: Path) -> None:
    checked = check(write_config(made))
    assert checked.findings.rejected() == []
    cases = {case.case_id: case for case in checked.cohort.cases}
    assert len(cases) == sum(SIZES.values())
    one, other = cases["north/case_003"], cases["south/case_003"]
    assert (one.cohort, other.cohort) == ("north", "south")
    assert one.patient != other.patient and one.person == one.patient.removeprefix("north/")
    assert {case.site for case in cases.values()} == {"north", "one", "two"}


def test_a_task_that_a_cohort_has_no_column_for_is_not_labelled_there(made: Path) -> None:
    checked = check(write_config(made))
    assert {name.partition("/")[0] for name in checked.truths["risk"]} == {"north"}
    assert {name.partition("/")[0] for name in checked.truths["lesion"]} == {"north", "south"}
    (told,) = [f for f in checked.findings if f.found == "no such column in south"]
    assert (told.code, told.severity, told.key, told.column) == ("B116", "warn", "tasks.risk", "risk")


def test_each_fold_holds_its_share_of_each_cohort(run: Path) -> None:
    splits = RunFolder.open(run).load_splits()
    for name, size in SIZES.items():
        held = [sum(case_id.startswith(f"{name}/") for case_id in fold.val) for fold in splits.folds]
        assert sum(held) == size
        assert max(held) - min(held) <= 1


def test_the_run_knows_every_table_and_image(run: Path, made: Path) -> None:
    manifest = RunFolder.open(run).load_manifest()
    assert manifest["tables_sha256"] == {name: sha256_file(made / name / table) for name, table in TABLES.items()}
    assert {Path(name).parts[-3:-1] for name in manifest["files_sha256"] if name.startswith("..")} >= {
        ("south", "images")
    }
    config = RunFolder.open(run).load_config()
    assert [section.table for section in config.cohorts] == [made / name / table for name, table in TABLES.items()]


def test_a_donor_of_the_same_tables_may_hold_equal_ids_of_other_persons(made: Path, run: Path) -> None:
    ready = make_ready(configuration.load(made / "both.yaml", TINY))
    train, val = ready.members(0)
    assert {case.person for case in train} & {case.person for case in val}
    donor = RunFolder.open(run)
    seen = seen_by(donor)
    refuse_leak(donor, seen, val, ready.checked)
    with pytest.raises(InputError, match="may have been trained on 1 of the cases"):
        refuse_leak(donor, seen, [val[0], train[0]], ready.checked)


def test_batches_are_drawn_cohort_by_cohort(run: Path, trained_run: Path) -> None:
    training = open_session(RunFolder.open(run)).training.views[0]
    order = CohortOrder([case.cohort or "" for case in training.cases], training.batch, training.seed)
    for step in range(4):
        (view,) = training[step].views.values()
        assert list(view.case_ids) == [training.cases[order.case(step, slot)].case_id for slot in range(2)]
    assert not isinstance(open_session(RunFolder.open(trained_run)).training.views[0].order, CohortOrder)


def test_a_case_without_any_label_is_drawn_from_no_cohort(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = open_session(RunFolder.open(run)).training.views[0].cases[0].case_id
    plain = session.read_again

    def without(*arguments: Any) -> Any:
        cohort, truths = plain(*arguments)
        return cohort, {
            name: {key: value for key, value in found.items() if key != lost} for name, found in truths.items()
        }

    monkeypatch.setattr(session, "read_again", without)
    training = open_session(RunFolder.open(run)).training.views[0]
    drawn = {training.cases[training.order.case(*divmod(draw, 2))].case_id for draw in range(4 * training.order.span)}
    assert drawn == {case.case_id for case in training.cases} - {lost}


@pytest.mark.covers("P07")
def test_a_resumed_run_ends_as_one_that_was_not_stopped(run: Path, made: Path) -> None:
    place = resumed_copy(run, made / "both.yaml", made / "stopped")
    assert weights_sha256(place) == weights_sha256(run)


def test_scores_of_each_cohort_stand_beside_the_pooled_ones(run: Path) -> None:
    scores = api.evaluate(run, split="all", device="cpu")["train"]
    body = json.loads((run / "evaluation" / "train" / "metrics.json").read_text())["tasks"]
    lesion, risk = body["lesion"], body["risk"]
    counts = {name: part["labelled"] for name, part in lesion["cohorts"].items()}
    assert sum(counts.values()) == lesion["labelled"] and set(counts) == set(SIZES)
    own = [case for case in scores.cases["lesion"] if case.case_id.startswith("south/")]
    expected = scores.tasks["lesion"].metrics(own)[lesion["primary"]].to_json()
    assert lesion["cohorts"]["south"]["metrics"][lesion["primary"]] == json.loads(json.dumps(expected))
    assert risk["cohorts"]["south"] == {"labelled": 0, "patients": 0, "metrics": {}}
    assert lesion["cohorts"]["south"]["patients"] == len({case.patient for case in own})
    page = (run / "evaluation" / "train" / "report.html").read_text(encoding="utf-8")
    assert "By cohort" in page and "no labelled case" in page


def test_one_cohort_has_no_scores_by_cohort(trained_run: Path, tmp_path: Path) -> None:
    api.evaluate(trained_run, out=tmp_path, device="cpu")
    assert all("cohorts" not in task for task in json.loads((tmp_path / "metrics.json").read_text())["tasks"].values())


def test_predictions_of_a_run_on_several_cohorts(run: Path, made: Path, tmp_path: Path) -> None:
    both = predicted(api.predict(run, [made / "both.yaml"], tmp_path / "both"))
    assert len(both) == sum(SIZES.values())
    assert (tmp_path / "both" / both["south/case_003"]["lesion_file"]).is_file()
    assert len(api.load(run, "cpu").training_cohort()) == sum(SIZES.values())
    alone = predicted(api.predict(run, [made / "north" / "config.yaml"], tmp_path / "alone"))
    assert alone["case_003"]["risk"] == both["north/case_003"]["risk"]


def test_another_cohort_is_compared_by_its_own_ids(run: Path, made: Path, tmp_path: Path) -> None:
    config = made / "north" / "config.yaml"
    with pytest.raises(InputError, match="is no external cohort: 12 patients and 12 images"):
        api.evaluate(run, config=config, device="cpu")
    api.evaluate(run, config=config, device="cpu", allow_overlap=True, out=tmp_path / "one")
    assert len(json.loads((tmp_path / "one" / "activations.json").read_text())) == 12
    api.evaluate(run, config=made / "both.yaml", device="cpu", allow_overlap=True, out=tmp_path / "both")
    assert "cohorts" in json.loads((tmp_path / "both" / "metrics.json").read_text())["tasks"]["lesion"]


@pytest.mark.covers("B031")
def test_a_table_that_changed_is_refused(run: Path, folder: Path, made: Path) -> None:
    shutil.copytree(run, folder / "run")
    shutil.copy(made / "both.yaml", folder)
    rewrite(folder / "south" / "list.csv", lambda n, row: row.update(who="another" if n == 3 else row["who"]))
    with pytest.raises(CohortError, match="B031"):
        api.evaluate(folder / "run", device="cpu")


def test_a_fault_says_in_which_table_it_is(folder: Path) -> None:
    rewrite(folder / "south" / "list.csv", lambda n, row: row.update(scan="none.nii.gz" if n == 4 else row["scan"]))
    rejected = check(write_config(folder)).findings.rejected()
    assert [(f.code, f.case, f.row, f.key) for f in rejected] == [("B032", "south/case_004", 6, "cohorts.south")]


@pytest.mark.covers("B020")
def test_one_image_in_two_cohorts_is_refused(folder: Path) -> None:
    shutil.copy(folder / "north" / "images" / "case_001.nii.gz", folder / "south" / "images" / "case_002.nii.gz")
    (finding,) = [f for f in check(write_config(folder)).findings.rejected() if f.code == "B020"]
    assert (finding.case, finding.found) == ("south/case_002", "the same image as row 3 of north")


@pytest.mark.covers("B013")
def test_a_column_that_is_in_no_table_is_refused(folder: Path) -> None:
    rewrite(folder / "north" / "cohort.csv", lambda n, row: {k: v for k, v in row.items() if k != "risk"})
    rejected = check(write_config(folder)).findings.rejected()
    assert ("B116", "tasks.risk") in [(finding.code, finding.key) for finding in rejected]


@pytest.mark.covers("B013")
def test_every_table_without_a_declared_column_is_told(folder: Path) -> None:
    for name, table in TABLES.items():
        rewrite(folder / name / table, lambda n, row: {k: v for k, v in row.items() if k not in ("image", "scan")})
    with pytest.raises(CohortError) as error:
        check(write_config(folder))
    assert [(f.code, f.key) for f in error.value.findings if f.severity == "reject"] == [
        ("B013", "cohorts.north"),
        ("B013", "cohorts.south"),
    ]


def test_half_of_a_tasks_columns_is_a_mistake(folder: Path) -> None:
    task = "  death: {kind: survival, time: days, event: died, horizon: 365}\n"
    rewrite(folder / "north" / "cohort.csv", lambda n, row: row.update(days=str(10 * n + 5), died=str(n % 2)))
    rewrite(folder / "south" / "list.csv", lambda n, row: row.update(days=str(10 * n + 5)))
    config = write_config(folder, "both.yaml", ("tasks:\n", f"tasks:\n{task}"))
    (finding,) = [f for f in check(config).findings.rejected() if f.code == "B013"]
    assert (finding.key, finding.column, finding.found) == ("tasks.death", "died", "no such column in south")


@pytest.mark.covers("B142", "B132")
@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("name: south", "name: North", "cohorts.1.name", "the name of another cohort"),
        ("name: south", "name: a/b", "cohorts.1.name", "should match pattern"),
        ("  - name: south\n    table", "  - table", "cohorts.1.name", "this key is missing"),
        ("{image: scan}", "{picture: scan}", "cohorts.1.channels", "not the channels of north (image"),
        ("{image: scan}", "{image: {column: scan, optional: true}}", "cohorts.1.channels", "not the channels of"),
        ("    site: vendor\n", "    resample: to_first\n", "cohorts.1.resample", "not that of north"),
        ("    site: vendor\n", "    covariates: {age: number}\n", "cohorts.1.covariates", "not those of north"),
        ("    site: vendor\n", "    sites: vendor\n", "cohorts.1.sites", "unknown key; did you mean 'site'?"),
        ("cohorts:\n", "cohort: {}\ncohorts:\n", "cohorts", "give one of the two"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(
    made: Path, tmp_path: Path, old: str, new: str, key: str, words: str
) -> None:
    shutil.copytree(made / "north", tmp_path / "north", ignore=shutil.ignore_patterns("*.nii.gz"))
    config = write_config(tmp_path, "bad.yaml", (old, new))
    with pytest.raises(ConfigError) as error:
        configuration.load(config)
    assert key in [fault.key for fault in error.value.faults]
    assert words in str(error.value)
    fault = next(fault for fault in error.value.faults if fault.key == key)
    assert fault.line is not None


def test_a_single_entry_is_no_list_of_cohorts(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "north", tmp_path / "north", ignore=shutil.ignore_patterns("*.nii.gz"))
    config = write_config(tmp_path, "one.yaml", (COHORTS[COHORTS.index("  - name: south") :], ""))
    with pytest.raises(ConfigError, match="a list of two cohorts or more"):
        configuration.load(config)


def test_a_configuration_is_written_as_it_was_read(made: Path, tmp_path: Path) -> None:
    config = configuration.load(write_config(made))
    (tmp_path / "again.yaml").write_text(configuration.dump(config, tmp_path), encoding="utf-8")
    assert configuration.load(tmp_path / "again.yaml") == config
    assert "\ncohort:" not in (tmp_path / "again.yaml").read_text(encoding="utf-8")
