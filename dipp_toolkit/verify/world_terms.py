"""The objective of a case as a run would build it, its chance taken out where the assistant is exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, cast

import torch

from ..config import make_config
from ..errors import RequestError
from ..objective.base import Term, uses_assistant
from ..objective.build import build_terms, term_class
from ..objective.evaluate import WeightedTerm
from ..objective.gaussians import verification_of
from ..protocols import Assistant
from .cases import TIME_RANGE, Case
from .quadrature import Enumeration, Weighed
from .world import GaussianReference


@dataclass(frozen=True)
class Subject:
    """What is verified: a term and its options.

    Attributes:
        term: by name, `file.py:factory` or `module:factory`.
        options: as `--set term.NAME.OPTION` would give them.
        settings: options that say how the term learns and not what.
    """

    term: str
    options: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name, with the options in brackets where there are any."""
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.term}[{options}]" if options else self.term


BRAKE = "integral_kl"
"""The divergence beside a term that has none of its own."""


def case_terms(
    case: Case,
    subject: Subject,
    reference: GaussianReference,
    assistant: Assistant,
    seed: int = 0,
    others: Mapping[str, Any] | None = None,
) -> list[WeightedTerm]:
    """The objective of a case, built by the code that builds a run's: the term first, the divergence that it is
    verified beside, then the case's reward.

    Args:
        case: the objective.
        subject: the term under test.
        reference: the world's reference.
        assistant: sees the generator's samples.
        seed: of what a term draws for itself.
        others: settings in place of the case's.
    """
    beside = verification_of(term_class(subject.term)).beside_integral_kl
    config = make_config(
        {
            "term": f"{subject.term},{BRAKE}" if beside else subject.term,
            "term_options": {subject.term: {**subject.settings, **subject.options}},
            "guidance": case.guidance,
            "weighting": case.weighting,
            "time_range": TIME_RANGE,
            "rewards": {} if case.reward is None else {case.name: 1.0},
            "reward_scale": case.reward_scale,
            "seed": seed,
            **(others or {}),
        }
    )
    rewards = {} if case.reward is None else {case.name: case.reward}
    return build_terms(config, reference, assistant, rewards, torch.device("cpu"))


def enumerated(term: Term, enumeration: Enumeration, subject: Subject, **world: Any) -> Term:
    """The same term without chance: times and noises enumerated, and what it says in `verification.exact` replaced.

    Raises:
        RequestError: the term looks at the assistant and is not a dataclass with a field `sampling`.
    """
    names: set[str] = {field.name for field in fields(term) if field.init} if is_dataclass(term) else set()
    if "sampling" not in names and uses_assistant(term):
        raise RequestError(
            f"The term '{subject.term}' cannot be verified with the exact assistant: that enumerates times and noises, "
            "so make the term a dataclass with a field `sampling` (dipp_toolkit.diffusion.times.Sampling)."
        )
    changes = {name: make(**world) for name, make in verification_of(term).exact.items()}
    if "sampling" in names:
        changes["sampling"] = enumeration
    return cast(Term, replace(cast(Any, term), **changes)) if changes else term


def without_chance(
    terms: list[WeightedTerm], enumeration: Enumeration, subject: Subject, **world: Any
) -> list[WeightedTerm]:
    """Every term of an objective weighed by the rows of the enumeration, which take the place of what it draws."""
    return [
        replace(weighted, term=Weighed(enumerated(weighted.term, enumeration, subject, **world), enumeration))
        for weighted in terms
    ]
