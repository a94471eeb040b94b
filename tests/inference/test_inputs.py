from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmtl import api
from medmtl import config as configuration
from medmtl.config import Config
from medmtl.data.finding import Findings
from medmtl.errors import CohortError, InputError
from medmtl.inference.inputs import case_of_files, cases_of, cells_of
from medmtl.sections import ChannelSection

ONE = ("image",)
TWO = ("ed", "es")


@pytest.fixture(scope="module")
def trained(tiny_cohort: Path) -> Config:
    return configuration.load(tiny_cohort)


@pytest.fixture
def images(tiny_cohort: Path, tmp_path: Path) -> list[Path]:
    """Two scans in a folder of their own."""
    sources = [tiny_cohort.parent / "images" / f"case_00{number}.nii.gz" for number in (0, 1)]
    return [Path(shutil.copy(source, tmp_path / source.name)) for source in sources]


def write_rows(path: Path, rows: Sequence[Sequence[str]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return path


def test_nothing_means_the_cohort_of_the_training(trained: Config) -> None:
    cases = cases_of([], trained, ONE)
    assert [case.case_id for case in cases] == [f"case_{number:03d}" for number in range(12)]
    assert cases[3].patient == "patient_003"


def test_a_configuration_names_the_cases_of_its_table(tiny_cohort: Path, trained: Config) -> None:
    cases = cases_of([str(tiny_cohort)], trained, ONE)
    assert [case.case_id for case in cases] == [case.case_id for case in cases_of([], trained, ONE)]
    assert all(case.images["image"].is_file() for case in cases)


def test_a_configuration_without_the_models_channels_is_refused(tiny_cohort: Path, trained: Config) -> None:
    with pytest.raises(InputError, match=r"has no channel es; the model wants image, es"):
        cases_of([str(tiny_cohort)], trained, ("image", "es"))


@pytest.mark.parametrize(("name", "delimiter"), [("new.csv", ","), ("new.tsv", "\t"), ("NEW.CSV", ",")])
def test_a_table_needs_no_more_than_case_ids_and_channels(
    name: str, delimiter: str, images: list[Path], trained: Config, tmp_path: Path
) -> None:
    rows = [("case_id", "image"), ("007", images[0].name), ("b", images[1].name)]
    cases = cases_of([str(write_rows(tmp_path / name, rows, delimiter))], trained, ONE)
    assert [(case.case_id, case.images["image"]) for case in cases] == [("007", images[0]), ("b", images[1])]
    assert not cases[0].cells and not cases[0].files


def test_words_for_missing_and_folders_outside_are_those_of_the_training(
    images: list[Path], trained: Config, tmp_path: Path
) -> None:
    channels = {"image": "image", "t2": ChannelSection(column="t2", optional=True)}
    section = {"channels": channels, "missing": ("", "n/a"), "roots": (tmp_path,)}
    given = trained.model_copy(update={"cohort": trained.cohort.model_copy(update=section)})
    (tmp_path / "tables").mkdir()
    rows = [("case_id", "image", "t2"), ("a", f"../{images[0].name}", "n/a")]
    (case,) = cases_of([str(write_rows(tmp_path / "tables" / "new.csv", rows))], given, ("image", "t2"))
    assert list(case.images) == ["image"] and case.images["image"].samefile(images[0])


@pytest.mark.parametrize(("value", "cell"), [("n/a", None), ("", None), (None, None), (61, "61"), ("61.5", "61.5")])
def test_a_word_for_missing_is_no_value_of_a_covariate(value: Any, cell: str | None, trained: Config) -> None:
    cohort = trained.cohort.model_copy(update={"covariates": {"age": "number"}, "missing": ("n/a",)})
    tasks = {name: options.model_copy(update={"inputs": "both"}) for name, options in trained.tasks.items()}
    assert cells_of({"age": value}, trained.model_copy(update={"cohort": cohort, "tasks": tasks})) == {"age": cell}


def test_labels_of_a_table_are_not_looked_at(images: list[Path], trained: Config, tmp_path: Path) -> None:
    rows = [("case_id", "image", "lesion", "risk"), ("a", images[0].name, "gone.nii.gz", "no number")]
    (case,) = cases_of([str(write_rows(tmp_path / "new.csv", rows))], trained, ONE)
    assert case.case_id == "a"


def test_two_cases_of_one_scan_can_be_predicted(images: list[Path], trained: Config, tmp_path: Path) -> None:
    rows = [("case_id", "image"), ("a", images[0].name), ("b", images[0].name)]
    assert len(cases_of([str(write_rows(tmp_path / "new.csv", rows))], trained, ONE)) == 2


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (
            [("case_id", "scan"), ("a", "case_000.nii.gz")],
            r"lacks a declared column .*: \[B013\] row 1, column image: ",
        ),
        ([("case_id", "image"), ("a", "absent.nii.gz")], "B032"),
        ([("case_id", "image"), ("a", "case_000.nii.gz"), ("a", "case_001.nii.gz")], "B017"),
        ([("case_id", "image"), ("", "case_000.nii.gz")], "B016"),
    ],
)
def test_a_faulty_table_is_refused_with_its_findings(
    rows: list[tuple[str, str]], code: str, images: list[Path], trained: Config, tmp_path: Path
) -> None:
    with pytest.raises(CohortError, match=code) as raised:
        cases_of([str(write_rows(tmp_path / "new.csv", rows))], trained, ONE)
    assert any(finding.severity == "reject" for finding in raised.value.findings)


