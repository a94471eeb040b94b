from __future__ import annotations

import pytest

from medmtl.weighting.base import same_tasks


def test_state_of_other_tasks_is_refused_by_name() -> None:
    assert same_tasks({"age": 1, "organ": 2}, ("organ", "age")) == {"age": 1, "organ": 2}
    with pytest.raises(ValueError, match=r"of the tasks \['age', 'organ'\], expected \['organ'\]"):
        same_tasks({"age": 1, "organ": 2}, ("organ",))
