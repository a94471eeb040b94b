"""What medmtl has to withstand: every rule's id, what it is about, and how it must end.

Ids are stable. ``B``: bad inputs. ``F``: faults while it works. ``P``: promises. A test names the rules that it shows
by ``@pytest.mark.covers("B051")``; ``docs/make_reliability.py`` makes ``docs/reliability.md`` of them and the results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.reliability.catalogue_of_faults import FAULTS, PROMISES
from tests.reliability.catalogue_of_files import FILES
from tests.reliability.catalogue_of_settings import SETTINGS

Class = Literal["reject", "warn", "fixed", "holds"]

CLASSES = {"R": "reject", "W": "warn", "F": "fixed", "H": "holds"}


@dataclass(frozen=True)
class Rule:
    """One entry.

    Attributes:
        id: such as ``B051``.
        section: heading under which it stands.
        title: what it is about.
        classes: how it must end; two where it depends on the case.
    """

    id: str
    section: str
    title: str
    classes: tuple[str, ...]


def _rules() -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for part in (FILES, SETTINGS, FAULTS, PROMISES):
        for section, lines in part.items():
            for line in lines.strip().splitlines():
                name, letters, title = line.split(None, 2)
                assert name not in rules, f"{name} stands twice"
                rules[name] = Rule(name, section, title, tuple(CLASSES[letter] for letter in letters))
    return rules


RULES = _rules()

# Why a rule has no test here: what one machine cannot show, and what this version does not have.
NOT_SHOWN: dict[str, str] = {
    "B047": "reading has no time limit yet: what waits for a drive that stalls goes on waiting",
    "F49": "the steps do not depend on any clock; a monotonic clock cannot be set back for a test",
    "F59": "needs two machines; to a process a lost network is a lost process, which F56 and F57 show",
    "F60": "needs a GPU; the tests run without one",
    "F61": "a power cut needs a disk image that is copied while mounted; the order of syncs is shown by F62",
    "F63": "a limit on processes does not bind the tests' user, and control groups are not always permitted",
    "F64": "a disk of another speed cannot be made on one machine; a slow sync during a commit is shown by F09",
    "P08": "not promised: a GPU's kernels add in any order, and the tests run without one",
    "P25": "a rule for contributors, not a property of the program: every bug leaves the test that shows it",
    **{f"B{number}": "DICOM is not in this version" for number in range(173, 198)},
}
