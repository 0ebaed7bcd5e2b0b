"""`dipp plugins new`: a project for a plugin of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ... import options


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("new")(new)


def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="reward, generator, reference, term, metric or prompts.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people will type, such as warmth or my-prompts.")],
    *,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write it; dipp-NAME here by default.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write a project that installs, with a working plugin to change, its tests and a README.

    For instance: dipp plugins new reward warmth
    """
    from ...actions.plugins.new import write

    write(kind, name, out, as_json)
