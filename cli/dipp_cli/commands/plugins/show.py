"""`dipp plugins show`: what is known of one thing that is installed."""

from __future__ import annotations

from typing import Annotated

import typer

from ... import options


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("show")(show)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A registered name, or a plugin's.")],
    *,
    as_json: options.Json = False,
) -> None:
    """Show where something comes from, what it needs, its licence, its options and the settings it recommends.

    Nothing is fetched. For instance: dipp plugins show emoji-preference
    """
    from ...actions.plugins.show import show_named

    show_named(name, as_json)
