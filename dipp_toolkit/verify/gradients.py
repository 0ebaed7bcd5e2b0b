r"""The gradient itself: what the engine puts on the generator's parameters, against autograd of the closed form.

With $x_0 = A z + b$ and $L(b, S)$, $S = A A^T$: $\partial L/\partial b$ and
$\partial L/\partial A = 2 (\partial L/\partial S) A$.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..objective.base import Term
from ..objective.gaussians import Gaussian, MapClosedForm, verification_of
from .cases import Case, gradient, map_gradient
from .quadrature import Weighed
from .training import PROMPT, exact_engine, exact_rows
from .world import AffineGenerator, AffineMap, GaussianReference
from .world_terms import Subject

TOLERANCE = 1e-4
"""Largest relative error of a gradient."""

FINE_NODES = 6
"""Nodes a dimension for terms that two nodes are not exact for."""


def trial_generator(target: Gaussian) -> AffineGenerator:
    """A generator beside its target and at no special place: moved, with an A that is not symmetric."""
    matrix = torch.tensor([[0.9, 0.1, 0.0], [0.25, 0.8, -0.1], [0.1, -0.3, 0.7]], dtype=torch.float64)
    return AffineGenerator(AffineMap(matrix, target.mean + torch.tensor([-0.2, 0.3, 0.1], dtype=torch.float64)))


def followed_gradient(generator: AffineGenerator, still: torch.optim.Optimizer, update: Callable[[], object]) -> Tensor:
    """What an engine puts on `(b, A)`, `(1 + d, d)`.

    Args:
        generator: whose parameters they are.
        still: the engine's optimiser over them, of rate 0.
        update: makes the engine's one update.
    """
    followed: list[Tensor] = []

    def note(*_: object) -> None:  # the engine lets go of gradients once they have been followed
        bias, matrix = generator.network.bias.grad, generator.network.matrix.grad
        assert bias is not None and matrix is not None
        followed.append(torch.cat([bias[None], matrix]).clone())

    hook = still.register_step_pre_hook(note)
    update()
    hook.remove()
    return followed[0]


def compare_gradients(
    case: Case, subject: Subject, reference: GaussianReference, step: int = 0
) -> tuple[Tensor, Tensor]:
    """The gradient in `(b, A)` as the closed form has it, and as the engine computes it, each `(1 + d, d)`.

    Args:
        case: the objective.
        subject: the term under test.
        reference: the world's reference.
        step: number of the generator update.
    """
    generator = trial_generator(reference.guided(case.guidance))
    still = torch.optim.SGD(generator.network.parameters(), lr=0.0)
    engine = exact_engine(case, subject, generator, reference, still)
    term = _plain(engine.terms[0].term)
    if verification_of(term).nodes > 2:
        engine = exact_engine(case, subject, generator, reference, still, FINE_NODES)
    matrix, bias = generator.network.matrix.detach(), generator.network.bias.detach()
    if isinstance(term, MapClosedForm):
        by_bias, by_matrix = map_gradient(case.objective_of_map(term, reference, step), matrix, bias)
    else:
        by_bias, by_covariance = gradient(case.objective(term, reference, step), generator.law)
        by_matrix = 2 * by_covariance @ matrix
    expected = torch.cat([by_bias[None], by_matrix])
    condition = reference.encode([PROMPT] * exact_rows(engine))
    followed = followed_gradient(generator, still, lambda: engine.update_generator(condition, step))
    return expected, followed


def _plain(term: Term) -> Term:
    return term.term if isinstance(term, Weighed) else term
