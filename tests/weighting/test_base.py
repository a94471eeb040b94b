from __future__ import annotations

import pytest

from medmtl import weighting
from medmtl.weighting.base import same_tasks


def test_state_of_other_tasks_is_refused_by_name() -> None:
    assert same_tasks({"age": 1, "organ": 2}, ("organ", "age")) == {"age": 1, "organ": 2}
    with pytest.raises(ValueError, match=r"of the tasks \['age', 'organ'\], expected \['organ'\]"):
        same_tasks({"age": 1, "organ": 2}, ("organ",))


def test_kinds_that_take_a_logarithm_or_a_quotient_of_losses_refuse_losses_below_zero() -> None:
    kinds = {name for name in weighting.kinds.names() if weighting.kinds.get(name).positive_losses}
    assert kinds == {"uncertainty", "imtl_l", "dwa", "gls", "stch", "famo", "db_mtl", "gradnorm"}
