"""`dipp plugins list`: what is installed."""

from __future__ import annotations

from typing import Annotated

import typer

from ... import options
from ...terminal.output import print_line


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("list")(list_)


def list_(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND|WORD]...",
            help="Only entries of this kind, such as rewards, or with this word; everything by default.",
        ),
    ] = None,
    *,
    as_json: options.Json = False,
) -> None:
    """List every generator, reference, reward, prompt set and term, and the plugins that are broken.

    For instance: dipp plugins list rewards
    """
    from dipp_toolkit.registry import get_registry

    from ...actions.plugins.listing import describe, listing
    from ...terminal.output import print_json

    registry = get_registry()
    kinds = listing(registry, words or [])
    if as_json:
        print_json(
            {**kinds, "broken": [{"plugin": broken.name, "reason": broken.reason} for broken in registry.broken]}
        )
        return
    describe(kinds, detailed=bool(words))
    for broken in registry.broken:
        print_line(broken)
