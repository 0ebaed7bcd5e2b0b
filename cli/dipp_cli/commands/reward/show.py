"""`dipp reward show`: what one should know of a reward before using it."""

from __future__ import annotations

from typing import Annotated

import typer

from ... import options

NAME = "[NAME|FILE.py:FUNCTION|URL]"


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("show")(show)


def show(
    name: Annotated[
        str | None, typer.Argument(metavar=NAME, help="The reward, as --reward takes it; a table of all by default.")
    ] = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Show a reward's range, licence, source, gradient, size and blind spots. Nothing is fetched.

    For instance: dipp reward show hps, or dipp reward show hpsv3@isolated. Without a name, the range and the gradient
    of every reward.
    """
    from ...actions.reward.show import show_all, show_one

    if name is None:
        show_all(as_json)
    else:
        show_one(name, as_json)
