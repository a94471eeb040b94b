"""A trained run in memory, as a research script uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmtl.data.case import Case
from medmtl.data.covariates import CovariateKind
from medmtl.device import DeviceName
from medmtl.folder_lock import output_lock
from medmtl.freed_memory import freed_memory_kept
from medmtl.inference.case_prediction import CasePrediction
from medmtl.inference.inputs import case_of_files, cases_of, cells_of
from medmtl.inference.predict import Predictor
from medmtl.inference.unfinished import open_models
from medmtl.inference.write import (
    TABLE,
    PredictionTable,
    answer_folders,
    open_output,
    prediction_row,
    write_answers,
)
from medmtl.run_place import folder_of

PATIENCE = 60.0  # seconds for those of a parallel loop that save into the same folder


@dataclass(frozen=True, repr=False)
class Prediction(CasePrediction):
    """What a model says of one case, by task.

    Attributes:
        model_sha256: of the weights that said it.
        named: whether ``case_id`` was given; otherwise it is a file's name, which another case may have too.
    """

    model_sha256: str = ""
    named: bool = True

    def save(self, out: str | Path) -> Path:
        """Write the masks into ``out``, and a row into its ``predictions.csv``; returns the table.

        Rows of other cases stay, so that a loop over cases may save into one folder; one of the same ``case_id`` is
        replaced if that was given to :meth:`Model.predict`.

        Raises:
            InputError: if ``out`` is a run, or holds an evaluation, masks of somebody else or predictions of another
                model, see :func:`medmtl.inference.write.open_output`; or if it has a row of the same ``case_id`` and
                none was given.
            BusyRunError: if another process writes into ``out`` for longer than a minute.
        """
        place = folder_of(out, "out")
        open_output(place)
        with output_lock(place, answer_folders(place), patience=PATIENCE):
            table = PredictionTable(place / TABLE)
            table.keep_others(self.case_id, self.model_sha256, replace=self.named)
            table.begin()
            write_answers(self, place)
            table.add(prediction_row(self, self.model_sha256))
            table.write()
        return place / TABLE


class Model:
    """A trained run ready to predict.

    Args:
        run: a run folder, or a folder of folds, whose predictions are averaged.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    def __init__(self, run: str | Path, device: DeviceName = "auto") -> None:
        self._predictor = Predictor(open_models(folder_of(run, "run")), device)

    def __repr__(self) -> str:
        """Its channels, and its tasks with their kinds."""
        tasks = ", ".join(f"{name} {task.kind}" for name, task in self._predictor.tasks.items())
        return f"Model({', '.join(self.channels)} -> {tasks})"

    @property
    def channels(self) -> tuple[str, ...]:
        """Names that :meth:`predict` wants."""
        return self._predictor.channels

    @property
    def covariates(self) -> dict[str, CovariateKind]:
        """Name -> kind (``number`` or ``category``) of the clinical covariates that :meth:`predict` wants."""
        return self._predictor.covariates

    @freed_memory_kept()
    def predict(
        self,
        images: Mapping[str, str | Path] | str | Path,
        *,
        case_id: str | None = None,
        covariates: Mapping[str, Any] | None = None,
    ) -> Prediction:
        """Predict one case.

        Args:
            images: channel -> file; optional channels may be left out. For a model of one channel the file alone does.
            case_id: the case's name in files that are saved; by default that of the first channel's file.
            covariates: name -> value of every clinical covariate in :attr:`covariates`; None is a missing value.

        Raises:
            InputError: if a channel or a covariate is missing or unknown, or a file cannot be used.
        """
        if isinstance(images, str | Path) and len(self.channels) == 1:
            images = {self.channels[0]: images}
        cells = cells_of(covariates or {}, self._predictor.config)
        optional = self._predictor.optional
        found = self._predictor.predict(case_of_files(images, self.channels, case_id, cells, optional))
        return Prediction(**vars(found), model_sha256=self._predictor.model_sha256, named=case_id is not None)

    def training_cohort(self) -> tuple[Case, ...]:
        """The cases of the cohort that the model was trained on, where its table is still in place."""
        return cases_of([], self._predictor.config, self.channels)
