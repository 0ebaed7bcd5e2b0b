"""`dipp plugins`: what is installed."""

from __future__ import annotations

from typing import Any

import typer

from .. import options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plugins", rich_help_panel="Check")(plugins)


def plugins(as_json: options.Json = False) -> None:
    """List every generator, reference, reward, prompt set and term, and the plugins that are broken."""
    from dipp_toolkit.registry import KINDS, get_registry

    from ..output import print_json

    registry = get_registry()
    broken = [{"plugin": one.name, "reason": one.reason} for one in registry.broken]
    kinds = {kind: [_row(entry) for entry in registry.entries[kind].values()] for kind in KINDS}
    if as_json:
        print_json({**kinds, "broken": broken})
        return
    from rich.table import Table

    from ..tables import show

    for kind, rows in kinds.items():
        if rows:
            table = Table(title=kind, title_justify="left")
            for column in ("name", "summary", "plugin", "missing packages"):
                table.add_column(column)
            for row in rows:
                table.add_row(row["name"], row["summary"], row["plugin"], " ".join(row["missing"]))
            show(table)
    for one in broken:
        print(f"The plugin '{one['plugin']}' is broken and was passed over: {one['reason']}")


def _row(entry: Any) -> dict[str, Any]:
    return {"name": entry.name, "summary": entry.summary, "plugin": entry.plugin, "missing": entry.missing}
