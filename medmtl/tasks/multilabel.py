"""Multi-label: several findings per case, each present, absent or not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator
from scipy.special import logit
from torch import nn

from medmtl.data.case import Case
from medmtl.data.volume import Volume
from medmtl.losses.masked_bce import UNKNOWN, best_constant_findings, masked_bce_loss
from medmtl.metrics import ranking
from medmtl.metrics.estimate import Estimate
from medmtl.metrics.expected_width import ExpectedWidth
from medmtl.metrics.figures import Figure
from medmtl.networks.features import FeatureSpec
from medmtl.tasks.base import Cell, Result, ScoredCase, Task
from medmtl.tasks.class_cell import read_class, refuse_absent, refuse_doubled
from medmtl.tasks.classification import Classification, ClassificationOptions, ClassificationResult
from medmtl.tasks.pooled import PooledOptions, PooledTask
from medmtl.tasks.ranked import ranked_figures
from medmtl.validation import Name

Truth = tuple[bool | None, ...]


class MultilabelOptions(PooledOptions):
    """Options of a multi-label task.

    Attributes:
        findings: finding -> column that holds it; an empty cell means that this finding is not known.
        values: how the table writes an absent and a present finding, in all of these columns.
    """

    findings: dict[Name, str] = Field(min_length=1)
    values: tuple[str, str] = ("0", "1")

    @field_validator("findings")
    @classmethod
    def _columns_differ(cls, findings: dict[str, str]) -> dict[str, str]:
        refuse_doubled(list(findings.values()), "columns of findings")
        return findings

    @field_validator("values")
    @classmethod
    def _values_differ(cls, values: tuple[str, str]) -> tuple[str, str]:
        refuse_doubled(values, "values")
        return values


@dataclass(frozen=True)
class MultilabelResult(Result):
    """How likely each finding is.

    Attributes:
        probabilities: finding -> probability that it is present, in the declared order; they need not sum to 1.
    """

    probabilities: Mapping[str, float] = field(default_factory=dict)

    def cells(self, name: str) -> dict[str, Cell]:
        """``NAME_FINDING`` per finding: its probability."""
        return {f"{name}_{finding}": value for finding, value in self.probabilities.items()}


class Multilabel(PooledTask):
    """Several findings per case, each present or not, trained by binary cross-entropy over the known ones.

    Every finding is scored as a classification of two classes over the cases where it is known.
    """

    kind = "multilabel"
    Options = MultilabelOptions
    options: MultilabelOptions
    default_sensitivity = ("crop",)
    ranking_metric = "auc"

    @property
    def columns(self) -> tuple[str, ...]:
        """A column per finding."""
        return tuple(self.options.findings.values())

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """As :meth:`MultilabelResult.cells`."""
        return tuple(f"{self.name}_{finding}" for finding in self.options.findings)

    def read(self, case: Case) -> Truth | None:
        """Per finding whether it is present, None where not known; None where no finding is known.

        Raises:
            CellError: of the first cell that holds neither value; see :func:`medmtl.tasks.class_cell.read_class`.
        """
        values = self.options.values
        cells = [read_class(case.cells[column], values, column) for column in self.columns]
        truth = tuple(None if cell is None else cell == values[1] for cell in cells)
        return None if all(known is None for known in truth) else truth

    def truth_cells(self, truth: Truth | None) -> dict[str, Cell]:
        """``TASK_FINDING_true``, as the table writes it."""
        known = truth or (None,) * len(self.options.findings)
        return {
            f"{self.name}_{finding}_true": None if present is None else self.options.values[present]
            for finding, present in zip(self.options.findings, known, strict=True)
        }

    def fit(self, truths: Sequence[Truth]) -> dict[str, Any]:
        """Counts of absent and present, the best constant probabilities, and their loss as ``loss_scale``.

        Raises:
            CellError: B115 if a finding is nowhere present, or nowhere absent.
        """
        counts = [[column.count(False), column.count(True)] for column in zip(*truths, strict=True)]
        for (finding, column), count in zip(self.options.findings.items(), counts, strict=True):
            absent, present = self.options.values
            refuse_absent(count, (f"{finding} {absent!r}", f"{finding} {present!r}"), column)
        target_NF = torch.stack([self.encode(truth) for truth in truths]).double().numpy()
        constant, scale = best_constant_findings(target_NF)
        return {"counts": counts, "constant": constant, "loss_scale": scale}

    def in_words(self, truths: Sequence[Truth]) -> str:
        """In how many cases each finding is present, of those where it is known."""
        return ", ".join(
            f"{finding} in {known.count(True)} of {len(known) - known.count(None)}"
            for finding, known in zip(self.options.findings, zip(*truths, strict=True), strict=True)
        )

    def strata(self, truths: Mapping[str, Truth]) -> dict[str, frozenset[str]]:
        """The findings that are known of each case, with their values."""
        return {
            case_id: frozenset(
                f"{finding} {self.options.values[present]!r}"
                for finding, present in zip(self.options.findings, truth, strict=True)
                if present is not None
            )
            for case_id, truth in truths.items()
        }

    def same_target(self, other: Task) -> None:
        """The findings must be the same, in the same order; their columns and values may be called otherwise."""
        super().same_target(other)
        assert isinstance(other, Multilabel)
        mine, theirs = list(self.options.findings), list(other.options.findings)
        if theirs != mine:
            raise ValueError(f"its findings are {', '.join(theirs)}, and the model's are {', '.join(mine)}")

    def encode(self, truth: Truth | None) -> torch.Tensor:
        """1, 0, or -1 for not known, per finding, fp32, shape (F,)."""
        known = truth or (None,) * len(self.options.findings)
        return torch.tensor([UNKNOWN if present is None else float(present) for present in known])

    def head(self, spec: FeatureSpec) -> nn.Module:
        """Logits (B, F); at first those of the findings' shares, whatever the image."""
        return self.pooled_head(spec, [float(logit(share)) for share in self.fitted["constant"]])

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See :func:`medmtl.losses.masked_bce.masked_bce_loss`."""
        return masked_bce_loss(output, target)

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, F)."""
        return output.float().sigmoid()

    def probe_pair(self, activation_K: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
        """How much more than usual is predicted and found, as a mean over the known findings.

        Usual is the findings' shares in training, so that an answer that is always the same scores the same for every
        case, whichever findings are known of it.
        """
        known = target != UNKNOWN
        usual = torch.tensor(self.fitted["constant"])[known]
        return float((activation_K[known] - usual).mean()), float((target[known] - usual).mean())

    def result(self, activation_K: torch.Tensor, masks: Mapping[str, Volume]) -> MultilabelResult:
        """The probabilities by name."""
        return MultilabelResult(probabilities=dict(zip(self.options.findings, activation_K.tolist(), strict=True)))

    def constant_result(self, truths: Sequence[Truth]) -> MultilabelResult:
        """The share of each finding among those that know it; of the training fold where none does."""
        shares = []
        for column, usual in zip(zip(*truths, strict=True), self.fitted["constant"], strict=True):
            known = [present for present in column if present is not None]
            shares.append(sum(known) / len(known) if known else usual)
        return self.result(torch.tensor(shares), {})

    def out_of_fold(self, cases: Sequence[ScoredCase]) -> list[ScoredCase]:
        """As :meth:`Classification.out_of_fold` for each finding: ``calibrated_p_VALUE/FINDING`` and so on."""
        found = list(cases)
        for finding in self.options.findings:
            rows, known = self._known(finding, cases)
            for row, case in zip(rows, self._part(finding).out_of_fold(known), strict=True):
                own = {f"{key}/{finding}": value for key, value in case.reference.items()}
                found[row] = replace(found[row], reference={**found[row].reference, **own})
        return found

    def metrics(self, cases: Sequence[ScoredCase]) -> dict[str, Estimate]:
        """The mean AUC over the findings first, then the metrics of each as ``METRIC/FINDING``."""
        truths = [case.truth for case in cases]
        shape = (-1, len(self.options.findings))
        known_NF = np.array([[value is not None for value in truth] for truth in truths], np.bool_).reshape(shape)
        positive_NF = np.array([[value is True for value in truth] for truth in truths], np.bool_).reshape(shape)
        score_NF = np.array([list(_result(case).probabilities.values()) for case in cases], np.float64).reshape(shape)
        fold_N: npt.NDArray[np.intp] = np.array([case.fold for case in cases], dtype=np.intp)
        patients = [case.patient for case in cases]
        estimates = {"auc": ranking.auc_mean(positive_NF, score_NF, known_NF, fold_N, patients)}
        for finding in self.options.findings:
            part = self._part(finding).metrics(self._known(finding, cases)[1])
            estimates.update({f"{metric}/{finding}": estimate for metric, estimate in part.items()})
        return estimates

    def expected_width(self, folds: Sequence[Sequence[tuple[str, Any]]]) -> ExpectedWidth:
        """Of the AUC of the finding with the widest interval; none where one of them will have none."""
        widths = []
        for index, finding in enumerate(self.options.findings):
            known = [[(who, truth[index]) for who, truth in fold if truth[index] is not None] for fold in folds]
            texts = [[(who, self.options.values[present]) for who, present in fold] for fold in known]
            width = self._part(finding).expected_width(texts)
            widths.append(replace(width, assumption=f"of {finding}, {width.assumption}"))
        return max(widths, key=lambda width: np.inf if width.width is None else width.width)

    def figures(self, cases: Sequence[ScoredCase]) -> tuple[Figure, ...]:
        """A ROC curve per finding and fold, and the calibration of each where there are cases enough."""
        return ranked_figures(
            self.name,
            [
                replace(ranked, label=finding)
                for finding in self.options.findings
                for ranked in self._part(finding).ranked(self._known(finding, cases)[1])
            ],
        )

    def _part(self, finding: str) -> Classification:
        """One finding as a classification; it scores, and is not trained."""
        column, values = self.options.findings[finding], self.options.values
        return Classification(finding, ClassificationOptions(kind="classification", column=column, classes=values))

    def _known(self, finding: str, cases: Sequence[ScoredCase]) -> tuple[list[int], list[ScoredCase]]:
        """Where a finding is known: the positions of these cases, and what they say of this finding alone."""
        index, part = list(self.options.findings).index(finding), self._part(finding)
        rows = [row for row, case in enumerate(cases) if case.truth[index] is not None]
        found = []
        for case in (cases[row] for row in rows):
            probability = _result(case).probabilities[finding]
            shares = dict(zip(self.options.values, (1 - probability, probability), strict=True))
            label = max(shares, key=shares.__getitem__)
            suffix = f"/{finding}"
            own = {k.removesuffix(suffix): value for k, value in case.reference.items() if k.endswith(suffix)}
            answer = ClassificationResult(label=label, probabilities=shares)
            text = part.options.classes[case.truth[index]]
            found.append(replace(case, truth=text, result=answer, reference=own))
        return rows, found


def _result(case: ScoredCase) -> MultilabelResult:
    assert isinstance(case.result, MultilabelResult)
    return case.result
