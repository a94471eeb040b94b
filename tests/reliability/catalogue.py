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
    "B047": "a network drive that stalls cannot be made on one machine without a file system in user space",
    "B102": "an ignore value in label files is not in this version: every undeclared value is refused as B100",
    "B111": "labels of which only some classes are drawn are not in this version",
    "B123": "survival targets are not in this version",
    "B124": "survival targets are not in this version",
    "B125": "survival targets are not in this version",
    "B126": "survival targets are not in this version",
    "B127": "survival targets are not in this version",
    "B128": "survival targets are not in this version",
    "B129": "clinical covariates are not in this version",
    "B162": "covered in part by the tests of prediction; the distance measure is not in this version",
    "F56": "training on several processes is not in this version",
    "F57": "training on several processes is not in this version",
    "F58": "training on several processes is not in this version",
    "F59": "training on several processes is not in this version",
    "F60": "needs a GPU; the tests run without one",
    "P08": "needs a GPU; the tests run without one",
    "P25": "a rule for contributors, not a property of the program: every bug leaves the test that shows it",
    **{f"B{number}": "DICOM is not in this version" for number in range(173, 198)},
}

# Rules whose test is still to be written or marked.
_PENDING = """
B001 B002 B003 B004 B005 B006 B007 B009 B010 B011 B012 B013 B014 B015 B018 B021 B022 B023 B024 B025 B026 B027
B028 B029 B030 B031 B033 B037 B038 B039 B040 B042 B043 B044 B045 B046 B048 B049 B054 B056 B059 B063 B073 B081
B084 B085 B086 B087 B088 B089 B090 B092 B093 B094 B098 B101 B104 B105 B106 B107 B108 B109 B110 B113 B115 B116
B117 B118 B120 B122 B130 B131 B132 B133 B134 B137 B138 B139 B140 B141 B142 B143 B144 B145 B146 B147 B148 B151
B152 B153 B154 B155 B156 B157 B158 B159 B160 B161 B163 B164 B165 B166 B167 B170 B171 F01 F02 F03 F04 F05 F06
F07 F08 F09 F10 F11 F12 F13 F14 F15 F16 F17 F18 F19 F20 F21 F22 F23 F24 F25 F26 F27 F28 F29 F30 F31 F32 F33
F34 F35 F36 F37 F38 F39 F40 F41 F42 F43 F44 F45 F46 F47 F48 F49 F50 F51 F52 F53 F54 F55 F61 F62 F63 F64 F65
F66 F67 F68 P02 P07 P09 P10 P11 P12 P13 P14 P15 P16 P17 P18 P20 P23 P24
"""
PENDING = frozenset(_PENDING.split())
