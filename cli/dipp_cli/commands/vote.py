"""`dipp vote`: people compare images on a local page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("vote", rich_help_panel="Compare")(vote)


def vote(
    votes: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where the images and votes are kept; 'votes' by default.")
    ] = Path("votes"),
    *,
    generators: Annotated[
        str | None,
        typer.Option(metavar="[LABEL=]NAME,...", help="Generators and references whose images are compared."),
    ] = None,
    images: Annotated[
        str | None, typer.Option(metavar="[LABEL=]FOLDER,...", help="Folders of pictures that are compared.")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="SET|FILE", help="Prompts for --generators, or without them those of the pictures in --images."
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="One prompt for all pictures of --images.")] = None,
    count: Annotated[int | None, typer.Option(metavar="N", help="Use a seeded subset of N prompts.")] = None,
    per_prompt: Annotated[int, typer.Option(metavar="K", help="Images of each generator for each prompt.")] = 1,
    goal: Annotated[int, typer.Option(metavar="N", help="Votes that each voter is asked for.")] = 100,
    repeats: options.Repeats = 0.05,
    picking: options.Picking = "adaptive",
    simulate: options.Simulate = None,
    noise: options.Noise = 0.1,
    voter: Annotated[
        str | None, typer.Option(metavar="NAME", help="The voter's name; without it the page asks.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed of prompts, noises, sides and pairs.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", help="Images made at a time.")] = 8,
    port: options.VotePort = 8701,
    browser: options.Browser = True,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Options: generator.LABEL.steps=25, or reward.hps.version=v2.1 for --simulate. Repeatable.",
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the votes as a dataset of preference data, and end.")
    ] = None,
    layout: Annotated[
        str, typer.Option(metavar="chosen|pickapic", help="Columns of --export: TRL's, or diffusers' Diffusion-DPO.")
    ] = "chosen",
    import_: Annotated[
        str | None,
        typer.Option("--import", metavar="DATASET", help="Add the votes of a dataset: a folder, a file or a hub id."),
    ] = None,
    check_with: Annotated[
        str | None,
        typer.Option("--check-with", metavar="REWARD", help="Refuse an --import whose columns look swapped to it."),
    ] = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Compare images, two at a time and blind, on a page that this command serves to this machine alone.

    With --generators or --images, images are added to the folder first; without them voting goes on where it was.
    Ctrl-C ends it; every vote is kept at once.

    For instance: dipp vote --generators emoji-onestep,emoji-unet-onestep --prompts emoji-heldout --count 50
    """
    from dipp_toolkit.training.setup.name_checks import check_pipeline, check_prompts, check_rewards
    from dipp_toolkit.utils.assignments import parse_names

    for name in parse_names(generators or ""):
        check_pipeline(name.rpartition("=")[2].strip(), "generator", "reference")
    if generators and prompts:
        check_prompts(prompts)
    check_rewards(tuple(filter(None, (simulate, check_with))))
    if export is not None or import_ is not None or check_with is not None:
        from ..actions.vote_exchange import ExchangeRequest, exchange

        asks = [
            name
            for name, given in (("--generators", generators), ("--images", images), ("--simulate", simulate))
            if given
        ]
        raise typer.Exit(
            exchange(
                ExchangeRequest(
                    votes=votes,
                    export=export,
                    layout=layout,
                    dataset=import_,
                    voter=voter or "",
                    reward=check_with,
                    assignments=assignments or [],
                    asks=asks,
                ),
                as_json,
            )
        )
    from ..actions.vote import VoteRequest, hold_vote  # imports torch, which a misspelt name does not wait for

    request = VoteRequest(
        votes=votes,
        generators=generators,
        images=images,
        prompts=prompts,
        prompt=prompt,
        count=count,
        per_prompt=per_prompt,
        goal=goal,
        repeats=repeats,
        picking=picking,
        simulate=simulate,
        noise=noise,
        voter=voter,
        seed=seed,
        batch_size=batch_size,
        port=port,
        browser=browser,
        assignments=assignments or [],
        device=device or "auto",
        quiet=quiet,
    )
    hold_vote(request, as_json)
