from __future__ import annotations

import pytest

from medmtl.evaluation.report import write_report
from medmtl.evaluation.score import Scores
from medmtl.run_folder import RunFolder
from tests.evaluation.scored_run import make_run, make_scores


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    return make_scores(tmp_path_factory.mktemp("scores"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(scores: Scores, run: RunFolder) -> str:
    return write_report(scores, [run]).read_text(encoding="utf-8")
