from __future__ import annotations

import numpy as np
import pytest
import torch

from medmtl.data.channels import drop_channels, held_channels, refuse_other_channels, with_indicators
from medmtl.data.prepared import Preparation
from medmtl.errors import InputError

CHANNELS = ("t1", "t2", "flair")
PREPARATION = Preparation((1.0, 1.0, 1.0), CHANNELS, {}, optional=("t2", "flair"))
ALL = (True, True, True)


def test_a_channel_is_there_where_it_has_statistics() -> None:
    assert held_channels(({"mean": 0.0}, {})) == (True, False)


def test_a_draw_depends_on_seed_step_and_slot_alone() -> None:
    def drawn(seed: int, step: int, slot: int) -> tuple[bool, ...]:
        return drop_channels(ALL, PREPARATION, seed, step, slot)

    first = [drawn(0, step, slot) for step in range(20) for slot in range(3)]
    assert first == [drawn(0, step, slot) for step in range(20) for slot in range(3)]
    assert first != [drawn(1, step, slot) for step in range(20) for slot in range(3)]
    assert [drawn(0, step, 0) for step in range(20)] != [drawn(0, step, 1) for step in range(20)]


def test_optional_channels_are_blanked_as_often_as_documented_and_others_never() -> None:
    shown = np.array([drop_channels(ALL, PREPARATION, 0, step, 0) for step in range(2000)])
    assert shown[:, 0].all()
    # one in five, to four standard deviations of a share of 2000
    assert shown[:, 1:].mean(axis=0) == pytest.approx(0.8, abs=0.036)
    both = (~shown[:, 1] & ~shown[:, 2]).mean()
    assert both == pytest.approx(0.04, abs=0.018)


@pytest.mark.parametrize("held", [(True, True, True), (False, True, True), (False, False, True)])
def test_the_last_channel_of_a_case_stays_and_no_absent_one_appears(held: tuple[bool, ...]) -> None:
    preparation = Preparation((1.0, 1.0, 1.0), CHANNELS, {}, optional=CHANNELS)
    shown = [drop_channels(held, preparation, 0, step, 0) for step in range(500)]
    assert all(any(sample) for sample in shown)
    assert all(there or not seen for sample in shown for there, seen in zip(held, sample, strict=True))
    # each of those that are there is at some time the only one
    only = {sample.index(True) for sample in shown if sum(sample) == 1}
    assert only == {index for index, there in enumerate(held) if there}


def test_without_optional_channels_nothing_is_drawn_or_added() -> None:
    plain = Preparation((1.0, 1.0, 1.0), CHANNELS, {})
    image = torch.randn(3, 2, 2, 2)
    assert all(drop_channels(ALL, plain, 0, step, 0) == ALL for step in range(200))
    assert with_indicators(image, ALL, plain) is image


def test_what_is_not_shown_is_zero_and_said_by_a_constant_indicator() -> None:
    image = torch.randn(3, 2, 3, 4)
    image[1, 0, 0, 0] = torch.nan
    found = with_indicators(image, (True, False, True), PREPARATION)
    assert found.shape == (5, 2, 3, 4)
    assert torch.equal(found[[0, 2]], image[[0, 2]])
    assert found[1].eq(0).all()
    assert found[3].eq(0).all() and found[4].eq(1).all()


@pytest.mark.parametrize(
    ("found", "accepted"),
    [
        (("t1",), True),
        (("t1", "flair"), True),
        (CHANNELS, True),
        (("t2",), False),
        ((), False),
        (("t1", "pd"), False),
    ],
)
def test_a_model_takes_its_own_channels_and_does_without_optional_ones(found: tuple[str, ...], accepted: bool) -> None:
    if accepted:
        refuse_other_channels(found, CHANNELS, ("t2", "flair"))
        return
    with pytest.raises(InputError, match=r"wants the channels t1, t2 \(optional\), flair \(optional\); found"):
        refuse_other_channels(found, CHANNELS, ("t2", "flair"))


def test_one_channel_is_needed_where_all_are_optional() -> None:
    with pytest.raises(InputError, match="found none"):
        refuse_other_channels((), CHANNELS, CHANNELS)
