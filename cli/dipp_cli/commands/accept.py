"""`dipp accept`: does a published name work on this machine, shown to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("accept", rich_help_panel="Check")(accept)


def accept(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME", help="Generator or reference: a name, a folder, a hub id. With --check: files of rows."
        ),
    ],
    *,
    reference: options.Reference = None,
    reward: options.Rewards = None,
    prompts: options.Prompts = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Leave out: fetch, load, stock, rewards, step, pull or align. Repeatable."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="N", help="After them no further check begins; 20 if not said.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the row goes; accepted-NAME.json by default.")
    ] = None,
    record_golden: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rewards' scores as golden numbers too.")
    ] = None,
    assignments: options.Assignments = None,
    device: options.Device = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run nothing: say whether rows that were sent in are sound.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Hold a published generator or reference against what is known of it, on this machine, with its real weights.

    Fetches what is needed, compares an image with plain diffusers, scores with golden numbers and a step with its plan,
    and aligns shortly. Prints a table and writes one JSON row that can be sent in. Exits with 1 where a check failed.
    """
    from ..actions.accept import Request, check_submissions, run_acceptance

    if check:
        raise typer.Exit(check_submissions(names, as_json))
    request = Request(
        names, reference, reward, prompts, skip or [], minutes, out, record_golden, assignments or [], device or "auto"
    )
    raise typer.Exit(run_acceptance(request, as_json))