def test_channel_and_file_make_one_case_in_the_models_order(images: list[Path], trained: Config) -> None:
    (case,) = cases_of([f"es={images[1]}", f"ed={images[0]}"], trained, TWO)
    assert list(case.images.items()) == [("ed", images[0]), ("es", images[1])]
    assert case.case_id == "case_001"


def test_bare_files_are_one_case_each(images: list[Path], trained: Config, tmp_path: Path) -> None:
    plain = tmp_path / "scan=3.nii"
    plain.write_bytes(b"")
    cases = cases_of([str(images[0]), str(plain), "absent.nii.gz"], trained, ONE)
    assert [case.case_id for case in cases] == ["case_000", "scan=3", "absent"]
    assert [list(case.images) for case in cases] == [["image"], ["image"], ["image"]]


def test_a_faulty_row_is_left_out_where_somebody_listens(images: list[Path], trained: Config, tmp_path: Path) -> None:
    rows = [
        ("case_id", "image"),
        ("a", images[0].name),
        ("b", "absent.nii.gz"),
        ("a", images[1].name),
        ("c", images[1].name),
    ]
    findings = Findings()
    cases = cases_of([str(write_rows(tmp_path / "new.csv", rows))], trained, ONE, findings)
    assert [case.case_id for case in cases] == ["a", "c"]
    assert [(finding.code, finding.row) for finding in findings.rejected()] == [("B032", 3), ("B017", 4)]


def test_a_table_that_is_none_is_refused_also_then(images: list[Path], trained: Config, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "new.csv", [("case_id", "scan"), ("a", images[0].name)])
    with pytest.raises(CohortError, match="lacks a declared column"):
        cases_of([str(table)], trained, ONE, Findings())


@pytest.mark.parametrize(
    ("inputs", "channels", "message"),
    [
        (["ed={0}"], TWO, "wants the channels ed, es; found ed"),
        (["ed={0}", "ed={1}"], TWO, "a channel is given twice: ed, ed"),
        (["image={0}", "image={1}"], ONE, "a channel is given twice"),
        (["ed={0}", "t1={1}"], TWO, "2 channels; give ed=FILE es=FILE"),
        (["{0}", "{1}"], TWO, "2 channels; give ed=FILE es=FILE"),
        (["ed={0}", "es=absent.nii.gz"], TWO, "absent.nii.gz is no file"),
        (["t1={0}"], ONE, "t1 is no channel of this model; give image=FILE"),
        (["image={0}", "{1}"], ONE, "give either image=FILE for one case, or bare files, a case each; found both"),
        (["new.csv", "{0}"], ONE, "new.csv is a table, which is given alone"),
        (["{0}", "config.yaml"], ONE, "config.yaml is a configuration, which is given alone"),
        (["absent.nii.gz"], ONE, "absent.nii.gz is no file"),
        (["{folder}"], ONE, "is a folder"),
        (["{0}", "{0}"], ONE, "two files would be the case 'case_000'"),
        (["absent.csv"], ONE, "B001"),
        (["absent.yaml"], ONE, "absent.yaml"),
    ],
)
def test_anything_else_is_refused(
    inputs: list[str], channels: tuple[str, ...], message: str, images: list[Path], trained: Config, tmp_path: Path
) -> None:
    given = [text.format(*images, folder=tmp_path) for text in inputs]
    with pytest.raises(InputError, match=message):
        cases_of(given, trained, channels)


def test_channels_from_python_must_be_the_models(images: list[Path]) -> None:
    assert case_of_files({"es": images[1], "ed": str(images[0])}, TWO, "x").images == {"ed": images[0], "es": images[1]}
    with pytest.raises(InputError, match="wants the channels ed, es; found ed, t1"):
        case_of_files({"ed": images[0], "t1": images[1]}, TWO, "x")


