from __future__ import annotations

import gc
import runpy
import tracemalloc
from pathlib import Path

from medmtl import config as configuration
from medmtl.build import build_tasks
from medmtl.checking import check_cohort

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "cohort_size.py"
KILOBYTES = 8  # of a case with one image and one mask; either of its arrays alone would be half of that more


def kept(folder: Path, cases: int) -> int:
    """Bytes that are held after the check of a cohort, and for it."""
    runpy.run_path(str(BENCHMARK))["write_cohort"](folder, cases)
    config = configuration.load(folder / "config.yaml")
    tasks = build_tasks(config)
    gc.collect()
    tracemalloc.start()
    try:
        checked = check_cohort(config, tasks)
        gc.collect()
        assert not checked.findings.rejected()
        assert len(checked.fingerprints) == cases
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_what_a_check_keeps_of_a_case_is_a_few_kilobytes(tmp_path: Path) -> None:
    kept(tmp_path / "warm", 15)
    few, many = kept(tmp_path / "few", 15), kept(tmp_path / "many", 55)
    assert (many - few) / 40 < 1000 * KILOBYTES
