from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from medmtl import distributed as ours
from medmtl.distributed import ALONE, Ranks, joined
from medmtl.errors import InputError, MachineError, WorkError
from medmtl.launched import Launch
from tests.faults.processes import CONTEXT
from tests.training.torchrun import be, free_port


@pytest.fixture
def pair() -> Iterator[Callable[[Callable[[Ranks], Any]], list[Any]]]:
    """Runs a function as two processes that share a store and nothing else; gives their answers or errors."""
    store = distributed.HashStore()
    with ThreadPoolExecutor(2) as pool:

        def run(work: Callable[[Ranks], Any]) -> list[Any]:
            found = [pool.submit(work, Ranks(rank, 2, rank, 2, store)) for rank in range(2)]
            return [one.exception() or one.result() for one in found]

        yield run


def test_alone_every_exchange_is_the_identity() -> None:
    value = torch.tensor([1.0, 2.0])
    assert ALONE.sum(value) is value
    assert ALONE.gather({"a": 1}) == [{"a": 1}]
    assert ALONE.first(lambda: 3) == 3
    ALONE.meet()
    assert list(ALONE.slots(3)) == [0, 1, 2]
    assert ALONE.device("cpu") == torch.device("cpu")
    assert ALONE.share(5) == 5 and ALONE.share(0) == 0
    with joined(Launch()) as ranks:
        assert ranks is ALONE
    assert not distributed.is_initialized()


def test_every_slot_lies_in_one_process() -> None:
    slots = [list(Ranks(rank, 2).slots(3)) for rank in range(2)]
    assert slots == [[0, 2], [1]]
    assert list(Ranks(1, 2).slots(1)) == []


def test_processes_of_a_machine_share_its_cores() -> None:
    assert Ranks(0, 4, 0, 2).share(8) == 4
    assert Ranks(0, 4, 0, 2).share(1) == 1
    assert Ranks(0, 4, 0, 2).share(0) == 0


def test_a_process_without_a_gpu_of_its_own_is_refused() -> None:
    with pytest.raises(MachineError, match="process 99 of this machine has no GPU of its own"):
        Ranks(99, 100, 99, 100).device("cuda")


def test_the_first_process_works_and_the_others_get_its_answer(pair: Any) -> None:
    worked = []

    def work(ranks: Ranks) -> list[Any]:
        return [ranks.first(lambda number=number: worked.append(ranks.rank) or [number]) for number in range(3)]

    assert pair(work) == [[[0], [1], [2]]] * 2
    assert worked == [0, 0, 0]


def test_a_failure_of_the_first_process_ends_the_others_with_its_words(pair: Any) -> None:
    def fail() -> None:
        raise InputError("no such column")

    first, second = pair(lambda ranks: ranks.first(fail))
    assert isinstance(first, InputError)
    assert isinstance(second, WorkError)
    assert str(second) == "process 1 ends because process 0 could not go on: no such column"


def test_a_silent_process_is_not_waited_for(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "LIMIT", 0.3)
    first, second = pair(lambda ranks: ranks.first(lambda: time.sleep(1)))
    assert first is None
    assert isinstance(second, WorkError)
    assert str(second).startswith("process 0 has shown no sign of life for 0 s; the last commit is whole")


def test_a_process_that_works_is_waited_for_as_long_as_it_beats(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "LIMIT", 0.3)
    monkeypatch.setattr(ours, "BEAT", 0.05)

    def work(ranks: Ranks) -> Any:
        ended = threading.Event()
        beating = threading.Thread(target=ours._beat, args=(ranks.store, ranks.rank, ended))
        beating.start()
        try:
            return ranks.first(lambda: time.sleep(1) or "done")
        finally:
            ended.set()
            beating.join()

    assert pair(work) == ["done", "done"]


def test_all_wait_for_the_last(pair: Any) -> None:
    ends = []

    def work(ranks: Ranks) -> None:
        time.sleep(0.3 * ranks.rank)
        ranks.meet()
        ends.append(time.monotonic())

    begin = time.monotonic()
    pair(work)
    assert min(ends) - begin >= 0.3


def test_two_processes_add_tensors_and_exchange_words_and_part(tmp_path: Path) -> None:
    assert run_both(tmp_path, exchange) == [0, 0]
    assert [(tmp_path / f"{rank}").read_text() for rank in range(2)] == ["[4.0, 6.0] [[0, 'é'], [1, 'é']] 7"] * 2


@pytest.mark.slow
@pytest.mark.covers("F57")
def test_who_does_not_come_to_an_exchange_is_named(tmp_path: Path) -> None:
    assert run_both(tmp_path, stay_away) == [0, 0]
    said = (tmp_path / "0").read_text()
    assert said.startswith("process 1 of 2 is gone or did not answer for 2 s; the last commit is whole: go on with")


def run_both(folder: Path, work: Callable[[Path, Ranks], None]) -> list[int | None]:
    port = free_port()
    pair = [CONTEXT.Process(target=_as_rank, args=(partial(be, rank, 2, port), folder, work)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(60)
    return [process.exitcode for process in pair]


def _as_rank(place: Callable[[], None], folder: Path, work: Callable[[Path, Ranks], None]) -> None:
    place()
    with joined() as ranks:
        work(folder, ranks)
    assert not distributed.is_initialized()


def exchange(folder: Path, ranks: Ranks) -> None:
    total = ranks.sum(torch.tensor([1.0, 2.0]) + 2 * ranks.rank)
    words = ranks.gather([ranks.rank, "é"])
    answer = ranks.first(lambda: time.sleep(0.2) or 7)
    ranks.meet()
    (folder / f"{ranks.rank}").write_text(f"{total.tolist()} {words} {answer}")


def stay_away(folder: Path, ranks: Ranks) -> None:
    ours.LIMIT = 2.0
    ranks.sum(torch.zeros(1))
    if ranks.rank == 1:
        time.sleep(6)
        return
    distributed.distributed_c10d._set_pg_timeout(ours.timedelta(seconds=2))
    with pytest.raises(WorkError) as caught:
        ranks.sum(torch.zeros(1))
    (folder / "0").write_text(str(caught.value))
