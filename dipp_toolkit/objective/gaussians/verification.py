"""How `dipp verify` holds a term against its closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from .problem import GaussianProblem


@dataclass(frozen=True)
class Verification:
    """What a term says of its own verification, as the class attribute `verification`.

    Attributes:
        cases: the cases whose optimum it reaches; all of them where empty.
        variants: options to verify with, one training each; the defaults alone unless said.
        settings: options for every variant that say how it learns and not what.
        nodes: nodes a dimension that enumerate noises: 2 where the gradient on a sample is affine in the noises.
        patience: times as many updates as usual, for an objective that is flat around its optimum.
        exact: fields of the term to replace where the assistant is exact, each made from the world.
    """

    cases: tuple[str, ...] = ()
    variants: tuple[Mapping[str, Any], ...] = field(default_factory=lambda: ({},))
    settings: Mapping[str, Any] = field(default_factory=dict)
    nodes: int = 2
    patience: int = 1
    exact: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


@runtime_checkable
class ClosedForm(Protocol):
    """A term that knows its objective on Gaussians. One that does not is held against the integral KL's."""

    def closed_form(self, problem: GaussianProblem) -> Float[Tensor, ""]:
        """The objective, differentiable in `problem.law`; rewards count only where the term takes them itself."""
