"""`dipp verify`: compare a term, or your training loop, with closed forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from .. import options
from ..terminal.output import print_line


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify", rich_help_panel="Check")(verify)


def verify(
    term: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only this term: a name, file.py:Term or my_plugin:Term. All terms by default."
        ),
    ] = None,
    case: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this case. Repeatable.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Option of the term, such as distance=squared. Repeatable."),
    ] = None,
    loop: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:STEP",
            help="Your training loop instead: file.py:Loop or my_package.module:Loop. "
            "Cases: distillation, guidance, linear.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Your own Gaussian reference of three numbers in place of the world's: file.py:Name. "
            "The exact assistant alone is tried on it.",
        ),
    ] = None,
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough",
            help="Six correlated dimensions instead: more processes, every weighting, and whole runs of dipp train. "
            "Cases: six-gradient, six-dmd, six-collapse, six-train.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Train on Gaussian toy problems with known optima, and compare. Exits with 1 where a row is out of tolerance.

    With --thorough it goes further out: rotated, narrow laws of six dimensions, under flow matching with a shift, a
    cosine, odd betas and zero terminal SNR, and with the default weighting dmd. It takes minutes.

    With --loop your own training loop is checked instead. Does each step read in training what it reads in
    sampling, is the fake score unbiased, does the gradient match? docs/guide/verify-a-loop.md shows the adapter.

    For instance: dipp verify --term integral_kl
    """
    from dipp_toolkit.errors import RequestError

    if thorough and (loop is not None or term is not None or set_ or reference is not None):
        raise RequestError("--thorough has a world of its own: leave out --term, --set, --reference and --loop.")
    if loop is not None:
        if term is not None or set_ or reference is not None:
            raise RequestError("A loop is verified without --term, --set and --reference: it has its own objective.")
        _verify_loop(loop, case, seed, as_json)
        return
    if set_ and term is None:
        raise RequestError("Options belong to one term: name it with --term.")
    rows = _thorough_rows(case, seed) if thorough else _rows(term, case, set_ or [], reference, seed)
    _show(rows, whole=not thorough, as_json=as_json)


def _thorough_rows(cases: list[str] | None, seed: int) -> Sequence[Any]:
    from dipp_toolkit.verify import run_thorough

    from ..terminal.output import quiet_stdout

    with quiet_stdout():
        return run_thorough(cases or None, seed)


def _rows(
    term: str | None, cases: list[str] | None, assignments: list[str], reference: str | None, seed: int
) -> Sequence[Any]:
    from dipp_toolkit.training.setup.name_checks import check_parts, check_pipeline
    from dipp_toolkit.utils.assignments import parse_assignments

    from ..terminal.output import quiet_stdout

    options = parse_assignments(assignments)
    check_parts("term", [term] if term is not None else [])
    if reference is not None:
        check_pipeline(reference, "reference")
    from dipp_toolkit.verify import run_verify  # imports torch, which a misspelt name does not wait for

    named: dict[str, Any] = {} if reference is None else {"reference": reference}
    with quiet_stdout():
        return run_verify(term=term, cases=cases or None, seed=seed, options=options, **named)


def _show(rows: Sequence[Any], whole: bool, as_json: bool) -> None:
    """Print the rows; of those that are not shown whole, errors alone. Exits with 1 where one fails."""
    from ..terminal.output import print_json

    failed = sum(not row.passed for row in rows)
    if as_json:
        print_json([row.as_dict() for row in rows])
    else:
        from ..terminal.tables import show, verify_table

        show(verify_table(rows, values=whole))
        print_line(f"{failed} of {len(rows)} rows fail." if failed else f"All {len(rows)} rows hold.")
    if failed:
        raise typer.Exit(1)


def _verify_loop(name: str, cases: list[str] | None, seed: int, as_json: bool) -> None:
    from dipp_toolkit.verify.loops import run_loop

    from ..terminal.output import print_json, quiet_stdout

    with quiet_stdout():
        rows = run_loop(name, cases or None, seed)
    failed = [row for row in rows if not row.passed]
    if as_json:
        print_json([row.as_dict() for row in rows])
    else:
        from ..terminal.tables import loop_table, show

        show(loop_table(name, rows))
        for row in failed:
            print_line(f"{row.case}, {row.quantity}: {row.meaning}")
        print_line(f"{len(failed)} of {len(rows)} rows fail." if failed else f"All {len(rows)} rows hold.")
    if failed:
        raise typer.Exit(1)
