"""`dipp recipes`: published trainings as settings."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("recipes", rich_help_panel="Train")(recipes)


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Print this recipe's YAML file; a table of all by default."),
    ] = None,
    *,
    as_json: options.Json = False,
) -> None:
    """List the recipes, published trainings as settings, or print one as a file to change.

    For instance: dipp recipes dipp-sdxl > mine.yaml, and then dipp train --config mine.yaml. The file says of every
    value where it comes from, or that it is ours.
    """
    from ..actions.recipes import print_all, print_one

    if name is None:
        print_all(as_json)
    else:
        print_one(name, as_json)
