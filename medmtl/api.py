"""The library as a researcher calls it; every command of the program is one of these calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from medmtl import config as configuration
from medmtl.build import build_tasks
from medmtl.check import check_cohort
from medmtl.config import Config
from medmtl.data.case import Case
from medmtl.data.finding import Finding
from medmtl.errors import InputError
from medmtl.evaluation.report import write_report
from medmtl.evaluation.score import Scores, evaluate_split
from medmtl.inference.predict import CasePrediction, Predictor
from medmtl.inference.write import prediction_row, write_masks, write_table
from medmtl.planning import Plan, describe_device
from medmtl.progress import Progress, silent
from medmtl.registry import Registry
from medmtl.run_folder import RunFolder, open_folds
from medmtl.tasks.base import Task
from medmtl.training.loop import train_run
from medmtl.training.start import FoldName, make_ready, plan_fold, start_run

DeviceName = Literal["auto", "cpu", "cuda"]
PathLike = str | Path
