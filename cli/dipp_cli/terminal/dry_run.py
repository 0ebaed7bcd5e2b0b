"""How `--dry-run` tells what would be done."""

from __future__ import annotations

from dipp_toolkit.training.setup.preflight import Preflight

from .output import is_first_process, print_json


def tell(found: Preflight, as_json: bool) -> None:
    """Print a table, or a JSON object; of several processes the first one speaks."""
    if not is_first_process():
        return
    if as_json:
        print_json({**found.rows, "to fetch": list(found.fetched)})
        return
    from rich.table import Table

    from .tables import show

    table = Table(title="Dry run: nothing was loaded, fetched or written", title_justify="left", show_header=False)
    for name, text in found.rows.items():
        table.add_row(name, text)
    if found.fetched:
        table.add_row("to fetch", "\n".join(found.fetched))
    show(table)
