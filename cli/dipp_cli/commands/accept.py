"""`dipp accept`: does a published name work on this machine, shown to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options
from ..setting_flags import add_command


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, accept, ("reference", "rewards", "prompts", "device"), panel="Check")


def accept(
    flags: dict[str, Any],
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME", help="Generator or reference: a name, a folder, a hub id. With --check: files of rows."
        ),
    ],
    *,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Leave out: fetch, load, stock, rewards, step, pull or align. Repeatable."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="N", help="Start no further check after this many minutes; 20 by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the row goes; accepted-NAME.json by default.")
    ] = None,
    record_golden: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rewards' scores as golden numbers too.")
    ] = None,
    assignments: options.Assignments = None,
    check: Annotated[bool, typer.Option("--check", help="Run nothing: check rows that were sent in.")] = False,
    as_json: options.Json = False,
) -> None:
    """Check a published generator or reference on this machine, with its real weights.

    Fetches what is needed, compares an image with plain diffusers, scores with golden numbers and a step with its plan,
    and aligns for a few steps. Prints a table and writes one JSON row to send in. Exits with 1 where a check failed.

    For instance: dipp accept emoji-onestep
    """
    from ..actions.accept import AcceptRequest, check_submissions, run_acceptance

    if check:
        raise typer.Exit(check_submissions(names, as_json))
    request = AcceptRequest(
        names=names,
        reference=flags["reference"],
        reward=flags["rewards"],
        prompts=flags["prompts"],
        skip=skip or [],
        minutes=minutes,
        out=out,
        record_golden=record_golden,
        assignments=assignments or [],
        device=flags["device"] or "auto",
    )
    raise typer.Exit(run_acceptance(request, as_json))
