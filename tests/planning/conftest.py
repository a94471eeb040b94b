from __future__ import annotations

from pathlib import Path

import pytest

from medmtl.planning import Plan
from tests.planning.cohorts import SMALL, configured, fingerprint, planned


@pytest.fixture
def small(tmp_path: Path) -> Plan:
    return planned(configured(tmp_path), *map(fingerprint, SMALL))
