"""`dipp score`: what rewards give images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("score", rich_help_panel="Check")(score)


def score(
    images: Annotated[
        list[Path], typer.Argument(metavar="FOLDER|IMAGE...", help="Folders, each a row of its own, or single images.")
    ],
    *,
    reward: Annotated[
        str, typer.Option("--reward", metavar="NAME,...", help="Rewards: hps,imagereward or ./mine.py:blue.")
    ],
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="One prompt a line, for the images in natural order; or JSON, JSONL, CSV, TSV by file name.",
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="One prompt for all images; '' for none.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="JSONL", help="Write the score of every image to this file.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", help="Images at a time.")] = 16,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Options of rewards: reward.hps.version=v2.1. Repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", hidden=True, help="Unused: no interval is drawn at random.")] = 0,
    device: options.Device = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Score images with any rewards: mean, 95 % interval, lowest and highest, a row for each folder and reward.

    Folders of pictures of the same prompts are compared prompt by prompt: the difference with its interval and test.

    Prompts come from --prompts or --prompt, or with the folder, as `dipp generate` leaves it.

    For instance: dipp score fox --reward emoji-preference,sharpness
    """
    from ..actions.score import ScoreRequest, describe, score_images
    from ..terminal.output import print_json, quiet_stdout

    request = ScoreRequest(
        images=images,
        reward=reward,
        prompts=prompts,
        prompt=prompt,
        out=out,
        batch_size=batch_size,
        assignments=assignments or [],
        seed=seed,
        device=device or "auto",
        quiet=quiet,
    )
    with quiet_stdout():
        result = score_images(request)
    if as_json:
        print_json(result)
    else:
        describe(result)
