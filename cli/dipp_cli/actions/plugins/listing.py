"""What `dipp plugins` lists, and how it fits the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dipp_toolkit.errors import RequestError
from dipp_toolkit.registry import KINDS, Entry, Registry
from dipp_toolkit.utils.messages import nearest, shown

SHOWN_FIRST = ("generator", "reference", "reward", "prompts", "term", "metric")
"""Kinds that somebody types the names of; the others stand below them."""

COMMANDS = ("check", "list", "new", "show")
"""What may stand after `dipp plugins` and is no word to look for."""

SUMMARY = 24
"""Columns that a summary has at least; in a narrower terminal the plugin stands under it."""

BORDERS = 3
"""Columns that a cell's border and padding take."""

Row = Mapping[str, Any]


def listing(registry: Registry, words: Sequence[str]) -> dict[str, list[Row]]:
    """Rows by kind, `{"name", "summary", "plugin", "missing", "install"}` each.

    What has published weights also has `{"weights", "licence", "terms"}`: their page, the licence's name, and all that
    is known of it.

    Args:
        registry: the installed plugins.
        words: a kind each, in the singular or the plural, or what has to be in a row, whatever its case.

    Raises:
        RequestError: nothing is left.
    """
    kinds = {KINDS_BY_WORD[word.lower()] for word in words if word.lower() in KINDS_BY_WORD}
    texts = [word.lower() for word in words if word.lower() not in KINDS_BY_WORD]
    rows = {
        kind: [
            _row(entry)
            for entry in registry.entries[kind].values()
            if (not kinds or kind in kinds) and all(_has(entry, text) for text in texts)
        ]
        for kind in KINDS
    }
    if words and not any(rows.values()):
        names = [*KINDS_BY_WORD, *COMMANDS, *(entry.name for entry in registry), *(entry.plugin for entry in registry)]
        guess = nearest(texts[0], names) if texts else None
        raise RequestError(
            f"Nothing is installed that matches '{shown(' '.join(words))}'."
            + (f" Did you mean '{guess}'?" if guess else f" The kinds are: {', '.join(KINDS)}.")
        )
    return rows


def _words_of(kind: str) -> tuple[str, ...]:
    return (kind, "prompt", "prompt-sets") if kind == "prompts" else (kind, f"{kind}s")


KINDS_BY_WORD = {word: kind for kind in KINDS for word in _words_of(kind)}


def _has(entry: Entry, text: str) -> bool:
    origin = () if entry.origin is None else (entry.origin.hub, entry.origin.licence.label)
    return any(text in field.lower() for field in (entry.name, entry.summary, entry.plugin, *origin))


def _row(entry: Entry) -> Row:
    return {
        "name": entry.name, "summary": entry.summary, "plugin": entry.plugin, "missing": entry.missing,
        "install": entry.how_to_install, **_terms(entry),
    }  # fmt: skip


def _terms(entry: Entry) -> dict[str, str]:
    """Where weights come from and on which terms; nothing of what has none."""
    if entry.origin is None:
        return {}
    licence = entry.origin.licence
    return {"weights": entry.origin.page, "licence": licence.label, "terms": licence.text}


def rank(kind: str) -> int:
    """Where a kind stands among others."""
    return SHOWN_FIRST.index(kind) if kind in SHOWN_FIRST else len(SHOWN_FIRST)


def describe(kinds: Mapping[str, Sequence[Row]], detailed: bool = False) -> None:
    """Print a table for each kind that has a row. No word is broken while there is room, and nothing is cut off.

    Args:
        kinds: rows by kind.
        detailed: whether the pages and terms of published weights are printed as well.
    """
    from ...terminal.output import print_line
    from ...terminal.tables import console, show

    width = console().width
    for kind in sorted(kinds, key=rank):
        if kinds[kind]:
            show(_table(kind, kinds[kind], width))
    if detailed:
        published = [row for rows in kinds.values() for row in rows if "terms" in row]
        for line in dict.fromkeys(f"{row['name']}: {_place_and_terms(row)}" for row in published):
            print_line(line)
    lacking: dict[str, list[str]] = {}
    for row in (row for rows in kinds.values() for row in rows if row["install"]):
        lacking.setdefault(row["install"], []).append(row["name"])
    for command, names in lacking.items():
        print_line(f"For what is missing of {', '.join(names)}: {command}")


def _place_and_terms(row: Row) -> str:
    page = f"{row['weights']}, " if row["weights"] else ""
    return f"{page}licence {row['terms']}"


def _table(kind: str, rows: Sequence[Row], width: int) -> Any:
    from rich.table import Table

    columns = {"name": [row["name"] for row in rows], "plugin": [row["plugin"] for row in rows]}
    if any("licence" in row for row in rows):
        columns["licence"] = [row.get("licence", "") for row in rows]
    if any(row["missing"] for row in rows):
        columns["missing packages"] = [" ".join(row["missing"]) for row in rows]
    widths = {name: max(map(len, [name, *cells])) for name, cells in columns.items()}
    beside = width >= sum(widths.values()) + SUMMARY + BORDERS * (len(widths) + 1) + 1
    table = Table(title=kind, title_justify="left")
    if beside:
        table.add_column("name", width=widths["name"])
        table.add_column("summary", overflow="fold")
        for name in list(columns)[1:]:
            table.add_column(name, width=widths[name])
        for row, *cells in zip(rows, *columns.values(), strict=True):
            table.add_row(cells[0], row["summary"], *cells[1:])
        return table
    table.add_column(
        "name", width=min(widths["name"], max(width // 2, width - SUMMARY - 2 * BORDERS - 1)), overflow="fold"
    )
    table.add_column("summary", overflow="fold")
    for row in rows:
        under = [row["summary"], f"plugin: {row['plugin']}"]
        under += [f"licence: {row['licence']}"] if "licence" in row else []
        under += [f"missing: {' '.join(row['missing'])}"] if row["missing"] else []
        table.add_row(row["name"], "\n".join(under))
    return table
