"""`dipp leaderboard`: rows of benches as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("leaderboard", rich_help_panel="Compare")(leaderboard)


def leaderboard(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS.jsonl...", help="Rows of dipp bench, any number of files.")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="HTML", help="The page, one file that loads nothing.")] = Path(
        "leaderboard.html"
    ),
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table as Markdown too.")] = None,
    submission: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rows, one file, to be sent with a pull request.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="FIGURE", help="Rank by this figure; the first judge by default.")
    ] = None,
    title: Annotated[str, typer.Option(metavar="TEXT", help="Heading of the page.")] = "Leaderboard",
    reported: Annotated[
        bool | None,
        typer.Option("--reported/--no-reported", help="Show what papers report; by default where a figure is shared."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing: say whether every row is sound; exit code 1 if one is not."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Build a leaderboard from the results of any number of benches, or check submitted ones."""
    from ..actions.leaderboard import LeaderboardRequest, build, print_check

    request = LeaderboardRequest(
        results=results,
        out=out,
        markdown=markdown,
        submission=submission,
        sort=sort,
        title=title,
        reported=reported,
    )
    if check:
        raise typer.Exit(print_check(request, as_json))
    raise typer.Exit(build(request, as_json))