@pytest.mark.covers("B020")
def test_one_file_is_not_two_channels(images: list[Path], tmp_path: Path) -> None:
    link = tmp_path / "link.nii.gz"
    link.symlink_to(images[0])
    for second in (images[0], link):
        with pytest.raises(InputError, match="the channels ed and es are one file, ") as caught:
            case_of_files({"ed": images[0], "es": second}, TWO)
        assert caught.value.code == "B020"


def test_a_table_without_patients_and_labels_is_predicted(
    images: list[Path], trained_run: Path, tmp_path: Path
) -> None:
    table = write_rows(tmp_path / "new.csv", [("case_id", "image"), ("a", images[0].name)])
    by_table = api.predict(trained_run, [table], tmp_path / "by_table", device="cpu").read_text()
    by_file = api.predict(trained_run, [images[0]], tmp_path / "by_file", device="cpu").read_text()
    assert by_table.splitlines()[1].replace("lesion/a.", "lesion/case_000.").removeprefix("a,") == (
        by_file.splitlines()[1].removeprefix("case_000,")
    )


def test_from_python_a_single_input_needs_no_list(images: list[Path], trained_run: Path, tmp_path: Path) -> None:
    in_a_list = api.predict(trained_run, [images[0]], tmp_path / "list", device="cpu").read_text()
    for place, alone in (("path", images[0]), ("text", str(images[0]))):
        assert api.predict(trained_run, alone, tmp_path / place, device="cpu").read_text() == in_a_list


def test_from_python_no_input_is_not_the_cohort_of_the_training(trained_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to predict"):
        api.predict(trained_run, [], tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("inputs", "found"),
    [(5, "a path or a list of paths, found a int"), ([None], "found a NoneType among them"), ({}, "found a dict")],
)
def test_from_python_inputs_are_paths(trained_run: Path, tmp_path: Path, inputs: Any, found: str) -> None:
    with pytest.raises(InputError, match=found):
        api.predict(trained_run, inputs, tmp_path / "out")


def test_from_python_a_folder_is_a_path(trained_run: Path, images: list[Path]) -> None:
    nothing: Any = None
    for call in (
        lambda: api.evaluate(nothing),
        lambda: api.load(nothing),
        lambda: api.report(nothing),
        lambda: api.predict(nothing, images[0], "out"),
    ):
        with pytest.raises(InputError, match=r"^run is the path of a folder, found a NoneType$"):
            call()
    with pytest.raises(InputError, match=r"^out is the path of a folder, found a NoneType$"):
        api.predict(trained_run, images[0], nothing)


def test_what_is_no_path_is_refused_by_its_channel(images: list[Path]) -> None:
    volume: Any = np.zeros((3, 3, 3))
    with pytest.raises(InputError, match="channel image is given by the path of a NIfTI file, found a ndarray"):
        case_of_files({"image": volume}, ONE)
    for given in (str(images[0]), [images[0]], volume):
        with pytest.raises(InputError, match=r"a file for each channel, \{'ed': FILE, 'es': FILE\}; found a"):
            case_of_files(given, TWO)


@pytest.mark.parametrize(("given", "found"), [("", "an empty text"), (None, "None")])
def test_a_channel_that_a_case_lacks_is_left_out(images: list[Path], given: Any, found: str) -> None:
    said = f"channel es is given by the path of a NIfTI file, found {found}; "
    for optional, way in ((("es",), "leave out an optional channel that the case lacks"), ((), "the model needs it")):
        with pytest.raises(InputError) as caught:
            case_of_files({"ed": images[0], "es": given}, TWO, optional=optional)
        assert str(caught.value) == said + way
    assert list(case_of_files({"ed": images[0]}, TWO, optional=("es",)).images) == ["ed"]


def test_an_empty_file_name_on_the_command_line_is_told_by_its_channel(images: list[Path], trained: Config) -> None:
    with pytest.raises(InputError, match="channel es is given by the path of a NIfTI file, found an empty text"):
        cases_of([f"ed={images[0]}", "es="], trained, TWO)


def test_a_model_of_one_channel_takes_the_file_alone(images: list[Path], trained_run: Path) -> None:
    model = api.load(trained_run, device="cpu")
    alone, named = model.predict(images[0]), model.predict({"image": images[0]})
    assert alone.case_id == named.case_id == "case_000"
    assert alone["risk"] == named["risk"]
