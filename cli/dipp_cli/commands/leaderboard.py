"""`dipp leaderboard`: rows of benches, and votes, as a page."""

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
        list[Path] | None,
        typer.Argument(metavar="[RESULTS.jsonl...]", help="Rows of dipp bench, any number of files."),
    ] = None,
    *,
    votes: Annotated[
        str | None, typer.Option(metavar="FOLDER|DATASET", help="Votes of people: ratings, win rates and agreement.")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option("--reward", metavar="NAME,...", help="Rewards to hold against --votes: hps or ./mine.py:blue."),
    ] = None,
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
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", help="Images at a time, for --reward.")] = 16,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Options of rewards: reward.hps.version=v2.1. Repeatable."),
    ] = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Build a leaderboard from the results of any number of benches and from votes, or check submitted results.

    For instance: dipp leaderboard bench/results.jsonl
    """
    from ..actions.leaderboard import LeaderboardRequest, build, print_check

    request = LeaderboardRequest(
        results=results or [],
        votes=votes,
        reward=reward,
        batch_size=batch_size,
        assignments=assignments or [],
        device=device or "auto",
        quiet=quiet,
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
