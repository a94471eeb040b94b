"""What an installation brings: declared, without caps, at safe versions, and free to use in a hospital or a product."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

import medmtl

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {
    name: [Requirement(text) for text in group if not text.startswith("medmtl[")]
    for name, group in PROJECT["optional-dependencies"].items()
}
DECLARED = RUNTIME + [requirement for group in EXTRAS.values() for requirement in group]

# releases before these have published advisories that touch what medmtl does with them
SAFE = {"jinja2": "3.1.6", "monai": "1.6.1", "pydicom": "3.0.2", "torch": "2.10"}
# GPL, or not for commercial use
UNUSABLE = {
    "cvxopt", "ecos", "pyqt5", "pyqt6", "python-igraph", "quadprog", "scikit-survival", "scikit-umfpack", "unidecode",
}  # fmt: skip


def pins() -> dict[NormalizedName, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line) for line in lines]
    assert all(found), f"not NAME==VERSION: {[line for line, ok in zip(lines, found, strict=True) if not ok]}"
    pinned = {canonicalize_name(match[1]): Version(match[2]) for match in found if match}
    assert len(pinned) == len(lines)
    return pinned


# its interface changed in most minor releases, one file of medmtl imports it, and a fix of it is a fix of that file
CAPPED = {"torchjd": "<0.19"}


def floor(requirement: Requirement) -> Version:
    cap = CAPPED.get(requirement.name)
    (specifier,) = (each for each in requirement.specifier if str(each) != cap)
    assert specifier.operator == ">=", f"{requirement} is not a plain floor"
    return Version(specifier.version)


def licences(name: str) -> Iterator[str]:
    """What a distribution says of its licence, in the two fields that have a fixed vocabulary."""
    found = metadata(name)
    yield from found.get_all("License-Expression") or []
    yield from (text for text in found.get_all("Classifier") or [] if text.startswith("License ::"))


@pytest.mark.parametrize("requirement", DECLARED, ids=str)
def test_a_requirement_is_a_floor_that_the_pinned_version_satisfies(requirement: Requirement) -> None:
    assert pins()[canonicalize_name(requirement.name)] >= floor(requirement)
    assert requirement.url is None


@pytest.mark.parametrize("name", sorted(SAFE))
@pytest.mark.covers("P24")
def test_no_floor_admits_a_release_with_an_advisory(name: str) -> None:
    floors = [floor(requirement) for requirement in DECLARED if canonicalize_name(requirement.name) == name]
    assert floors
    assert min(floors) >= Version(SAFE[name])


def test_nothing_installed_is_under_a_licence_that_binds_its_user() -> None:
    names = pins().keys() | {canonicalize_name(requirement.name) for requirement in DECLARED}
    assert names & UNUSABLE == set()
    bound = {}
    for name in names:
        try:
            bound[name] = [
                text for text in licences(name) if re.search(r"(?<!L)GPL|General Public|NonCommercial", text)
            ]
        except PackageNotFoundError:  # pinned for another platform or Python
            continue
    assert {name: texts for name, texts in bound.items() if texts} == {}


def test_what_the_package_imports_is_what_it_declares() -> None:
    imported: set[str] = set()
    for path in (ROOT / "medmtl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    owners = packages_distributions()
    used = {canonicalize_name(owners[name][0]) for name in imported - sys.stdlib_module_names - {"medmtl"}}
    optional = {canonicalize_name(requirement.name) for requirement in EXTRAS["dicom"]}
    assert used - optional == {canonicalize_name(requirement.name) for requirement in RUNTIME}


def test_the_citation_names_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["title"].partition(":")[0], cited["version"]) == ("medmtl", medmtl.__version__)
