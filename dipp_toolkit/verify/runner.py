"""`dipp verify`: which terms are held against which cases, and the rows that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import RequestError
from ..models.loading import load_reference
from ..objective.base import Term
from ..objective.build import term_class
from ..objective.gaussians import Verification, verification_of
from ..registry import get_registry
from ..utils.messages import unknown_name
from .budget_rows import CASE as KL_BUDGET
from .budget_rows import budget_rows
from .cases import CASES, Case, make_generator, make_reference
from .gradients import TOLERANCE, compare_gradients
from .group_rows import CASE as GROUPS
from .group_rows import group_case
from .kl_rows import CASE as KL
from .kl_rows import kl_rows
from .rows import VerifyRow
from .training import PLANS, last_step, train_case
from .world import ExactAssistant, GaussianReference
from .world_terms import Subject, case_terms

NUMBERS = 3
"""Of a sample in the cases."""

MEASURED = "integral_kl"
"""The term they are made with."""


def probe(subject: Subject, reference: GaussianReference) -> Term:
    """The term as the distillation case builds it, to be asked what it says of its verification."""
    return case_terms(
        CASES["distillation"], subject, reference, ExactAssistant(make_generator(), reference.schedule)
    )[0].term  # fmt: skip


def run_case(
    case: Case,
    term: str,
    assistant: str,
    seed: int = 0,
    reference: GaussianReference | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[VerifyRow]:
    """Train for a case and compare mean and covariance with the closed form; with the exact assistant the gradient too.

    Args:
        case: the objective.
        term: the term's name.
        assistant: `"exact"` or `"learned"`.
        seed: of every draw.
        reference: another reference than the world's own, of another schedule or prediction type, say.
        options: of the term.
    """
    reference = reference or make_reference()
    built = probe(Subject(term, options or {}), reference)
    subject = Subject(term, options or {}, verification_of(built).settings)
    expected = case.optimum(built, reference, last_step(verification_of(built), assistant))
    law = reference.guided(case.guidance)
    reached = train_case(case, subject, assistant, seed, reference)
    tolerance = PLANS[assistant].tolerance
    rows = [
        VerifyRow.compare(
            case.name, subject.label, assistant, quantity, getattr(expected, quantity), getattr(reached, quantity),
            tolerance, getattr(law, quantity).norm().item(),
        )
        for quantity in ("mean", "covariance")
    ]  # fmt: skip
    if assistant == "exact":
        for step in verification_of(built).steps:
            goal, gradient = compare_gradients(case, subject, reference, step)
            quantity = f"gradient at update {step}" if step else "gradient"
            rows.append(VerifyRow.compare(case.name, subject.label, assistant, quantity, goal, gradient, TOLERANCE))
    return rows


def group_rows(seed: int = 0) -> list[VerifyRow]:
    """A reward of groups, to where training by it ends, and its gradient.

    Args:
        seed: of every draw; there is none.
    """
    return run_case(group_case(), MEASURED, "exact", seed)


MEASURES: dict[str, Callable[[int], list[VerifyRow]]] = {KL: kl_rows, KL_BUDGET: budget_rows, GROUPS: group_rows}
"""Rows of one term alone, by what people type as a case; each takes the seed."""


def _subjects(term: str | None, options: Mapping[str, Any] | None, reference: GaussianReference) -> Iterator[Subject]:
    """The terms to verify: the one that is named, or all of the toolkit's, each with the options it wants tried."""
    names = [term] if term else [entry.name for entry in get_registry().entries["term"].values()]
    for name in names:
        if options:
            yield Subject(name, dict(options))
            continue
        # A class says it without being made, which options alone may make possible.
        said = term_class(name)
        by_class = isinstance(getattr(said, "verification", None), Verification)
        verification = verification_of(said if by_class else probe(Subject(name, {}), reference))
        for variant in verification.variants:
            yield Subject(name, variant)


def _named_reference(name: str) -> GaussianReference:
    """Somebody's own reference.

    Raises:
        RequestError: it is not Gaussian, or not of as many numbers as the cases' rewards.
    """
    reference = load_reference(name)
    if not isinstance(reference, GaussianReference) or len(reference.given.mean) != NUMBERS:
        raise RequestError(
            f"The reference '{name}' is no dipp_toolkit.verify.GaussianReference of {NUMBERS} numbers: no other has "
            "optima that are known here. To train with any reference, name it in dipp train."
        )
    return reference


def _cases_of(verification: Verification, names: Sequence[str] | None, subject: Subject) -> list[Case]:
    possible = verification.cases or tuple(CASES)
    if names is None:
        return [CASES[name] for name in possible]
    return [CASES[name] for name in names if name in possible]


def run_verify(
    term: str | None = None,
    cases: Sequence[str] | None = None,
    assistants: Sequence[str] = ("exact", "learned"),
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    reference: str | None = None,
) -> list[VerifyRow]:
    """Hold terms against every optimum known in closed form.

    Args:
        term: by name, `file.py:factory` or `module:factory`; every registered one unless said.
        cases: names of `CASES` and `MEASURES`; all those a term says it reaches, unless said.
        assistants: `"exact"`, `"learned"` or both.
        seed: of every draw.
        options: of the term, in place of those it wants tried.
        reference: a `GaussianReference` of three numbers in place of the world's own, by `file.py:Name` or
            `module:Name`; the exact assistant alone is tried on it.

    Returns:
        For each term, case and assistant a row for the mean and one for the covariance; with the exact assistant one
        for the gradient as well, and the rows of `MEASURES`.

    Raises:
        RequestError: a name is unknown, or the term cannot be verified; the message says why.
        RunError: the term returned something that is not a finite gradient.
    """
    for name in cases or ():
        if name not in (*CASES, *MEASURES):
            raise RequestError(unknown_name("verification case", name, (*CASES, *MEASURES)))
    for assistant in assistants:
        if assistant not in PLANS:
            raise RequestError(unknown_name("assistant", assistant, PLANS))
    world, rows = make_reference() if reference is None else _named_reference(reference), []
    if reference is not None:
        assistants = [assistant for assistant in assistants if assistant == "exact"]
    for subject in _subjects(term, options, world):
        for case in _cases_of(verification_of(probe(subject, world)), cases, subject):
            for assistant in assistants:
                rows += run_case(case, subject.term, assistant, seed, world, subject.options)
    if term in (None, MEASURED) and not options and "exact" in assistants and reference is None:
        for name, measure in MEASURES.items():
            rows += measure(seed) if cases is None or name in cases else []
    if not rows:
        raise RequestError(
            f"The term '{term}' has no closed form on the case{'s' if len(cases or ()) > 1 else ''} "
            f"{', '.join(cases or ())}; leave --case out to see those it has."
        )
    return rows
