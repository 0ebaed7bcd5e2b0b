"""`dipp plugins check`: whether plugins work."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ... import options


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("check")(check)


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Registered names or plugins; by default every plugin that does not come with the toolkit.",
        ),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="The toolkit's own plugins as well; minutes.")] = False,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Options, as in metric.fid.images=FOLDER. Repeatable."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Load what plugins register and try it on small data. Exits with 1 where something fails.

    A reward goes through the checks of dipp reward check, a term is held against its closed form, a generator takes a
    step and is exported, a reference samples, a metric measures random images, prompts are read. Nothing is fetched
    from the hub: what needs files that are not here is skipped.

    For instance: dipp plugins check emoji-preference emoji-heldout
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # libraries read it when they are imported, which is now
    from ...actions.plugins.check import check_installed, describe
    from ...terminal.output import print_json, quiet_stdout

    with quiet_stdout():
        result = check_installed(names or [], everything, assignments or [])
    if as_json:
        print_json(result)
    else:
        describe(result)
    if not result["passed"]:
        raise typer.Exit(1)
