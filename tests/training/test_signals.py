from __future__ import annotations

import os
import signal
import threading

import pytest

from medmtl.training.signals import STOPPING, Requests


@pytest.mark.parametrize("number", STOPPING)
def test_a_request_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(known) for known in (*STOPPING, signal.SIGUSR1)]
    with Requests() as requests:
        assert requests.stop is None
        os.kill(os.getpid(), number)
        assert requests.stop == number.name and not requests.commit
    assert [signal.getsignal(known) for known in (*STOPPING, signal.SIGUSR1)] == before


def test_usr1_asks_for_a_commit_only() -> None:
    with Requests() as requests:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert requests.commit and requests.stop is None


@pytest.mark.covers("F12")
def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Requests() as requests:
            os.kill(os.getpid(), signal.SIGHUP)
            assert requests.stop is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_nothing_is_caught() -> None:
    before = [signal.getsignal(known) for known in STOPPING]
    found = []

    def look() -> None:
        with Requests():
            found.append([signal.getsignal(known) for known in STOPPING])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]
