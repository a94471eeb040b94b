"""Small quadratic programmes, and a least-squares problem, on a Gram matrix, exact and free of the gradients' scale.

Programmes are reduced to non-negative least squares (Lawson and Hanson 1974, *Solving Least Squares Problems*, chapter
23), an active-set method that ends after finitely many steps. Rows are made unit vectors first, so that neither a
common factor nor a row that is a million times shorter than another costs digits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

Array = npt.NDArray[np.float64]

SMALLEST = 1e-6  # singular value of unit rows, of the largest; the root of float64's rounding is 1e-8
NO_DIRECTION = 1e-9  # length of what is 1 / cosine where there is one; rounding over SMALLEST is 1e-10
STEPS = 100  # of the active set, per column; about one is needed
INFEASIBLE = 1e-14  # squared distance, of 1, under which constraints contradict each other


def unit_rows(gram_TT: Array) -> tuple[Array, Array]:
    """Rows g_t = length_t * u_t of a small Jacobian with this Gram matrix.

    Args:
        gram_TT: symmetric, positive semi-definite but for rounding.

    Returns:
        The columns u_t, (T, T), and the lengths, (T,); a zero row has the length and the column 0.
    """
    lengths_T = np.sqrt(np.clip(np.diagonal(gram_TT), 0, None))
    inverse_T = np.divide(1, lengths_T, out=np.zeros_like(lengths_T), where=lengths_T > 0)
    values_T, vectors_TT = np.linalg.eigh(gram_TT * inverse_T[:, None] * inverse_T)
    return (vectors_TT * np.sqrt(np.clip(values_T, 0, None))).T, lengths_T


def minimum_norm(units: Array, lengths_T: Array) -> Array:
    """w in the simplex with the smallest ||sum_t w_t length_t u_t||.

    The minimiser of ||J' x||^2 + (rho - rho sum x)^2 over x >= 0 is a multiple of it, whatever rho.

    Args:
        units: unit columns, (D, T).
        lengths_T: positive; a zero among them takes the whole weight.
    """
    zero = lengths_T == 0
    if zero.any():
        whole: Array = zero / zero.sum()
        return whole
    rho = lengths_T.min()
    system = np.vstack([units, rho / lengths_T])
    target = np.zeros(len(system))
    target[-1] = 1.0
    found_T = nnls(system, target, maxiter=STEPS * len(lengths_T))[0] / lengths_T
    weights: Array = found_T / found_T.sum()
    return weights


def dual_cone(units: Array, lengths_T: Array, weights_T: Array) -> Array:
    """v >= weights with the smallest ||sum_t v_t g_t||: a projection to where no g_t disagrees.

    Proposition 1 of Quinton and Rey 2024, https://arxiv.org/abs/2406.16232. Torchjd's own projector needs a solver
    under the GPL, and gives up on small gradients.
    """
    start = units @ (weights_T * lengths_T)
    added_T = nnls(units, -start, maxiter=STEPS * len(lengths_T))[0]
    return weights_T + np.divide(added_T, lengths_T, out=np.zeros_like(added_T), where=lengths_T > 0)


def nearest_above(units: Array, point: Array, least: Array) -> Array | None:
    """mu >= 0 such that d = point + sum_t mu_t u_t is the nearest one with u_t . d >= least_t; None if there is none.

    By way of least distance programming, as in Lawson and Hanson, section 23.4.
    """
    wanted = least - units.T @ point
    if (wanted <= 0).all():
        return np.zeros_like(least)
    size = np.abs(wanted).max()
    system = np.vstack([units, wanted / size])
    target = np.zeros(len(system))
    target[-1] = 1.0
    found, _ = nnls(system, target, maxiter=STEPS * len(least))
    left = 1 - system[-1] @ found
    if left <= INFEASIBLE:
        return None
    multipliers: Array = found / left * size
    return multipliers


def equal_cosines(units: Array) -> tuple[Array, Array]:
    """d = sum_t v_t u_t with the same u_t . d for every t, or as nearly as there is; 0 where the rows cancel out.

    Args:
        units: unit columns, (D, T).

    Returns:
        d, (D,), and v, (T,).
    """
    direction = _least_squares(units.T, np.ones(units.shape[1]))
    if np.linalg.norm(direction) <= NO_DIRECTION:
        direction = np.zeros_like(direction)
    return direction, _least_squares(units, direction)


def _least_squares(matrix: Array, target: Array) -> Array:
    return np.asarray(np.linalg.lstsq(matrix, target, rcond=SMALLEST)[0], dtype=np.float64)
