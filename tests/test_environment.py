"""What surrounds the program, its shell, its folder and its machine, changes neither its results nor its safety."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medmtl import api
from medmtl.run_folder import RunFolder
from tests.conftest import TINY

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-m", "medmtl"]
SETTINGS = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
# what pip writes for an entry point; its folder, not the working one, is the first on the path
SCRIPT = "import sys\nfrom medmtl.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
# switches of MONAI that run code from files or load pickles, and words that sound like switches of ours
VARIABLES = {
    "MEDMTL_ALLOW_UNSAFE": "1",
    "MEDMTL_STRICT": "0",
    "MONAI_ALLOW_MISSING_REFERENCE": "1",
    "MONAI_ALLOW_PICKLE": "1",
    "MONAI_EVAL_EXPR": "1",
}


def environment(**more: str) -> dict[str, str]:
    """The tests' own, with the package in reach from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def modes(folder: Path) -> Iterator[tuple[str, int]]:
    for path in (folder, *folder.rglob("*")):
        yield str(path), stat.S_IMODE(path.stat().st_mode) | (0o100 if path.is_file() else 0)


def results(run: Path) -> dict[str, bytes]:
    """Every byte that is promised to be equal: all but measured times and memory, and the names of variables."""
    found = {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    manifest = json.loads(found.pop("manifest.json"))
    manifest.pop("environment")
    found["manifest"] = json.dumps(manifest).encode()
    del found["log.jsonl"], found[".lock"]
    return {name: data for name, data in found.items() if not name.endswith("timing.json")}


def test_a_setting_is_recorded_by_name(trained_run: Path) -> None:
    manifest = json.loads((trained_run / "manifest.json").read_text())
    assert manifest["environment"] == [name for name in ("PYTHONPATH",) if name in os.environ]


@pytest.mark.slow
@pytest.mark.covers("B171")
@pytest.mark.parametrize("way", ["script", "module"])
def test_modules_that_lie_in_the_working_folder_are_not_imported(way: str, tmp_path: Path) -> None:
    work, place = tmp_path / "work", tmp_path / "bin"
    work.mkdir()
    place.mkdir()
    (place / "medmtl").write_text(SCRIPT)
    for name in ("torch", "numpy", "random", "yaml", "typer", "csv", "monai", "sitecustomize_"):
        (work / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the working folder was imported')")
    command = [sys.executable, str(place / "medmtl")] if way == "script" else PROGRAM
    done = subprocess.run([*command, "kinds", "--json"], cwd=work, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == api.kinds()


@pytest.mark.covers("B168")
@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.UTF-8", "tr_TR.ISO-8859-9"])
def test_names_are_shown_in_every_locale(locale: str, tmp_path: Path) -> None:
    surroundings = environment(LANG=locale, LC_ALL=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", FORCE_COLOR="1")
    surroundings.pop("TERM", None)
    done = subprocess.run([*PROGRAM, "chéck-Größe-İ"], cwd=tmp_path, env=surroundings, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: [B163] No such command '")
    assert done.stderr.count(b"\n") == 1
    assert re.search(rb"[\x00-\x09\x0b-\x1f]", done.stderr) is None


@pytest.mark.covers("B167")
def test_a_reader_that_leaves_early_is_no_bug() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*PROGRAM, "--version"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (8, "")


@pytest.mark.covers("B167")
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ('"$@" --version >&-', 0, ""),
        ('"$@" --version >/dev/full', 8, "error: No space left on device; free space or inodes on that disk\n"),
        ('"$@" --version <&- >&- 2>&-', 0, ""),
        ('"$@" trian 2>&-', 2, ""),
        ('"$@" trian 2>/dev/full', 2, ""),
        ('"$@" --help | true', 0, ""),
    ],
)
def test_a_stream_that_is_closed_or_full_costs_no_traceback(line: str, code: int, said: str) -> None:
    done = subprocess.run(
        ["sh", "-c", line, "sh", *PROGRAM], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert (done.returncode, done.stderr) == (code, said)


@pytest.fixture(scope="module")
def exposed(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A run made and used without a mask, terminal or locale, among odd variables; and all that was said."""
    place = tmp_path_factory.mktemp("exposed")
    surroundings = environment(LANG="C", LC_ALL="C", FORCE_COLOR="1", COLUMNS="20", **VARIABLES)
    surroundings.pop("TERM", None)
    image = next((tiny_cohort.parent / "images").iterdir())
    said = b""
    for words in (
        ["synth", "--out", "made/cohort", "--cases", "10"],
        ["train", str(tiny_cohort), "--out", "made/run", "--device", "cpu", *SETTINGS],
        ["evaluate", "made/run", "--device", "cpu"],
        ["report", "made/run", "--share"],
        ["predict", "made/run", str(image), "--out", "made/prediction", "--device", "cpu"],
        ["check", str(tiny_cohort), "--json", "made/findings.json"],
    ):
        done = subprocess.run([*PROGRAM, *words], cwd=place, env=surroundings, umask=0, capture_output=True)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    return place / "made", said


@pytest.mark.slow
@pytest.mark.covers("B169")
def test_what_is_written_is_its_owners_alone_whatever_the_shell_allows(exposed: tuple[Path, bytes]) -> None:
    found = dict(modes(exposed[0]))
    assert {name: oct(mode) for name, mode in found.items() if mode != 0o700} == {}
    assert {Path(name).name for name in found} >= {"cohort.csv", "metrics.json", "predictions.csv", ".medmtl-cache"}


@pytest.mark.slow
@pytest.mark.covers("B169")
def test_the_library_keeps_its_results_private_by_itself(tiny_cohort: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        run = api.train(tiny_cohort, tmp_path / "made" / "run", device="cpu", overrides=TINY)
        api.evaluate(run, device="cpu")
        api.predict(run, [next((tiny_cohort.parent / "images").iterdir())], tmp_path / "made" / "p", device="cpu")
    finally:
        os.umask(before)
    assert {name: oct(mode) for name, mode in modes(tmp_path / "made") if mode != 0o700} == {}


@pytest.mark.slow
@pytest.mark.covers("B168")
def test_files_get_plain_lines(exposed: tuple[Path, bytes]) -> None:
    assert b"train 6/6" in exposed[1]
    assert re.search(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]", exposed[1]) is None


@pytest.mark.slow
@pytest.mark.covers("B170")
def test_no_variable_changes_a_result_or_weakens_a_rule(exposed: tuple[Path, bytes], trained_run: Path) -> None:
    run = exposed[0] / "run"
    recorded = json.loads((run / "manifest.json").read_text())["environment"]
    assert recorded == sorted([*VARIABLES, "PYTHONPATH"])
    assert all(value not in recorded for value in ("1", "0"))
    plain, odd = results(trained_run), results(run)
    assert {name for name in plain if name != "config.yaml" and plain[name] != odd[name]} == set()


@pytest.mark.slow
@pytest.mark.covers("B136", "B170")
def test_no_variable_lets_an_expression_through(tiny_cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(tiny_cohort.read_text().replace("steps: 450", "steps: $2**4"))
    done = subprocess.run(
        [*PROGRAM, "check", "config.yaml"], cwd=tmp_path, env=environment(**VARIABLES), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: [B136] line ")
    assert "training.steps: expressions are not supported" in done.stderr


@pytest.mark.slow
@pytest.mark.covers("B167")
def test_training_goes_on_when_nobody_reads_any_more(tiny_cohort: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [*PROGRAM, "train", str(tiny_cohort), "--out", str(tmp_path / "run"), "--device", "cpu", *SETTINGS]
    done = subprocess.run(command, stdout=write, stderr=write, env=environment(), check=False)
    os.close(write)
    # the run is whole; only its answer, the name of its folder, was lost
    assert done.returncode == 8
    assert RunFolder.open(tmp_path / "run").is_finished()


@pytest.mark.slow
@pytest.mark.covers("B172")
def test_without_a_network_every_byte_is_the_same(exposed: tuple[Path, bytes], tiny_cohort: Path) -> None:
    alone = ["unshare", "-rn"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode != 0:
        pytest.skip("this system lets no process have a network namespace of its own")
    place = exposed[0].parent / "alone"
    place.mkdir()
    run = str(place / "run")
    for words in (
        ["train", str(tiny_cohort), "--out", run, "--device", "cpu", *SETTINGS],
        ["evaluate", run, "--device", "cpu"],
        ["report", run, "--share"],
    ):
        done = subprocess.run([*alone, *PROGRAM, *words], env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert results(place / "run") == results(exposed[0] / "run")
