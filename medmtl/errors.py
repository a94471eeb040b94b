"""Every error that medmtl raises on purpose, in one place.

::

    MedmtlError
    ├── InputError        2  bad input, configuration or arguments
    │   ├── ConfigError      a key of the configuration
    │   ├── CohortError      rows or files of the cohort; carries its findings
    │   └── UnknownTaskError a name that no task has; a KeyError too
    ├── MachineError      3  disk, memory, device or an extra is missing
    ├── NumericError      4  NaN or Inf where a finite number must be
    ├── InterruptedRun    5  stopped on request after a commit; resumable
    ├── BusyRunError      6  another process holds the run folder, or that of the results
    ├── ArtefactError     7  a checkpoint, cache entry or model was refused
    └── WorkError         8  an outside cause: I/O, a lost worker, the user's own code

The number is the exit code of the command line. A message says in one sentence what is wrong, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from medmtl.data.finding import Finding


# commands, and calls of the library, that the contract has and this version has not
LATER = ("compare", "export", "convert", "view", "runs")


class MedmtlError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: one sentence.
        code: id of the rule in the catalogue of ``docs/reliability.md``, such as ``B148``; put before the message.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(f"[{code}] {message}" if code else message)
        self.code = code


def out_of_memory(error: BaseException) -> str | None:
    """What was asked for, if ``error`` says that memory ran out: Python's, numpy's, or torch's on a CPU or GPU.

    torch is not imported for it: its errors are known by name and words.
    """
    words = " ".join(str(error).split())
    torchs = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in words
    if not isinstance(error, MemoryError) and not (isinstance(error, RuntimeError) and torchs):
        return None
    _, _, asked = words.rpartition("you tried to allocate ")
    if torchs and asked != words:
        return f"out of memory (asked for {asked.split(' Error code')[0].rstrip('.')})"
    return f"out of memory ({words})" if words else "out of memory"


class InputError(MedmtlError):
    """Something the user gave is wrong."""

    exit_code = 2


def not_in_this_version(what: str) -> InputError:
    """The refusal of something that the contract has and this version has not."""
    return InputError(f"{what} is not in this version of medmtl")


class ConfigError(InputError):
    """A key of the configuration is wrong.

    Args:
        message: one sentence.
        key: dotted key such as ``training.lr``, where known.
        line: line of the YAML file (1-based), where known.
        code: as in :class:`MedmtlError`.

    Attributes:
        sentence: the message without code, line and key.
        faults: every fault of the file that was found, each with its own code, key and line; usually this one.
    """

    def __init__(
        self, message: str, *, key: str | None = None, line: int | None = None, code: str | None = None
    ) -> None:
        place = " ".join(part for part in (f"line {line}:" if line else "", f"{key}:" if key else "") if part)
        super().__init__(f"{place} {message}" if place else message, code=code)
        self.sentence = message
        self.key = key
        self.line = line
        self._others: tuple[ConfigError, ...] = ()

    @property
    def faults(self) -> tuple[ConfigError, ...]:
        """Every fault of the file that was found."""
        return self._others or (self,)

    @staticmethod
    def of(faults: Sequence[ConfigError]) -> ConfigError:
        """One error for one or more faults; of several it has no code, key and line of its own."""
        if len(faults) == 1:
            return faults[0]
        error = ConfigError("; ".join(map(str, faults)))
        error._others = tuple(faults)
        return error


class CohortError(InputError):
    """Rows or files of the cohort were refused.

    Args:
        message: one sentence.
        findings: everything that was found, also warnings and fixes.
    """

    def __init__(self, message: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class UnknownTaskError(InputError, KeyError):
    """A name that no task has, where one was asked for as the key of a mapping."""

    # KeyError would show its message in quotation marks
    __str__ = Exception.__str__


class MachineError(MedmtlError):
    """This machine cannot do it as configured."""

    exit_code = 3


class NumericError(MedmtlError):
    """A number that must be finite was not."""

    exit_code = 4


class InterruptedRun(MedmtlError):
    """The run was stopped on request and can be resumed."""

    exit_code = 5


class BusyRunError(MedmtlError):
    """Another process is using the run folder, or writes into the same folder of results."""

    exit_code = 6


class ArtefactError(MedmtlError):
    """A stored artefact is damaged, foreign or unsafe."""

    exit_code = 7


class WorkError(MedmtlError):
    """Work failed for a cause outside medmtl."""

    exit_code = 8
