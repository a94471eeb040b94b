from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import medmtl
from medmtl import api, errors
from medmtl.cli import LATER, main
from medmtl.data.finding import Finding

COMMANDS = ("demo", "synth", "check", "plan", "train", "evaluate", "predict", "report", "kinds")
TINY = {"plan.width": 4, "plan.max_width": 8, "plan.batch": 2, "plan.workers": 0, "training.steps": 2}
PROGRAM = [sys.executable, "-m", "medmtl"]

Captured = pytest.CaptureFixture[str]


def raiser(error: BaseException) -> Callable[[], Any]:
    def kinds() -> Any:
        raise error

    return kinds


def test_help_answers_at_once_and_without_torch() -> None:
    script = "import sys; from medmtl.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # the processor's time: the wall's is longer on a busy machine
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.5
    assert all(command in done.stdout for command in COMMANDS)
    assert not any(f"  {command} " in done.stdout for command in LATER)


def test_the_module_runs_and_gives_its_exit_code() -> None:
    done = subprocess.run([*PROGRAM, "trian"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: [B163] No such command 'trian'. Did you mean 'train'?; see medmtl --help\n"
    version = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"medmtl {medmtl.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_quiet_and_verbose(command: str, capsys: Captured) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "--quiet" in out
    assert "--verbose" in out


@pytest.mark.covers("B163", "B164")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing command"),
        (["--verson"], "--version"),
        (["train"], "CONFIG"),
        (["train", "c.yaml"], "--out"),
        (["train", "c.yaml", "--out", "x", "--resum"], "--resume"),
        (["train", "c.yaml", "--out", "x", "--device", "gpu"], "'gpu' is not one of"),
        (["train", "c.yaml", "--out", "x", "--fold", "-1"], "number, all or none"),
        (["train", "c.yaml", "--out", "x", "--set", "training.lr"], "key=value"),
        (["train", "absent.yaml", "--out", "x"], "cannot read absent.yaml: No such file"),
        (["evaluate", "r", "--split", "vall"], "'vall' is not one of"),
        (["synth", "--out", "x", "--cases", "many"], "--cases"),
        (["kinds", "extra"], "extra"),
        *([[command, "a", "--out", "b"], f"{command} is not in this version"] for command in LATER),
        (["predict", "r", "i", "--out", "o", "--covariate", "age"], "--covariate wants NAME=VALUE, found 'age'"),
        (["predict", "r", "i", "--out", "o", "--covariate", "a=1", "--covariate", "a=2"], "--covariate gives a twice"),
    ],
)
def test_wrong_arguments_end_in_one_sentence(arguments: list[str], words: str, capsys: Captured) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.covers("B163")
def test_options_cannot_be_abbreviated(capsys: Captured) -> None:
    assert main(["kinds", "--js"]) == 2
    assert "--json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError("a"), 2),
        (errors.ConfigError("a", key="b", line=3), 2),
        (errors.MachineError("a"), 3),
        (errors.NumericError("a"), 4),
        (errors.InterruptedRun("a"), 5),
        (errors.BusyRunError("a"), 6),
        (errors.ArtefactError("a"), 7),
        (errors.WorkError("a"), 8),
    ],
)
def test_an_error_is_one_sentence_and_its_exit_code(
    error: errors.MedmtlError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(api, "kinds", raiser(error))
    assert main(["kinds", "--verbose"]) == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_refused_cohort_shows_its_findings(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    found = Finding("B032", "reject", row=2, found="nothing")
    monkeypatch.setattr(api, "kinds", raiser(errors.CohortError("1 fault", [found])))
    assert main(["kinds"]) == 2
    assert capsys.readouterr().err == "B032 reject: 1\n  row 2: found nothing\nerror: 1 fault\n"


def test_a_failing_disk_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")
    monkeypatch.setattr(api, "kinds", raiser(full))
    assert main(["kinds"]) == 8
    assert capsys.readouterr().err == "error: No space left on device: /data/x; free space or inodes on that disk\n"


def test_anything_else_is_a_bug_and_shows_its_trace_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(api, "kinds", raiser(KeyError("oops")))
    assert main(["kinds"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: this is a bug in medmtl {medmtl.__version__}: KeyError: 'oops'")
    assert "Traceback" not in err
    assert main(["kinds", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def interrupt() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("stop", [interrupt, terminate])
def test_who_stops_the_work_gets_the_code_of_an_interruption(
    stop: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(api, "kinds", stop)
    assert main(["kinds"]) == 5
    assert capsys.readouterr().err == "interrupted\n"


def test_synth_answers_with_the_configuration(tmp_path: Path, capsys: Captured) -> None:
    assert main(["synth", "--out", str(tmp_path / "c"), "--cases", "10", "--channels", "2", "--seed", "3"]) == 0
    config = tmp_path / "c" / "config.yaml"
    assert capsys.readouterr().out == f"{config}\n"
    assert "image_1: image_1" in config.read_text()
    assert main(["synth", "--out", str(tmp_path / "c")]) == 2
    assert main(["synth", "--out", str(tmp_path / "d"), "--cases", "9"]) == 2


def test_check_lists_counts_and_writes_the_findings(tiny_cohort: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["check", str(tiny_cohort), "--json", str(tmp_path / "f.json")]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("0 rejected, ")
    assert out.splitlines()[-1].endswith(": fit for training")
    assert "check 12/12" in err
    assert "malignancy (classification); width of the 95 % interval of auc at an AUC of 0.8" in out.splitlines()
    written = json.loads((tmp_path / "f.json").read_text())
    assert len(written) == len(medmtl.check(tiny_cohort))
    assert {"code", "severity", "case", "row", "column", "key", "line", "file", "found", "expected", "fix"} == set(
        written[0]
    )


def test_check_strict_counts_warnings_as_faults(tiny_cohort: Path, capsys: Captured) -> None:
    assert main(["check", str(tiny_cohort), "--strict", "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].endswith(": not fit for training")
    assert err == ""


def test_check_writes_the_findings_of_a_table_that_cannot_be_read(
    tiny_cohort: Path, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "config.yaml").write_text(tiny_cohort.read_text())
    (tmp_path / "cohort.csv").write_text("")
    assert main(["check", str(tmp_path / "config.yaml"), "--json", str(tmp_path / "f.json")]) == 2
    assert "B002 reject: 1" in capsys.readouterr().err
    assert [finding["code"] for finding in json.loads((tmp_path / "f.json").read_text())] == ["B002"]


@pytest.mark.covers("B131", "B132")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("schema: 1\ntasks: [\n", [("B131", None, 3)]),
        ("schema: 1\ncohorte: {}\nplan: {batch: 0}\n", [("B132", "cohorte", 2), ("B138", "plan.batch", 3)]),
    ],
)
def test_check_writes_the_faults_of_a_configuration(
    text: str, expected: list[tuple[str, str | None, int]], tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert main(["check", str(tmp_path / "config.yaml"), "--json", str(tmp_path / "f.json")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: [B1")
    assert err.count("\n") == 1
    found = json.loads((tmp_path / "f.json").read_text())
    assert {finding["severity"] for finding in found} == {"reject"}
    assert set(expected) <= {(finding["code"], finding["key"], finding["line"]) for finding in found}
    assert (tmp_path / "config.yaml").read_text() == text


@pytest.mark.covers("B143")
def test_a_device_that_is_absent_is_never_replaced(
    tiny_cohort: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["train", str(tiny_cohort), "--out", str(tmp_path / "run"), "--device", "cuda", "--quiet"]) == 3
    assert capsys.readouterr().err == "error: [B143] no CUDA device is available; use --device cpu or auto\n"
    assert list(tmp_path.iterdir()) == []


def test_plan_gives_each_value_with_its_reason(tiny_cohort: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["plan", str(tiny_cohort), "--out", str(tmp_path / "plan.json")]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    written = json.loads((tmp_path / "plan.json").read_text())
    assert f"{written['batch']} " in lines["batch"]
    assert written["reasons"]["spacing"] in lines["spacing"]
    assert lines["length"].split("  ")[-1] == written["reasons"]["length"]
    assert lines["length"].split()[1:3] == [str(written["steps"]), "steps"]
    for name, key in (("memory", "memory_bytes"), ("disk", "disk_bytes")):
        assert lines[name].split()[1:3] == [f"{written[key] / 1e9:.2f}", "GB"]
    assert lines["time"].split()[1:3] == [f"{written['seconds'] / 60:.2g}", "minutes"]
    assert "within a factor of two" in lines["time"]
    column = lines["planned"].index("reason")
    assert all(len(line) > column for line in lines.values()), "each value has its reason"


def test_kinds_are_listed_for_readers_and_for_programs(capsys: Captured) -> None:
    assert main(["kinds", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known == api.kinds()
    assert {"tasks", "sharing", "weighting"} <= known.keys()
    case_kinds = ["classification", "multilabel", "ordinal", "regression", "survival"]
    names = ["segmentation", *case_kinds, "voxel_regression", "detection"]
    assert [kind["name"] for kind in known["tasks"]] == names
    options = {option["name"]: option for option in known["tasks"][1]["options"]}
    assert options["classes"]["required"]
    assert options["class_weights"]["type"] == "none | balanced"
    assert all(option["help"] for family in known.values() for kind in family for option in kind["options"])
    assert main(["kinds"]) == 0
    assert "  segmentation: " in capsys.readouterr().out


def test_train_hands_on_what_was_typed(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    calls: list[dict[str, Any]] = []

    def train(config: Path, out: Path, **options: Any) -> Path:
        calls.append({"config": config, "out": out, **options})
        return out

    monkeypatch.setattr(api, "train", train)
    words = ["train", "c.yaml", "--out", "r", "--fold", "all", "--resume", "--device", "cpu"]
    assert main([*words, "--set", "training.lr=1e-3", "--set", "training.steps=5"]) == 0
    assert capsys.readouterr().out == "r\n"
    (call,) = calls
    call.pop("progress")
    assert call == {
        "config": Path("c.yaml"),
        "out": Path("r"),
        "fold": "all",
        "device": "cpu",
        "resume": True,
        "overrides": {"training.lr": 1e-3, "training.steps": 5},
    }


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A demo of 12 cases and two steps, and what it said."""
    place = tmp_path_factory.mktemp("demo") / "it's here"
    said = place.parent / "said.txt"
    with pytest.MonkeyPatch.context() as patch, said.open("w") as file:
        patch.setattr(api, "DEMO_CASES", 12)
        patch.setattr(api, "train", partial(api.train, overrides=TINY))
        patch.setattr(sys, "stdout", file)
        assert main(["demo", "--out", str(place), "--quiet"]) == 0
    return place, said.read_text()


def test_the_demo_says_what_it_made_and_how(demonstrated: tuple[Path, str]) -> None:
    place, said = demonstrated
    report = place / "run" / "evaluation" / "val" / "report.html"
    assert report.is_file()
    assert f"report:     {report}" in said.splitlines()
    assert "dice" in said
    typed = [line.split()[1] for line in said.splitlines() if line.startswith("  medmtl ")]
    assert typed == ["synth", "check", "plan", "train", "evaluate", "predict"]
    assert len(list((place / "prediction" / "masks" / "lesion").iterdir())) == 1


def test_the_commands_of_the_demo_work_as_typed(
    demonstrated: tuple[Path, str], tmp_path: Path, capsys: Captured
) -> None:
    place, said = demonstrated
    (line,) = (line for line in said.splitlines() if line.startswith("  medmtl predict "))
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {line.strip()}"], capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()[1:]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert main(words) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'again' / 'predictions.csv'}\n"
    for name in ("predictions.csv", *(f"masks/lesion/{m.name}" for m in (tmp_path / "again/masks/lesion").iterdir())):
        assert (tmp_path / "again" / name).read_bytes() == (place / "prediction" / name).read_bytes()


def test_a_bad_case_does_not_cost_the_others(demonstrated: tuple[Path, str], tmp_path: Path, capsys: Captured) -> None:
    place, _ = demonstrated
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    good = next((place / "cohort" / "images").iterdir())
    assert main(["predict", str(place / "run"), str(tmp_path / "bad.nii.gz"), str(good), "--out", str(tmp_path)]) == 2
    assert "1 of 2 cases were not predicted" in capsys.readouterr().err
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 2


def test_evaluate_and_report_show_the_scores(demonstrated: tuple[Path, str], tmp_path: Path, capsys: Captured) -> None:
    place, _ = demonstrated
    assert main(["evaluate", str(place / "run"), "--out", str(tmp_path / "e"), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0].startswith("val: ")
    assert out.splitlines()[-1] == f"report: {tmp_path / 'e' / 'report.html'}"
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert all(name in out for task in metrics["tasks"].values() for name in task["metrics"])
    assert main(["report", str(place / "run"), "--share"]) == 0
    assert "case_0" not in Path(capsys.readouterr().out.strip()).read_text()
    assert main(["evaluate", str(place / "run"), "--split", "test"]) == 2
    assert "no test cases" in capsys.readouterr().err


@pytest.mark.covers("B145", "B165")
def test_resume_wants_a_run_and_its_own_configuration(
    demonstrated: tuple[Path, str], tmp_path: Path, capsys: Captured
) -> None:
    place, _ = demonstrated
    config = str(place / "cohort" / "config.yaml")
    assert main(["train", config, "--out", str(tmp_path / "none"), "--resume"]) == 2
    assert capsys.readouterr().err.startswith("error: [B165] there is no run at")
    assert main(["train", config, "--out", str(place / "run"), "--resume"]) == 2
    changed = ", ".join(sorted({*TINY, "plan.workers"} - {"plan.batch", "plan.workers"}))
    assert (
        f"[B145] the configuration differs from the run's in plan.batch, {changed}; resume" in capsys.readouterr().err
    )
    assert main(["train", config, "--out", str(place / "run"), "--resume", "--fold", "1"]) == 2
    assert "[B145] the run at" in (said := capsys.readouterr().err)
    assert "resume it with --fold 0" in said
    assert main(["train", config, "--out", str(place / "run")]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.covers("B165")
def test_nothing_is_merged_into_a_run(demonstrated: tuple[Path, str], capsys: Captured) -> None:
    run = demonstrated[0] / "run"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for words in (["evaluate", str(run), "--out", str(run)], ["predict", str(run), "x.nii.gz", "--out", str(run)]):
        assert main(words) == 2
        assert (
            capsys.readouterr().err
            == f"error: [B165] {run} is a run, and nothing is merged into one; choose another --out\n"
        )
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_no_module_hides_a_function_of_the_library() -> None:
    assert [name for name in medmtl.__all__ if isinstance(getattr(medmtl, name), ModuleType)] == []
