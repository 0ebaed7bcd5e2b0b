"""`dipp_toolkit.verify(...)`: terms and training loops against closed forms, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import RequestError
from ..registry import GIVEN, Entry, get_registry
from ..utils.python_words import python_words
from ..utils.tables import as_table
from .runner import run_verify
from .thorough.runner import run_thorough


class VerifyRows(list[Any]):
    """Rows of a verification; `rows.passed` says whether all hold."""

    @property
    def passed(self) -> bool:
        """Whether every row is within its tolerance."""
        return all(row.passed for row in self)

    @property
    def table(self) -> Any:
        """A `pandas.DataFrame`, or without pandas a list of mappings."""
        return as_table([row.as_dict() for row in self])

    def __repr__(self) -> str:
        failed = [row for row in self if not row.passed]
        names = ", ".join(f"{row.case} {row.quantity}" for row in failed[:5])
        return f"<{len(self)} rows: {f'{len(failed)} fail ({names})' if failed else 'all hold'}>"


def verify(
    term: Any = None,
    *,
    loop: Any = None,
    cases: str | Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    reference: str | None = None,
    assistants: Sequence[str] = ("exact", "learned"),
    thorough: bool = False,
    seed: int = 0,
) -> VerifyRows:
    """Hold a term, or a training loop, against optima in closed form, as `dipp verify` does.

        >>> import dipp_toolkit
        >>> dipp_toolkit.verify("integral_kl", cases="distillation", assistants=["exact"])
        <3 rows: all hold>

    Args:
        term: a name, a class with `build(context)`, or a function of a `TermContext`; all terms where None.
        loop: your training loop in its place: a name, or the class or function that
            docs/guide/verify-a-loop.md describes.
        cases: names of cases; all that it says it reaches where None.
        options: of the term.
        reference: a `GaussianReference` of your own, by name.
        assistants: `"exact"`, `"learned"` or both.
        thorough: go on in six dimensions, which takes minutes.
        seed: of every draw.

    Raises:
        RequestError: a name is unknown, or the term cannot be verified; the message says why.
        RunError: the term or the loop failed.
    """
    chosen = [cases] if isinstance(cases, str) else cases
    with python_words():
        if thorough and (loop is not None or term is not None or options or reference is not None):
            raise RequestError("thorough=True has a world of its own: leave out term, options, reference and loop.")
        if loop is not None and (term is not None or options or reference is not None):
            raise RequestError("A loop is verified without term, options and reference: it has its own objective.")
        if options and term is None:
            raise RequestError("Options belong to one term: give it, as in verify('f_divergence', options=...).")
        if thorough:
            return VerifyRows(run_thorough(chosen, seed))
        if loop is not None:
            from .loops import run_loop

            return VerifyRows(run_loop(loop, chosen, seed))
        name = term if term is None or isinstance(term, str) else _called(term)
        lent = [] if name is term else [Entry("term", str(name), getattr(term, "build", term), "", (), GIVEN)]
        with get_registry().lent(lent):
            return VerifyRows(run_verify(name, chosen, assistants, seed, options, reference))


def _called(term: Any) -> str:
    name = getattr(term, "__name__", type(term).__name__)
    return f"own {name}"
