from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import medmtl
from medmtl import api, errors
from medmtl.cli import LATER, main
from medmtl.data.finding import Finding

COMMANDS = ("demo", "synth", "check", "plan", "train", "profile", "evaluate", "predict", "report", "kinds")
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
        (["train", "c.yaml", "--out", "x", "--fold", "9" * 5000], "number, all or none"),
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


def test_an_answer_that_nobody_reads_is_a_code_without_words(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(api, "kinds", raiser(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))))
    assert main(["kinds"]) == 8
    assert capsys.readouterr().err == ""


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


def test_no_module_hides_a_function_of_the_library() -> None:
    assert [name for name in medmtl.__all__ if isinstance(getattr(medmtl, name), ModuleType)] == []
