"""What the pages tell a reader to type is what the program takes."""

from __future__ import annotations

import copy
import json
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import medmtl
from medmtl import api, tasks
from medmtl.catalogue import describe_sections
from medmtl.cli import app
from medmtl.config import Config, load
from tests.conftest import TINY
from tests.stand_in import write_stand_in

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = ("bash", "console", "sh")
# a block without a language is a drawing or a listing; nothing in it is meant to be typed into a program of ours
KNOWN = ("yaml", "python", *SHELL, "json", "")
BESIDE = {"schema", "primary", "cohorts"}  # keys of a configuration that are no block of their own
# what a block of a part of a configuration is completed by
BASE = """
schema: 1
cohort: {table: cohort.csv, case: case_id, patient: patient_id, channels: {t1: image}}
tasks: {tumour: {kind: segmentation, column: mask, labels: {core: 1}}}
training: {steps: 10}
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str


def blocks(*languages: str) -> list[Any]:
    """The pages' blocks as parameters."""
    return [
        pytest.param(block, id=f"{block.page.name}:{block.line}")
        for page in PAGES
        for block in fenced(page)
        if not languages or block.language in languages
    ]


def fenced(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])


def commands(text: str) -> list[list[str]]:
    """Lines of a shell block as words; of a console block only those after a prompt."""
    lines = text.replace("\\\n", " ").splitlines()
    typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
    return [words for line in typed if (words := shlex.split(line, comments=True))]


def parse(words: list[str]) -> None:
    """Parse a command of ``medmtl`` without running it; unknown commands, options and values raise."""
    program = typer.main.get_command(app)
    with program.make_context("medmtl", list(words)) as context:
        name, *rest = [*context._protected_args, *context.args]
        command = program.get_command(context, name)  # type: ignore[attr-defined]
        assert command is not None and not command.hidden, f"medmtl has no command {name}"
        command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_closed_and_of_a_known_language(page: Path) -> None:
    assert page.read_text(encoding="utf-8").count("\n```") == 2 * len(list(fenced(page)))
    assert {block.language for block in fenced(page)} <= set(KNOWN)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("block", blocks("yaml"))
def test_a_yaml_block_is_a_configuration_or_a_part_of_one(block: Block, tmp_path: Path) -> None:
    part = {**yaml.safe_load(BASE), **yaml.safe_load(block.text)}
    text = block.text if "schema" in yaml.safe_load(block.text) else yaml.safe_dump(part)
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    load(tmp_path / "config.yaml")


@pytest.mark.parametrize("block", blocks(*SHELL))
def test_a_shell_block_names_commands_and_options_that_exist(block: Block) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for program, *words in commands(block.text):
        if program == "medmtl":
            parse(words)
        elif program == "make":
            targets = [word for word in words if "=" not in word]
            assert all(re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE) for target in targets)
        elif program == "bash":
            assert (ROOT / words[0]).is_file()
        else:
            assert program in ("git", "cd", "pip", "python", "python3"), f"{program} is not known to this test"


@pytest.mark.parametrize(
    "words", ["trian config.yaml", "train config.yaml --ouput run", "check", "evaluate run --split x"]
)
def test_a_command_that_does_not_exist_would_be_found(words: str) -> None:
    with pytest.raises((typer.TyperException, AssertionError)):
        parse(words.split())


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the Python blocks run in.

    ``config.yaml`` is the README's, but so small that it trains in seconds; its cohort is generated; ``scan.nii.gz`` is
    its first case's image; ``runs`` holds tables of four evaluations; ``Dataset501_Tumour`` is four of the cases as
    nnU-Net lays them out.
    """
    folder = tmp_path_factory.mktemp("reader")
    (text,) = (block.text for block in fenced(ROOT / "README.md") if block.text.startswith("schema:"))
    written = yaml.safe_load(text)
    written["training"] = {}
    for key, value in {**TINY, "training.steps": 2, "split.folds": 2}.items():
        section, _, name = key.partition(".")
        written.setdefault(section, {})[name] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    write_stand_in(folder / "config.yaml", folder)
    (folder / "scan.nii.gz").write_bytes(next(folder.glob("case00_image.nii.gz")).read_bytes())
    for place, run in enumerate(("joint-0", "joint-1", "alone-0", "alone-1")):
        table = folder / "runs" / run / "evaluation" / "val" / "cases.csv"
        table.parent.mkdir(parents=True)
        rows = [f"c{n},p{n // 2},0.{5 + n % 3}{place}" for n in range(12)]
        table.write_text("\n".join(["case_id,patient,tumour/dice", *rows, "empty,p9,"]) + "\n", encoding="utf-8")
    _write_raw_data_set(folder, folder / "Dataset501_Tumour", cases=4)
    return folder


def _write_raw_data_set(source: Path, raw: Path, cases: int) -> None:
    """The first cases of the README's stand-in in the folders and names of nnU-Net's raw data."""
    for place in ("imagesTr", "labelsTr"):
        (raw / place).mkdir(parents=True)
    described = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "core": 1, "oedema": 2}}
    (raw / "dataset.json").write_text(json.dumps({**described, "numTraining": cases, "file_ending": ".nii.gz"}))
    for number in range(cases):
        case = f"case{number:02}"
        shutil.copy(source / f"{case}_image.nii.gz", raw / "imagesTr" / f"{case}_0000.nii.gz")
        shutil.copy(source / f"{case}_tumour.nii.gz", raw / "labelsTr" / f"{case}.nii.gz")


@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_block_runs(block: Block, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(tasks, "kinds", copy.deepcopy(tasks.kinds))  # what a block registers ends with it
    exec(compile(block.text, f"{block.page.name}:{block.line}", "exec"), {})


def test_a_raw_data_set_of_nnunet_becomes_a_cohort(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    (block,) = [block for block in fenced(ROOT / "docs" / "coming_from.md") if block.language == "python"]
    exec(compile(block.text, "coming_from.md", "exec"), {})
    config = workplace / "Dataset501_Tumour" / "config.yaml"
    config.write_text(BASE.replace("image}", "T1}").replace("core: 1", "core: 1, oedema: 2"), encoding="utf-8")
    config.write_text(config.read_text(encoding="utf-8") + "split: {folds: 2}\n", encoding="utf-8")
    assert [finding for finding in medmtl.check(config) if finding.severity == "reject"] == []


def test_the_pages_of_options_are_up_to_date() -> None:
    for name, text in runpy.run_path(str(ROOT / "docs" / "make_kinds.py"))["pages"]().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, "run make docs"


def test_every_key_of_a_configuration_is_explained() -> None:
    entries = [entry for family in api.kinds().values() for entry in family] + describe_sections()
    missing = [
        (entry["name"], option["name"]) for entry in entries for option in entry["options"] if not option["help"]
    ]
    assert missing == []
    assert {entry["name"].partition(".")[0] for entry in describe_sections()} | set(api.kinds()) | BESIDE == {
        field.alias or name for name, field in Config.model_fields.items()
    }
