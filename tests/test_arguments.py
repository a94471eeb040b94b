from __future__ import annotations

import os
from pathlib import Path

import pytest

from medmtl.arguments import check_place, check_words
from medmtl.cli import main
from medmtl.errors import InputError

Captured = pytest.CaptureFixture[str]


@pytest.mark.covers("B163")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train c.yaml --out a --out b", "--out is given 2 times; give it once"),
        ("synth --out a --seed 1 --seed=1 --seed 1", "--seed is given 3 times; give it once"),
        ("train c.yaml --out --resume", "--out has no value, only '--resume' behind it; give one"),
        ("train c.yaml --out a --set --quiet", "--set has no value, only '--quiet' behind it; give one"),
        ("train c.yaml --out", "Option '--out' requires an argument; see medmtl --help"),
        (
            "train c.yaml --out a --resum",
            "No such option: --resum (Possible options: --resume); see medmtl train --help",
        ),
        ("evaluate r --spli val", "No such option: --spli (Possible options: --split); see medmtl evaluate --help"),
        ("train c.yaml --out a --set a=1 --set a=2", "a: --set gives it twice; give it once"),
        ("check c.yaml --strict=1", "Option '--strict' does not take a value; see medmtl --help"),
        ("check a.yaml b.yaml", "Got unexpected extra argument(s) (b.yaml); see medmtl check --help"),
    ],
)
def test_an_option_is_written_out_once_and_has_its_value(words: str, said: str, capsys: Captured) -> None:
    assert main(words.split()) == 2
    assert capsys.readouterr().err == f"error: [B163] {said}\n"


def test_what_may_be_repeated_is_repeated(capsys: Captured) -> None:
    assert (
        main(["train", "absent.yaml", "--out", "a", "--set", "training.lr=1", "--set", "training.seed=2", "--quiet"])
        == 2
    )
    assert "[B130] cannot read absent.yaml" in capsys.readouterr().err


@pytest.mark.covers("B164")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["synth", "--out", "a", "--cases", "1e3"], "Invalid value for '--cases': a whole number is expected; see"),
        (["synth", "--out", "a", "--cases", "1,5"], "Invalid value for '--cases': a whole number is expected; see"),
        (["train", "c.yaml", "--out", "a", "--fold", "1e3"], "--fold wants a number, all or none, found '1e3'"),
        (["check", ""], "there is an empty argument after 'check'; is a variable of your shell unset?"),
        (["train", "c.yaml", "--out="], "there is an empty argument in '--out='; is a variable of your shell unset?"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(words: list[str], said: str, capsys: Captured) -> None:
    assert main(words) == 2
    assert f"error: [B164] {said}" in capsys.readouterr().err


@pytest.mark.covers("B164")
@pytest.mark.parametrize(("text", "code"), [("training.lr=1,5", "B138"), ("training.steps=1e3", "B138")])
def test_a_setting_of_the_wrong_kind_is_refused(
    text: str, code: str, tiny_cohort: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert main(["train", str(tiny_cohort), "--out", str(tmp_path / "run"), "--set", text]) == 2
    assert capsys.readouterr().err.startswith(f"error: [{code}] {text.partition('=')[0]}: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.covers("B166")
def test_odd_names_are_named_and_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "run", "-x.nii.gz", "--out", "o"]) == 2
    assert "No such option: -x; a file whose name begins with - is given as ./-NAME" in capsys.readouterr().err
    assert main(["check", "caf\udce9.yaml"]) == 2
    assert capsys.readouterr().err == "error: [B130] cannot read caf\\udce9.yaml: No such file or directory\n"
    assert main(["check", "configs/*.yaml"]) == 2
    assert "cannot read configs/*.yaml" in capsys.readouterr().err
    # names that only look odd work
    assert main(["synth", "--out", "./-s \udce9", "--cases", "10"]) == 0
    assert main(["check", "./-s \udce9/config.yaml", "--quiet"]) == 0


def test_an_empty_word_is_refused_and_an_empty_setting_is_not() -> None:
    check_words(["train", "c.yaml", "--set", "cohort.site="])
    with pytest.raises(InputError):
        check_words(["train", "c.yaml", "--set", ""])


@pytest.mark.covers("B164")
def test_the_place_of_an_answer_is_looked_at_before_the_work(tmp_path: Path) -> None:
    check_place(None, "--json")
    check_place(tmp_path / "f.json", "--json")
    with pytest.raises(InputError, match="is a folder; give a file's name"):
        check_place(tmp_path, "--json")
    with pytest.raises(InputError, match="in a folder that does not exist"):
        check_place(tmp_path / "none" / "f.json", "--json")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "f.json")
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    for place in (tmp_path / "pipe", tmp_path / "link", tmp_path / "stdout", Path("/dev/null")):
        with pytest.raises(InputError, match="is a link, a pipe or a device; give the name of a plain file"):
            check_place(place, "--json")


@pytest.mark.covers("B164")
@pytest.mark.parametrize(
    "name", [300 * "n", f"new/{300 * 'n'}/new", 400 * "newfolder/"], ids=["name", "inside", "path"]
)
@pytest.mark.parametrize(
    "command",
    ["check COHORT --json", "train COHORT --out", "evaluate RUN --out", "predict RUN x.nii.gz --out", "synth --out"],
)
def test_a_name_that_is_too_long_is_refused(
    command: str, name: str, tiny_cohort: Path, trained_run: Path, tmp_path: Path, capsys: Captured
) -> None:
    words = [{"COHORT": str(tiny_cohort), "RUN": str(trained_run)}.get(word, word) for word in command.split()]
    assert main([*words, str(tmp_path / name)]) == 2
    assert "error: [B164] " in (told := capsys.readouterr().err) and "is too long: " in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.covers("B164")
@pytest.mark.parametrize("command", [["check", "--json"], ["plan", "--out"]])
def test_an_answer_does_not_take_the_place_of_a_pipe(
    command: list[str], tiny_cohort: Path, tmp_path: Path, capsys: Captured
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main([command[0], str(tiny_cohort), command[1], str(tmp_path / "pipe"), "--quiet"]) == 2
    assert f"error: [B164] {command[1]} {tmp_path / 'pipe'} is a link, a pipe" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()
