"""`dipp verify`: hold a term against closed forms."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import options
from ..output import print_line


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify", rich_help_panel="Check")(verify)


def verify(
    term: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only this term: a name, file.py:Term or my_plugin:Term. All where not named."
        ),
    ] = None,
    case: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this case. Repeatable.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Option of the term, distance=squared say. Repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Train on Gaussian worlds whose optima are known, and compare. Exits with 1 where a row is out of tolerance."""
    from dipp_toolkit.errors import RequestError
    from dipp_toolkit.known_names import check_parts
    from dipp_toolkit.setting_texts import parse_assignments

    from ..output import print_json, quiet_stdout

    if set_ and term is None:
        raise RequestError("Options belong to one term: name it with --term.")
    options = parse_assignments(set_ or [])
    check_parts("term", [term] if term is not None else [])
    from dipp_toolkit.verify import run_verify  # imports torch, which a misspelt name does not wait for

    with quiet_stdout():
        rows = run_verify(term=term, cases=case or None, seed=seed, options=options)
    failed = sum(not row.passed for row in rows)
    if as_json:
        print_json([row.as_dict() for row in rows])
    else:
        from ..tables import show, verify_table

        show(verify_table(rows))
        print_line(f"{failed} of {len(rows)} rows fail." if failed else f"All {len(rows)} rows hold.")
    if failed:
        raise typer.Exit(1)
