"""Promises 6 and 22: equal inputs give equal bytes, without a network and whatever surrounds the program."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from medmtl.cli import main
from tests.reliability.outcome import ROOT, experiment, fingerprint, run

NO_NETWORK = ("unshare", "--net", "--map-root-user")
SURROUNDINGS = [
    {"PYTHONHASHSEED": str(seed), "LANG": lang, "LC_ALL": lang, "TZ": zone, "HOME": "/nonexistent"}
    for seed, (lang, zone) in enumerate(
        [
            ("C", "UTC"),
            ("C.UTF-8", "Asia/Kathmandu"),
            ("de_DE.UTF-8", "America/St_Johns"),
            ("tr_TR.UTF-8", "Etc/GMT-14"),
        ]
        * 3
    )
][:10]


def refusal_of_namespaces() -> str | None:
    """Why a process without a network cannot be made here, or None."""
    try:
        done = subprocess.run([*NO_NETWORK, "true"], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else None


@pytest.fixture(scope="module")
def reference(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the experiment writes in the surroundings of the tests."""
    out = tmp_path_factory.mktemp("reference") / "out"
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # which the other processes have, and a manifest says that it was set
        assert [main(words) for words in experiment(tiny_cohort, out)] == [0, 0, 0]
    return fingerprint(out)


def written_under(
    config: Path, place: Path, environment: dict[str, str], prefix: tuple[str, ...] = ()
) -> dict[str, str]:
    """What it writes elsewhere, with relative paths from another working folder."""
    out = place / "out"
    out.mkdir()
    start = place / "started" / "here"
    start.mkdir(parents=True)
    commands = experiment(Path(os.path.relpath(config, start)), Path("../../out"))
    done = run(commands, folder=start, environment=environment, prefix=prefix)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert os.listdir(start) == []
    return fingerprint(out)


@pytest.fixture
def beside(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as deep as the reference's: config.yaml holds the way from the run to the cohort."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.mark.slow
@pytest.mark.covers("B172", "P06", "P22")
def test_without_a_network_and_in_other_surroundings_every_byte_is_the_same(
    tiny_cohort: Path, reference: dict[str, str], beside: Path
) -> None:
    why = refusal_of_namespaces()
    if why is not None:
        pytest.skip(f"no network namespace can be made here: {why}")
    found = written_under(tiny_cohort, beside, SURROUNDINGS[1], NO_NETWORK)
    assert {"run/log.jsonl", "run/checkpoints/last", "run/evaluation/val/report.html"} < found.keys()
    assert differing(found, reference) == []


@pytest.mark.slow
@pytest.mark.covers("B114", "B168", "P22")
@pytest.mark.parametrize("number", range(len(SURROUNDINGS)))
def test_ten_hash_seeds_locales_and_time_zones_give_the_same_bytes(
    number: int, tiny_cohort: Path, reference: dict[str, str], beside: Path
) -> None:
    assert differing(written_under(tiny_cohort, beside, SURROUNDINGS[number]), reference) == []


def differing(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
