from __future__ import annotations

import pytest

from medmtl.errors import InputError
from medmtl.launched import Launch, is_first, launch


def test_a_process_that_torchrun_did_not_start_is_alone() -> None:
    assert launch({}) == launch({"WORLD_SIZE": "1", "RANK": "0"}) == Launch(0, 1, 0, 1)


def test_a_process_among_others_knows_its_place() -> None:
    found = launch({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    assert found == Launch(3, 4, 1, 2)


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "two", "RANK": "0", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "1"},
        {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "-1"},
    ],
)
def test_a_place_that_makes_no_sense_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(InputError, match="does not say which of several processes this is"):
        launch(environment)


def test_only_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert is_first()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert not is_first()
    monkeypatch.setenv("RANK", "0")
    assert is_first()
