"""A trained run in memory, as a research script uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medmtl.data.case import Case
from medmtl.errors import InputError
from medmtl.inference.inputs import case_of_files, cases_of
from medmtl.inference.predict import CasePrediction, Predictor
from medmtl.inference.write import TABLE, open_output, prediction_row, write_masks, write_table
from medmtl.run_folder import open_folds


@dataclass(frozen=True)
class Prediction(CasePrediction):
    """What a model says of one case, by task.

    Attributes:
        model_sha256: of the weights that said it.
    """

    model_sha256: str

    def save(self, out: str | Path) -> Path:
        """Write the masks and a one-row ``predictions.csv`` into ``out``; returns the table."""
        open_output(Path(out))
        write_masks(self, Path(out))
        table = Path(out) / TABLE
        write_table([prediction_row(self, self.model_sha256)], table)
        return table


class Model:
    """A trained run ready to predict.

    Args:
        run: a run folder, or a folder of folds, whose predictions are averaged.
        device: where to compute.
    """

    def __init__(self, run: str | Path, device: Literal["auto", "cpu", "cuda"] = "auto") -> None:
        self._predictor = Predictor(open_folds(Path(run)), device)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names that :meth:`predict` wants."""
        return self._predictor.channels

    def predict(
        self, images: Mapping[str, str | Path], *, case_id: str = "case", covariates: Mapping[str, Any] | None = None
    ) -> Prediction:
        """Predict one case.

        Args:
            images: channel -> file.
            covariates: clinical inputs; not in this version, which refuses any.
            case_id: the case's name in files that are saved.

        Raises:
            InputError: if a channel is missing or unknown, or a file cannot be used.
        """
        if covariates:
            raise InputError("clinical covariates are not in this version")
        found = self._predictor.predict(case_of_files(images, self.channels, case_id))
        return Prediction(**vars(found), model_sha256=self._predictor.model_sha256)

    def training_cohort(self) -> tuple[Case, ...]:
        """The cases of the cohort that the model was trained on, where its table is still in place."""
        return cases_of([], self._predictor.config, self.channels)
