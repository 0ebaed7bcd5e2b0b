"""Tables for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dipp_toolkit.utils.messages import Spelling, number_text

from .output import is_first_process, plain_lines, print_json

if TYPE_CHECKING:
    from dipp_toolkit.training.setup.preflight import Preflight

NARROW = 110
"""Columns below which an interval goes under its mean instead of beside it."""

UNBOUNDED = 10_000
"""Columns of a file or a pipe: no cell is folded there, and a table takes only what its cells need."""


class PlainConsole(Console):
    """Shows texts as they are: brackets are no markup, and what is a command to a terminal stands as an escape."""

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        return super().render_str(plain_lines(text), **{**options, "markup": False, "emoji": False})


def console() -> Console:
    """Stdout; a file or a pipe is as wide as any table."""
    terminal = PlainConsole()
    return terminal if terminal.is_terminal else PlainConsole(width=UNBOUNDED)


def show(table: Table) -> None:
    """Print a table to stdout."""
    console().print(table)


def interval(value: Mapping[str, float] | None, between: str = " ") -> str:
    """`{"mean", "low", "high"}` as `0.512 [0.498, 0.526]`, with as many decimals as the interval's width calls for."""
    if not value:
        return "-"
    width = value["high"] - value["low"]
    decimals = min(max(1 - math.floor(math.log10(width)), 3), 7) if 0 < width < math.inf else 3
    mean, low, high = (number_text(value[key], f".{decimals}f") for key in ("mean", "low", "high"))
    return f"{mean}{between}[{low}, {high}]"


def _number(value: float | None) -> str:
    return "-" if value is None else number_text(value, ".4g")


def summary_table(summary: Mapping[str, Any], width: int) -> Table:
    """What a run reached: every reward, the judge, diversity and divergence, before and after.

    Args:
        summary: the content of `summary.json`.
        width: columns there are.
    """
    table = Table(title="Before and after, means with 95 % intervals")
    for column in ("", "before", "after", "gain"):
        table.add_column(column, no_wrap=column != "")
    gains = summary.get("gain") or {}
    judge, rewards = summary.get("judge"), summary.get("rewards") or {}
    spelling = Spelling([*rewards, *([judge["name"]] if judge else [])])
    measured = [(spelling.name(name), name, columns) for name, columns in rewards.items()]
    measured += [(f"{spelling.name(judge['name'])} (judge)", judge["name"], judge)] if judge else []
    for label, name, columns in measured:
        three = (columns.get("before"), columns.get("after"), gains.get(name))
        table.add_row(label, *(interval(value, "\n" if width < NARROW else " ") for value in three))
    for quantity in ("diversity", "divergence"):
        columns = summary.get(quantity)
        if columns:
            table.add_row(quantity, _number(columns.get("before")), _number(columns.get("after")), "")
    return table


def verify_table(rows: Sequence[Any], values: bool = True) -> Table:
    """The rows of `dipp verify`.

    Args:
        rows: `VerifyRow`s.
        values: whether to show what was expected and reached; matrices of six dimensions fill a screen each.
    """
    terms = ", ".join(dict.fromkeys(row.term for row in rows))
    several = len({row.term for row in rows}) > 1
    title = "reached against the closed forms"
    table = Table(title=title if several else f"{terms}: {title}", show_lines=values)
    if several:
        table.add_column("term")
    both = ("expected", "reached") if values else ()
    for column in ("case", "assistant", "quantity", *both, "error", "allowed", ""):
        table.add_column(column, no_wrap=column not in both)
    for row in rows:
        verdict = Text("holds", style="green") if row.passed else Text("FAILS", style="red")
        arrays = (_array(row.expected), _array(row.reached)) if values else ()
        errors = (f"{row.error:.3%}", f"{100 * row.tolerance:g}%")
        names = (*([row.term] if several else []), row.case, row.assistant, row.quantity)
        table.add_row(*names, *arrays, *errors, verdict)
    return table


def loop_table(name: str, rows: Sequence[Any]) -> Table:
    """The rows of `dipp verify --loop`.

    Args:
        name: of the loop, as typed.
        rows: `LoopRow`s.
    """
    table = Table(title=f"{name}: what it does, against what it should")
    for column in ("case", "quantity", "expected", "reached", "error", "allowed", ""):
        table.add_column(column, no_wrap=column not in ("expected", "reached"))
    for row in rows:
        verdict = Text("holds", style="green") if row.passed else Text("FAILS", style="red")
        numbers = (number_text(row.error, ".3f"), f"{row.tolerance:.3f}")
        table.add_row(row.case, row.quantity, _array(row.expected), _array(row.reached), *numbers, verdict)
    return table


def _array(value: Any) -> str:
    """A number, a vector on one line, or a matrix with a line for each row."""
    if isinstance(value, (list, tuple)):
        return ("\n" if value and isinstance(value[0], (list, tuple)) else " ").join(_array(item) for item in value)
    return number_text(value, "7.3f")


def print_preflight(preflight: Preflight, as_json: bool) -> None:
    """Print what `--dry-run` found, as a table or a JSON object; of several processes the first one prints."""
    if not is_first_process():
        return
    if as_json:
        print_json({**preflight.rows, "to fetch": list(preflight.fetched)})
        return
    table = Table(title="Dry run: nothing was loaded, fetched or written", title_justify="left", show_header=False)
    for name, text in preflight.rows.items():
        table.add_row(name, text)
    if preflight.fetched:
        table.add_row("to fetch", "\n".join(preflight.fetched))
    show(table)
