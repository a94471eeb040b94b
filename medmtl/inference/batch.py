"""Many cases, of which some may be bad: the rest is predicted and kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from medmtl.data.case import Case
from medmtl.data.finding import Finding, Findings
from medmtl.errors import InputError, MachineError, NumericError, WorkError, out_of_memory
from medmtl.folder_lock import output_lock
from medmtl.freed_memory import freed_memory_kept
from medmtl.inference.case_prediction import CasePrediction
from medmtl.inference.predict import Predictor
from medmtl.inference.read_ahead import WriteBehind, read_ahead
from medmtl.inference.write import (
    TABLE,
    PredictionTable,
    answer_folders,
    open_output,
    prediction_row,
    write_answers,
)
from medmtl.progress import Progress

logger = logging.getLogger(__name__)

NAMED = 5  # cases in a message at the end
UNREAD = 3  # cases in a row that the system does not read: then it is no file that fails, but the disk or its network
TRAINED_ON = "trained on"
TOLD = {
    "B162": f"lie outside what the model was trained on, see outside_training in {TABLE}",
    TRAINED_ON: "have an image that the model was trained on, so that their answers do not show how good it is",
}

Failure = WorkError | InputError | MachineError | NumericError


@freed_memory_kept()
def predict_all(predictor: Predictor, cases: Sequence[Case], findings: Findings, out: Path, progress: Progress) -> Path:
    """Predict cases and write their masks and one table.

    While the network looks at a case, the next one is read and the one before it is written.

    Args:
        predictor: the model.
        cases: those that can be tried.
        findings: of the rows that were refused before.
        out: see :func:`medmtl.inference.write.open_output`.
        progress: called once per case that the network is done with.

    Returns:
        The table.

    Raises:
        BusyRunError: if another process writes into ``out``.
        WorkError: if the system does not read a file, such as of a drive that fails; all others are predicted and
            written first, but after three such cases in a row no other is tried.
        InputError: if a row or a file cannot be used; all others are predicted and written first.
        MachineError: if no row and no file was at fault, and the memory does not hold a case; as above.
        NumericError: if the only cases that failed got an answer that is not finite; as above.
    """
    open_output(out)
    with output_lock(out, answer_folders(out)):
        return _predict_all(predictor, cases, findings, out, progress)


def _predict_all(
    predictor: Predictor, cases: Sequence[Case], findings: Findings, out: Path, progress: Progress
) -> Path:
    table = PredictionTable(out / TABLE)
    case_ids = [case.case_id for case in cases]
    told: dict[str, list[str]] = {}
    failed = _refused_rows(findings)
    total = len(cases) + len(failed)
    tried = unread = 0

    def write(prediction: CasePrediction) -> None:
        table.begin(case_ids)
        try:
            write_answers(prediction, out)
        except (MemoryError, RuntimeError) as error:
            failed.append(_failure(prediction.case_id, error))
        else:
            table.add(prediction_row(prediction, predictor.model_sha256))

    try:
        with WriteBehind() as writing, closing(read_ahead(predictor.read, cases)) as readings:
            for tried, (case, reading) in enumerate(zip(cases, readings, strict=True), start=1):
                try:
                    prediction = predictor.answer(reading.result())
                except (WorkError, InputError, NumericError, MemoryError, RuntimeError) as error:
                    failed.append(_failure(case.case_id, error))
                    unread = unread + 1 if isinstance(error, WorkError) else 0
                else:
                    unread = 0
                    writing.put(partial(write, prediction))
                    _collect(told, prediction)
                progress("predict", tried, len(cases))
                if unread == UNREAD:
                    break
    finally:
        # also when it is stopped half-way: a mask without its row would be an orphan
        table.write()
    for code, entries in told.items():
        _warn(code, entries, len(cases))
    if failed:
        raise _incomplete(failed, total, len(cases) - tried, None if table.is_empty else out / TABLE)
    return out / TABLE


def _collect(told: dict[str, list[str]], prediction: CasePrediction) -> None:
    """Add by code, or under ``TRAINED_ON``, what there is to say of a case that was predicted."""
    if prediction.trained_on:
        told.setdefault(TRAINED_ON, []).append(prediction.case_id)
    found: dict[str, list[str]] = {}
    for code, text in (*prediction.notes, *(("B162", name) for name in prediction.outside_training)):
        if code != "B091":  # text in the header, which no output takes over
            found.setdefault(code, []).append(text)
    for code, texts in found.items():
        told.setdefault(code, []).append(f"{prediction.case_id} ({', '.join(texts)})")


def _warn(code: str, entries: Sequence[str], total: int) -> None:
    what = TOLD.get(code, "have a file that is not quite in order and was read all the same")
    place = "" if code == TRAINED_ON else f"[{code}] "
    logger.warning("%s%d of %d cases %s: %s", place, len(entries), total, what, "; ".join(entries[:NAMED]))


def _failure(case_id: str, error: Exception) -> Failure:
    """What is told of a case that failed. A new error, without the frames of the old one that hold the case's arrays.

    Raises:
        Exception: ``error`` itself, if it is not about this case.
    """
    if isinstance(error, WorkError | NumericError):
        return type(error)(str(error))
    if isinstance(error, InputError):
        return InputError(f"{case_id}: {error}")
    wanted = out_of_memory(error)
    if wanted is None:
        raise error
    return MachineError(f"{case_id}: {wanted}")


def _refused_rows(findings: Findings) -> list[Failure]:
    """One error per row of a table that cannot be used."""
    # of several tables each finding says by its key which one it is about
    first: dict[tuple[str | None, int | None], Finding] = {}
    for finding in findings.rejected():
        first.setdefault((finding.key, finding.row), finding)
    return [InputError(finding.sentence()) for finding in first.values()]


def _incomplete(failed: Sequence[Failure], total: int, untried: int, table: Path | None) -> Failure:
    kinds = (WorkError, InputError, MachineError, NumericError)
    kind = next(kind for kind in kinds if any(isinstance(error, kind) for error in failed))
    rest = f"the others are in {table}" if table else "and no table was written"
    # first what decides the exit code
    named = [str(error) for error in sorted(failed, key=lambda error: not isinstance(error, kind))]
    more = [f"and {len(named) - NAMED} more"] if len(named) > NAMED else []
    if untried:
        more.append(f"{untried} of them were not tried, because {UNREAD} in a row could not be read")
    told = "; ".join([*named[:NAMED], *more])
    return kind(f"{len(failed) + untried} of {total} cases were not predicted, {rest}; {told}")
