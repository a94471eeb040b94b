"""What a batch says of its cases, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from medmtl.data.case import Case
from medmtl.data.finding import Findings
from medmtl.errors import InputError, WorkError
from medmtl.inference import batch
from medmtl.inference.case_prediction import CasePrediction
from medmtl.inference.predict import Predictor
from medmtl.progress import silent
from tests.inference.test_batch import read


class Failing:
    """As much of a predictor as a batch needs: a case fails as the first letter of its id says."""

    model_sha256 = "0" * 64
    notes: tuple[tuple[str, str], ...] = ()

    def read(self, case: Case) -> Case:
        if case.case_id[0] in "wi":
            raise (WorkError if case.case_id[0] == "w" else InputError)("cannot be used")
        return case

    def answer(self, case: Case) -> CasePrediction:
        return CasePrediction(case.case_id, {}, {}, (), notes=self.notes)


def predict_all(names: Sequence[str], out: Path, predictor: Any) -> list[str]:
    cases = [Case(name, name, None, 0, {}) for name in names]
    batch.predict_all(cast(Predictor, predictor), cases, Findings(), out, silent)
    return [row["case_id"] for row in read(out / "predictions.csv")]


def test_a_case_whose_own_fault_it_is_breaks_a_row_of_unread_ones(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"^4 of 5 cases were not predicted") as raised:
        predict_all(["w1", "w2", "i3", "w4", "good"], tmp_path / "out", Failing())
    assert "not tried" not in str(raised.value)
    assert [row["case_id"] for row in read(tmp_path / "out" / "predictions.csv")] == ["good"]


def test_of_many_failed_cases_five_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^7 of 7 cases were not predicted, .*; i5: [^;]*; and 2 more$"):
        predict_all([f"i{number}" for number in range(1, 8)], tmp_path, Failing())


def test_text_in_headers_is_not_told_of_predictions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    predictor = Failing()
    predictor.notes = (("B091", "2 pieces of text"), ("B054", "6 bytes after the image"))
    assert predict_all(["a", "b"], tmp_path, predictor) == ["a", "b"]
    (said,) = caplog.messages
    assert said.startswith("[B054] 2 of 2 cases have a file") and "text" not in said
