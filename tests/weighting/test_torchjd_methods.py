"""Methods that torchjd has, through the adapter or not: by hand for two tasks, and as it gives them for all rows."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchjd.aggregation import IMTLG, AlignedMTL, ConFIG, GradDrop, PCGrad

import medmtl
from medmtl.weighting import torchjd_methods
from medmtl.weighting.quadratic import Array, dual_cone, unit_rows
from tests.weighting.jacobians import jacobians, seeded
from tests.weighting.test_gradient_kinds import make

PLAIN = ["two", "agreeing", "random", "opposed"]


def gram(rows: Array) -> Array:
    return rows @ rows.T


def weights(kind: str, gram_TT: Array) -> Array:
    found: Array = make(kind, tuple(str(t) for t in range(len(gram_TT)))).weigh(gram_TT, {})  # type: ignore[operator]
    return found


def mean_weights(kind: str, gram_TT: Array) -> Array:
    """As long as in the paper, which has a mean where the kind has a sum."""
    return weights(kind, gram_TT) / len(gram_TT)


config = partial(weights, "config")
imtl_g, aligned, upgrad, dualproj = (
    partial(mean_weights, kind) for kind in ("imtl_g", "aligned", "upgrad", "dualproj")
)

METHODS: list[tuple[Callable[[Array], Array], Callable[[], torch.nn.Module]]] = [
    (torchjd_methods.pcgrad, PCGrad),
    (imtl_g, IMTLG),
    (aligned, AlignedMTL),
    (config, ConFIG),
]


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(("own", "theirs"), METHODS, ids=["pcgrad", "imtl_g", "aligned", "config"])
def test_the_aggregate_is_that_of_the_whole_jacobian(
    own: Callable[[Array], Array], theirs: Callable[[], torch.nn.Module], name: str
) -> None:
    rows = jacobians()[name]
    torch.manual_seed(3)
    found = own(gram(rows)) @ rows
    torch.manual_seed(3)
    np.testing.assert_allclose(found, theirs()(torch.from_numpy(rows)).numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", [*PLAIN, "rank two", "same twice", "sixteen in four"])
def test_the_conflict_free_direction_has_one_cosine_to_every_row_where_there_is_such_a_direction(name: str) -> None:
    rows = jacobians()[name]
    direction = config(gram(rows)) @ rows
    theirs = ConFIG()(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(direction, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("second", [-1.0, -3.0, -0.3])
@pytest.mark.parametrize("seed", range(3))
def test_opposite_rows_have_no_conflict_free_direction(seed: int, second: float) -> None:
    row = np.random.default_rng(seed).normal(size=6)
    assert not config(gram(np.stack([row, second * row]))).any()


def test_pcgrad_of_two_by_hand() -> None:
    rows = np.array([[1.0, 0], [-1, 1]])
    # g1 - (g1 . g2 / |g2|^2) g2 = g1 + g2 / 2 and g2 + g1
    np.testing.assert_allclose(torchjd_methods.pcgrad(gram(rows)), [2, 1.5])
    agreeing = np.array([[1.0, 0], [1, 1]])
    np.testing.assert_allclose(torchjd_methods.pcgrad(gram(agreeing)), [1, 1])


def test_imtl_g_of_two_by_hand() -> None:
    rows = np.array([[3.0, 0], [0, 1]])
    # (1/4, 3/4): both unit vectors see 3/4 of the direction
    np.testing.assert_allclose(imtl_g(gram(rows)), [0.25, 0.75])


def test_aligned_of_two_by_hand() -> None:
    # at right angles: both are brought to the length of the shorter one, and averaged
    np.testing.assert_allclose(aligned(gram(np.diag([3.0, 1]))), [1 / 6, 1 / 2])


@pytest.mark.parametrize("method", [imtl_g, aligned])
def test_the_direction_does_not_jump_as_a_row_gets_shorter(method: Callable[[Array], Array]) -> None:
    rows = np.array([[1.0, 0.2, 0], [0.3, 1, 0.1]])
    found = []
    for length in (1e-5, 1e-8, 1e-11, 1e-14):
        shorter = rows * np.array([[1.0], [length]])
        found.append(method(gram(shorter)) @ shorter / length)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-4)


@pytest.mark.parametrize("second", [-1.0, -3.0, -0.3])
@pytest.mark.parametrize("seed", range(3))
def test_opposite_rows_are_not_amplified(seed: int, second: float) -> None:
    row = np.random.default_rng(seed).normal(size=6)
    rows = np.stack([row, second * row])
    assert not imtl_g(gram(rows)).any()
    np.testing.assert_allclose(aligned(gram(rows)) @ rows, (1 + second) / 2 * row, atol=1e-7)


def test_rows_that_depend_on_each_other_are_aligned_within_what_they_span() -> None:
    rows = jacobians()["same twice"]
    np.testing.assert_allclose(aligned(gram(rows)) @ rows, AlignedMTL()(torch.from_numpy(rows)).numpy(), rtol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 1e-12])
def test_trap_4_upgrad_and_dualproj_of_two_by_hand(factor: float) -> None:
    """torchjd's own projector makes small gradients a plain mean."""
    rows = np.sqrt(factor) * np.array([[1.0, 0], [-1, 1]])
    # halves of the rows, each projected to the plane of the other, as PCGrad does for two
    np.testing.assert_allclose(upgrad(gram(rows)), [1, 0.75], rtol=1e-9)
    # the mean (0, 1/2) disagrees with neither
    np.testing.assert_allclose(dualproj(gram(rows)), [0.5, 0.5], rtol=1e-9)
    rows = np.sqrt(factor) * np.array([[1.0, 0], [-3, 1]])
    # (-1, 1/2) disagrees with the first, which is added until it does not: (0, 1/2)
    np.testing.assert_allclose(dualproj(gram(rows)), [1.5, 0.5], rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_upgrad_is_the_sum_of_the_projected_rows_and_harms_no_task(seed: int) -> None:
    rows = seeded(seed, 4)
    units, lengths = unit_rows(gram(rows))
    expected = sum(dual_cone(units, lengths, row) for row in np.eye(4) / 4)
    found = upgrad(gram(rows))
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert (rows @ (found @ rows) >= -1e-9 * np.linalg.norm(rows, axis=1) * np.linalg.norm(rows)).all()


@pytest.mark.parametrize("name", [*PLAIN, "badly scaled", "tiny", "rank two"])
def test_no_method_gives_weights_that_are_not_finite(name: str) -> None:
    for method in (torchjd_methods.pcgrad, imtl_g, aligned, config, upgrad, dualproj):
        assert np.isfinite(method(gram(jacobians()[name]))).all()


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_graddrop_is_that_of_torchjd_and_keeps_one_side(leak: float) -> None:
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    found = torchjd_methods.graddrop(rows, leak)
    torch.manual_seed(1)
    torch.testing.assert_close(found, GradDrop(leak=torch.full((3,), leak))(rows))
    if leak == 0:
        positive, negative = rows.clamp(min=0).sum(dim=0), rows.clamp(max=0).sum(dim=0)
        assert (torch.isclose(found, positive) | torch.isclose(found, negative)).all()


def test_only_the_adapter_imports_torchjd() -> None:
    found = set()
    for path in Path(medmtl.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {path.name for name in names if name.partition(".")[0] == "torchjd"}
    assert found == {"torchjd_methods.py"}
