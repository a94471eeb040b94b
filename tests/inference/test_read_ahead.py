"""Threads that read ahead and write behind: order, bounds, and whose error it is."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from medmtl.inference.read_ahead import WriteBehind, read_ahead


def test_what_is_read_comes_in_order_and_one_item_ahead_at_most() -> None:
    begun: list[int] = []

    def read(item: int) -> int:
        begun.append(item)
        return 10 * item

    for count, reading in enumerate(read_ahead(read, [1, 2, 3, 4]), start=1):
        assert reading.result() == 10 * count
        assert max(begun) <= count + 1
    assert begun == [1, 2, 3, 4]
    assert list(read_ahead(read, [])) == []


def test_an_error_is_that_of_its_item_and_the_others_are_read() -> None:
    def read(item: int) -> int:
        if item == 2:
            raise ValueError(item)
        return item

    found = []
    for reading in read_ahead(read, [1, 2, 3]):
        try:
            found.append(reading.result())
        except ValueError as error:
            found.append(-error.args[0])
    assert found == [1, -2, 3]


def test_after_an_interruption_no_thread_is_left_and_nothing_more_is_read() -> None:
    begun: list[int] = []
    before = threading.active_count()
    items = read_ahead(begun.append, [1, 2, 3, 4, 5])
    next(items).result()
    items.close()
    assert threading.active_count() == before
    assert max(begun) <= 2


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt(), ValueError("elsewhere")], ids=repr)
def test_all_that_was_put_is_written_in_order_however_the_block_ends(ending: BaseException | None) -> None:
    written: list[int] = []
    try:
        with WriteBehind() as writing:
            for item in range(4):
                writing.put(partial(written.append, item))
            if ending is not None:
                raise ending
    except (KeyboardInterrupt, ValueError) as error:
        assert error is ending
    assert written == [0, 1, 2, 3]


def test_a_write_that_fails_is_told_before_the_next_begins_or_at_the_end() -> None:
    def fail() -> None:
        raise OSError("disk")

    written: list[int] = []
    with pytest.raises(OSError, match="disk"), WriteBehind() as writing:
        writing.put(fail)
        writing.put(partial(written.append, 1))
    assert not written
    with pytest.raises(OSError, match="disk"), WriteBehind() as writing:
        writing.put(fail)
    with pytest.raises(ValueError, match="first"), WriteBehind() as writing:
        writing.put(fail)
        raise ValueError("first")
